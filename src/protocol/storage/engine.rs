//! The engine of a node's storage: everything between a disk request and the bytes of the log, without the disk.

mod comparison;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

pub use super::feed::Feed;
use super::log::{Checkpoint, Entry, Group, Scan, Untrusted};
use super::op::{DiskReply, DiskRequest, Lsn, MetaKey, Page, Stored};
use super::store::{Replacement, Store, StoreError, StoredValue};
use super::sums::Sums;
use crate::protocol::causality::{Applied, Change, Record, RecordHash, Refusal};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;

/// A group is closed at this size, so that one write never grows without bound while the previous one is synced.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// A page of a slot ends after so many bytes of records: the store reads records with their keys.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// What one waiting entry costs in memory beside its key and value, about.
const ENTRY_OVERHEAD: u64 = 200;

/// The storage of one node: pure and synchronous, run by the real disk and by the simulated one.
///
/// It embodies the Singular Update Queue (one caller at a time executes all updates, in order) and the Request Batch
/// (what arrives while one group is being synced goes into the next) of *Patterns of Distributed Systems*.
///
/// # How to drive it
/// 1. [`submit`](Engine::submit) executes a request at once and replies *applied*.
/// 2. [`take_group`](Engine::take_group) gives what is to be written and synced; one group at a time. Then
///    [`synced`](Engine::synced) replies *durable*. A group that could not be synced is never written again: the
///    node stops.
/// 3. [`take_feed`](Engine::take_feed) gives what is to be put into the store, from synced entries only, one feed at
///    a time; then [`fed`](Engine::fed).
/// 4. `Mend` is only submitted while no feed is under way.
/// 5. Now and then, when no feed is under way: `Store::replace(&[], engine.fed_through())`, `Store::checkpoint`, then
///    [`checkpoint`](Engine::checkpoint); when its entry is synced, segments that end at or before the low-water mark
///    may go.
///
/// # Why reads are right
/// A key whose newest entry is not in the store yet is found in the *pending* map, so a read sees every update before
/// it. It names the entry that it rests on; who answers a client first waits until that one is durable, so what was
/// read never un-happens. (Waiting until *nothing* is pending for the key would starve on a busy key.)
#[derive(Debug)]
pub struct Engine<S> {
    store: S,
    meta: BTreeMap<MetaKey, Bytes>,
    sums: Sums,
    /// The newest state of every key that is not in the store yet.
    pending: BTreeMap<(Slot, Bytes), Pending>,
    /// Every data entry that is not in the store yet, oldest first.
    unfed: VecDeque<Unfed>,
    unfed_bytes: u64,
    /// Groups that wait for the disk; the last one is still open.
    groups: VecDeque<Group>,
    in_flight: Option<Lsn>,
    is_feeding: bool,
    last: Lsn,
    synced: Lsn,
    fed: Lsn,
    recovered: Lsn,
    /// Slots that were compared with their sums since the engine was brought up.
    verified: SlotSet,
    refusing: Option<Refusal>,
}

#[derive(Clone, Debug)]
struct Pending {
    lsn: Lsn,
    value: Option<StoredValue>,
}

#[derive(Clone, Debug)]
struct Unfed {
    lsn: Lsn,
    slot: Slot,
    key: Bytes,
    old: RecordHash,
    value: Option<StoredValue>,
}

impl Unfed {
    fn new_hash(&self) -> RecordHash {
        self.value.as_ref().map_or(RecordHash(0), StoredValue::hash)
    }

    fn bytes(&self) -> u64 {
        let value = self.value.as_ref().map_or(0, |value| value.as_bytes().len());
        (self.key.len() + value) as u64 + ENTRY_OVERHEAD
    }
}

/// What is known of one key right now.
struct Current {
    lsn: Lsn,
    hash: RecordHash,
    stored: Stored,
}

impl<S: Store> Engine<S> {
    /// The engine over a store and the log that was found in front of it; an empty scan for a new directory.
    ///
    /// Nothing is written: the entries behind the last checkpoint become pending again and reach the store as any
    /// others do. The caller must make sure that the log which it scanned is synced before it serves anything, since
    /// all of it counts as durable from here on.
    pub fn recover(store: S, scan: Scan) -> Result<Engine<S>, RecoverError> {
        let mut engine = Engine {
            store,
            meta: BTreeMap::new(),
            sums: Sums::default(),
            pending: BTreeMap::new(),
            unfed: VecDeque::new(),
            unfed_bytes: 0,
            groups: VecDeque::new(),
            in_flight: None,
            is_feeding: false,
            last: scan.end,
            synced: scan.end,
            fed: Lsn(0),
            recovered: scan.end,
            verified: SlotSet::new(),
            refusing: None,
        };
        let newest = scan.entries.iter().rev().find_map(|(lsn, entry)| match entry {
            Entry::Checkpoint(checkpoint) => Some((*lsn, checkpoint.clone())),
            _ => None,
        });
        let (checkpointed_at, checkpoint) = newest.unwrap_or_default();
        let (low_water, end) = (checkpoint.low_water, scan.end);
        let first = scan.entries.first().map_or(Lsn(end.0 + 1), |(lsn, _)| *lsn);
        if first.0 > low_water.0 + 1 {
            return Err(Untrusted::Beheaded { first, needed: Lsn(low_water.0 + 1) }.into());
        }
        let fed = engine.store.through()?;
        if fed > end {
            return Err(Untrusted::LogBehindStore { end, fed }.into());
        }
        if fed < low_water {
            return Err(Untrusted::StoreBehindCheckpoint { fed, low_water }.into());
        }
        engine.fed = low_water;
        engine.meta = checkpoint.meta.into_iter().collect();
        engine.sums = checkpoint.sums.into_iter().collect();
        for (lsn, entry) in scan.entries {
            engine.replay(lsn, entry, checkpointed_at);
        }
        Ok(engine)
    }

    /// Takes in one entry of the log. The state beside the records and the sums begin at the checkpoint's own entry,
    /// the records at its low-water mark, which is earlier.
    fn replay(&mut self, lsn: Lsn, entry: Entry, checkpointed_at: Lsn) {
        let (slot, key, old, value) = match entry {
            Entry::Put { slot, key, old, value } => (slot, key, old, Some(value)),
            Entry::Removed { slot, key, old } => (slot, key, old, None),
            Entry::Meta(entries) => {
                if lsn > checkpointed_at {
                    self.replace_meta(entries);
                }
                return;
            }
            Entry::Checkpoint(_) => return,
            Entry::Mended { slot, sum } => {
                if lsn > checkpointed_at {
                    self.sums.set(slot, sum);
                }
                return;
            }
        };
        let entry = Unfed { lsn, slot, key, old, value };
        if lsn > checkpointed_at {
            self.sums.change(slot, old, entry.new_hash());
        }
        if lsn > self.fed {
            self.await_feeding(entry);
        }
    }

    /// Executes a request and pushes its reply. An error means that the store failed and the node must stop.
    pub fn submit(&mut self, request: DiskRequest, replies: &mut Vec<DiskReply>) -> Result<(), StoreError> {
        replies.push(match request {
            DiskRequest::Update { ticket, slot, key, change } => {
                let (lsn, applied) = self.update(slot, key, &change)?;
                DiskReply::Applied { ticket, slot, lsn, applied }
            }
            DiskRequest::Read { ticket, slot, key } => {
                let Current { lsn, stored, .. } = self.current(slot, &key)?;
                DiskReply::Read { ticket, lsn, stored }
            }
            DiskRequest::Remove { ticket, slot, key, certified } => {
                let (lsn, is_gone) = match self.remove(slot, key.clone(), certified)? {
                    Some(lsn) => (lsn, true),
                    None => {
                        let Current { lsn, stored, .. } = self.current(slot, &key)?;
                        (lsn, stored == Stored::Absent)
                    }
                };
                DiskReply::Removed { ticket, lsn, is_gone }
            }
            DiskRequest::Sums { ticket, first, last } => {
                let sums = self.sums.within(first, last).map(|(slot, sum)| (slot, Some(sum))).collect();
                DiskReply::Sums { ticket, first, last, sums }
            }
            DiskRequest::List { ticket, slot, after, keys_max } => {
                DiskReply::Listed { ticket, page: Some(self.page(slot, after.as_ref(), keys_max.max(1))?) }
            }
            DiskRequest::ReadMany { ticket, keys, bytes_max } => {
                DiskReply::ReadMany { ticket, found: self.read_many(keys, bytes_max)? }
            }
            DiskRequest::Meta { ticket, entries } => {
                let lsn = self.log(&Entry::Meta(entries.clone()));
                self.replace_meta(entries);
                DiskReply::MetaApplied { ticket, lsn }
            }
            DiskRequest::Mend { ticket, slot } => {
                let (lsn, dropped) = self.mend(slot)?;
                DiskReply::Mended { ticket, lsn, dropped }
            }
        });
        Ok(())
    }

    /// From now on refuses every update that would have to be logged, with this reason; `None` ends that. State that
    /// is not per key is never refused, and neither is an update that turns out to have been done before.
    pub fn refuse(&mut self, reason: Option<Refusal>) {
        self.refusing = reason;
    }

    fn update(&mut self, slot: Slot, key: Bytes, change: &Change) -> Result<(Lsn, Applied), StoreError> {
        let current = self.current(slot, &key)?;
        let stored = match &current.stored {
            Stored::Absent => None,
            Stored::Present(record) => Some(record),
            // The empty record in its place would cover up the loss, and a merge onto it might erase what it held.
            Stored::Lost => return Ok((current.lsn, Applied::Refused(Refusal::Lost))),
        };
        if let (Change::Compact(round), Some(record)) = (change, stored)
            && round.certified != current.hash
        {
            return Ok((current.lsn, Applied::Unchanged { record: record.clone() }));
        }
        let applied = Record::apply(change, stored);
        let record = match (&applied, self.refusing) {
            (Applied::Changed { .. }, Some(reason)) => return Ok((current.lsn, Applied::Refused(reason))),
            (Applied::Changed { record, .. } | Applied::Adopted { record, changed: true, .. }, _) => record,
            _ => return Ok((current.lsn, applied)),
        };
        let value = StoredValue::seal(&key, record);
        let entry = Entry::Put { slot, key: key.clone(), old: current.hash, value: value.clone() };
        let lsn = self.log(&entry);
        self.note(Unfed { lsn, slot, key, old: current.hash, value: Some(value) });
        Ok((lsn, applied))
    }

    /// Removes a record whose removal is certified (by a reap, or since all owners hold what it was a hint of), if it
    /// still has the certified hash. Returns the position of the entry, or `None` if the record has changed since, or is
    /// gone already.
    pub fn remove(
        &mut self,
        slot: Slot,
        key: Bytes,
        certified: RecordHash,
    ) -> Result<Option<Lsn>, StoreError> {
        let current = self.current(slot, &key)?;
        if !matches!(current.stored, Stored::Present(_)) || current.hash != certified {
            return Ok(None);
        }
        let lsn = self.log(&Entry::Removed { slot, key: key.clone(), old: current.hash });
        self.note(Unfed { lsn, slot, key, old: current.hash, value: None });
        Ok(Some(lsn))
    }

    /// The next keys of a slot: a page of the store with the pending ones laid over it.
    fn page(&self, slot: Slot, after: Option<&Bytes>, keys_max: usize) -> Result<Page, StoreError> {
        let mut found: BTreeMap<Bytes, RecordHash> = BTreeMap::new();
        let (mut bytes, mut stored_until) = (0, None);
        self.store.page(slot, after.map(|key| &key[..]), &mut |key, value| {
            bytes += value.as_bytes().len();
            let key = Bytes::copy_from_slice(key);
            found.insert(key.clone(), value.hash());
            let goes_on = found.len() < keys_max && bytes < PAGE_BYTES_MAX;
            if !goes_on {
                stored_until = Some(key);
            }
            goes_on
        })?;
        let begin = match after {
            Some(after) => Bound::Excluded((slot, after.clone())),
            None => Bound::Included((slot, Bytes::new())),
        };
        let mut waiting =
            self.pending.range((begin, Bound::Unbounded)).take_while(|((of, _), _)| *of == slot);
        let mut waiting_until = None;
        for ((_, key), pending) in waiting.by_ref().take(keys_max) {
            waiting_until = Some(key.clone());
            match &pending.value {
                Some(value) => found.insert(key.clone(), value.hash()),
                None => found.remove(key),
            };
        }
        // Of the keys behind the nearer end of the two, only one of the sources has told.
        let next = match (stored_until, waiting_until.filter(|_| waiting.next().is_some())) {
            (Some(stored), Some(waiting)) => Some(stored.min(waiting)),
            (stored, waiting) => stored.or(waiting),
        };
        let entries = found.into_iter().take_while(|(key, _)| next.as_ref().is_none_or(|next| key <= next));
        Ok(Page { entries: entries.collect(), next })
    }

    /// Reads keys until `bytes_max` bytes of records are there, but one key at least.
    fn read_many(&self, keys: Vec<Bytes>, bytes_max: u64) -> Result<Vec<(Bytes, Stored)>, StoreError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let Current { stored, .. } = self.current(Slot::of_key(&key), &key)?;
            if let Stored::Present(record) = &stored {
                bytes += record.encoded_len();
            }
            found.push((key, stored));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(found)
    }

    fn current(&self, slot: Slot, key: &Bytes) -> Result<Current, StoreError> {
        let (lsn, value) = match self.pending.get(&(slot, key.clone())) {
            Some(pending) => (pending.lsn, pending.value.clone()),
            None => (Lsn(0), self.store.get(slot, key)?),
        };
        let hash = value.as_ref().map_or(RecordHash(0), StoredValue::hash);
        let stored = match value.map(|value| value.open(key)) {
            None => Stored::Absent,
            Some(Ok(record)) => Stored::Present(record),
            Some(Err(_)) => Stored::Lost,
        };
        Ok(Current { lsn, hash, stored })
    }

    fn log(&mut self, entry: &Entry) -> Lsn {
        if self.groups.back().is_none_or(|group| group.len() >= GROUP_BYTES_MAX) {
            self.groups.push_back(Group::new(Lsn(self.last.0 + 1)));
        }
        if let Some(group) = self.groups.back_mut() {
            self.last = group.push(entry);
        }
        self.last
    }

    fn note(&mut self, entry: Unfed) {
        self.sums.change(entry.slot, entry.old, entry.new_hash());
        self.await_feeding(entry);
    }

    fn await_feeding(&mut self, entry: Unfed) {
        self.unfed_bytes += entry.bytes();
        let pending = Pending { lsn: entry.lsn, value: entry.value.clone() };
        self.pending.insert((entry.slot, entry.key.clone()), pending);
        self.unfed.push_back(entry);
    }

    fn replace_meta(&mut self, entries: Vec<(MetaKey, Option<Bytes>)>) {
        for (key, value) in entries {
            match value {
                Some(value) => self.meta.insert(key, value),
                None => self.meta.remove(&key),
            };
        }
    }

    /// What is to be written and synced next; `None` if nothing is, or if a group is still under way.
    pub fn take_group(&mut self) -> Option<Group> {
        if self.in_flight.is_some() {
            return None;
        }
        let mut group = self.groups.pop_front()?;
        group.note_synced(self.synced);
        self.in_flight = Some(group.through());
        Some(group)
    }

    /// The group under way is in the synced log.
    pub fn synced(&mut self, through: Lsn, replies: &mut Vec<DiskReply>) {
        assert_eq!(self.in_flight.take(), Some(through), "a group was synced that was not under way");
        assert!(through > self.synced);
        self.synced = through;
        replies.push(DiskReply::Durable { through });
    }

    /// What is to be put into the store next, from at most `entries_max` entries; `None` if nothing is, or if a feed
    /// is still under way.
    ///
    /// Every synced entry takes part, also one whose key has a newer entry that is not synced: the log may forget it
    /// as soon as the store is said to be fed that far.
    pub fn take_feed(&mut self, entries_max: usize) -> Option<Feed> {
        if self.is_feeding {
            return None;
        }
        let mut newest = BTreeMap::new();
        let mut bytes = 0;
        let mut through = self.fed;
        for _ in 0..entries_max {
            let Some(entry) = self.unfed.pop_front_if(|entry| entry.lsn <= self.synced) else { break };
            bytes += entry.bytes();
            through = entry.lsn;
            newest.insert((entry.slot, entry.key), entry.value);
        }
        if self.unfed.front().is_none_or(|entry| entry.lsn > self.synced) {
            through = self.synced;
        }
        if newest.is_empty() {
            // Entries that are not per key have nothing to do in the store.
            self.fed = through;
            return None;
        }
        self.is_feeding = true;
        let batch = newest.into_iter().map(|((slot, key), value)| Replacement { slot, key, value }).collect();
        Some(Feed { batch, through, bytes })
    }

    /// The feed is in the store.
    pub fn fed(&mut self, feed: Feed) {
        assert!(self.is_feeding, "a feed was done that was not under way");
        self.is_feeding = false;
        self.fed = feed.through;
        self.unfed_bytes -= feed.bytes;
        for Replacement { slot, key, .. } in feed.batch {
            let place = (slot, key);
            if self.pending.get(&place).is_some_and(|pending| pending.lsn <= feed.through) {
                self.pending.remove(&place);
            }
        }
    }

    /// Logs what replay needs when everything up to `low_water` is safely in the store. Returns the position of the
    /// entry; once it is synced, segments that end at or before `low_water` may go.
    pub fn checkpoint(&mut self, low_water: Lsn) -> Lsn {
        assert!(low_water <= self.fed, "the store was not fed that far");
        let checkpoint = Checkpoint {
            low_water,
            meta: self.meta.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            sums: self.sums.iter().collect(),
        };
        self.log(&Entry::Checkpoint(checkpoint))
    }

    /// Count and sum of every slot, unsynced updates included.
    #[must_use]
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// For the proof of the simulator's judges.
    #[cfg(test)]
    pub(crate) fn spoil_sums(&mut self, sums: Sums) {
        self.sums = sums;
    }

    /// Whether all that was recovered from the log is in the store.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.fed >= self.recovered
    }

    /// The state that is not per key.
    #[must_use]
    pub fn meta(&self) -> &BTreeMap<MetaKey, Bytes> {
        &self.meta
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for whoever feeds it from the same thread.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// From now on works on another store, which holds the same. Returns the one before.
    pub fn change_store(&mut self, store: S) -> S {
        assert!(!self.is_feeding, "the store is changed while no feed is under way");
        std::mem::replace(&mut self.store, store)
    }

    /// Gives up the engine and keeps the store: a crash.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    /// The position of the newest entry.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Everything up to here is in the synced log.
    #[must_use]
    pub fn synced_through(&self) -> Lsn {
        self.synced
    }

    /// Everything up to here is in the store.
    #[must_use]
    pub fn fed_through(&self) -> Lsn {
        self.fed
    }

    /// Bytes of entries that are not in the store yet, about.
    #[must_use]
    pub fn unfed_bytes(&self) -> u64 {
        self.unfed_bytes
    }
}

/// Why an engine could not be brought up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Log and store contradict each other: a lost disk.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
