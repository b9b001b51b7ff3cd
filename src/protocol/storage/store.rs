//! The store behind the log: the small trait that keeps sled replaceable, and the form that values have in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::op::Lsn;
use super::sums::Sums;
use crate::protocol::causality::{Record, RecordHash};
use crate::protocol::codec;
use crate::protocol::ring::slot::Slot;

const VERSION: u8 = 1;
const PREFIX: usize = 17;

/// A record as log and store hold it: version (1 byte), the record's hash (16, little-endian), canonical bytes.
///
/// The hash covers the key too, so it proves that the bytes are whole and that they belong to this key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredValue(Bytes);

/// A stored value whose checksum is wrong. It is *lost*: neither absent nor to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the stored value is damaged")]
pub struct Damaged;

impl StoredValue {
    /// Encodes a record, once, for log and store alike.
    #[must_use]
    pub fn seal(key: &[u8], record: &Record) -> StoredValue {
        let mut bytes = Vec::with_capacity(PREFIX + record.encoded_len() as usize);
        bytes.resize(PREFIX, VERSION);
        codec::encode_into(record, &mut bytes);
        let hash = Record::hash_of(key, &bytes[PREFIX..]);
        bytes[1..PREFIX].copy_from_slice(&hash.0.to_le_bytes());
        StoredValue(bytes.into())
    }

    /// The record, if the bytes are whole and belong to `key`.
    pub fn open(&self, key: &[u8]) -> Result<Record, Damaged> {
        self.check(key)?;
        codec::decode(&self.0[PREFIX..]).map_err(|_| Damaged)
    }

    /// The record's hash, if the bytes are whole and belong to `key`.
    pub fn check(&self, key: &[u8]) -> Result<RecordHash, Damaged> {
        if self.0.len() < PREFIX || self.0[0] != VERSION {
            return Err(Damaged);
        }
        let computed = Record::hash_of(key, &self.0[PREFIX..]);
        if computed == self.hash() { Ok(computed) } else { Err(Damaged) }
    }

    /// The hash that the value claims to have; zero if it is too short for one. For values that were just sealed or
    /// checked, or that lie under another checksum.
    #[must_use]
    pub fn hash(&self) -> RecordHash {
        match self.0.get(1..PREFIX).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
            Some(bytes) => RecordHash(u128::from_le_bytes(bytes)),
            None => RecordHash(0),
        }
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl From<Bytes> for StoredValue {
    fn from(bytes: Bytes) -> StoredValue {
        StoredValue(bytes)
    }
}

impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredValue({:032x}, {} bytes)", self.hash().0, self.0.len())
    }
}

/// One key's new content: the whole of it, or nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The slot of the key.
    pub slot: Slot,
    /// The key.
    pub key: Bytes,
    /// What is stored from now on; `None` removes the key.
    pub value: Option<StoredValue>,
}

/// The store failed. Nothing may be concluded from what it did or did not do; the node stops.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the store failed: {0}")]
pub struct StoreError(pub String);

/// An ordered map from slot and key to stored values, behind the log.
///
/// # Contract
/// * `get`, `scan` and `page` see every `replace` that returned, from whichever handle.
/// * Bytes come back as they were put in. The store need not notice damage; [`StoredValue::check`] does.
/// * After a crash, each key holds what the last `checkpoint` covered or something that was put in later; `through`
///   is at least what it was at that checkpoint and at most what was ever handed to `replace`. That is little, and it
///   is enough: replay *replaces* every key that was touched since, in the order of the log.
/// * After any error the store is not used again.
pub trait Store {
    /// What is stored under a key; `None` if the key is absent.
    fn get(&self, slot: Slot, key: &[u8]) -> Result<Option<StoredValue>, StoreError>;

    /// Replaces the content of each key, one after the other, then notes that the log is applied up to `through`.
    /// Not atomic, and durable only after the next checkpoint.
    fn replace(&mut self, batch: &[Replacement], through: Lsn) -> Result<(), StoreError>;

    /// The highest `through` that was ever noted and survived; zero in a new store.
    fn through(&self) -> Result<Lsn, StoreError>;

    /// Shows everything in the slots from `first` to `last`, both included, in order of slot and key.
    fn scan(
        &self,
        first: Slot,
        last: Slot,
        visit: &mut dyn FnMut(Slot, &[u8], &StoredValue),
    ) -> Result<(), StoreError>;

    /// Shows what is in one slot behind the key `after`, in the order of the keys, for as long as `visit` wants more.
    fn page(
        &self,
        slot: Slot,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &StoredValue) -> bool,
    ) -> Result<(), StoreError>;

    /// Makes everything that was replaced so far survive a power cut.
    fn checkpoint(&mut self) -> Result<(), StoreError>;
}

/// Counts and sums what a store really holds in the slots from `first` to `last`. A damaged value counts for nothing,
/// so that its slot shows as differing.
pub fn sums_of(store: &impl Store, first: Slot, last: Slot) -> Result<Sums, StoreError> {
    let mut sums = Sums::default();
    store.scan(first, last, &mut |slot, key, value| {
        if let Ok(hash) = value.check(key) {
            sums.change(slot, RecordHash(0), hash);
        }
    })?;
    Ok(sums)
}

/// The store of the simulator: a map in memory that knows which part of it a crash may take.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    live: BTreeMap<(Slot, Bytes), StoredValue>,
    through: Lsn,
    /// What each replacement since the last checkpoint has displaced, oldest first.
    undo: Vec<(Replacement, Lsn)>,
}

impl MemoryStore {
    /// Loses what a power cut may lose. Each key on its own falls back to something that it has held since the last
    /// checkpoint, as the contract allows: `keep` is asked for each replacement that could survive, newest first, and
    /// in the end for the position.
    pub fn crash(&mut self, mut keep: impl FnMut() -> bool) {
        let mut settled = BTreeSet::new();
        let undo = std::mem::take(&mut self.undo);
        let checkpointed = undo.first().map_or(self.through, |(_, through)| *through);
        for (displaced, _) in undo.into_iter().rev() {
            let place = (displaced.slot, displaced.key.clone());
            if settled.contains(&place) {
                continue;
            }
            if keep() {
                settled.insert(place);
            } else {
                self.put(displaced);
            }
        }
        if !keep() {
            self.through = checkpointed;
        }
    }

    /// Flips a bit of what is stored under a key, as a failing disk would. Returns whether there was anything.
    pub fn damage(&mut self, slot: Slot, key: &[u8]) -> bool {
        let Some(value) = self.live.get_mut(&(slot, Bytes::copy_from_slice(key))) else { return false };
        let mut bytes = value.0.to_vec();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        *value = StoredValue(bytes.into());
        true
    }

    fn put(&mut self, new: Replacement) -> Option<StoredValue> {
        match new.value {
            Some(value) => self.live.insert((new.slot, new.key), value),
            None => self.live.remove(&(new.slot, new.key)),
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, slot: Slot, key: &[u8]) -> Result<Option<StoredValue>, StoreError> {
        Ok(self.live.get(&(slot, Bytes::copy_from_slice(key))).cloned())
    }

    fn replace(&mut self, batch: &[Replacement], through: Lsn) -> Result<(), StoreError> {
        for new in batch {
            let displaced = self.put(new.clone());
            let displaced = Replacement { slot: new.slot, key: new.key.clone(), value: displaced };
            self.undo.push((displaced, self.through));
        }
        self.through = self.through.max(through);
        Ok(())
    }

    fn through(&self) -> Result<Lsn, StoreError> {
        Ok(self.through)
    }

    fn scan(
        &self,
        first: Slot,
        last: Slot,
        visit: &mut dyn FnMut(Slot, &[u8], &StoredValue),
    ) -> Result<(), StoreError> {
        for ((slot, key), value) in self.live.range((first, Bytes::new())..) {
            if *slot > last {
                break;
            }
            visit(*slot, key, value);
        }
        Ok(())
    }

    fn page(
        &self,
        slot: Slot,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &StoredValue) -> bool,
    ) -> Result<(), StoreError> {
        let begin = match after {
            Some(after) => Bound::Excluded((slot, Bytes::copy_from_slice(after))),
            None => Bound::Included((slot, Bytes::new())),
        };
        let mut entries = self.live.range((begin, Bound::Unbounded)).take_while(|((of, _), _)| *of == slot);
        entries.all(|((_, key), value)| visit(key, value));
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.undo.clear();
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod contract;
