//! The simulated disk: the real engine over a log and a store in memory, of which a crash takes a part.
//!
//! ```text
//! submit ─▶ queue ─execute─▶ Engine ─write─▶ segment bytes, unsynced ─sync─▶ durable ─▶ store (fed behind)
//!            lost             lost           kept, torn or lost              kept        falls back to anywhere
//!            └────────────────────── by a crash ────────────────────────┘                between checkpoint and now
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::causality::{Record, Refusal};
use crate::protocol::id::NodeId;
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::slot::Slot;
use crate::protocol::rng::Rng;
use crate::protocol::storage::doubts::Doubts;
use crate::protocol::storage::engine::Engine;
#[cfg(test)]
use crate::protocol::storage::engine::Feed;
use crate::protocol::storage::log::{Group, LogId, Scan, Scanner, SegmentName};
use crate::protocol::storage::op::{DiskReply, DiskRequest, DoubtReason, Lsn, MetaKey, Stored, Ticket};
#[cfg(test)]
use crate::protocol::storage::store::StoredValue;
use crate::protocol::storage::store::{MemoryStore, Replacement, Store, sums_of};

/// A new segment is begun at this size. Small, so that checkpoints and recoveries meet several of them.
const SEGMENT_BYTES: usize = 128 << 10;

/// What a segment file holds behind the last write: it is preallocated and zeroed.
const ZEROS: usize = 64;

/// The disk of one simulated machine.
#[derive(Debug)]
pub(super) struct Disk {
    log: LogId,
    segments: Vec<Segment>,
    content: Content,
    queue: Vec<DiskRequest>,
    writing: Option<Writing>,
    /// The position of the checkpoint whose entry is not yet synced, and its low-water mark.
    checkpoint: Option<(Lsn, Lsn)>,
    durable_start: Option<Bytes>,
    /// The node's own life and what it remembers of those of others, as it is in the synced log.
    durable_lives: BTreeMap<MetaKey, Bytes>,
    doubts: Doubts,
    /// Something in the store is not what it was, and nobody has found it yet, or it is not mended.
    is_rotten: bool,
    #[cfg(test)]
    sums: spoiled::Sums,
    /// Syncs in a thousand after which the store is fed.
    pub(super) feed_per_mille: u32,
    /// There is no room for anything new.
    pub(super) is_full: bool,
}

#[derive(Debug)]
enum Content {
    /// A process has the directory open.
    Open(Box<Engine<MemoryStore>>),
    /// Nobody has.
    Closed(MemoryStore),
}

#[derive(Clone, Debug)]
struct Segment {
    generation: u64,
    bytes: Vec<u8>,
    through: Lsn,
}

#[derive(Clone, Debug)]
struct Writing {
    through: Lsn,
    begin: usize,
    start: Option<Bytes>,
    lives: BTreeMap<MetaKey, Bytes>,
}

/// What a crash did to the group of entries that was being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing was being written.
    Idle,
    /// It reached the disk as a whole, though nobody was told.
    Kept,
    /// A part of it did.
    Torn,
    /// Nothing of it did.
    Lost,
}

impl Disk {
    /// An empty disk, whose store is fed after so many syncs in a thousand.
    pub(super) fn new(feed_per_mille: u32, rng: &mut Rng) -> Disk {
        Disk {
            log: LogId(rng.bits()),
            segments: Vec::new(),
            content: Content::Closed(MemoryStore::default()),
            queue: Vec::new(),
            writing: None,
            checkpoint: None,
            durable_start: None,
            durable_lives: BTreeMap::new(),
            doubts: Doubts::default(),
            is_rotten: false,
            #[cfg(test)]
            sums: spoiled::Sums::default(),
            feed_per_mille,
            is_full: false,
        }
    }

    /// Opens the directory as a starting node does, by the engine's own recovery. Returns the state that is not per
    /// key. An error is a bug of the storage: this disk never loses what it called durable.
    pub(super) fn open(&mut self) -> Result<BTreeMap<MetaKey, Bytes>, String> {
        let scan = self.scan();
        // A bug to be found: what is bad is cut, and all that follows it.
        #[cfg(test)]
        let scan = if planted::is(Planted::LogCutInTheMiddle) { Ok(self.cut()) } else { scan };
        let scan = scan?;
        let end = scan.end;
        let store = match &mut self.content {
            Content::Closed(store) => std::mem::take(store),
            Content::Open(_) => return Err("the directory is in use".to_owned()),
        };
        #[cfg_attr(not(test), expect(unused_mut, reason = "bugs are planted in tests only"))]
        let mut engine = Engine::recover(store, scan).map_err(|error| error.to_string())?;
        #[cfg(test)]
        self.sums.give_back(&mut engine);
        if let Some(segment) = self.segments.last_mut() {
            // A group that nobody was told of may have been kept.
            segment.through = end;
        }
        self.roll(end);
        let meta = engine.meta().clone();
        self.durable_start = meta.get(&MetaKey::Start).cloned();
        self.durable_lives = lives(&meta);
        // The first thing in the new segment is a seal: it tells a torn tail from one that was cut off.
        self.append(Group::seal_at(end).seal(self.name()));
        self.content = Content::Open(Box::new(engine));
        Ok(meta)
    }

    /// Where the log ends that is durable, if the disk is open.
    pub(super) fn end(&self) -> Option<Lsn> {
        match &self.content {
            Content::Open(engine) => Some(engine.synced_through()),
            Content::Closed(_) => None,
        }
    }

    /// How far the log may have got at most, and what the node on it shows of itself; `None` if it is not open.
    pub(super) fn own_life(&self) -> Option<(Lsn, Bytes)> {
        match &self.content {
            Content::Open(engine) => Some((engine.last(), engine.meta().get(&MetaKey::OwnLife)?.clone())),
            Content::Closed(_) => None,
        }
    }

    /// The node's own life and what it remembers of those of others, durably.
    pub(super) fn durable_lives(&self) -> &BTreeMap<MetaKey, Bytes> {
        &self.durable_lives
    }

    /// Takes a request; it is executed with the next batch.
    pub(super) fn submit(&mut self, request: DiskRequest) {
        self.queue.push(request);
    }

    /// Executes what was submitted. The replies are *applied*, not durable.
    pub(super) fn execute(&mut self) -> Result<Vec<DiskReply>, String> {
        let Content::Open(engine) = &mut self.content else { return Ok(Vec::new()) };
        let mut replies = Vec::with_capacity(self.queue.len());
        engine.refuse(self.is_full.then_some(Refusal::DiskFull));
        for request in self.queue.drain(..) {
            self.doubts.verify(&request, engine).map_err(|error| error.to_string())?;
            if let Some(reply) = self.doubts.answer(&request) {
                replies.push(reply);
                self.doubts.tell(&mut replies);
                continue;
            }
            let asked = match &request {
                DiskRequest::Read { slot, .. } | DiskRequest::Update { slot, .. } => Some(*slot),
                DiskRequest::Mend { slot, .. } => {
                    self.doubts.mended(*slot);
                    None
                }
                _ => None,
            };
            engine.submit(request, &mut replies).map_err(|error| error.to_string())?;
            if let Some(reply) = replies.last_mut() {
                self.doubts.review(asked, reply);
            }
            self.doubts.tell(&mut replies);
        }
        Ok(replies)
    }

    /// The scrub: compares what the store holds with what it should hold, all of it at once. Replies with what it
    /// finds, once per finding.
    pub(super) fn scrub(&mut self) -> Result<Vec<DiskReply>, String> {
        let mut replies = Vec::new();
        let Content::Open(engine) = &mut self.content else { return Ok(replies) };
        let (first, last) = all_slots();
        if !self.is_rotten || !engine.is_replayed() {
            return Ok(replies);
        }
        let found = sums_of(engine.store(), first, last).map_err(|error| error.to_string())?;
        let differing = engine.sums_in_store(first, last).differing(&found);
        self.is_rotten = !differing.is_empty() || !self.doubts.slots().is_empty();
        for slot in differing {
            let mut is_damaged = false;
            let seen = engine.store().scan(slot, slot, &mut |_, key, value| {
                is_damaged |= value.check(key).is_err();
            });
            seen.map_err(|error| error.to_string())?;
            self.doubts.find(slot, if is_damaged { DoubtReason::Damaged } else { DoubtReason::Mismatch });
        }
        self.doubts.tell(&mut replies);
        Ok(replies)
    }

    /// The keys of what lies in the store.
    pub(super) fn keys_in_store(&self) -> Vec<(Slot, Bytes)> {
        let Content::Open(engine) = &self.content else { return Vec::new() };
        let (first, last) = all_slots();
        let mut held = Vec::new();
        let visit = &mut |slot, key: &[u8], _: &_| held.push((slot, Bytes::copy_from_slice(key)));
        // A store in memory does not fail.
        let _ = engine.store().scan(first, last, visit);
        held
    }

    /// A fault: a bit of a record in the store flips.
    pub(super) fn damage(&mut self, slot: Slot, key: &Bytes) {
        let Content::Open(engine) = &mut self.content else { return };
        self.is_rotten = engine.store_mut().damage(slot, key);
    }

    /// A fault: the store was opened without one of its records, and does not say so. Only at a start, before anything is
    /// asked: a store that runs reports what it cannot read.
    pub(super) fn lose(&mut self, slot: Slot, key: &Bytes) {
        let Content::Open(engine) = &mut self.content else { return };
        let store = engine.store_mut();
        if let Ok(through) = store.through() {
            let gone = Replacement { slot, key: key.clone(), value: None };
            // A store in memory does not fail.
            let _ = store.replace(&[gone], through);
            self.is_rotten = true;
        }
    }

    /// Whether something in the store is not what it was, or was, and its slot is not mended yet.
    pub(super) fn is_rotten(&self) -> bool {
        self.is_rotten || !self.doubts.slots().is_empty()
    }

    /// What the open disk holds of a key and would still hold after a crash; `None` if it holds nothing, or something
    /// that is not synced.
    pub(super) fn holds_durably(&mut self, slot: Slot, key: &Bytes) -> Option<Record> {
        let Content::Open(engine) = &mut self.content else { return None };
        let mut replies = Vec::new();
        engine.submit(DiskRequest::Read { ticket: Ticket(0), slot, key: key.clone() }, &mut replies).ok()?;
        match replies.pop() {
            Some(DiskReply::Read { stored: Stored::Present(record), lsn, .. })
                if lsn <= engine.synced_through() =>
            {
                Some(record)
            }
            _ => None,
        }
    }

    /// Begins to write the next group, if there is one and none is under way. It is durable when
    /// [`sync`](Disk::sync) is called.
    pub(super) fn write(&mut self) -> Option<Lsn> {
        let Content::Open(engine) = &mut self.content else { return None };
        let group = engine.take_group()?;
        let through = group.through();
        let (start, lives) = (engine.meta().get(&MetaKey::Start).cloned(), lives(engine.meta()));
        let synced = engine.synced_through();
        if self.segments.last().is_none_or(|segment| segment.bytes.len() >= SEGMENT_BYTES) {
            self.roll(synced);
        }
        let begin = self.segments.last().map_or(0, |segment| segment.bytes.len());
        self.append(group.seal(self.name()));
        self.writing = Some(Writing { through, begin, start, lives });
        Some(through)
    }

    /// The group under way is durable. Feeds the store behind it and checkpoints now and then.
    pub(super) fn sync(&mut self, rng: &mut Rng) -> Result<Vec<DiskReply>, String> {
        let mut replies = Vec::new();
        let Some(Writing { through, start, lives, .. }) = self.writing.take() else { return Ok(replies) };
        let Content::Open(engine) = &mut self.content else { return Ok(replies) };
        engine.synced(through, &mut replies);
        self.durable_start = start;
        self.durable_lives = lives;
        if let Some(segment) = self.segments.last_mut() {
            segment.through = through;
        }
        if let Some((_, low_water)) = self.checkpoint.take_if(|(at, _)| *at <= through) {
            let last = self.segments.len() - 1;
            let needed = self.segments.iter().position(|segment| segment.through > low_water);
            self.segments.drain(..needed.unwrap_or(last).min(last));
        }
        // The feeder lags behind by a random amount.
        if rng.chance(self.feed_per_mille) {
            self.feed(rng.between(1, 200) as usize)?;
        }
        let Content::Open(engine) = &mut self.content else { return Ok(replies) };
        let low_water = engine.fed_through();
        // One that frees no segment is of no use.
        let is_due = self.segments.len() > 2 && self.segments[0].through <= low_water;
        if self.checkpoint.is_none() && is_due {
            let store = engine.store_mut();
            store
                .replace(&[], low_water)
                .and_then(|()| store.checkpoint())
                .map_err(|error| error.to_string())?;
            // The store may be ahead of the checkpoint in the log: the process may die between the two.
            if rng.chance(800) {
                self.checkpoint = Some((engine.checkpoint(low_water), low_water));
            }
        }
        Ok(replies)
    }

    /// Feeds the store with so many entries of the synced log at most. Tells whether there were any.
    fn feed(&mut self, entries_max: usize) -> Result<bool, String> {
        let Content::Open(engine) = &mut self.content else { return Ok(false) };
        let Some(feed) = engine.take_feed(entries_max) else { return Ok(false) };
        #[cfg(test)]
        let feed = spoiled::merged(feed, engine.store());
        engine.store_mut().replace(&feed.batch, feed.through).map_err(|error| error.to_string())?;
        engine.fed(feed);
        Ok(true)
    }

    /// Time has passed in which nothing else was to do: a store is fed whether or not anything is synced meanwhile.
    pub(super) fn catch_up(&mut self) -> Result<(), String> {
        while self.feed(200)? {}
        Ok(())
    }

    /// The machine loses power, or the process is killed.
    pub(super) fn crash(&mut self, rng: &mut Rng) -> Fate {
        self.queue.clear();
        self.checkpoint = None;
        self.doubts = Doubts::default();
        let mut fate = Fate::Idle;
        if let (Some(Writing { begin, .. }), Some(segment)) = (self.writing.take(), self.segments.last_mut())
        {
            let kept = match rng.below(3) {
                0 => segment.bytes.len(),
                1 => rng.between(begin as u64 + 1, segment.bytes.len() as u64 - 1) as usize,
                _ => begin,
            };
            fate = if kept == segment.bytes.len() {
                Fate::Kept
            } else if kept == begin {
                Fate::Lost
            } else {
                Fate::Torn
            };
            segment.bytes.truncate(kept);
            if fate == Fate::Torn {
                // A torn write need not be a prefix: some of its bytes may be those that were there before.
                if rng.chance(300) {
                    let at = begin + rng.index(kept - begin);
                    segment.bytes[at] = 0;
                }
                segment.bytes.extend([0; ZEROS]);
            }
        }
        self.close(|store| {
            let share = [0, 200, 900, 1_000][rng.index(4)];
            store.crash(|| rng.chance(share));
        });
        fate
    }

    /// A fault: a bit of the log flips that is not in its last group, so that it cannot pass for a torn write. Returns
    /// whether there was any; the next start must find the directory untrusted.
    pub(super) fn damage_log(&mut self, rng: &mut Rng) -> bool {
        let full: Vec<usize> =
            (0..self.segments.len()).filter(|at| !self.segments[*at].bytes.is_empty()).collect();
        // Some places carry nothing: padding, or a tear that an earlier recovery has cut.
        for _ in 0..50 {
            let Some(segment) = rng.pick(&full).copied() else { return false };
            let (at, bit) = (rng.index(self.segments[segment].bytes.len()), 1 << rng.below(8));
            self.segments[segment].bytes[at] ^= bit;
            if self.scan().is_err() {
                return true;
            }
            self.segments[segment].bytes[at] ^= bit;
        }
        false
    }

    /// The process ends in good order: everything is written and synced.
    pub(super) fn shut(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.execute()?;
        self.doubts = Doubts::default();
        while self.writing.is_some() || self.write().is_some() {
            self.sync(rng)?;
        }
        self.close(|_| {});
        Ok(())
    }

    /// Whether the incarnation and actor that the process works under are in the synced log.
    pub(super) fn start_is_durable(&self) -> bool {
        let Content::Open(engine) = &self.content else { return false };
        self.durable_start.is_some() && engine.meta().get(&MetaKey::Start) == self.durable_start.as_ref()
    }

    /// What the open disk holds of a key, without touching anything; `None` if nobody has it open.
    pub(super) fn look(&mut self, slot: Slot, key: &Bytes) -> Option<Stored> {
        let Content::Open(engine) = &mut self.content else { return None };
        let mut replies = Vec::new();
        engine.submit(DiskRequest::Read { ticket: Ticket(0), slot, key: key.clone() }, &mut replies).ok()?;
        match replies.pop() {
            Some(DiskReply::Read { stored, .. }) => Some(stored),
            _ => None,
        }
    }

    /// The directory as somebody may copy it. That of a running node is copied as a crash would leave it.
    pub(super) fn copy(&self, rng: &mut Rng) -> Disk {
        let store = match &self.content {
            Content::Closed(store) => store.clone(),
            Content::Open(engine) => engine.store().clone(),
        };
        let mut copy = Disk {
            log: self.log,
            segments: self.segments.clone(),
            content: Content::Closed(store),
            queue: Vec::new(),
            writing: self.writing.clone(),
            checkpoint: None,
            durable_start: self.durable_start.clone(),
            durable_lives: self.durable_lives.clone(),
            doubts: Doubts::default(),
            is_rotten: self.is_rotten,
            #[cfg(test)]
            sums: spoiled::Sums::default(),
            feed_per_mille: self.feed_per_mille,
            is_full: false,
        };
        if matches!(self.content, Content::Open(_)) {
            copy.crash(rng);
        }
        copy
    }

    /// A bug to be found: the disk forgets a record without a word. Returns whether it held any.
    #[cfg(test)]
    pub(super) fn forget(&mut self, rng: &mut Rng) -> bool {
        let Content::Closed(store) = &mut self.content else { return false };
        let (first, last) = all_slots();
        let mut held = Vec::new();
        let seen =
            store.scan(first, last, &mut |slot, key, _| held.push((slot, Bytes::copy_from_slice(key))));
        let (Ok(()), Some((slot, key))) = (seen, rng.pick(&held).cloned()) else { return false };
        let through = store.through().unwrap_or_default();
        store.replace(&[Replacement { slot, key, value: None }], through).is_ok()
    }

    /// A bug to be found: the sums of the slots are those of before the crash, whatever the crash took.
    #[cfg(test)]
    pub(super) fn keep_sums(&mut self) {
        self.sums.keep();
    }

    fn close(&mut self, spoil: impl FnOnce(&mut MemoryStore)) {
        let content = std::mem::replace(&mut self.content, Content::Closed(MemoryStore::default()));
        let mut store = match content {
            Content::Open(engine) => {
                #[cfg(test)]
                self.sums.remember(&engine);
                engine.into_store()
            }
            Content::Closed(store) => store,
        };
        spoil(&mut store);
        self.content = Content::Closed(store);
    }

    fn scan(&self) -> Result<Scan, String> {
        let mut scanner = Scanner::new(self.log);
        for segment in &self.segments {
            scanner.segment(segment.generation, &segment.bytes).map_err(|error| error.to_string())?;
        }
        Ok(scanner.finish())
    }

    /// The log up to the first segment that is damaged; that one and all behind it are gone.
    #[cfg(test)]
    fn cut(&mut self) -> Scan {
        let mut scanner = Scanner::new(self.log);
        let sound = self.segments.iter().take_while(|segment| {
            let mut further = scanner.clone();
            let is_sound = further.segment(segment.generation, &segment.bytes).is_ok();
            if is_sound {
                scanner = further;
            }
            is_sound
        });
        let sound = sound.count();
        self.segments.truncate(sound);
        scanner.finish()
    }

    fn roll(&mut self, through: Lsn) {
        let generation = self.segments.last().map_or(1, |segment| segment.generation + 1);
        self.segments.push(Segment { generation, bytes: Vec::new(), through });
    }

    fn name(&self) -> SegmentName {
        let generation = self.segments.last().map_or(1, |segment| segment.generation);
        SegmentName { log: self.log, generation }
    }

    fn append(&mut self, bytes: Vec<u8>) {
        if let Some(segment) = self.segments.last_mut() {
            segment.bytes.extend(bytes);
        }
    }
}

/// Of the state that is not per key, the node's own life and what is remembered of the lives of others.
fn lives(meta: &BTreeMap<MetaKey, Bytes>) -> BTreeMap<MetaKey, Bytes> {
    let others = meta.range(MetaKey::Life(NodeId(0))..=MetaKey::Life(NodeId(u64::MAX)));
    let lives = meta.get_key_value(&MetaKey::OwnLife).into_iter().chain(others);
    lives.map(|(key, bytes)| (key.clone(), bytes.clone())).collect()
}

fn all_slots() -> (Slot, Slot) {
    (Slot::of_hash(0), Slot::of_hash(u64::MAX))
}

/// A disk that does what it should not.
#[cfg(test)]
mod spoiled {
    use super::{Engine, Feed, MemoryStore, Planted, Store, StoredValue, planted};
    use crate::protocol::storage::sums;

    /// A bug to be found: what is fed is merged with what the store holds, and does not replace it.
    pub(super) fn merged(mut feed: Feed, store: &MemoryStore) -> Feed {
        for new in feed.batch.iter_mut().filter(|_| planted::is(Planted::FeedMerges)) {
            let open = |value: Option<&StoredValue>| value.and_then(|value| value.open(&new.key).ok());
            let held = store.get(new.slot, &new.key).ok().flatten();
            if let (Some(held), Some(mut record)) = (open(held.as_ref()), open(new.value.as_ref())) {
                record.merge(&held);
                new.value = Some(StoredValue::seal(&new.key, &record));
            }
        }
        feed
    }

    #[derive(Debug, Default)]
    pub(super) struct Sums {
        last: Option<sums::Sums>,
        is_kept: bool,
    }

    impl Sums {
        pub(super) fn remember(&mut self, engine: &Engine<MemoryStore>) {
            self.last = Some(engine.sums().clone());
        }

        pub(super) fn keep(&mut self) {
            self.is_kept = true;
        }

        pub(super) fn give_back(&mut self, engine: &mut Engine<MemoryStore>) {
            if std::mem::take(&mut self.is_kept)
                && let Some(sums) = self.last.take()
            {
                engine.spoil_sums(sums);
            }
        }
    }
}

#[cfg(test)]
mod tests;
