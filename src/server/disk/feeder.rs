//! The thread that alone writes the store: it feeds, checkpoints, reads and checks, and rewrites.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::compaction::{Step, Task};
use super::sled::SledStore;
use super::stores::{StoreNumber, Stores};
use super::worker::{Event, Reporter, Worker};
use crate::protocol::causality::RecordHash;
use crate::protocol::ring::slot::{SLOTS, Slot};
use crate::protocol::storage::engine::Feed;
use crate::protocol::storage::op::Lsn;
use crate::protocol::storage::store::{Replacement, Store, StoreError};
use crate::protocol::storage::sums::Sums;

/// A feed of fewer bytes than this is followed by a [`PAUSE`], in which more entries gather. By bytes and not by entries,
/// since the backlog is bounded in bytes.
const SMALL_FEED_BYTES: u64 = 256 << 10;

/// Nobody waits for a feed, and each costs two wake-ups and a note of the position, however small it is. Long enough to
/// make these rare, short enough that the pages which the updates have read are still in sled's cache.
const PAUSE: Duration = Duration::from_millis(20);

/// A copy is synced after so many bytes, so that the switch finds little left to sync.
const COPY_SYNC_BYTES: u64 = 32 << 20;

/// What the feeder does.
pub(super) enum FeederJob {
    /// Put synced entries into the store.
    Feed(Feed),
    /// Make the store durable; it holds everything up to here.
    Checkpoint(Lsn),
    /// Compare what a store holds in these slots with what it should hold.
    Verify { which: Which, first: Slot, last: Slot, expected: Sums },
    /// Rewrite the store.
    Compact(Task),
    /// Nothing is to be done for so long. Then [`Event::Idle`] tells that it is over.
    Rest(Duration),
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The one that counts.
    Current,
    /// Its copy.
    Fresh,
}

/// What was found in a range of slots.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) which: Which,
    pub(super) last: Slot,
    /// How much was read: keys and values.
    pub(super) bytes: u64,
    /// Slots that do not hold what they should, and how many records in them cannot be read.
    pub(super) differing: Vec<(Slot, u64)>,
}

/// What the store takes and what it holds, in bytes; read by the thread of the node.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// On disk, as of the last checkpoint.
    pub(super) taken: AtomicU64,
    /// Keys and values; too small while the first verification is going on.
    pub(super) live: AtomicU64,
}

/// What each slot holds, in bytes of keys and values: counted by each verification, and kept up by each feed.
#[derive(Debug)]
struct Weights {
    slots: Vec<u64>,
    total: u64,
}

impl Weights {
    fn set(&mut self, slot: Slot, bytes: u64) {
        let weight = &mut self.slots[slot.index()];
        self.total = self.total - *weight + bytes;
        *weight = bytes;
    }

    fn change(&mut self, slot: Slot, old: u64, new: u64) {
        // A slot that was not counted yet may lose more than it is known to have.
        let weight = (self.slots[slot.index()] + new).saturating_sub(old);
        self.set(slot, weight);
    }
}

struct Feeder {
    stores: Stores,
    number: StoreNumber,
    store: SledStore,
    fresh: Option<Copy>,
    /// No longer the one that counts, and not closed yet.
    retired: Option<(StoreNumber, SledStore)>,
    weights: Weights,
    gauge: Arc<Gauge>,
    cache_bytes: u64,
}

/// A store that is being filled.
struct Copy {
    number: StoreNumber,
    store: SledStore,
    /// The place of the last key that was copied.
    until: Option<Vec<u8>>,
    unsynced_bytes: u64,
}

/// Starts the thread. Reports [`Event::Idle`] when it had no job for `idle`, or for as long as it was told to rest.
pub(super) fn start(
    stores: Stores,
    number: StoreNumber,
    store: SledStore,
    cache_bytes: u64,
    gauge: Arc<Gauge>,
    idle: Duration,
    reporter: Reporter,
) -> io::Result<Worker<FeederJob>> {
    Worker::spawn("starling-store", reporter, move |jobs, reporter| {
        let weights = Weights { slots: vec![0; usize::from(SLOTS)], total: 0 };
        let mut feeder =
            Feeder { stores, number, store, fresh: None, retired: None, weights, gauge, cache_bytes };
        feeder.tell_size();
        let outcome = feeder.run(jobs, idle, reporter).map_err(|error| error.to_string());
        if outcome.is_err() {
            // All of them share the failure, so that none is flushed by being dropped.
            feeder.store.abandon("the thread of the store has ended");
        }
        outcome
    })
}

impl Feeder {
    fn run(
        &mut self,
        jobs: &Receiver<FeederJob>,
        idle: Duration,
        reporter: &Reporter,
    ) -> Result<(), StoreError> {
        let mut patience = idle;
        loop {
            let job = match jobs.recv_timeout(patience) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    patience = idle;
                    reporter.report(Event::Idle);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            patience = idle;
            let event = match job {
                FeederJob::Feed(feed) => {
                    self.feed(&feed)?;
                    if feed.bytes() < SMALL_FEED_BYTES {
                        thread::sleep(PAUSE);
                    }
                    Event::Fed(feed)
                }
                FeederJob::Checkpoint(through) => {
                    self.store.replace(&[], through)?;
                    self.store.checkpoint()?;
                    self.tell_size();
                    Event::Checkpointed(through)
                }
                FeederJob::Verify { which, first, last, expected } => {
                    Event::Verified(self.verify(which, first, last, &expected)?)
                }
                FeederJob::Compact(task) => Event::Compacted(self.compact(task)?),
                FeederJob::Rest(duration) => {
                    patience = duration;
                    continue;
                }
            };
            reporter.report(event);
        }
    }

    fn feed(&mut self, feed: &Feed) -> Result<(), StoreError> {
        let weights = &mut self.weights;
        self.store.replace_weighing(&feed.batch, feed.through, &mut |slot, old, new| {
            weights.change(slot, old, new);
        })?;
        self.gauge.live.store(self.weights.total, Ordering::Relaxed);
        if let Some(copy) = &mut self.fresh {
            // What lies behind the end of the copy will be copied with its new contents.
            let copied = |new: &&Replacement| copy.store_holds(new);
            let batch: Vec<Replacement> = feed.batch.iter().filter(copied).cloned().collect();
            copy.store.replace(&batch, feed.through)?;
        }
        Ok(())
    }

    fn verify(
        &mut self,
        which: Which,
        first: Slot,
        last: Slot,
        expected: &Sums,
    ) -> Result<Findings, StoreError> {
        let store = match (which, &self.fresh) {
            (Which::Fresh, Some(copy)) => &copy.store,
            _ => &self.store,
        };
        let range = usize::from(last.get() - first.get()) + 1;
        let (mut found, mut damaged, mut weights) = (Sums::default(), vec![0; range], vec![0; range]);
        store.scan(first, last, &mut |slot, key, value| {
            let at = slot.index() - first.index();
            weights[at] += (key.len() + value.as_bytes().len()) as u64;
            match value.check(key) {
                Ok(hash) => found.change(slot, RecordHash(0), hash),
                Err(_) => damaged[at] += 1,
            }
        })?;
        if which == Which::Current {
            for (number, bytes) in (first.get()..).zip(&weights) {
                if let Ok(slot) = Slot::new(number) {
                    self.weights.set(slot, *bytes);
                }
            }
            self.gauge.live.store(self.weights.total, Ordering::Relaxed);
        }
        let differing = expected.differing(&found).into_iter();
        let differing = differing.map(|slot| (slot, damaged[slot.index() - first.index()])).collect();
        Ok(Findings { which, last, bytes: weights.iter().sum(), differing })
    }

    fn compact(&mut self, task: Task) -> Result<Step, StoreError> {
        match task {
            Task::Begin => {
                // Whatever a compaction that was given up has left goes.
                let Some(number) = self.stores.free_after(self.number) else {
                    tracing::warn!("the store stays as it is: there is no place for its copy");
                    return Ok(Step::Over);
                };
                let folder = self.stores.folder(number);
                let store = self.store.open_beside(&folder, self.cache_bytes)?;
                self.fresh = Some(Copy { number, store, until: None, unsynced_bytes: 0 });
                point("begun");
                Ok(Step::Begun)
            }
            Task::Copy(bytes_max) => {
                let Some(copy) = &mut self.fresh else { return Err(failed("there is no copy")) };
                let (bytes, is_all) = copy.go_on(&self.store, bytes_max)?;
                point("copied");
                Ok(Step::Copied { bytes, is_all })
            }
            Task::Switch(through) => {
                let Some(mut copy) = self.fresh.take() else { return Err(failed("there is no copy")) };
                copy.store.replace(&[], through)?;
                copy.store.checkpoint()?;
                point("synced");
                self.stores.choose(copy.number).map_err(failed)?;
                point("chosen");
                let old =
                    (mem::replace(&mut self.number, copy.number), mem::replace(&mut self.store, copy.store));
                self.retired = Some(old);
                self.tell_size();
                Ok(Step::Switched(self.store.handle()))
            }
            Task::Retire => {
                if let Some((number, store)) = self.retired.take() {
                    self.dispose(number, store)?;
                }
                Ok(Step::Over)
            }
            Task::GiveUp => {
                if let Some(Copy { number, store, .. }) = self.fresh.take() {
                    self.dispose(number, store)?;
                }
                Ok(Step::Over)
            }
            #[cfg(test)]
            Task::Spoil => {
                let Some(copy) = &mut self.fresh else { return Err(failed("there is no copy")) };
                let mut last = None;
                let (first, end) = (Slot::new(0).map_err(failed)?, Slot::new(SLOTS - 1).map_err(failed)?);
                copy.store.scan(first, end, &mut |slot, key, _| last = Some((slot, key.to_vec().into())))?;
                let Some((slot, key)) = last else { return Err(failed("the copy is empty")) };
                copy.store.replace(&[Replacement { slot, key, value: None }], Lsn(0))?;
                Ok(Step::Spoilt)
            }
        }
    }

    /// Closes a store that does not count, and removes it.
    fn dispose(&self, number: StoreNumber, store: SledStore) -> Result<(), StoreError> {
        store.close()?;
        point("closed");
        self.stores.remove(number);
        point("removed");
        Ok(())
    }

    fn tell_size(&self) {
        match self.store.bytes_on_disk() {
            Ok(bytes) => self.gauge.taken.store(bytes, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "cannot tell the size of the store"),
        }
    }
}

impl Copy {
    /// Copies what comes next. Returns how many bytes that were, and whether there is nothing left.
    fn go_on(&mut self, from: &SledStore, bytes_max: u64) -> Result<(u64, bool), StoreError> {
        let (bytes, until) = from.copy_to(&self.store, self.until.as_deref(), bytes_max)?;
        let is_all = until.is_none();
        if let Some(until) = until {
            self.until = Some(until);
        } else {
            self.until = Some(SledStore::END.to_vec());
        }
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes >= COPY_SYNC_BYTES {
            self.unsynced_bytes = 0;
            self.store.checkpoint()?;
        }
        Ok((bytes, is_all))
    }

    fn store_holds(&self, new: &Replacement) -> bool {
        self.until.as_ref().is_some_and(|until| SledStore::place(new.slot, &new.key) <= *until)
    }
}

/// Where a test lets the process die: see `tests::a_crash_at_any_point_of_a_rewriting_leaves_one_whole_store`.
fn point(_name: &str) {
    #[cfg(test)]
    if std::env::var("STARLING_DISK_TEST_DIE_AT").is_ok_and(|at| at == _name) {
        std::process::abort();
    }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError(format!("it could not be rewritten: {error}"))
}
