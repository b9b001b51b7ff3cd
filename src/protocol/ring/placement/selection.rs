//! The choice of owners: every slot takes the cheapest members that zones and caps allow.

use std::sync::LazyLock;

use super::ranking::{Bid, Ranking};
use super::score;
use super::share::Standings;
use crate::protocol::ring::slot::Slot;

/// Who owns what, by the index of the member.
#[derive(Debug)]
pub(super) struct Selection {
    /// The owners of all slots, slot after slot, cheapest first.
    pub(super) owners: Vec<usize>,
    /// How many slots each member owns.
    pub(super) loads: Vec<u32>,
}

/// Lets each slot choose, one after the other, in an order that looks random so that no arc of the circle comes last
/// by its position. `caps` is the largest load of each member.
///
/// Two other orders were measured and move no less: the first owners of all slots before any second one, and the
/// cheapest bid of all slots first.
pub(super) fn select(ranking: &Ranking, standings: &Standings, caps: &[u32]) -> Selection {
    /// It depends on nothing, so one sorting does for all rings.
    static ORDER: LazyLock<Vec<Slot>> = LazyLock::new(|| {
        let mut order: Vec<Slot> = Slot::all().collect();
        order.sort_unstable_by_key(|slot| score::slot_seed(*slot));
        order
    });
    let count = standings.owners;
    let mut selection = Selection { owners: vec![0; count * ORDER.len()], loads: vec![0; caps.len()] };
    let mut bids: Vec<Bid> = Vec::new();
    let mut choice = Choice::new(standings);
    for slot in ORDER.iter().copied() {
        choice.clear();
        ranking.cheapest(slot, &mut bids);
        choice.consider(&bids, |member| selection.loads[member] < caps[member]);
        if choice.members.len() < count {
            ranking.all(slot, &mut bids);
            choice.consider(&bids, |member| selection.loads[member] < caps[member]);
        }
        while let Some(member) = choice.least_loaded(&bids, &selection.loads) {
            choice.take(member);
        }
        debug_assert_eq!(choice.members.len(), count, "the quotas add up to the number of owners");
        for member in &choice.members {
            selection.loads[*member] += 1;
        }
        selection.owners[slot.index() * count..][..count].copy_from_slice(&choice.members);
    }
    selection
}

/// The owners of one slot as they are found.
struct Choice<'a> {
    standings: &'a Standings,
    members: Vec<usize>,
    /// How many owners may still stand in zones that have their least already.
    extra: usize,
}

impl<'a> Choice<'a> {
    fn new(standings: &'a Standings) -> Choice<'a> {
        Choice { standings, members: Vec::with_capacity(standings.owners), extra: standings.extra }
    }

    fn clear(&mut self) {
        self.members.clear();
        self.extra = self.standings.extra;
    }

    /// Takes the first eligible members in the order of the bids.
    fn consider(&mut self, bids: &[Bid], has_room: impl Fn(usize) -> bool) {
        for (_, member) in bids {
            if self.members.len() == self.standings.owners {
                break;
            }
            if has_room(*member) && self.is_eligible(*member) {
                self.take(*member);
            }
        }
    }

    /// When everyone who could complete the slot is full, the cap must give way: a slot with an owner too few is worse
    /// than a node with a slot too many. It falls to whoever carries least for its share.
    fn least_loaded(&self, bids: &[Bid], loads: &[u32]) -> Option<usize> {
        let relative = |a: usize, b: usize| {
            let product = |load: usize, share: usize| {
                u128::from(loads[load]) * u128::from(self.standings.shares[share])
            };
            product(a, b).cmp(&product(b, a))
        };
        // Of equals the first counts, which has the cheaper bid.
        let eligible = bids.iter().map(|(_, member)| *member).filter(|member| self.is_eligible(*member));
        eligible.min_by(|a, b| relative(*a, *b))
    }

    fn is_eligible(&self, member: usize) -> bool {
        if self.members.len() == self.standings.owners || self.members.contains(&member) {
            return false;
        }
        let (taken, quota) = (self.taken_beside(member), self.standings.quota_of(member));
        taken < quota.least || (taken < quota.most && self.extra > 0)
    }

    fn take(&mut self, member: usize) {
        if self.taken_beside(member) >= self.standings.quota_of(member).least {
            self.extra -= 1;
        }
        self.members.push(member);
    }

    /// How many owners stand in the zone of this member.
    fn taken_beside(&self, member: usize) -> usize {
        let zone_of = &self.standings.zone_of;
        self.members.iter().filter(|other| zone_of[**other] == zone_of[member]).count()
    }
}
