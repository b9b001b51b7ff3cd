//! The members in the order of their bids for a slot.

use std::collections::BTreeMap;

use super::score::{self, Bidder};
use super::share::Standings;
use crate::protocol::ring::slot::Slot;

/// A bid: its cost and the index of the member. Equal costs, one in 2⁴⁰ or so, fall to the lower place.
pub(super) type Bid = (u64, usize);

/// Up to this many members are simply ranked all.
const ALL_MAX: usize = 32;

/// How many bids a slot should have in hand for each of its owners, and beyond them.
const BIDS_PER_OWNER: u64 = 4;
const BIDS_SPARE: u64 = 8;

/// All members as bidders, and the knowledge of which of their bids can be dear enough to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranking {
    bidders: Vec<Bidder>,
    /// Hashes below these are bids too high to win anything, up to bad luck.
    hash_minima: Vec<u64>,
}

impl Ranking {
    /// `rates` are above zero.
    pub(super) fn new(seeds: &[u64], rates: &[u64], standings: &Standings) -> Ranking {
        let rate_min = rates.iter().copied().min().unwrap_or(1);
        let bidders: Vec<Bidder> =
            seeds.iter().zip(rates).map(|(seed, rate)| Bidder::new(*seed, *rate, rate_min)).collect();
        if bidders.len() <= ALL_MAX {
            return Ranking { hash_minima: vec![0; bidders.len()], bidders };
        }
        // Where each slot has an owner from a zone, that zone must show enough bids by itself.
        let sum = |zone: Option<usize>| {
            let rates = rates.iter().zip(&standings.zone_of);
            rates
                .filter(|(_, of)| zone.is_none_or(|zone| zone == **of))
                .map(|(rate, _)| u128::from(*rate))
                .sum()
        };
        let everywhere = limit(rate_min, sum(None), standings.owners);
        let limits: Vec<u64> = (0..standings.zones.len())
            .map(|zone| match standings.zones[zone].quota {
                quota if quota.least == 0 => everywhere,
                quota => limit(rate_min, sum(Some(zone)), quota.most),
            })
            .collect();
        let mut known = BTreeMap::new();
        let minimum = |(bidder, zone): (&Bidder, &usize)| {
            let limit = limits[*zone];
            *known.entry((bidder.scale(), limit)).or_insert_with(|| bidder.hash_min(limit))
        };
        let hash_minima = bidders.iter().zip(&standings.zone_of).map(minimum).collect();
        Ranking { bidders, hash_minima }
    }

    /// The cheapest bids for a slot, in order; enough for its owners but for bad luck and full members.
    pub(super) fn cheapest(&self, slot: Slot, bids: &mut Vec<Bid>) {
        self.rank(slot, bids, |member| self.hash_minima[member]);
    }

    /// The bids of all members for a slot, in order.
    pub(super) fn all(&self, slot: Slot, bids: &mut Vec<Bid>) {
        self.rank(slot, bids, |_| 0);
    }

    fn rank(&self, slot: Slot, bids: &mut Vec<Bid>, hash_min: impl Fn(usize) -> u64) {
        bids.clear();
        let seed = score::slot_seed(slot);
        for (member, bidder) in self.bidders.iter().enumerate() {
            let hash = bidder.hash(seed);
            if hash >= hash_min(member) {
                bids.push((bidder.cost(hash), member));
            }
        }
        bids.sort_unstable();
    }
}

/// The cost below which members of these rates together make about as many bids as `owners` owners call for: the
/// chance that a member of rate w bids below c is at most w · c · ln 2.
fn limit(rate_min: u64, rate_sum: u128, owners: usize) -> u64 {
    /// 1 / ln 2, in thousand-and-twenty-fourths.
    const PER_LN_2: u128 = 1_477;
    let bids = u128::from(BIDS_SPARE + BIDS_PER_OWNER * owners as u64);
    let limit = bids * PER_LN_2 * u128::from(score::ONE >> 10) * u128::from(rate_min) / rate_sum.max(1);
    u64::try_from(limit).unwrap_or(u64::MAX)
}
