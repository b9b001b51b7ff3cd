//! The disk of a node: the write-ahead log, sled behind it, and the two threads that work for them.
//!
//! ```text
//!  driver ──submit──▶ Disk ── Engine (protocol::storage)         one owner, no locks
//!         ◀─replies──  │ │
//!                kick  │ │ poll                       ▲ wake
//!        ┌─────────────┘ └──────────────┐             │
//!        ▼ group, one at a time         ▼ feed        │
//!   starling-log: write, fdatasync   starling-store: sled, checkpoint, verification
//! ```
//!
//! A request is executed in memory and answered at once (*applied*); the group that it is in is synced by the writer
//! while the next one collects (*durable*); the store is fed behind the acknowledgement.

mod directory;
mod log;
mod sled;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::statvfs::statvfs;
use thiserror::Error;

use self::directory::Directory;
pub use self::directory::OpenError;
use self::log::FoundLog;
use self::sled::SledStore;
use self::worker::{Event, FeederJob, Reporter, Worker, WriterJob};
use crate::protocol::causality::{Applied, RecordHash, Refusal};
use crate::protocol::ring::slot::{SLOTS, Slot};
use crate::protocol::storage::engine::Engine;
use crate::protocol::storage::log::Group;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Lsn, MetaKey, Stored};
use crate::protocol::storage::store::StoreError;
use crate::protocol::storage::sums::Sums;

/// How many entries one feed takes in. Small enough that a checkpoint or a verification does not wait long.
const FEED_ENTRIES: usize = 2_048;

/// How many slots are verified in one go; feeding goes on in between.
const VERIFY_SLOTS: u16 = 256;

/// How often the free space is looked at, at most.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Size of a log segment in bytes. Default 64 MiB. A group larger than that gets a segment of its own.
    pub segment_bytes: u64,
    /// A checkpoint is made after this many bytes of log. Default 48 MiB. Bounds the time of a replay.
    pub checkpoint_bytes: u64,
    /// A checkpoint is made at the latest this long after an entry. Default 30 s.
    pub checkpoint_interval: Duration,
    /// Above this many bytes of entries that wait for the store, updates are refused as overloaded. Default 64 MiB.
    pub backlog_bytes_max: u64,
    /// Below this many free bytes on the file system, updates are refused. Default 512 MiB.
    pub free_space_floor: u64,
    /// A thread that is busy with one job for longer than this is taken for hung, and the disk for failed. Default
    /// 60 s. sled is known to hang when it runs out of space behind our back.
    pub stall_limit: Duration,
    /// What sled keeps in memory, in bytes of its own form and counted generously; a node takes up to 1.4 times that,
    /// and some 60 MB for all else. Default 256 MiB. What is not there costs several times as much to read or to
    /// replace, since its whole page is put together from pieces all over the file.
    pub cache_bytes: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions {
            segment_bytes: 64 << 20,
            checkpoint_bytes: 48 << 20,
            checkpoint_interval: Duration::from_secs(30),
            backlog_bytes_max: 64 << 20,
            free_space_floor: 512 << 20,
            stall_limit: Duration::from_secs(60),
            cache_bytes: 256 << 20,
        }
    }
}

/// The disk has failed, and with it the node: what was not reported durable may or may not be. Stop the process.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the disk of this node has failed: {0}")]
pub struct Poisoned(pub String);

/// The disk of one node.
///
/// Belongs to whoever drives the node. No method waits for a sync, except [`wait`](Disk::wait) and
/// [`close`](Disk::close). Dropping it without closing loses nothing that was reported durable; reopening then takes a
/// replay.
pub struct Disk {
    // The order is the order of dropping: threads first, then sled, then the lock.
    writer: Worker<WriterJob>,
    feeder: Worker<FeederJob>,
    engine: Engine<SledStore>,
    events: Receiver<Event>,
    directory: Directory,
    options: DiskOptions,
    writer_busy_since: Option<Instant>,
    feeder_busy_since: Option<Instant>,
    schedule: Checkpoints,
    verification: Verification,
    is_short_of_space: bool,
    space_checked: Instant,
    progress_told: Instant,
    seals: u64,
    poisoned: Option<Poisoned>,
}

/// When the next checkpoint is due, and what the last one still waits for.
struct Checkpoints {
    logged_bytes: u64,
    last: Instant,
    /// The position of the last checkpoint's entry.
    entry: Lsn,
    /// The store is durable up to here, but the entry that says so is not synced yet.
    unconfirmed: Option<Lsn>,
    /// One is due as soon as the replay is over.
    after_replay: bool,
}

enum Verification {
    /// From this slot on.
    Left { next: u16, give_way: bool, untrusted: BTreeSet<Slot> },
    /// Over, with these findings.
    Done { untrusted: BTreeSet<Slot> },
}

impl Disk {
    /// Opens or creates the data directory and recovers what is in it.
    ///
    /// `wake` is called, from other threads, whenever [`poll`](Disk::poll) has something to do.
    pub fn open(
        path: &Path,
        options: DiskOptions,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Disk, OpenError> {
        let directory = Directory::open(path)?;
        let (found, scan) = FoundLog::read(&directory.log_folder(), directory.log)?;
        tracing::info!(
            entries = scan.entries.len(), end = scan.end.0, tail = ?scan.tail, "read the log of {}", path.display()
        );
        let store = SledStore::open(&directory.store_folder(), options.cache_bytes)?;
        let after_replay = !scan.entries.is_empty();
        let engine = Engine::recover(store.handle(), scan)?;
        let log = found
            .resume(options.segment_bytes)
            .map_err(|source| OpenError::io("write to the log of", path, source))?;
        let (sender, events) = channel();
        let reporter = Reporter { events: sender, wake: Arc::new(wake) };
        let no_thread = |source| OpenError::io("start a thread for", path, source);
        let writer = worker::writer(log, reporter.clone()).map_err(no_thread)?;
        let feeder = worker::feeder(store, options.checkpoint_interval, reporter).map_err(no_thread)?;
        // Without anything in the log there never was anything in the store.
        let untrusted = BTreeSet::new();
        let verification = if after_replay {
            Verification::Left { next: 0, give_way: false, untrusted }
        } else {
            Verification::Done { untrusted }
        };
        let now = Instant::now();
        let entry = if after_replay { Lsn(0) } else { engine.last() };
        let mut disk = Disk {
            writer,
            feeder,
            engine,
            events,
            directory,
            options,
            writer_busy_since: None,
            feeder_busy_since: None,
            schedule: Checkpoints { logged_bytes: 0, last: now, entry, unconfirmed: None, after_replay },
            verification,
            is_short_of_space: false,
            space_checked: now,
            progress_told: now,
            seals: 0,
            poisoned: None,
        };
        disk.check_space();
        disk.kick();
        Ok(disk)
    }

    /// Executes a request at once and pushes its reply. Call [`kick`](Disk::kick) after a batch of them.
    pub fn submit(&mut self, request: DiskRequest, replies: &mut Vec<DiskReply>) -> Result<(), Poisoned> {
        self.check_poison()?;
        if self.space_checked.elapsed() >= SPACE_INTERVAL {
            self.check_space();
            self.check_stall()?;
        }
        self.engine.refuse(match () {
            () if self.is_short_of_space => Some(Refusal::DiskFull),
            () if self.is_saturated() => Some(Refusal::Overloaded),
            () => None,
        });
        if let Some(reply) = self.distrust(&request) {
            replies.push(reply);
            return Ok(());
        }
        self.engine.submit(request, replies).map_err(|StoreError(reason)| self.poison(reason))?;
        if let Some(reply) = replies.last_mut() {
            self.strike_out(reply);
        }
        Ok(())
    }

    /// Removes a record whose removal is certified, if it still has the certified hash; see [`Engine::remove`].
    pub fn remove(
        &mut self,
        slot: Slot,
        key: Bytes,
        certified: RecordHash,
    ) -> Result<Option<Lsn>, Poisoned> {
        self.check_poison()?;
        self.engine.remove(slot, key, certified).map_err(|StoreError(reason)| self.poison(reason))
    }

    /// What the store holds of a slot that failed its verification is no reply, never *absent*: the slot does not vote,
    /// and nothing is built on it.
    fn distrust(&self, request: &DiskRequest) -> Option<DiskReply> {
        let untrusted = self.untrusted_slots();
        match request {
            DiskRequest::Update { ticket, slot, .. } if untrusted.contains(slot) => {
                Some(DiskReply::Applied {
                    ticket: *ticket,
                    lsn: Lsn::default(),
                    applied: Applied::Refused(Refusal::Lost),
                })
            }
            DiskRequest::Read { ticket, slot, .. } if untrusted.contains(slot) => {
                Some(DiskReply::Read { ticket: *ticket, lsn: Lsn::default(), stored: Stored::Lost })
            }
            DiskRequest::List { ticket, slot, .. } if untrusted.contains(slot) => {
                Some(DiskReply::Listed { ticket: *ticket, page: None })
            }
            _ => None,
        }
    }

    /// The same for replies about several slots.
    fn strike_out(&self, reply: &mut DiskReply) {
        let untrusted = self.untrusted_slots();
        if untrusted.is_empty() {
            return;
        }
        match reply {
            DiskReply::Sums { first, sums, .. } => {
                for slot in untrusted {
                    if let Some(sum) = slot.index().checked_sub(first.index()).and_then(|at| sums.get_mut(at))
                    {
                        *sum = None;
                    }
                }
            }
            DiskReply::ReadMany { found, .. } => {
                for (key, stored) in found {
                    if untrusted.contains(&Slot::of_key(key)) {
                        *stored = Stored::Lost;
                    }
                }
            }
            _ => {}
        }
    }

    /// Gives the threads what there is to do, if they are idle.
    pub fn kick(&mut self) {
        if let Some(group) = self.engine.take_group() {
            self.schedule.logged_bytes += group.len() as u64;
            self.writer_busy_since = Some(Instant::now());
            self.writer.send(WriterJob::Write(group));
        }
        if self.feeder_busy_since.is_none()
            && let Some(job) = self.next_feeder_job()
        {
            self.feeder_busy_since = Some(Instant::now());
            self.feeder.send(job);
        }
    }

    /// Takes in what the threads have done, pushes the replies, and kicks. To be called when `wake` was, and every few
    /// seconds anyway: nobody else notices that a thread hangs.
    pub fn poll(&mut self, replies: &mut Vec<DiskReply>) -> Result<(), Poisoned> {
        while let Ok(event) = self.events.try_recv() {
            self.on_event(event, replies);
        }
        self.check_poison()?;
        self.check_stall()?;
        self.kick();
        Ok(())
    }

    /// Like [`poll`](Disk::poll), but waits for something to take in, at most as long as `timeout`.
    pub fn wait(&mut self, timeout: Duration, replies: &mut Vec<DiskReply>) -> Result<(), Poisoned> {
        self.check_poison()?;
        self.kick();
        match self.events.recv_timeout(timeout) {
            Ok(event) => self.on_event(event, replies),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(self.poison("its threads have ended".to_owned()));
            }
        }
        self.poll(replies)
    }

    /// Syncs everything, feeds the store, makes a last checkpoint and ends the threads. Replies to requests that are
    /// still under way are not given.
    pub fn close(mut self) -> Result<(), Poisoned> {
        // What is left of the verification comes with the next start.
        self.verification = Verification::Done { untrusted: BTreeSet::new() };
        let mut replies = Vec::new();
        let step = Duration::from_secs(1);
        let is_drained = |disk: &Disk| {
            let engine = &disk.engine;
            engine.synced_through() == engine.last() && engine.fed_through() == engine.last()
        };
        while !is_drained(&self) || self.feeder_busy_since.is_some() {
            self.wait(step, &mut replies)?;
        }
        if self.engine.last() > self.schedule.entry {
            self.begin_checkpoint();
            while self.feeder_busy_since.is_some() || self.schedule.unconfirmed.is_some() {
                self.wait(step, &mut replies)?;
            }
        }
        let seals = self.seals;
        self.writer.send(WriterJob::Seal(Group::seal_at(self.engine.synced_through())));
        while self.seals == seals {
            self.wait(step, &mut replies)?;
        }
        Ok(())
    }

    /// The state that is not per key.
    #[must_use]
    pub fn meta(&self) -> &BTreeMap<MetaKey, Bytes> {
        self.engine.meta()
    }

    /// Everything up to here is in the synced log.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.engine.synced_through()
    }

    /// Everything up to here is in the store.
    #[must_use]
    pub fn fed_through(&self) -> Lsn {
        self.engine.fed_through()
    }

    /// Count and content sum of every slot, unsynced updates included.
    #[must_use]
    pub fn sums(&self) -> &Sums {
        self.engine.sums()
    }

    /// Whether so much waits for the store that updates are refused as overloaded.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.engine.unfed_bytes() > self.options.backlog_bytes_max
    }

    /// Slots whose contents in the store are not what the log says they should be. Grows while the verification after
    /// a start is going on. Such a slot must not vote before it is refilled.
    #[must_use]
    pub fn untrusted_slots(&self) -> &BTreeSet<Slot> {
        match &self.verification {
            Verification::Left { untrusted, .. } | Verification::Done { untrusted } => untrusted,
        }
    }

    /// Whether the verification after the start is over.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self.verification, Verification::Done { .. })
    }

    /// Where the data lies.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.directory.path
    }

    fn next_feeder_job(&mut self) -> Option<FeederJob> {
        let schedule = &self.schedule;
        let is_dirty = self.engine.last() > schedule.entry && schedule.unconfirmed.is_none();
        let is_due = schedule.logged_bytes >= self.options.checkpoint_bytes
            || schedule.last.elapsed() >= self.options.checkpoint_interval
            || schedule.after_replay && self.engine.is_replayed();
        if is_dirty && is_due && self.engine.fed_through() > Lsn(0) {
            return Some(self.checkpoint_job());
        }
        if self.engine.is_replayed()
            && let Some(job) = self.verification_job()
        {
            return Some(job);
        }
        let feed = self.engine.take_feed(FEED_ENTRIES).map(FeederJob::Feed);
        if feed.is_none() && self.engine.is_replayed() { self.verification_job().or(feed) } else { feed }
    }

    fn begin_checkpoint(&mut self) {
        let job = self.checkpoint_job();
        self.feeder_busy_since = Some(Instant::now());
        self.feeder.send(job);
    }

    fn checkpoint_job(&mut self) -> FeederJob {
        self.schedule.logged_bytes = 0;
        self.schedule.last = Instant::now();
        self.schedule.after_replay &= !self.engine.is_replayed();
        FeederJob::Checkpoint(self.engine.fed_through())
    }

    /// Every other job, so that a busy node gets through with its verification, and its store keeps up.
    fn verification_job(&mut self) -> Option<FeederJob> {
        let Verification::Left { next, give_way, .. } = &mut self.verification else { return None };
        *give_way = !*give_way;
        if !*give_way {
            return None;
        }
        let (first, last) = (*next, (*next + (VERIFY_SLOTS - 1)).min(SLOTS - 1));
        let (first, last) = (Slot::new(first).ok()?, Slot::new(last).ok()?);
        Some(FeederJob::Verify { first, last, expected: self.engine.sums_in_store(first, last) })
    }

    fn on_event(&mut self, event: Event, replies: &mut Vec<DiskReply>) {
        match event {
            Event::Synced(through) => {
                self.writer_busy_since = None;
                self.engine.synced(through, replies);
                let schedule = &mut self.schedule;
                if schedule.entry <= through
                    && let Some(low_water) = schedule.unconfirmed.take()
                {
                    self.writer.send(WriterJob::Free(low_water));
                }
            }
            Event::Sealed => self.seals += 1,
            Event::Fed(feed) => {
                self.feeder_busy_since = None;
                self.engine.fed(feed);
                if !self.engine.is_replayed() && self.progress_told.elapsed() >= Duration::from_secs(1) {
                    self.progress_told = Instant::now();
                    let left_bytes = self.engine.unfed_bytes();
                    tracing::info!(left_bytes, "feeding the store from the log of the last run");
                }
            }
            Event::Checkpointed(through) => {
                self.feeder_busy_since = None;
                self.schedule.entry = self.engine.checkpoint(through);
                self.schedule.unconfirmed = Some(through);
            }
            Event::Verified { last, differing } => {
                self.feeder_busy_since = None;
                self.note_verified(last, differing);
            }
            Event::Idle => {}
            Event::Failed(reason) => {
                self.poison(reason);
            }
        }
    }

    fn note_verified(&mut self, verified: Slot, differing: Vec<Slot>) {
        let Verification::Left { next, untrusted, .. } = &mut self.verification else { return };
        for slot in differing {
            tracing::error!(%slot, "the store does not hold what the log says it should hold");
            untrusted.insert(slot);
        }
        *next = verified.get() + 1;
        if *next >= SLOTS {
            let untrusted = std::mem::take(untrusted);
            tracing::info!(untrusted = untrusted.len(), "compared the store with the log");
            self.verification = Verification::Done { untrusted };
        }
    }

    fn check_space(&mut self) {
        self.space_checked = Instant::now();
        let was_short = self.is_short_of_space;
        match statvfs(&self.directory.path) {
            Ok(space) => {
                let free = space.blocks_available() * space.fragment_size();
                self.is_short_of_space = free < self.options.free_space_floor;
                if self.is_short_of_space != was_short {
                    let floor = self.options.free_space_floor;
                    tracing::warn!(free, floor, refusing = !was_short, "the free space crossed its floor");
                }
            }
            // Whether there is space is then found out by writing.
            Err(error) => tracing::warn!(%error, "cannot ask for the free space"),
        }
    }

    fn check_stall(&mut self) -> Result<(), Poisoned> {
        for (thread, since) in [("log", self.writer_busy_since), ("store", self.feeder_busy_since)] {
            if since.is_some_and(|since| since.elapsed() > self.options.stall_limit) {
                return Err(
                    self.poison(format!("the {thread} has not answered for {:?}", self.options.stall_limit))
                );
            }
        }
        Ok(())
    }

    fn check_poison(&self) -> Result<(), Poisoned> {
        self.poisoned.clone().map_or(Ok(()), Err)
    }

    fn poison(&mut self, reason: String) -> Poisoned {
        if self.poisoned.is_none() {
            tracing::error!(reason, "the disk has failed");
        }
        self.engine.store().abandon(&reason);
        self.writer.abandon();
        self.feeder.abandon();
        self.poisoned.get_or_insert(Poisoned(reason)).clone()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("directory", &self.directory).field("poisoned", &self.poisoned).finish()
    }
}

#[cfg(test)]
mod tests;
