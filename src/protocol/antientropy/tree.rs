//! The hash tree of what two owners share: marks of arcs, from the whole circle down to single records.
//!
//! ```text
//! circle ── 16 parts ── 32 ── 32 = slots ── about √keys buckets ── records
//! └─────────── from the sums of the slots ──────────┘└── from a listing of one slot ──┘
//! ```
//!
//! Only the sums of the slots are kept, 24 bytes each and in step with the log; everything above and below them is
//! computed when two owners differ, so that nothing else can get out of step with the data. A listing is cheap because
//! slots are small: with 1,000,000 keys a slot has 61 of them, one range of the store that is read in some 50 µs.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::causality::RecordHash;
use crate::protocol::ring::arc::Arc;
use crate::protocol::ring::common::Common;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::sums::SlotSum;
use crate::protocol::wire::exchange::{Mark, Salt, ShortMark};

/// The depths at which the circle is cut: the last one is that of the slots.
const LEVELS: [u32; 3] = [4, 9, 14];

/// A slot with fewer keys than this is not cut into buckets: the marks of its records are as short as theirs would be.
const BUCKETS_FROM: u64 = 16;

/// From which slot to which these arcs reach; `None` if there are none.
pub(super) fn reach(arcs: impl IntoIterator<Item = Arc>) -> Option<(Slot, Slot)> {
    let slots = arcs.into_iter().map(Arc::slots);
    slots.reduce(|(first, last), (begin, end)| (first.min(begin), last.max(end)))
}

/// The sums of consecutive slots, as the disk told them.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotSums {
    /// From which to which; `None` if none was asked for.
    reach: Option<(Slot, Slot)>,
    /// Of the slots that hold anything, in order.
    sums: Vec<(Slot, Option<SlotSum>)>,
}

impl SlotSums {
    pub(super) fn new(first: Slot, last: Slot, sums: Vec<(Slot, Option<SlotSum>)>) -> SlotSums {
        SlotSums { reach: Some((first, last)), sums }
    }

    /// The sum of a slot; `None` if its contents are not trusted, or if it was not asked for.
    pub(super) fn get(&self, slot: Slot) -> Option<SlotSum> {
        let (first, last) = self.reach?;
        if slot < first || slot > last {
            return None;
        }
        match self.sums.binary_search_by_key(&slot, |(held, _)| *held) {
            Ok(at) => self.sums[at].1,
            Err(_) => Some(SlotSum::default()),
        }
    }

    /// The mark of an arc that is not smaller than a slot: over the slots that hold anything. One that is not trusted
    /// counts as holding more than can be: nobody takes it for empty, or for what somebody else holds.
    pub(super) fn mark(&self, arc: Arc, common: &Common, salt: Salt) -> Mark {
        let (first, last) = arc.slots();
        let begin = self.sums.partition_point(|(slot, _)| *slot < first);
        let end = self.sums.partition_point(|(slot, _)| *slot <= last);
        let within = &self.sums[begin..end];
        let mut bytes = Vec::with_capacity(within.len() * (2 + 8 + 16));
        for (slot, sum) in within.iter().filter(|(slot, _)| common.has(*slot)) {
            let SlotSum { count, sum } = sum.unwrap_or(SlotSum { count: u64::MAX, sum: 0 });
            bytes.extend(slot.get().to_le_bytes());
            bytes.extend(count.to_le_bytes());
            bytes.extend(sum.to_le_bytes());
        }
        Mark(xxh3_64_with_seed(&bytes, salt.0))
    }
}

/// Into how many parts, as a power of two, an arc that spans slots is cut.
pub(super) fn cut(arc: Arc) -> u32 {
    let depth = arc.bits();
    LEVELS.iter().find(|level| **level > depth).map_or(0, |level| level - depth)
}

/// Into how many buckets, as a power of two, a slot of so many keys is cut: as many as each bucket then has keys, since
/// the marks of all buckets and of the keys in one of them have to travel to find one record that differs.
pub(super) fn bucket_bits(keys: u64) -> u32 {
    if keys < BUCKETS_FROM { 0 } else { keys.ilog2().div_ceil(2).min(10) }
}

/// The whole mark of one record.
pub(super) fn whole_mark(hash: RecordHash, salt: Salt) -> Mark {
    Mark(xxh3_64_with_seed(&hash.0.to_le_bytes(), salt.0))
}

/// The short marks of all parts of a slot, from a listing of it.
pub(super) fn bucket_marks(
    slot: Slot,
    bits: u32,
    entries: &[(Bytes, RecordHash)],
    salt: Salt,
) -> Vec<ShortMark> {
    let arc = Arc::of_slot(slot);
    let mut sums = vec![SlotSum::default(); arc.parts(bits).len()];
    for (key, hash) in entries {
        let sum = &mut sums[arc.part_of(bits, key)];
        *sum = sum.with(*hash);
    }
    let mark = |sum: &SlotSum| {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&sum.count.to_le_bytes());
        bytes[8..].copy_from_slice(&sum.sum.to_le_bytes());
        ShortMark(xxh3_64_with_seed(&bytes, salt.0) as u32)
    };
    sums.iter().map(mark).collect()
}

/// The short mark of one record of one key: its hash covers both.
pub(super) fn record_mark(hash: RecordHash, salt: Salt) -> ShortMark {
    ShortMark(xxh3_64_with_seed(&hash.0.to_le_bytes(), salt.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ring::SlotSet;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    fn common(slots: &[u16]) -> Common {
        slots.iter().map(|number| slot(*number)).collect::<SlotSet>().into()
    }

    fn sums(of: &[(u16, u128)]) -> SlotSums {
        let held =
            |(number, hash): &(u16, u128)| (slot(*number), Some(SlotSum::default().with(RecordHash(*hash))));
        SlotSums::new(slot(0), slot(16_383), of.iter().map(held).collect())
    }

    #[test]
    fn a_difference_shows_on_the_way_from_the_circle_to_its_slot_and_nowhere_else() {
        let common = common(&[3, 700, 16_000]);
        let (mine, theirs) = (sums(&[(3, 9), (700, 5)]), sums(&[(3, 9), (700, 6)]));
        let mut arcs = vec![Arc::CIRCLE];
        let mut seen = Vec::new();
        while let Some(arc) = arcs.pop() {
            if mine.mark(arc, &common, Salt(1)) == theirs.mark(arc, &common, Salt(1)) {
                continue;
            }
            if arc.spans_slots() {
                arcs.extend(arc.parts(cut(arc)));
            } else {
                seen.push(arc);
            }
        }
        assert_eq!(seen, [Arc::of_slot(slot(700))]);
    }

    #[test]
    fn what_the_other_node_does_not_own_and_who_salts_how_make_no_difference() {
        let (mine, theirs) = (sums(&[(3, 9), (5, 1)]), sums(&[(3, 9), (5, 2)]));
        for salt in [Salt(1), Salt(2)] {
            let mark = |sums: &SlotSums, slots: &[u16]| sums.mark(Arc::CIRCLE, &common(slots), salt);
            assert_eq!(mark(&mine, &[3]), mark(&theirs, &[3]));
            assert_ne!(mark(&mine, &[3, 5]), mark(&theirs, &[3, 5]));
        }
        assert_ne!(
            mine.mark(Arc::CIRCLE, &common(&[3]), Salt(1)),
            mine.mark(Arc::CIRCLE, &common(&[3]), Salt(2))
        );
    }

    #[test]
    fn a_slot_that_is_not_trusted_is_no_empty_slot() {
        let common = common(&[3, 4]);
        let empty = SlotSums::new(slot(0), slot(7), Vec::new());
        let untrusted = SlotSums::new(slot(0), slot(7), vec![(slot(4), None)]);
        assert_ne!(empty.mark(Arc::CIRCLE, &common, Salt(1)), untrusted.mark(Arc::CIRCLE, &common, Salt(1)));
        assert_eq!(untrusted.get(slot(4)), None);
        assert_eq!(
            (empty.get(slot(4)), untrusted.get(slot(3))),
            (Some(SlotSum::default()), Some(SlotSum::default()))
        );
        assert_eq!(untrusted.get(slot(9)), None, "not asked for");
        assert_eq!(SlotSums::default().get(slot(0)), None);
    }

    #[test]
    fn buckets_are_as_many_as_they_have_keys_about() {
        let bits = [0, 15, 16, 61, 610, 6_100, 1 << 30].map(bucket_bits);
        assert_eq!(bits, [0, 0, 2, 3, 5, 6, 10]);
    }

    #[test]
    fn one_record_changes_the_mark_of_its_bucket_only() {
        let of = slot(7);
        let entries: Vec<(Bytes, RecordHash)> =
            (0..50_u8).map(|n| (Bytes::from(vec![n]), RecordHash(u128::from(n) + 1))).collect();
        let mut other = entries.clone();
        other[20].1 = RecordHash(999);
        let (mine, theirs) = (bucket_marks(of, 3, &entries, Salt(4)), bucket_marks(of, 3, &other, Salt(4)));
        let differing: Vec<usize> = (0..8).filter(|at| mine[*at] != theirs[*at]).collect();
        assert_eq!(differing, [Arc::of_slot(of).part_of(3, &entries[20].0)]);
    }
}
