//! The rates that members bid with, chosen so that loads come out as the fair shares.
//!
//! The textbook rate, the weight, misses the fair share as soon as a slot has several distinct owners: a member of
//! half of all weight cannot own a slot twice, and lighter ones get what it leaves. Drawing without replacement in
//! given proportions is an old problem of survey sampling, and B. Rosén's *order sampling* (1997) solves it: let a
//! member that should own a share p of the slots bid with the rate −log₂(1 − p). Around the cost 1, where the last
//! owner of a slot is found, each member is then inside with a probability of just p.
//!
//! Zones disturb that, for the members of one zone exclude each other. Zones of about one size need no correction:
//! small differences drown in the noise of hashing, and each correction moves slots that no newcomer gains. So the
//! rates of a zone are changed only where it would miss its share by more than [`TOLERANCE_PER_MILLE`], and only as far
//! as to that edge.

use super::ranking::Ranking;
use super::score;
use super::share::{SHARE_BITS, Standings, WHOLE};
use crate::protocol::ring::slot::{SLOTS, Slot};

/// How far a zone's expected load may lie off its fair share before its rates are corrected.
///
/// It stays below the 10 % that the cap leaves. Measured at 100 nodes of mixed weights in five zones of random sizes: a
/// join moves 1.31 times the minimum with a tolerance of 3 % and 1.23 times with this one. Without any correction the
/// caps have to do its work, and a join can move many times the minimum.
const TOLERANCE_PER_MILLE: u64 = 80;

/// How often the zones' corrections are tuned against each other. Two zones need one round.
const ROUNDS_MAX: usize = 8;

/// Multipliers have this many bits after the binary point.
const FACTOR_BITS: u32 = 32;

/// The rate of each member, above zero; only their ratios count.
pub(super) fn rates(seeds: &[u64], standings: &Standings) -> Vec<u64> {
    let zones = &standings.zones;
    if zones.iter().any(|zone| zone.quota.most > 1) {
        // Several owners of a slot in one zone: order sampling among its members.
        let rates = standings.shares.iter().map(|share| rate(*share)).collect();
        return if standings.extra == 0 { rates } else { tune(seeds, standings, rates) };
    }
    // At most one owner in each zone. The cheapest of a zone bids like one member with the sum of their rates, and
    // each of them is the cheapest in proportion to its own. So first the zones share, then their members.
    let mut sums = vec![0; zones.len()];
    for (zone, share) in standings.zone_of.iter().zip(&standings.shares) {
        sums[*zone] = (sums[*zone] + rate(*share)).min(rate(WHOLE));
    }
    let zone_shares: Vec<u64> = zones.iter().map(|zone| zone.share).collect();
    let zone_rates = corrected(&sums, &zone_shares, standings.owners);
    let part = |(zone, share): (&usize, &u64)| {
        let of_zone = u128::from(zone_rates[*zone]) * u128::from(*share);
        ((of_zone / u128::from(zone_shares[*zone].max(1))) as u64).max(1)
    };
    standings.zone_of.iter().zip(&standings.shares).map(part).collect()
}

/// −log₂(1 − share), above zero and at most 64: a member of the whole ring misses one slot in 2⁶⁴.
fn rate(share: u64) -> u64 {
    score::neg_log2((WHOLE - share.min(WHOLE)) << (u64::BITS - SHARE_BITS - SLOTS.ilog2())).max(1)
}

/// The edges of what a zone of this share may hold.
fn tolerated(share: u64) -> (u64, u64) {
    let tolerance = share / 1_000 * TOLERANCE_PER_MILLE;
    (share - tolerance, share + tolerance)
}

/// The rates of zones with at most one owner each, corrected where they lead too far from the zones' shares.
fn corrected(rates: &[u64], shares: &[u64], owners: usize) -> Vec<u64> {
    let edges: Vec<(u64, u64)> = shares.iter().map(|share| tolerated(*share)).collect();
    let edges: Vec<(u64, u64)> = edges.into_iter().map(|(low, high)| (rate(low), rate(high))).collect();
    // With all rates multiplied by one factor, the cost at which the last owner is found can be made 1, and a zone of
    // rate w is inside with a probability of 1 − 2⁻ʷ.
    let scaled = |factor: u64| {
        rates.iter().zip(&edges).map(move |(rate, (low, high))| {
            let rate = (u128::from(*rate) * u128::from(factor)) >> FACTOR_BITS;
            rate.clamp(u128::from(*low), u128::from(*high)) as u64
        })
    };
    let inside = |rate: u64| u128::from(u64::MAX - score::exp2_neg(rate));
    let (mut low, mut high) = (0, 1 << (FACTOR_BITS + 8));
    while low < high {
        let middle = high - (high - low) / 2;
        let sum: u128 = scaled(middle).map(inside).sum();
        if sum <= (owners as u128) << u64::BITS { low = middle } else { high = middle - 1 }
    }
    scaled(low).collect()
}

/// The rates of few zones with several owners each, of which some hold one more than others: who does is the zone
/// whose next member bids least. How often that is has no formula, so it is counted and the rates of the zones tuned.
fn tune(seeds: &[u64], standings: &Standings, mut rates: Vec<u64>) -> Vec<u64> {
    let open = |zone: &usize| standings.zones[*zone].quota.most > standings.zones[*zone].quota.least;
    let open: Vec<usize> = (0..standings.zones.len()).filter(open).collect();
    let next_bids = next_bids(&Ranking::new(seeds, &rates, standings), standings, &open);
    let mut factors = vec![1 << FACTOR_BITS; open.len()];
    for _ in 0..ROUNDS_MAX {
        let before = factors.clone();
        for (place, zone) in open.iter().enumerate() {
            let zone = &standings.zones[*zone];
            let least = zone.quota.least as u64 * WHOLE;
            let (low, high) = tolerated(zone.share);
            let slots =
                |share: u64| (share.saturating_sub(least) >> SHARE_BITS).min(u64::from(SLOTS)) as usize;
            // The zone wins the extra owner of every slot whose break-even factor its own factor does not exceed.
            let mut break_even = break_even_factors(&next_bids, &factors, place, standings.extra);
            let won = break_even.iter().filter(|factor| factors[place] <= **factor).count();
            let target = won.clamp(slots(low), slots(high));
            if target != won {
                let nth = target.saturating_sub(1).min(break_even.len() - 1);
                let (_, factor, _) = break_even.select_nth_unstable_by(nth, |a, b| b.cmp(a));
                factors[place] = (*factor).max(1);
            }
        }
        if factors == before {
            break;
        }
    }
    for (own, zone) in rates.iter_mut().zip(&standings.zone_of) {
        if let Some(place) = open.iter().position(|open| open == zone) {
            let tuned = (u128::from(*own) << FACTOR_BITS) / u128::from(factors[place]);
            *own = tuned.clamp(1, u128::from(rate(WHOLE))) as u64;
        }
    }
    rates
}

/// For each slot the bid with which each open zone competes for the slot's extra owners: that of its cheapest member
/// beyond the least that it has in any case. Slot after slot, zone after zone.
fn next_bids(ranking: &Ranking, standings: &Standings, open: &[usize]) -> Vec<Vec<u64>> {
    let mut bids = Vec::new();
    let nth = |bids: &[(u64, usize)], zone: usize| {
        let mut own = bids.iter().filter(|(_, member)| standings.zone_of[*member] == zone);
        own.nth(standings.zones[zone].quota.least).map(|(cost, _)| *cost)
    };
    let of_slot = |slot| {
        ranking.cheapest(slot, &mut bids);
        if open.iter().any(|zone| nth(&bids, *zone).is_none()) {
            ranking.all(slot, &mut bids);
        }
        // An open zone has more members than its least.
        open.iter().map(|zone| nth(&bids, *zone).unwrap_or(u64::MAX)).collect()
    };
    Slot::all().map(of_slot).collect()
}

/// For each slot the largest factor on its bids with which the zone at `place` still wins one of the extra owners.
fn break_even_factors(next_bids: &[Vec<u64>], factors: &[u64], place: usize, extra: usize) -> Vec<u64> {
    let mut others = Vec::new();
    let of_slot = |bids: &Vec<u64>| {
        others.clear();
        for (bid, factor) in bids.iter().zip(factors) {
            others.push(u128::from(*bid) * u128::from(*factor));
        }
        others.swap_remove(place);
        others.sort_unstable();
        let beaten = others.get(extra - 1).copied().unwrap_or(u128::MAX);
        u64::try_from(beaten / u128::from(bids[place].max(1))).unwrap_or(u64::MAX)
    };
    next_bids.iter().map(of_slot).collect()
}
