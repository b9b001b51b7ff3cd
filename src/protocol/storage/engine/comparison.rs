//! What a slot holds against what it should hold, and how it is put right.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::log::Entry;
use super::super::op::{DoubtReason, Lsn};
use super::super::store::{Store, StoreError};
use super::super::sums::{SlotSum, Sums};
use super::{Engine, Unfed};
use crate::protocol::causality::RecordHash;
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::slot::Slot;

impl<S: Store> Engine<S> {
    /// Compares what a slot holds with its sum, once for each start: the store may have been opened without some of its
    /// keys, and until somebody has counted them, what is lost would pass for *absent*. So this comes before the first
    /// answer about the slot. Tells what is wrong with it.
    ///
    /// It may be asked at any time, also while a feed is under way or what was recovered is not all in the store yet: a key
    /// that has an entry behind the low-water mark is pending, and what the store holds of it does not count.
    pub fn verify(&mut self, slot: Slot) -> Result<Option<DoubtReason>, StoreError> {
        if !self.verified.insert(slot) {
            return Ok(None);
        }
        #[cfg(test)]
        if planted::is(Planted::LostAsAbsent) {
            return Ok(None);
        }
        let contents = self.contents(slot)?;
        let mut sum = SlotSum::default();
        for hash in contents.values() {
            match hash {
                Some(hash) => sum = sum.with(*hash),
                None => return Ok(Some(DoubtReason::Damaged)),
            }
        }
        Ok((sum != self.sums.get(slot)).then_some(DoubtReason::Mismatch))
    }

    /// What a slot holds, pending entries laid over the store: the hash of each record, `None` for one that is damaged.
    fn contents(&self, slot: Slot) -> Result<BTreeMap<Bytes, Option<RecordHash>>, StoreError> {
        let mut contents = BTreeMap::new();
        self.store.scan(slot, slot, &mut |_, key, value| {
            contents.insert(Bytes::copy_from_slice(key), value.check(key).ok());
        })?;
        // What is pending came from memory or from the log, under a checksum of its own.
        let pending = self.pending.range((slot, Bytes::new())..);
        for ((_, key), pending) in pending.take_while(|((of, _), _)| *of == slot) {
            match &pending.value {
                Some(value) => contents.insert(key.clone(), Some(value.hash())),
                None => contents.remove(key),
            };
        }
        Ok(contents)
    }

    /// Drops what cannot be read in a slot and makes its sum that of what is there. Returns the position of the newest
    /// entry, and how many records were dropped.
    ///
    /// A crash may keep the removals and lose the entry that states the sum. Then the sum still counts what was
    /// dropped, so that the slot is doubted again: a slot that was half mended never passes for a whole one.
    pub(super) fn mend(&mut self, slot: Slot) -> Result<(Lsn, u64), StoreError> {
        assert!(!self.is_feeding, "a slot is mended while no feed is under way");
        let mut stored = BTreeMap::new();
        self.store.scan(slot, slot, &mut |_, key, value| {
            stored.insert(Bytes::copy_from_slice(key), value.check(key).ok());
        })?;
        // From here on, entries that wait for the store follow on what the store truly holds.
        let mut followed = BTreeSet::new();
        for entry in self.unfed.iter_mut().filter(|entry| entry.slot == slot) {
            if followed.insert(entry.key.clone()) {
                entry.old = stored.get(&entry.key).copied().flatten().unwrap_or_default();
            }
        }
        let (mut sum, mut dropped) = (SlotSum::default(), 0);
        for (key, hash) in self.contents(slot)? {
            if let Some(hash) = hash {
                sum = sum.with(hash);
                continue;
            }
            // What could not be read counted for nothing in the store, whatever it claims to have been.
            let old = RecordHash(0);
            let lsn = self.log(&Entry::Removed { slot, key: key.clone(), old });
            self.note(Unfed { lsn, slot, key, old, value: None });
            dropped += 1;
        }
        if dropped > 0 || sum != self.sums.get(slot) {
            self.sums.set(slot, sum);
            self.log(&Entry::Mended { slot, sum });
        }
        Ok((self.last, dropped))
    }

    /// What the store should hold in the slots from `first` to `last` now. Meaningful while no feed is under way and
    /// only when replay [is over](Engine::is_replayed): before that the store may lie anywhere in between.
    #[must_use]
    pub fn sums_in_store(&self, first: Slot, last: Slot) -> Sums {
        let mut sums = self.sums.between(first, last);
        for entry in self.unfed.iter().filter(|entry| (first..=last).contains(&entry.slot)) {
            sums.change(entry.slot, entry.new_hash(), entry.old);
        }
        sums
    }
}
