//! The disk of a node: the write-ahead log, sled behind it, and the two threads that work for them.
//!
//! ```text
//!  driver ──submit──▶ Disk ── Engine (protocol::storage)         one owner, no locks
//!         ◀─replies──  │ │
//!                kick  │ │ poll                       ▲ wake
//!        ┌─────────────┘ └──────────────┐             │
//!        ▼ group, one at a time         ▼ feed        │
//!   starling-log: write, fdatasync   starling-store: sled, checkpoint, scrub, compaction
//! ```
//!
//! A request is executed in memory and answered at once (*applied*); the group that it is in is synced by the writer
//! while the next one collects (*durable*); the store is fed behind the acknowledgement.

mod compaction;
mod directory;
mod feeder;
mod log;
mod options;
mod scrub;
mod sled;
mod stores;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::statvfs::statvfs;
use thiserror::Error;

use self::compaction::{Compaction, Next, Step};
use self::directory::Directory;
pub use self::directory::OpenError;
use self::feeder::{FeederJob, Findings, Gauge, Which};
use self::log::FoundLog;
pub use self::options::DiskOptions;
use self::scrub::Scrub;
use self::sled::{SledStore, bytes_in};
use self::stores::Stores;
use self::worker::{Event, Reporter, Worker, WriterJob};
use crate::protocol::causality::{RecordHash, Refusal};
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::doubts::Doubts;
use crate::protocol::storage::engine::Engine;
use crate::protocol::storage::log::Group;
use crate::protocol::storage::op::{DiskReply, DiskRequest, DoubtReason, Lsn, MetaKey};
use crate::protocol::storage::store::StoreError;
use crate::protocol::storage::sums::Sums;

/// How many entries one feed takes in. Small enough that a checkpoint or a verification does not wait long.
const FEED_ENTRIES: usize = 2_048;

/// How often the free space is looked at, at most.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);

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
    /// The feeder was told to report back then, if it has nothing to do before.
    resting_until: Option<Instant>,
    schedule: Checkpoints,
    scrub: Scrub,
    compaction: Compaction,
    /// Feeding gives way to other work of the feeder: every other job, so that a busy node gets through with it, and
    /// its store keeps up.
    give_way: bool,
    doubts: Doubts,
    /// Slots that are mended as soon as the store is not being fed.
    mends: VecDeque<DiskRequest>,
    gauge: Arc<Gauge>,
    free_bytes: u64,
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
        let stores = Stores::new(path, directory.log);
        let number = stores.current()?;
        let store = SledStore::open(&stores.folder(number), options.cache_bytes)?;
        let after_replay = !scan.entries.is_empty();
        let engine = Engine::recover(store.handle(), scan)?;
        stores.remove_others(number);
        let log = found
            .resume(options.segment_bytes)
            .map_err(|source| OpenError::io("write to the log of", path, source))?;
        let (sender, events) = channel();
        let reporter = Reporter { events: sender, wake: Arc::new(wake) };
        let no_thread = |source| OpenError::io("start a thread for", path, source);
        let writer = worker::writer(log, reporter.clone()).map_err(no_thread)?;
        let gauge = Arc::new(Gauge::default());
        let (cache, idle) = (options.cache_bytes, options.checkpoint_interval);
        let feeder = feeder::start(stores, number, store, cache, Arc::clone(&gauge), idle, reporter);
        let feeder = feeder.map_err(no_thread)?;
        let now = Instant::now();
        let entry = if after_replay { Lsn(0) } else { engine.last() };
        // Without anything in the log there never was anything in the store.
        let scrub = Scrub::new(!after_replay, options.scrub_bytes_per_second, now);
        let mut disk = Disk {
            writer,
            feeder,
            engine,
            events,
            directory,
            options,
            writer_busy_since: None,
            feeder_busy_since: None,
            resting_until: None,
            schedule: Checkpoints { logged_bytes: 0, last: now, entry, unconfirmed: None, after_replay },
            scrub,
            compaction: Compaction::new(now),
            give_way: false,
            doubts: Doubts::default(),
            mends: VecDeque::new(),
            gauge,
            free_bytes: u64::MAX,
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
        let found = self.doubts.verify(&request, &mut self.engine);
        if found.map_err(|StoreError(reason)| self.poison(reason))? > 0 {
            tracing::error!("the store does not hold what the log says it should hold of what is asked for");
        }
        if let Some(reply) = self.doubts.answer(&request) {
            replies.push(reply);
            self.doubts.tell(replies);
            return Ok(());
        }
        if let DiskRequest::Mend { .. } = request {
            self.mends.push_back(request);
            return self.mend(replies);
        }
        let asked = match &request {
            DiskRequest::Read { slot, .. } | DiskRequest::Update { slot, .. } => Some(*slot),
            _ => None,
        };
        self.engine.submit(request, replies).map_err(|StoreError(reason)| self.poison(reason))?;
        if let Some(reply) = replies.last_mut() {
            self.doubts.review(asked, reply);
        }
        self.doubts.tell(replies);
        Ok(())
    }

    /// Mends what is to be mended, if the store is not being fed or compared: what it holds must stand still.
    fn mend(&mut self, replies: &mut Vec<DiskReply>) -> Result<(), Poisoned> {
        while self.feeder_busy_since.is_none()
            && let Some(request) = self.mends.pop_front()
        {
            if let DiskRequest::Mend { slot, .. } = request {
                self.doubts.mended(slot);
            }
            self.engine.submit(request, replies).map_err(|StoreError(reason)| self.poison(reason))?;
        }
        Ok(())
    }

    /// Removes a record whose removal is certified, if it still has the certified hash; see [`Engine::remove`].
    pub fn remove(&mut self, slot: Slot, key: Bytes, certified: RecordHash) -> Result<Option<Lsn>, Poisoned> {
        self.check_poison()?;
        self.engine.remove(slot, key, certified).map_err(|StoreError(reason)| self.poison(reason))
    }

    /// Gives the threads what there is to do, if they are idle.
    pub fn kick(&mut self) {
        if let Some(group) = self.engine.take_group() {
            self.schedule.logged_bytes += group.len() as u64;
            self.writer_busy_since = Some(Instant::now());
            self.writer.send(WriterJob::Write(group));
        }
        if self.feeder_busy_since.is_none() {
            match self.next_feeder_job() {
                Some(job) => self.employ(job),
                None => self.rest(),
            }
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
        self.mend(replies)?;
        self.doubts.tell(replies);
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
        // What is left of the comparison comes with the next start, and a copy that is not complete is of no use.
        self.scrub.stop();
        self.compaction.give_up(Instant::now());
        let mut replies = Vec::new();
        let step = Duration::from_secs(1);
        let is_drained = |disk: &Disk| {
            let engine = &disk.engine;
            engine.synced_through() == engine.last() && engine.fed_through() == engine.last()
        };
        while !is_drained(&self) || self.feeder_busy_since.is_some() || self.compaction.is_under_way() {
            self.compaction.give_up(Instant::now());
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

    /// Slots whose contents in the store are not what the log says they should be, or hold a record that cannot be
    /// read. Grows while the verification after a start is going on, and whenever a read or the scrub finds something.
    /// Such a slot must not vote before it is mended and refilled.
    #[must_use]
    pub fn untrusted_slots(&self) -> &BTreeSet<Slot> {
        self.doubts.slots()
    }

    /// Whether the verification after the start is over.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.scrub.is_verified()
    }

    /// Lets the scrub draw on the account of all repair: `pay` charges what it has read, and tells how long it has to wait.
    pub fn pace_scrub(&mut self, pay: impl FnOnce(u64) -> Duration) {
        let wait = pay(self.scrub.take_unpaid());
        if !wait.is_zero() {
            self.scrub.put_off(Instant::now(), wait);
        }
    }

    /// What the disk has counted, in bytes or since the start, with the names under which operators see it.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("disk_bytes", bytes_in(&self.directory.path).unwrap_or_default()),
            ("disk_compactions", self.compaction.count),
            ("disk_damaged_records", self.doubts.damaged()),
            ("disk_scrub_passes", self.scrub.passes),
            ("disk_scrubbed_bytes", self.scrub.bytes),
            ("live_bytes", self.gauge.live.load(Ordering::Relaxed)),
        ]
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
        self.give_way = !self.give_way;
        if self.give_way
            && let Some(job) = self.upkeep_job()
        {
            return Some(job);
        }
        let feed = self.engine.take_feed(FEED_ENTRIES).map(FeederJob::Feed);
        if feed.is_none() { self.upkeep_job() } else { feed }
    }

    /// What the feeder does beside feeding: the comparison and, once the first one is over, the rewriting.
    fn upkeep_job(&mut self) -> Option<FeederJob> {
        if !self.engine.is_replayed() {
            return None;
        }
        let now = Instant::now();
        let compare = |which, first, last| {
            let expected = self.engine.sums_in_store(first, last);
            Some(FeederJob::Verify { which, first, last, expected })
        };
        if self.scrub.is_verified() {
            let live = self.gauge.live.load(Ordering::Relaxed);
            match self.compaction.next(self.engine.fed_through(), live, now, &self.options) {
                Some(Next::Task(task)) => return Some(FeederJob::Compact(task)),
                Some(Next::Compare(first, last)) => return compare(Which::Fresh, first, last),
                None => {}
            }
        }
        if !self.scrub.is_due(now) {
            return None;
        }
        // Before the first pass is over, the size of the store says more than the live bytes, which count up meanwhile.
        let gauge = if self.scrub.is_verified() { &self.gauge.live } else { &self.gauge.taken };
        let (first, last) = self.scrub.piece(gauge.load(Ordering::Relaxed))?;
        compare(Which::Current, first, last)
    }

    fn employ(&mut self, job: FeederJob) {
        self.feeder_busy_since = Some(Instant::now());
        self.resting_until = None;
        self.feeder.send(job);
    }

    /// Lets the idle feeder report back when something is due.
    fn rest(&mut self) {
        let due = [self.scrub.due(), self.compaction.due()].into_iter().flatten().min();
        if !self.engine.is_replayed() || due.is_none() || due == self.resting_until {
            return;
        }
        self.resting_until = due;
        if let Some(due) = due {
            let now = Instant::now();
            self.feeder.send(FeederJob::Rest(due.saturating_duration_since(now)));
        }
    }

    fn begin_checkpoint(&mut self) {
        let job = self.checkpoint_job();
        self.employ(job);
    }

    fn checkpoint_job(&mut self) -> FeederJob {
        self.schedule.logged_bytes = 0;
        self.schedule.last = Instant::now();
        self.schedule.after_replay &= !self.engine.is_replayed();
        FeederJob::Checkpoint(self.engine.fed_through())
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
                self.consider_compaction();
            }
            Event::Verified(findings) => {
                self.feeder_busy_since = None;
                self.note_verified(&findings);
            }
            Event::Compacted(step) => {
                self.feeder_busy_since = None;
                let taken = self.gauge.taken.load(Ordering::Relaxed);
                self.compaction.done(&step, taken, Instant::now(), &self.options);
                if let Step::Switched(store) = step {
                    // The feeder has another handle to the one before, and closes that.
                    drop(self.engine.change_store(store));
                }
            }
            Event::Idle => self.resting_until = None,
            Event::Failed(reason) => {
                self.poison(reason);
            }
        }
    }

    fn note_verified(&mut self, findings: &Findings) {
        let (now, last) = (Instant::now(), findings.last);
        let is_known = |slot: &Slot| self.doubts.slots().contains(slot);
        if findings.which == Which::Fresh {
            let is_right = findings.differing.iter().all(|(slot, _)| is_known(slot));
            if !is_right {
                tracing::error!(differing = ?findings.differing, "the copy of the store is wrong, and is given up");
            }
            self.compaction.compared(last, findings.bytes, is_right, now, &self.options);
            return;
        }
        for (slot, damaged) in &findings.differing {
            let why = if *damaged > 0 { DoubtReason::Damaged } else { DoubtReason::Mismatch };
            if self.doubts.find(*slot, why) {
                self.doubts.count_damaged(*damaged);
                tracing::error!(%slot, damaged, "the store does not hold what the log says it should hold");
            }
        }
        let was_verified = self.scrub.is_verified();
        if self.scrub.done(last, findings.bytes, now) && !was_verified {
            tracing::info!(untrusted = self.doubts.slots().len(), "compared the store with the log");
            self.consider_compaction();
        }
    }

    fn consider_compaction(&mut self) {
        if self.scrub.is_verified() {
            self.check_space();
            let gauge = |bytes: &std::sync::atomic::AtomicU64| bytes.load(Ordering::Relaxed);
            let (taken, live) = (gauge(&self.gauge.taken), gauge(&self.gauge.live));
            self.compaction.consider(taken, live, self.free_bytes, &self.options);
        }
    }

    fn check_space(&mut self) {
        self.space_checked = Instant::now();
        let was_short = self.is_short_of_space;
        match statvfs(&self.directory.path) {
            Ok(space) => {
                let free = space.blocks_available() * space.fragment_size();
                self.free_bytes = free;
                self.is_short_of_space = free < self.options.free_space_floor;
                if self.is_short_of_space {
                    self.compaction.give_up(self.space_checked);
                }
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
