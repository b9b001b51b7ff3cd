//! What every member should own: the fair share that loads are measured against and capped at.
//!
//! A share in proportion to the weight is not always possible. A member cannot own a slot twice, and a zone cannot
//! hold more of a slot than its [`Quota`] allows: a lone node in one of three zones holds a copy of everything. What
//! such members cannot carry goes to the rest by their weights, as water finds its level.

use crate::protocol::ring::member::RingMember;
use crate::protocol::ring::slot::SLOTS;

/// How many bits after the binary point a share has.
pub(super) const SHARE_BITS: u32 = 32;

/// The share of a member that owns every slot.
pub(super) const WHOLE: u64 = (SLOTS as u64) << SHARE_BITS;

/// How many owners of one slot stand in a zone: the replicas spread over the zones as evenly as their numbers of
/// members allow. With more zones than replicas that is none or one, with as many zones exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Every slot has at least this many owners in the zone.
    pub(super) least: usize,
    /// No slot has more.
    pub(super) most: usize,
}

/// A zone as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZoneStanding {
    pub(super) quota: Quota,
    /// The fair shares of its members together.
    pub(super) share: u64,
}

/// Where each member stands: its zone and its fair share, by the index of the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standings {
    /// How many owners each slot has.
    pub(super) owners: usize,
    /// How many of them stand in zones that hold one more than their least.
    pub(super) extra: usize,
    /// The zones, in the order of their names.
    pub(super) zones: Vec<ZoneStanding>,
    /// The index of each member's zone.
    pub(super) zone_of: Vec<usize>,
    /// The fair share of each member.
    pub(super) shares: Vec<u64>,
}

impl Standings {
    /// Where these members stand, if each slot has so many owners; at most as many as there are members.
    pub(super) fn new(members: &[RingMember], owners: usize) -> Standings {
        let mut names: Vec<_> = members.iter().map(|member| &member.zone).collect();
        names.sort_unstable();
        names.dedup();
        let zone_of: Vec<usize> =
            members.iter().map(|member| names.partition_point(|name| *name < &member.zone)).collect();
        let mut sizes = vec![0; names.len()];
        zone_of.iter().for_each(|zone| sizes[*zone] += 1);
        let (quotas, extra) = quotas(&sizes, owners);
        let weights: Vec<u16> = members.iter().map(|member| member.weight.get()).collect();
        let shares = fair_shares(&weights, &zone_of, &quotas, owners);
        let mut zones: Vec<_> = quotas.into_iter().map(|quota| ZoneStanding { quota, share: 0 }).collect();
        zone_of.iter().zip(&shares).for_each(|(zone, share)| zones[*zone].share += share);
        Standings { owners, extra, zones, zone_of, shares }
    }

    /// True if a slot may choose between zones: there are several, and not all hold equally many of its owners as their
    /// sizes allow.
    pub(super) fn zones_compete(&self) -> bool {
        self.extra > 0 && self.zones.len() > 1
    }

    /// The quota of the zone that this member stands in.
    pub(super) fn quota_of(&self, member: usize) -> Quota {
        self.zones[self.zone_of[member]].quota
    }
}

/// The quotas of zones with these numbers of members, and how many owners of each slot are *extra*: they stand in
/// zones that hold one more than their least.
fn quotas(zone_sizes: &[usize], owners: usize) -> (Vec<Quota>, usize) {
    let spread = |level: usize| zone_sizes.iter().map(|size| level.min(*size)).sum::<usize>();
    // No level above the number of owners can be needed, since a zone has at least one member.
    let level = (0..=owners).rev().find(|level| spread(*level) <= owners).unwrap_or(0);
    let extra = owners - spread(level);
    let quota = |size: &usize| Quota {
        least: level.min(*size),
        most: if extra == 0 { level.min(*size) } else { (level + 1).min(*size) },
    };
    (zone_sizes.iter().map(quota).collect(), extra)
}

/// The fair share of each member, in slots with [`SHARE_BITS`] after the binary point. `zones` names each member's
/// zone by its index into `quotas`. The shares sum up to `owners` times all slots, a few millionths of a slot apart.
fn fair_shares(weights: &[u16], zones: &[usize], quotas: &[Quota], owners: usize) -> Vec<u64> {
    let mut members_of = vec![Vec::new(); quotas.len()];
    for (weight, zone) in weights.iter().zip(zones) {
        members_of[*zone].push(*weight);
    }
    let filled =
        |zone: usize, level: u64| members_of[zone].iter().map(|weight| share(*weight, level)).sum::<u64>();
    let bounded = |zone: usize, level: u64| {
        let Quota { least, most } = quotas[zone];
        filled(zone, level).clamp(least as u64 * WHOLE, most as u64 * WHOLE)
    };
    let sum = |level: u64| (0..quotas.len()).map(|zone| bounded(zone, level)).sum::<u64>();
    let level = highest_level(|level| sum(level) <= owners as u64 * WHOLE);
    // A zone at one of its bounds has a level of its own.
    let level_of = |zone: usize| match bounded(zone, level) {
        target if target == filled(zone, level) => level,
        target => highest_level(|level| filled(zone, level) <= target),
    };
    let levels: Vec<u64> = (0..quotas.len()).map(level_of).collect();
    weights.iter().zip(zones).map(|(weight, zone)| share(*weight, levels[*zone])).collect()
}

/// What a member of this weight holds when each unit of weight holds `level`.
fn share(weight: u16, level: u64) -> u64 {
    // A level is at most WHOLE = 2⁴⁶ and a weight at most 2¹⁰.
    (u64::from(weight) * level).min(WHOLE)
}

/// The highest level at which `holds` is still true, for a condition that is true at zero and only ever turns false.
fn highest_level(holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, WHOLE);
    while low < high {
        let middle = high - (high - low) / 2;
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(least: usize, most: usize) -> Quota {
        Quota { least, most }
    }

    /// Shares as a percentage of all slots, rounded.
    fn percentages(weights: &[u16], zones: &[usize], owners: usize) -> Vec<u64> {
        let mut sizes = vec![0; zones.iter().max().map_or(0, |zone| zone + 1)];
        zones.iter().for_each(|zone| sizes[*zone] += 1);
        let shares = fair_shares(weights, zones, &quotas(&sizes, owners).0, owners);
        let whole: u64 = shares.iter().sum();
        assert!((owners as u64 * WHOLE).abs_diff(whole) < 1 << 28, "the shares do not cover the slots");
        shares.iter().map(|share| (share * 100 + WHOLE / 2) / WHOLE).collect()
    }

    #[test]
    fn replicas_spread_over_zones_as_evenly_as_their_sizes_allow() {
        assert_eq!(quotas(&[5, 5, 5, 5], 3), (vec![quota(0, 1); 4], 3));
        assert_eq!(quotas(&[5, 1, 5], 3), (vec![quota(1, 1); 3], 0));
        assert_eq!(quotas(&[5, 5], 3), (vec![quota(1, 2); 2], 1));
        assert_eq!(quotas(&[1, 5], 3), (vec![quota(1, 1), quota(2, 2)], 0));
        assert_eq!(quotas(&[9], 3), (vec![quota(3, 3)], 0));
        assert_eq!(quotas(&[1, 1], 2), (vec![quota(1, 1); 2], 0));
        assert_eq!(quotas(&[1, 2, 9], 7), (vec![quota(1, 1), quota(2, 2), quota(4, 4)], 0));
        assert_eq!(quotas(&[], 0), (vec![], 0));
    }

    #[test]
    fn shares_follow_weights_where_they_can() {
        assert_eq!(percentages(&[1; 5], &[0; 5], 3), [60; 5]);
        assert_eq!(percentages(&[1, 1, 2, 2, 4], &[0; 5], 2), [20, 20, 40, 40, 80]);
        assert_eq!(percentages(&[], &[], 0), [0; 0]);
    }

    #[test]
    fn what_a_member_cannot_hold_goes_to_the_others() {
        assert_eq!(percentages(&[100, 1, 1, 1, 1], &[0; 5], 3), [100, 50, 50, 50, 50]);
        assert_eq!(percentages(&[1_024, 1, 1], &[0; 3], 3), [100; 3]);
    }

    #[test]
    fn what_a_zone_cannot_hold_goes_to_the_others() {
        // A lone node in one of three zones holds everything, and so does each of the other zones together.
        assert_eq!(percentages(&[1; 5], &[0, 1, 1, 2, 2], 3), [100, 50, 50, 50, 50]);
        // Four zones: the large one is full, the three others share two replicas.
        assert_eq!(
            percentages(&[1; 9], &[0, 0, 0, 0, 0, 0, 1, 2, 3], 3),
            [17, 17, 17, 17, 17, 17, 67, 67, 67]
        );
        // Two zones: at least one replica in each, however light it is.
        assert_eq!(percentages(&[1, 9, 9, 9], &[0, 1, 1, 1], 3), [100, 67, 67, 67]);
    }
}
