//! Placement version 1: from members to the owners of every slot.
//!
//! ```text
//! members ─▶ share      what each should own: weights, as far as zones and the size of the ring permit
//!               │
//!               ▼
//!            rate       what each bids with, so that the cheapest bids come out as the shares
//!               │
//!               ▼
//!            ranking    the bids for a slot in order: score(place, slot) by weighted rendezvous
//!               │
//!               ▼
//!            selection  slot after slot takes its cheapest members in distinct zones below their caps
//! ```
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998) moves next to nothing but what a newcomer must gain or a leaver
//! leaves; its loads scatter as random numbers do. The cap (bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2016)
//! cuts off the upper half of that scatter, at the price of some movement between bystanders.

mod ranking;
mod rate;
mod score;
mod selection;
mod share;
#[cfg(test)]
mod tests;

use ranking::Ranking;
use share::{SHARE_BITS, Standings};

use super::member::RingMember;
use super::replicas::Replicas;
use super::slot::{SLOTS, Slot};
use crate::protocol::id::NodeId;

/// The owners of every slot: a pure function of the members and the number of replicas.
///
/// Equal members give equal rings on every machine, in whatever order they come. Each slot has min(N, members) owners,
/// no node twice, in distinct zones while there are N zones; with fewer zones they spread over them as evenly as the
/// zones' numbers of members permit. A member at the place of another takes exactly its slots.
///
/// No node owns more than its cap: its [fair share](Ring::fair_share) times 1.05 in rings of up to 100 members, from
/// there rising evenly to 1.25 at 1,000 and not beyond, rounded to whole slots. With several zones, but not just N
/// of them, it begins at 1.10. Only where all who could complete a slot are at their caps, one of them goes over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    replicas: Replicas,
    /// In the order of their places; the indices of all that follows.
    members: Vec<RingMember>,
    /// Node ids in order, each with the index of its member.
    by_node: Vec<(NodeId, usize)>,
    standings: Standings,
    ranking: Ranking,
    caps: Vec<u32>,
    loads: Vec<u32>,
    /// The owners of all slots in one piece: a lookup is one multiplication and one read.
    owners: Vec<NodeId>,
}

impl Ring {
    /// The ring of these members. Of several members with one node id, which a membership view does not hold, the
    /// greatest counts.
    ///
    /// Two members at one place bid alike for every slot and are told apart by their node ids only; a replacement and
    /// the node that it replaces should therefore never be members together.
    #[must_use]
    pub fn build(members: &[RingMember], replicas: Replicas) -> Ring {
        let members = in_order(members);
        let mut by_node: Vec<_> =
            members.iter().enumerate().map(|(index, member)| (member.node, index)).collect();
        by_node.sort_unstable();

        let standings = Standings::new(&members, replicas.get().min(members.len()));
        let seeds: Vec<u64> = members.iter().map(|member| score::place_seed(member.place)).collect();
        let ranking = Ranking::new(&seeds, &rate::rates(&seeds, &standings), &standings);
        let caps = caps(&standings, &seeds);
        let selection = selection::select(&ranking, &standings, &caps);
        let owners = selection.owners.iter().map(|member| members[*member].node).collect();
        Ring { replicas, members, by_node, standings, ranking, caps, loads: selection.loads, owners }
    }

    /// Whether it is the ring of these members.
    #[must_use]
    pub fn is_of(&self, members: &[RingMember]) -> bool {
        self.members == in_order(members)
    }

    /// The owners of a slot, min(N, members) of them; the first bids least and is the natural coordinator.
    #[must_use]
    pub fn owners(&self, slot: Slot) -> &[NodeId] {
        let count = self.standings.owners;
        &self.owners[slot.index() * count..][..count]
    }

    /// The owners of the slot of a key.
    #[must_use]
    pub fn owners_of_key(&self, key: &[u8]) -> &[NodeId] {
        self.owners(Slot::of_key(key))
    }

    /// True if the node owns the slot.
    #[must_use]
    pub fn owns(&self, node: NodeId, slot: Slot) -> bool {
        self.owners(slot).contains(&node)
    }

    /// N, of which each slot has as many owners as there are members.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        self.replicas
    }

    /// The members, in the order of their places.
    #[must_use]
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// The member with this node id.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&RingMember> {
        self.index_of(node).map(|index| &self.members[index])
    }

    /// True if the node is a member.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.index_of(node).is_some()
    }

    /// The slots that a node owns, in the order of the circle.
    pub fn slots_of(&self, node: NodeId) -> impl Iterator<Item = Slot> {
        Slot::all().filter(move |slot| self.owns(node, *slot))
    }

    /// How many slots a node owns; none if it is no member.
    #[must_use]
    pub fn load(&self, node: NodeId) -> u32 {
        self.index_of(node).map_or(0, |index| self.loads[index])
    }

    /// How many slots a node should own: in proportion to its weight, except that no member owns a slot twice and no
    /// zone holds more owners of a slot than the spread over zones gives it. What these cannot take is shared by the
    /// others. Zero if the node is no member.
    ///
    /// For people and reports; placement itself knows no floating-point numbers.
    #[must_use]
    pub fn fair_share(&self, node: NodeId) -> f64 {
        let share = self.index_of(node).map_or(0, |index| self.standings.shares[index]);
        // Shares are below 2⁴⁷, which a double holds exactly.
        share as f64 / (1_u64 << SHARE_BITS) as f64
    }

    /// The largest load that the cap allows a node; zero if it is no member.
    #[must_use]
    pub fn load_max(&self, node: NodeId) -> u32 {
        self.index_of(node).map_or(0, |index| self.caps[index])
    }

    /// All members in the order of their bids for a slot, whatever their zones and loads.
    pub(super) fn ranked(&self, slot: Slot) -> impl Iterator<Item = NodeId> {
        let mut bids = Vec::new();
        self.ranking.all(slot, &mut bids);
        bids.into_iter().map(|(_, member)| self.members[member].node)
    }

    fn index_of(&self, node: NodeId) -> Option<usize> {
        let found = self.by_node.binary_search_by_key(&node, |(id, _)| *id).ok()?;
        Some(self.by_node[found].1)
    }
}

/// The members in the order of their places, each once.
fn in_order(members: &[RingMember]) -> Vec<RingMember> {
    let mut members = members.to_vec();
    members.sort_unstable_by(|a, b| b.cmp(a));
    members.dedup_by_key(|member| member.node);
    members.sort_unstable_by_key(|member| (member.place, member.node));
    members
}

/// The largest load of each member.
///
/// Hash loads scatter by the square root of the load, so that at 1,000 nodes a cap of 1.05 would push every third slot
/// aside and move 1.7 times the minimum at a join. Hence it widens as the ring grows. Where zones compete for slots
/// they push each other aside as well, and it starts wider.
///
/// Whether a cap is rounded up or down depends on the place. Were all rounded up, a join that takes the cap from 56
/// slots to 55 would push a slot out of every full node at once: measured around 1,000 nodes, the worst join then moves
/// 2.1 times the minimum instead of 1.35 times.
fn caps(standings: &Standings, seeds: &[u64]) -> Vec<u32> {
    const SMALL: u64 = 100;
    const LARGE: u64 = 1_000;
    const LARGE_PER_MILLE: u64 = 1_250;
    let small_per_mille = if standings.zones_compete() { 1_100 } else { 1_050 };
    let beyond_small = (seeds.len() as u64).clamp(SMALL, LARGE) - SMALL;
    let per_mille = small_per_mille + (LARGE_PER_MILLE - small_per_mille) * beyond_small / (LARGE - SMALL);
    let cap = |(share, seed): (&u64, &u64)| {
        // A random fraction of a slot on top, from bits that the bids do not use in this way.
        let rounding = score::mix(*seed) >> (u64::BITS - SHARE_BITS);
        // A share is at most 2⁴⁶, so what the shift leaves is far below 2³².
        let cap = (share * per_mille / 1_000 + rounding) >> SHARE_BITS;
        (cap as u32).min(u32::from(SLOTS))
    };
    standings.shares.iter().zip(seeds).map(cap).collect()
}
