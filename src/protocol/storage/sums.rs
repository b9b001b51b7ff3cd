//! What a slot should contain, in 24 bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::causality::RecordHash;
use crate::protocol::ring::slot::Slot;

/// How many records a slot holds and the sum of their hashes, modulo 2^128.
///
/// A sum and not an exclusive or: two equal hashes must not cancel each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSum {
    /// Records, tombstones included.
    pub count: u64,
    /// The sum of their hashes.
    pub sum: u128,
}

impl SlotSum {
    /// The sum with one more record.
    #[must_use]
    pub fn with(self, hash: RecordHash) -> SlotSum {
        SlotSum { count: self.count.wrapping_add(1), sum: self.sum.wrapping_add(hash.0) }
    }
}

/// The sums of all slots.
///
/// Kept in step with the data by `checkpoint + Σ (new − old)` over the entries of the log, never by counting what a
/// replay did to the store: the store may have run ahead of the checkpoint, where old = new and the difference is lost.
///
/// Slots that hold nothing are not in it, so that what is done with all of them costs as much as there is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<Slot, SlotSum>);

impl Sums {
    /// Takes note of one record's change from `old` to `new`; zero stands for no record.
    pub fn change(&mut self, slot: Slot, old: RecordHash, new: RecordHash) {
        let at = self.0.entry(slot).or_default();
        at.count = at.count.wrapping_add(u64::from(new.0 != 0)).wrapping_sub(u64::from(old.0 != 0));
        at.sum = at.sum.wrapping_add(new.0).wrapping_sub(old.0);
        if *at == SlotSum::default() {
            self.0.remove(&slot);
        }
    }

    /// Replaces the sum of one slot by what was counted there.
    pub fn set(&mut self, slot: Slot, sum: SlotSum) {
        if sum == SlotSum::default() {
            self.0.remove(&slot);
        } else {
            self.0.insert(slot, sum);
        }
    }

    /// The sum of one slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> SlotSum {
        self.0.get(&slot).copied().unwrap_or_default()
    }

    /// Those of the slots from `first` to `last`, both included, that hold anything, in order.
    pub fn within(&self, first: Slot, last: Slot) -> impl Iterator<Item = (Slot, SlotSum)> + '_ {
        // A range that ends before it begins holds nothing; the map would panic.
        let range = (first <= last).then(|| self.0.range(first..=last));
        range.into_iter().flatten().map(|(slot, sum)| (*slot, *sum))
    }

    /// All slots that hold anything, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, SlotSum)> + '_ {
        self.0.iter().map(|(slot, sum)| (*slot, *sum))
    }

    /// The slots from `first` to `last`, both included.
    #[must_use]
    pub fn between(&self, first: Slot, last: Slot) -> Sums {
        self.within(first, last).collect()
    }

    /// The slots that differ between the two, in order.
    #[must_use]
    pub fn differing(&self, other: &Sums) -> Vec<Slot> {
        let slots: BTreeSet<Slot> = self.0.keys().chain(other.0.keys()).copied().collect();
        slots.into_iter().filter(|slot| self.get(*slot) != other.get(*slot)).collect()
    }
}

impl FromIterator<(Slot, SlotSum)> for Sums {
    fn from_iter<I: IntoIterator<Item = (Slot, SlotSum)>>(sums: I) -> Sums {
        let mut all = Sums::default();
        for (slot, sum) in sums {
            all.set(slot, sum);
        }
        all
    }
}

impl fmt::Debug for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_emptied_is_as_one_that_never_held_anything() {
        let slot = |index| Slot::new(index).unwrap();
        let mut sums = Sums::default();
        for index in [3, 5, 16_383] {
            sums.change(slot(index), RecordHash(0), RecordHash(7));
        }
        sums.change(slot(5), RecordHash(7), RecordHash(0));
        let seven = SlotSum { count: 1, sum: 7 };
        assert_eq!(sums, [(slot(3), seven), (slot(16_383), seven)].into_iter().collect());
        assert_eq!(sums.within(slot(3), slot(16_382)).collect::<Vec<_>>(), [(slot(3), seven)]);
        assert_eq!(sums.within(slot(9), slot(3)).count(), 0);
        assert_eq!(sums.differing(&sums.between(slot(4), slot(16_383))), [slot(3)]);
    }
}
