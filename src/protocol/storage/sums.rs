//! What a slot should contain, in 24 bytes.

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
/// A plain table, half a megabyte when full: every write touches one slot, and a node of a small cluster owns nearly
/// all of them.
#[derive(Clone, Default)]
pub struct Sums(Vec<SlotSum>);

impl Sums {
    /// Takes note of one record's change from `old` to `new`; zero stands for no record.
    pub fn change(&mut self, slot: Slot, old: RecordHash, new: RecordHash) {
        let at = self.at(slot);
        at.count = at.count.wrapping_add(u64::from(new.0 != 0)).wrapping_sub(u64::from(old.0 != 0));
        at.sum = at.sum.wrapping_add(new.0).wrapping_sub(old.0);
    }

    /// Replaces the sum of one slot by what was counted there.
    pub fn set(&mut self, slot: Slot, sum: SlotSum) {
        *self.at(slot) = sum;
    }

    /// The sum of one slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> SlotSum {
        self.0.get(usize::from(slot.get())).copied().unwrap_or_default()
    }

    /// The sums of the slots from `first` to `last`, both included, one after the other.
    pub fn of_slots(&self, first: Slot, last: Slot) -> impl Iterator<Item = SlotSum> + '_ {
        (first.get()..=last.get()).filter_map(|slot| Slot::new(slot).ok()).map(|slot| self.get(slot))
    }

    /// All slots that hold anything, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, SlotSum)> + '_ {
        let slots = (0..).map_while(|slot| Slot::new(slot).ok());
        slots.zip(self.0.iter().copied()).filter(|(_, sum)| *sum != SlotSum::default())
    }

    /// The slots from `first` to `last`, both included.
    #[must_use]
    pub fn between(&self, first: Slot, last: Slot) -> Sums {
        self.iter().skip_while(|(slot, _)| *slot < first).take_while(|(slot, _)| *slot <= last).collect()
    }

    /// The slots that differ between the two, in order.
    #[must_use]
    pub fn differing(&self, other: &Sums) -> Vec<Slot> {
        let longest = self.0.len().max(other.0.len());
        let slots = (0..).map_while(|slot| Slot::new(slot).ok()).take(longest);
        slots.filter(|slot| self.get(*slot) != other.get(*slot)).collect()
    }

    /// Room for a slot, made when it is first needed.
    fn at(&mut self, slot: Slot) -> &mut SlotSum {
        let index = usize::from(slot.get());
        if index >= self.0.len() {
            self.0.resize(index + 1, SlotSum::default());
        }
        &mut self.0[index]
    }
}

impl FromIterator<(Slot, SlotSum)> for Sums {
    fn from_iter<I: IntoIterator<Item = (Slot, SlotSum)>>(sums: I) -> Sums {
        let mut all = Sums::default();
        for (slot, sum) in sums {
            *all.at(slot) = sum;
        }
        all
    }
}

impl PartialEq for Sums {
    /// How much room was made does not matter.
    fn eq(&self, other: &Sums) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Sums {}

impl fmt::Debug for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
