//! What a slot should contain, in 24 bytes.

use std::collections::BTreeMap;

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

/// The sums of all slots; slots without records are not there.
///
/// Kept in step with the data by `checkpoint + Σ (new − old)` over the entries of the log, never by counting what a
/// replay did to the store: the store may have run ahead of the checkpoint, where old = new and the difference is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// The sum of one slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> SlotSum {
        self.0.get(&slot).copied().unwrap_or_default()
    }

    /// All slots that hold anything, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, SlotSum)> + '_ {
        self.0.iter().map(|(slot, sum)| (*slot, *sum))
    }

    /// The slots from `first` to `last`, both included.
    #[must_use]
    pub fn between(&self, first: Slot, last: Slot) -> Sums {
        Sums(self.0.range(first..=last).map(|(slot, sum)| (*slot, *sum)).collect())
    }

    /// The slots that differ between the two, in order.
    #[must_use]
    pub fn differing(&self, other: &Sums) -> Vec<Slot> {
        let mut slots: Vec<Slot> =
            self.iter().filter(|(slot, sum)| other.get(*slot) != *sum).map(|(slot, _)| slot).collect();
        slots.extend(other.0.keys().filter(|slot| !self.0.contains_key(slot)));
        slots.sort_unstable();
        slots
    }
}

impl FromIterator<(Slot, SlotSum)> for Sums {
    fn from_iter<I: IntoIterator<Item = (Slot, SlotSum)>>(sums: I) -> Sums {
        Sums(sums.into_iter().collect())
    }
}
