//! Whatever an engine does, and wherever it crashes: what it holds is what a naive model of its log holds.

use super::*;

/// What replay must give, kept in the most naive way: every post-state that was ever logged.
#[derive(Default)]
struct Model {
    records: Vec<(Lsn, Slot, Bytes, Option<Record>)>,
    meta: Vec<(Lsn, MetaKey, Option<Bytes>)>,
}

impl Model {
    fn record(&self, slot: Slot, key: &Bytes) -> Option<(Lsn, Option<&Record>)> {
        let newest = self.records.iter().rev().find(|(_, s, k, _)| *s == slot && k == key);
        newest.map(|(lsn, _, _, record)| (*lsn, record.as_ref()))
    }

    fn sums(&self, keys: &[(Slot, Bytes)]) -> Sums {
        let mut sums = Sums::default();
        for (slot, key) in keys {
            if let Some((_, Some(record))) = self.record(*slot, key) {
                sums.change(*slot, RecordHash(0), record.hash(key));
            }
        }
        sums
    }

    fn meta(&self) -> BTreeMap<MetaKey, Bytes> {
        let mut meta = BTreeMap::new();
        for (_, key, value) in &self.meta {
            match value {
                Some(value) => meta.insert(key.clone(), value.clone()),
                None => meta.remove(key),
            };
        }
        meta
    }

    fn forget_after(&mut self, end: Lsn) {
        self.records.retain(|(lsn, ..)| *lsn <= end);
        self.meta.retain(|(lsn, ..)| *lsn <= end);
    }
}

/// A disk of the simplest kind around the engine: segments in memory, a group under way, crashes.
struct World {
    engine: Engine<MemoryStore>,
    model: Model,
    keys: Vec<(Slot, Bytes)>,
    segments: Vec<(u64, Vec<u8>, Lsn)>,
    /// The group under way and where in the last segment it begins.
    writing: Option<(Lsn, usize)>,
    feeding: Option<Feed>,
    /// Position of a checkpoint's entry and its low-water mark, until the entry is synced.
    checkpoint: Option<(Lsn, Lsn)>,
    rng: Rng,
    number: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let keys = (0..6_u16).map(|n| (slot(n / 2), Bytes::from(vec![b'a' + n as u8]))).collect();
        let mut world = World {
            engine: fresh(),
            model: Model::default(),
            keys,
            segments: Vec::new(),
            writing: None,
            feeding: None,
            checkpoint: None,
            rng: Rng::from_number(seed),
            number: 100,
        };
        world.roll();
        world
    }

    fn roll(&mut self) {
        let generation = self.segments.last().map_or(1, |(generation, ..)| generation + 1);
        self.segments.push((generation, Vec::new(), self.engine.synced_through()));
    }

    fn submit(&mut self, change: Change, key: usize) {
        let (slot, key) = self.keys[key].clone();
        let before = self.engine.last();
        let mut replies = Vec::new();
        let request = DiskRequest::Update { ticket: TICKET, slot, key: key.clone(), change: change.clone() };
        self.engine.submit(request, &mut replies).unwrap();
        let stored = self.model.record(slot, &key);
        let rests_on = stored.map_or(Lsn(0), |(lsn, _)| lsn);
        let expected = Record::apply(&change, stored.and_then(|(_, record)| record));
        let [DiskReply::Applied { lsn, applied, .. }] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!(*applied, expected);
        if self.engine.last() > before {
            assert_eq!(*lsn, self.engine.last());
            let (Applied::Changed { record, .. } | Applied::Adopted { record, .. }) = expected else {
                panic!("an entry for {expected:?}")
            };
            self.model.records.push((*lsn, slot, key, Some(record)));
        } else {
            assert!(!matches!(applied, Applied::Changed { .. }));
            assert!(*lsn == rests_on || *lsn == Lsn(0) && rests_on <= self.engine.fed_through());
        }
    }

    fn read(&mut self, key: usize) {
        let (slot, key) = self.keys[key].clone();
        let mut replies = Vec::new();
        self.engine
            .submit(DiskRequest::Read { ticket: TICKET, slot, key: key.clone() }, &mut replies)
            .unwrap();
        let (rests_on, record) = self.model.record(slot, &key).unwrap_or_default();
        let expected = record.map_or(Stored::Absent, |record| Stored::Present(record.clone()));
        let [DiskReply::Read { lsn, stored, .. }] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!(*stored, expected, "{key:?}");
        assert!(*lsn == rests_on || *lsn == Lsn(0) && rests_on <= self.engine.fed_through());
    }

    /// A put by some client that read first, a blind one, a delete, or the record of another replica.
    fn change(&mut self, key: usize) -> Change {
        self.number += 1;
        let (slot, name) = &self.keys[key];
        let stored =
            self.model.record(*slot, name).and_then(|(_, record)| record).cloned().unwrap_or_default();
        let context = if self.rng.chance(700) { stored.context().clone() } else { Default::default() };
        let value = if self.rng.chance(300) { None } else { Some(Bytes::from(vec![7; self.rng.index(40)])) };
        let operation = OperationId { started: WallTime(1_000), nonce: self.number };
        let dot = Dot { actor: Actor(self.rng.below(3)), at: Timestamp(self.number) };
        let put = Put {
            context,
            dot,
            value,
            operation,
            base: Some(Record::default()),
            age: Age::default(),
            limits: Limits::default(),
        };
        if self.rng.chance(700) {
            return Change::Put(put);
        }
        let base = if self.rng.chance(500) { Some(&stored) } else { None };
        match Record::apply(&Change::Put(put), base) {
            Applied::Changed { record, .. } if self.rng.chance(800) => merge(record),
            _ => merge(stored),
        }
    }

    fn reap(&mut self, key: usize) {
        let (slot, key) = self.keys[key].clone();
        let record = self.model.record(slot, &key).and_then(|(_, record)| record).cloned();
        let certified = record.map_or(RecordHash(0), |record| record.hash(&key));
        if let Some(lsn) = self.engine.remove(slot, key.clone(), certified).unwrap() {
            self.model.records.push((lsn, slot, key, None));
        }
    }

    fn replace_meta(&mut self) {
        let key = MetaKey::Member(NodeId(self.rng.below(4)));
        let value = self.rng.chance(600).then(|| Bytes::from(vec![1; self.rng.index(9)]));
        let entries = vec![(key.clone(), value.clone())];
        let mut replies = Vec::new();
        self.engine.submit(DiskRequest::Meta { ticket: TICKET, entries }, &mut replies).unwrap();
        self.model.meta.push((self.engine.last(), key, value));
    }

    fn write(&mut self) {
        if self.writing.is_some() {
            return;
        }
        if self.rng.chance(200) {
            self.roll();
        }
        if let Some(group) = self.engine.take_group() {
            let through = group.through();
            let (generation, bytes, _) = self.segments.last_mut().unwrap();
            self.writing = Some((through, bytes.len()));
            bytes.extend(group.seal(SegmentName { log: LOG, generation: *generation }));
        }
    }

    fn sync(&mut self, groups: usize) {
        for _ in 0..groups {
            self.write();
            let Some((through, _)) = self.writing.take() else { return };
            self.segments.last_mut().unwrap().2 = through;
            self.engine.synced(through, &mut Vec::new());
            if let Some((_, low_water)) = self.checkpoint.take_if(|(lsn, _)| *lsn <= through) {
                let last = self.segments.len() - 1;
                let keep =
                    self.segments.iter().position(|(.., end)| *end > low_water).unwrap_or(last).min(last);
                self.segments.drain(..keep);
            }
        }
    }

    fn feed(&mut self, entries: usize) {
        if self.feeding.is_none() {
            self.feeding = self.engine.take_feed(entries);
        }
        if let Some(feed) = self.feeding.take() {
            self.engine.store_mut().replace(&feed.batch, feed.through).unwrap();
            self.engine.fed(feed);
        }
    }

    /// The feed goes in up to the middle, and then something else happens.
    fn feed_partly(&mut self) {
        if self.feeding.is_none() {
            self.feeding = self.engine.take_feed(5);
        }
        if let Some(feed) = &self.feeding {
            let part = self.rng.index(feed.batch.len());
            let through = self.engine.store().through().unwrap();
            let batch = feed.batch[..part].to_vec();
            self.engine.store_mut().replace(&batch, through).unwrap();
        }
    }

    fn checkpoint(&mut self) {
        if self.feeding.is_some() || self.checkpoint.is_some() {
            return;
        }
        let through = self.engine.fed_through();
        self.engine.store_mut().replace(&[], through).unwrap();
        self.engine.store_mut().checkpoint().unwrap();
        if self.rng.chance(800) {
            self.checkpoint = Some((self.engine.checkpoint(through), through));
        }
    }

    fn scan(&self) -> Scan {
        let mut scanner = Scanner::new(LOG);
        for (generation, bytes, _) in &self.segments {
            scanner.segment(*generation, bytes).unwrap();
        }
        scanner.finish()
    }

    fn crash(&mut self) {
        let synced = self.engine.synced_through();
        if let Some((_, begin)) = self.writing.take() {
            let (_, bytes, _) = self.segments.last_mut().unwrap();
            let kept = self.rng.between(begin as u64, bytes.len() as u64) as usize;
            bytes.truncate(kept);
            if self.rng.chance(300) && kept > begin {
                let at = begin + self.rng.index(kept - begin);
                bytes[at] ^= 1 << self.rng.below(8);
            }
            bytes.extend([0; 200]);
        }
        self.feeding = None;
        self.checkpoint = None;
        let scan = self.scan();
        let end = scan.end;
        assert!(end >= synced, "synced entries are gone: {synced:?} {end:?}");
        let mut store = std::mem::replace(&mut self.engine, fresh()).into_store();
        let share = *self.rng.pick(&[0, 200, 900, 1_000]).unwrap();
        store.crash(|| self.rng.chance(share));
        self.engine = Engine::recover(store, scan).unwrap();
        self.segments.last_mut().unwrap().2 = end;
        self.roll();
        self.model.forget_after(end);
        self.check();
    }

    fn check(&mut self) {
        (0..self.keys.len()).for_each(|key| self.read(key));
        assert_eq!(*self.engine.sums(), self.model.sums(&self.keys));
        (0..4).for_each(|number| self.list(slot(number)));
        assert_eq!(*self.engine.meta(), self.model.meta());
    }

    /// Pages of whatever size show every key once, in order, and add up to the sum of the slot: what owners compare by
    /// sums is what they find when they look.
    fn list(&mut self, slot: Slot) {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let keys_max = 1 + self.rng.index(4);
            let mut replies = Vec::new();
            let request = DiskRequest::List { ticket: TICKET, slot, after, keys_max };
            self.engine.submit(request, &mut replies).unwrap();
            let Some(DiskReply::Listed { page: Some(page), .. }) = replies.pop() else { panic!("no page") };
            assert!(page.entries.len() <= 2 * keys_max);
            listed.extend(page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(listed.is_sorted_by(|(a, _), (b, _)| a < b), "{listed:?}");
        let sum = listed.iter().fold(SlotSum::default(), |sum, (_, hash)| sum.with(*hash));
        assert_eq!(sum, self.engine.sums().get(slot));
    }

    fn drain(&mut self) {
        self.sync(usize::MAX);
        while self.feeding.is_some() || self.engine.fed_through() < self.engine.synced_through() {
            self.feed(4);
        }
        assert!(self.engine.is_replayed());
        assert_eq!(self.engine.unfed_bytes(), 0);
        let (first, last) = (slot(ALL.0), slot(ALL.1));
        assert_eq!(
            sums_of(self.engine.store(), first, last).unwrap(),
            self.engine.sums_in_store(first, last)
        );
        self.check();
    }

    fn step(&mut self) {
        let key = self.rng.index(self.keys.len());
        match self.rng.below(100) {
            0..30 => {
                let change = self.change(key);
                self.submit(change, key);
            }
            30..38 => self.reap(key),
            38..45 => self.read(key),
            45..50 => self.replace_meta(),
            50..62 => self.write(),
            62..74 => self.sync(1),
            74..84 => {
                let entries = 1 + self.rng.index(8);
                self.feed(entries);
            }
            84..88 => self.feed_partly(),
            88..93 => self.checkpoint(),
            93..95 if self.feeding.is_none() && self.engine.is_replayed() => {
                let (first, last) = (slot(1), slot(2));
                let found = sums_of(self.engine.store(), first, last).unwrap();
                assert_eq!(found, self.engine.sums_in_store(first, last));
            }
            95..97 => self.crash(),
            _ => {}
        }
    }
}

/// The heart of the matter: whatever was synced survives, in the state that it had, with the right sums; what was not
/// synced is there as a whole group or not at all; nothing that was reaped comes back.
#[test]
fn nothing_durable_is_lost_whenever_it_crashes() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.step();
        }
        world.crash();
        world.drain();
    }
}

#[test]
fn a_store_that_fell_behind_its_checkpoint_is_untrusted_and_so_is_one_ahead_of_the_log() {
    let mut world = World::new(1);
    world.submit(put(1, Some(b"v")), 0);
    world.sync(usize::MAX);
    world.feed(usize::MAX);
    let store = world.engine.store().clone();
    world.checkpoint();
    world.sync(usize::MAX);
    let behind = Untrusted::StoreBehindCheckpoint { fed: Lsn(0), low_water: Lsn(1) };
    let scan = world.scan();
    assert_eq!(Engine::recover(MemoryStore::default(), scan).unwrap_err(), behind.into());
    let ahead = Untrusted::LogBehindStore { end: Lsn(0), fed: Lsn(1) };
    assert_eq!(Engine::recover(store, Scanner::new(LOG).finish()).unwrap_err(), ahead.into());
    world.submit(put(2, Some(b"v")), 1);
    world.sync(usize::MAX);
    let mut scan = world.scan();
    scan.entries.retain(|(lsn, _)| *lsn > Lsn(2));
    let beheaded = Untrusted::Beheaded { first: Lsn(3), needed: Lsn(1) };
    assert_eq!(Engine::recover(MemoryStore::default(), scan).unwrap_err(), beheaded.into());
}
