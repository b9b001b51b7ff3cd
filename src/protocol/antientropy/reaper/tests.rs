//! Owners with real engines and a network that the test controls: what is forgotten, and what is not.

use std::collections::VecDeque;

use super::*;
use crate::protocol::causality::{Age, Change, Dot, OPERATION_LIFETIME, OperationId, Put};
use crate::protocol::config::Limits;
use crate::protocol::id::{ClusterId, Incarnation, Place};
use crate::protocol::ring::entry::{Entry, Name, Phase, Stage};
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::storage::engine::Engine;
use crate::protocol::storage::log::{LogId, Scanner};
use crate::protocol::storage::op::{DiskRequest, Lsn, Ticket};
use crate::protocol::storage::store::MemoryStore;
use crate::protocol::time::Timestamp;

/// Node time when a test begins, in milliseconds. All operations started a while before.
const BEGIN: u64 = 10_000_000;

struct Owner {
    engine: Engine<MemoryStore>,
    epochs: Epochs,
    reaper: Reaper,
    writing: Actor,
    obstacle: Option<Obstacle>,
    unsynced: Vec<(Lsn, u64)>,
}

type Act<'a> = Box<dyn FnOnce(&mut Reaper, &mut Ground<'_>) + 'a>;

struct Peers(Vec<NodeId>);

impl Fellows for Peers {
    fn reach(&self, node: NodeId) -> Option<Incarnation> {
        self.0.contains(&node).then_some(Incarnation(1))
    }

    fn entry(&self, _: NodeId) -> Option<Entry> {
        None
    }
}

/// Three owners of everything.
struct Owners {
    owners: Vec<Owner>,
    view: RingView,
    now: Moment,
    up: Peers,
    /// Messages under way: from, to, what.
    network: VecDeque<(usize, usize, Reap)>,
    opens_at: Moment,
    ticket: u64,
}

fn view() -> RingView {
    let entries: Vec<Entry> = (1..=3)
        .map(|id| Entry {
            id: NodeId(id),
            place: Place(id),
            name: Name::new(format!("n{id}")).unwrap(),
            addresses: Vec::new(),
            zone: Zone::default(),
            weight: Weight::default(),
            incarnation: Incarnation(1),
            version: 0,
            amnesia: 0,
            phase: Phase { generation: 0, stage: Stage::Active },
        })
        .collect();
    RingView::build(ClusterId(1), Replicas::default(), &entries).unwrap()
}

impl Owners {
    fn new() -> Owners {
        let owners = (1..=3).map(|id| {
            let scan = Scanner::new(LogId(id)).finish();
            Owner {
                engine: Engine::recover(MemoryStore::default(), scan).unwrap(),
                epochs: Epochs::default(),
                reaper: Reaper::new(NodeId(id), &ReapConfig::default(), 0),
                writing: Actor(900 + id),
                obstacle: None,
                unsynced: Vec::new(),
            }
        });
        Owners {
            owners: owners.collect(),
            view: view(),
            now: Moment(1_000_000),
            up: Peers((1..=3).map(NodeId).collect()),
            network: VecDeque::new(),
            opens_at: Moment::default(),
            ticket: 0,
        }
    }

    /// What the rounds of a slot wait for that this owner drives.
    fn cause(&self, at: usize, slot: Slot) -> ReapCause {
        self.owners[at].reaper.wait(slot, self.now).cause
    }

    fn with(&mut self, at: usize, act: impl FnOnce(&mut Reaper, &mut Ground<'_>)) {
        self.with_boxed(at, Box::new(act));
    }

    fn with_boxed(&mut self, at: usize, act: Act<'_>) {
        let mut effects = Vec::new();
        let owner = &mut self.owners[at];
        let obstacle = owner.obstacle.clone();
        let mut ground = Ground {
            now: self.now,
            node_time: WallTime(BEGIN + self.now.0 / 1_000),
            view: &self.view,
            epochs: &mut owner.epochs,
            fellows: &self.up,
            writing: owner.writing,
            opens_at: self.opens_at,
            obstacle: &|_| obstacle.clone(),
            out: &mut effects,
        };
        act(&mut owner.reaper, &mut ground);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.network.push_back((at, to.0 as usize - 1, message)),
                Effect::Disk { token, ask } => {
                    self.ticket += 1;
                    let ticket = Ticket(self.ticket);
                    let request = match ask {
                        Ask::Sums(first, last) => DiskRequest::Sums { ticket, first, last },
                        Ask::List(slot, after) => DiskRequest::List { ticket, slot, after, keys_max: 2 },
                        Ask::Read(keys) => DiskRequest::ReadMany { ticket, keys, bytes_max: 10_000 },
                        Ask::Stand(entries) => DiskRequest::Meta { ticket, entries },
                        Ask::Remove(slot, key, certified) => {
                            DiskRequest::Remove { ticket, slot, key, certified }
                        }
                        Ask::Compact(slot, key, round) => {
                            DiskRequest::Update { ticket, slot, key, change: Change::Compact(round) }
                        }
                    };
                    match self.execute(at, request) {
                        DiskReply::MetaApplied { lsn, .. } => self.owners[at].unsynced.push((lsn, token)),
                        reply => self.with(at, |reaper, ground| reaper.on_disk(token, reply, ground)),
                    }
                }
            }
        }
    }

    fn execute(&mut self, at: usize, request: DiskRequest) -> DiskReply {
        let mut replies = Vec::new();
        self.owners[at].engine.submit(request, &mut replies).unwrap();
        replies.remove(0)
    }

    fn sync(&mut self, at: usize) {
        let engine = &mut self.owners[at].engine;
        while let Some(group) = engine.take_group() {
            engine.synced(group.through(), &mut Vec::new());
        }
        let through = engine.synced_through();
        let unsynced = &mut self.owners[at].unsynced;
        let tokens: Vec<u64> = unsynced.extract_if(.., |(lsn, _)| *lsn <= through).map(|(_, t)| t).collect();
        for token in tokens {
            self.with(at, |reaper, ground| reaper.on_durable(token, ground));
        }
    }

    /// Everybody syncs, and messages arrive that `arrives` lets through, until nothing moves.
    fn settle(&mut self, mut arrives: impl FnMut(usize, usize, &Reap) -> bool) {
        loop {
            (0..3).for_each(|at| self.sync(at));
            let Some((from, to, message)) = self.network.pop_front() else { return };
            if arrives(from, to, &message) {
                let from = NodeId(from as u64 + 1);
                self.with(to, |reaper, ground| reaper.handle(from, message, ground));
            }
        }
    }

    /// Time passes, and whoever wanted to be woken is.
    fn pass(&mut self, span: Duration, arrives: impl Fn(usize, usize, &Reap) -> bool) {
        let end = self.now + span;
        loop {
            self.settle(&arrives);
            let due = self.owners.iter().map(|owner| owner.reaper.next_deadline()).min().unwrap();
            if due > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due);
            (0..3).for_each(|at| self.with(at, Reaper::tick));
        }
    }

    fn store(&mut self, at: usize, key: &Bytes, record: &Record) {
        let change = Change::Merge { record: record.clone(), own: Actor(0), age: Age::default() };
        let (ticket, slot) = (Ticket(0), Slot::of_key(key));
        let reply = self.execute(at, DiskRequest::Update { ticket, slot, key: key.clone(), change });
        if let DiskReply::Applied { applied: Applied::Changed { record, .. }, .. } = reply {
            self.with(at, |reaper, ground| reaper.note(slot, &record, ground));
        }
    }

    fn held(&mut self, key: &Bytes) -> Vec<Option<Record>> {
        let slot = Slot::of_key(key);
        (0..3)
            .map(|at| {
                match self.execute(at, DiskRequest::Read { ticket: Ticket(0), slot, key: key.clone() }) {
                    DiskReply::Read { stored: Stored::Present(record), .. } => Some(record),
                    DiskReply::Read { stored: Stored::Absent, .. } => None,
                    other => panic!("{other:?}"),
                }
            })
            .collect()
    }

    fn driver(&self, key: &Bytes) -> usize {
        self.view.slot(Slot::of_key(key)).read_set()[0].0 as usize - 1
    }
}

fn key() -> Bytes {
    Bytes::from_static(b"key")
}

fn write(before: &Record, actor: u64, value: Option<&'static str>, started: u64) -> Record {
    let dot = Dot { actor: Actor(actor), at: Timestamp(started) };
    let put = Put {
        context: before.context().clone(),
        dot,
        value: value.map(Bytes::from),
        operation: OperationId { started: WallTime(started), nonce: actor },
        base: Some(Record::default()),
        age: Age::default(),
        limits: Limits::default(),
    };
    match Record::apply(&Change::Put(put), Some(before)) {
        Applied::Changed { record, .. } => record,
        other => panic!("{other:?}"),
    }
}

fn tombstone(started: u64) -> Record {
    write(&write(&Record::default(), 7, Some("v"), started - 1), 8, None, started)
}

const LONG: Duration = Duration::from_secs(300);

#[test]
fn a_tombstone_that_all_owners_hold_is_forgotten_by_all_of_them() {
    let mut owners = Owners::new();
    (0..3).for_each(|at| owners.store(at, &key(), &tombstone(BEGIN - 100_000)));
    owners.pass(LONG, |_, _, _| true);
    assert_eq!(owners.held(&key()), [None, None, None]);
    for owner in &owners.owners {
        let standing = owner.epochs.durable(Slot::of_key(&key()));
        assert_eq!((standing.raised, standing.committed), (ReapEpoch(1), ReapEpoch(1)));
        assert!(standing.forgotten.0 > BEGIN - 100_000);
    }
    let driver = owners.driver(&key());
    let counts = owners.owners[driver].reaper.counts();
    assert_eq!((counts.rounds, counts.agreed, counts.reaped), (1, 1, 1));
    assert_eq!(owners.owners[driver].reaper.waiting(), 0);
}

#[test]
fn values_and_what_only_some_hold_stay() {
    let mut owners = Owners::new();
    let (value, other) = (Bytes::from_static(b"a value"), Bytes::from_static(b"another"));
    let live = write(&Record::default(), 7, Some("v"), BEGIN - 100_000);
    (0..3).for_each(|at| owners.store(at, &value, &live));
    (0..2).for_each(|at| owners.store(at, &key(), &tombstone(BEGIN - 100_000)));
    let newer = write(&tombstone(BEGIN - 100_000), 9, None, BEGIN - 90_000);
    (0..3).for_each(|at| owners.store(at, &other, &tombstone(BEGIN - 100_000)));
    owners.store(0, &other, &newer);
    owners.pass(LONG, |_, _, _| true);
    assert_eq!(owners.held(&value), vec![Some(live); 3]);
    assert_eq!(owners.held(&key()).iter().flatten().count(), 2);
    assert_eq!(owners.held(&other).iter().flatten().count(), 3);
    let driver = owners.driver(&other);
    assert_eq!(owners.cause(driver, Slot::of_key(&other)), ReapCause::Unequal);
    // The owners become equal, and then it goes.
    (0..3).for_each(|at| owners.store(at, &other, &newer));
    owners.pass(LONG, |_, _, _| true);
    assert_eq!(owners.held(&other), [None, None, None]);
}

#[test]
fn a_round_waits_for_owners_that_are_away_for_hints_and_for_retries() {
    let mut owners = Owners::new();
    let driver = owners.driver(&key());
    owners.up.0.retain(|node| *node == NodeId(driver as u64 + 1));
    (0..3).for_each(|at| owners.store(at, &key(), &tombstone(BEGIN - 100_000)));
    owners.pass(LONG, |_, _, _| true);
    let slot = Slot::of_key(&key());
    assert!(matches!(owners.cause(driver, slot), ReapCause::Unreachable(_)));
    owners.up = Peers((1..=3).map(NodeId).collect());
    let other = (driver + 1) % 3;
    let hints = Obstacle::Hints(vec![NodeId(9)]);
    owners.owners[other].obstacle = Some(hints.clone());
    owners.pass(LONG, |_, _, _| true);
    let by = NodeId(other as u64 + 1);
    assert_eq!(owners.cause(driver, slot), ReapCause::Declined(by, hints));
    assert_eq!(owners.held(&key()).iter().flatten().count(), 3);
    owners.owners[other].obstacle = None;
    owners.pass(LONG, |_, _, _| true);
    assert_eq!(owners.held(&key()), [None, None, None]);

    // An operation of just now: a retry may come for another minute.
    let young = tombstone(BEGIN + owners.now.0 / 1_000);
    (0..3).for_each(|at| owners.store(at, &key(), &young));
    owners.pass(OPERATION_LIFETIME - Duration::from_secs(1), |_, _, _| true);
    assert_eq!(owners.held(&key()).iter().flatten().count(), 3);
    owners.pass(LONG, |_, _, _| true);
    assert_eq!(owners.held(&key()), [None, None, None]);
}

#[test]
fn what_changes_after_it_was_compared_is_not_removed() {
    let mut owners = Owners::new();
    (0..3).for_each(|at| owners.store(at, &key(), &tombstone(BEGIN - 100_000)));
    let writer = (owners.driver(&key()) + 1) % 3;
    let again = write(&tombstone(BEGIN - 100_000), 9, Some("again"), BEGIN);
    // All agree, but before the commit arrives one owner takes a write.
    let mut network = Vec::new();
    let due = owners.owners.iter().map(|owner| owner.reaper.next_deadline()).min().unwrap();
    owners.now = owners.now.max(due);
    (0..3).for_each(|at| owners.with(at, Reaper::tick));
    owners.settle(|from, to, message| {
        let is_commit = matches!(message, Reap::Commit { .. });
        if is_commit {
            network.push((from, to, message.clone()));
        }
        !is_commit
    });
    assert_eq!(network.len(), 2);
    owners.store(writer, &key(), &again);
    owners.network.extend(network);
    owners.settle(|_, _, _| true);
    assert_eq!(owners.held(&key())[writer], Some(again));
    assert_eq!(owners.held(&key()).iter().flatten().count(), 1);
}

#[test]
fn lost_messages_cost_time_and_nothing_else() {
    let mut owners = Owners::new();
    (0..3).for_each(|at| owners.store(at, &key(), &tombstone(BEGIN - 100_000)));
    let first = std::cell::Cell::new(0);
    owners.pass(Duration::from_secs(1), |_, _, message| {
        let is_agreed = matches!(message, Reap::Agreed { .. });
        first.set(first.get() + usize::from(is_agreed));
        !is_agreed
    });
    assert!(first.get() > 0);
    assert_eq!(owners.held(&key()).iter().flatten().count(), 3);
    // The next round needs a higher epoch, and its commit is lost once.
    let lost = std::cell::Cell::new(0);
    owners.pass(LONG, |_, _, message| {
        let is_commit = matches!(message, Reap::Commit { .. });
        lost.set(lost.get() + usize::from(is_commit));
        !is_commit || lost.get() > 2
    });
    assert!(lost.get() > 2);
    assert_eq!(owners.held(&key()), [None, None, None]);
    let committed = owners.owners.iter().map(|owner| owner.epochs.durable(Slot::of_key(&key())).committed);
    assert!(committed.into_iter().all(|epoch| epoch == ReapEpoch(2)));
}

#[test]
fn an_agreement_is_told_only_when_it_is_durable_and_a_copy_of_the_question_changes_nothing() {
    let mut owners = Owners::new();
    let slot = Slot::of_key(&key());
    let record = tombstone(BEGIN - 100_000);
    (0..3).for_each(|at| owners.store(at, &key(), &record));
    let driver = owners.driver(&key());
    let other = (driver + 1) % 3;
    let digest = owners.view.slot(slot).digest;
    let keys = vec![(key(), record.hash(&key()))];
    let (epoch, proposal) = (ReapEpoch(3), 77);
    let propose = Reap::Propose { slot, digest, epoch, proposal, keys };
    let from = NodeId(driver as u64 + 1);
    owners.with(other, |reaper, ground| reaper.handle(from, propose.clone(), ground));
    assert!(owners.network.is_empty());
    owners.with(other, |reaper, ground| reaper.handle(from, propose.clone(), ground));
    let declined = Reap::Declined { slot, epoch, proposal, why: Obstacle::Raised(epoch) };
    assert_eq!(owners.network.pop_front(), Some((other, driver, declined)));
    owners.sync(other);
    let writing = Actor(901 + other as u64);
    let agreed = Reap::Agreed { slot, epoch, proposal, equal: vec![true], writing };
    assert_eq!(owners.network.pop_front(), Some((other, driver, agreed)));
    // After a restart an older round is behind it.
    owners.owners[other].epochs = Epochs::parse(owners.owners[other].engine.meta()).unwrap();
    owners.with(other, |reaper, ground| reaper.handle(from, propose, ground));
    assert!(matches!(owners.network.pop_front(), Some((_, _, Reap::Declined { .. }))));
    // Who never agreed to a round does not carry it out.
    let commit = Reap::Commit {
        slot,
        digest,
        epoch: ReapEpoch(9),
        removed: vec![(key(), record.hash(&key()))],
        compacted: Vec::new(),
        writing: Vec::new(),
        marks_before: WallTime(BEGIN),
    };
    owners.with(other, |reaper, ground| reaper.handle(from, commit, ground));
    assert_eq!(owners.held(&key())[other], Some(record));
}

/// A driver that crashes must not use a number again which another owner has agreed to: what that one says of the forgotten
/// proposal would pass for an answer to the new one, about other keys.
#[test]
fn nobody_else_hears_of_a_round_before_the_driver_cannot_forget_it_and_old_answers_do_not_count() {
    let mut owners = Owners::new();
    let slot = Slot::of_key(&key());
    (0..3).for_each(|at| owners.store(at, &key(), &tombstone(BEGIN - 100_000)));
    let driver = owners.driver(&key());
    owners.with(driver, Reaper::tick);
    assert!(owners.network.is_empty(), "its own epoch is not durable yet");
    owners.sync(driver);
    let sent: Vec<_> = owners.network.drain(..).collect();
    let [(_, _, Reap::Propose { epoch, proposal, .. }), (_, _, Reap::Propose { .. })] = &sent[..] else {
        panic!("{sent:?}")
    };
    for at in (0..3).filter(|at| *at != driver) {
        let writing = Actor(901 + at as u64);
        let old = Reap::Agreed { slot, epoch: *epoch, proposal: proposal ^ 1, equal: vec![true], writing };
        owners.with(driver, |reaper, ground| reaper.handle(NodeId(at as u64 + 1), old, ground));
    }
    assert!(owners.network.is_empty(), "those were asked something else");
    owners.network.extend(sent);
    owners.settle(|_, _, _| true);
    assert_eq!(owners.held(&key()), [None, None, None]);
}

#[test]
fn a_round_begins_when_the_account_of_repairs_allows_it() {
    let mut owners = Owners::new();
    (0..3).for_each(|at| owners.store(at, &key(), &tombstone(BEGIN - 100_000)));
    owners.opens_at = owners.now + LONG;
    owners.pass(LONG - Duration::from_secs(1), |_, _, _| true);
    assert_eq!(owners.held(&key()).iter().flatten().count(), 3);
    owners.pass(LONG, |_, _, _| true);
    assert_eq!(owners.held(&key()), [None, None, None]);
}

#[test]
fn long_contexts_lose_the_actors_that_write_no_more() {
    let mut owners = Owners::new();
    let mut record = Record::default();
    for actor in 1..=40 {
        record = write(&record, actor, Some("v"), BEGIN - 200_000 + actor);
    }
    record = write(&record, 902, Some("last"), BEGIN - 100_000);
    assert_eq!(record.context().len(), 41);
    (0..3).for_each(|at| owners.store(at, &key(), &record));
    owners.pass(LONG, |_, _, _| true);
    let held = owners.held(&key());
    let compacted = held[0].clone().unwrap();
    assert_eq!(held, vec![Some(compacted.clone()); 3]);
    assert_eq!((compacted.context().len(), compacted.operations().len()), (1, 0));
    assert_eq!((compacted.values(), compacted.epoch()), (record.values(), ReapEpoch(1)));
    // What was read before the round does not meet the record any more; what was read since does.
    let merge = |read| Change::Merge {
        record: record.clone(),
        own: Actor(0),
        age: Age { read: ReapEpoch(read), committed: ReapEpoch(1) },
    };
    let apply = |read| Record::apply(&merge(read), Some(&compacted));
    assert_eq!(apply(0), Applied::Refused(crate::protocol::causality::Refusal::Reaped));
    assert!(matches!(apply(1), Applied::Changed { .. }));
}

#[test]
fn a_long_context_does_not_wait_until_its_key_rests() {
    let mut owners = Owners::new();
    let mut record = Record::default();
    for actor in 1..=40 {
        record = write(&record, actor, Some("v"), BEGIN - 200_000 + actor);
    }
    record = write(&record, 902, Some("just now"), BEGIN);
    (0..3).for_each(|at| owners.store(at, &key(), &record));
    owners.pass(Duration::from_secs(1), |_, _, _| true);
    let held = owners.held(&key());
    assert_eq!(held.iter().flatten().map(|record| record.context().len()).collect::<Vec<_>>(), [1; 3]);
    // What the newest retries are recognised by stays.
    assert!(held.iter().flatten().all(|record| record.operations().len() == 1));
}

#[test]
fn a_driver_that_is_restarted_twice_a_minute_forgets_a_deletion_of_an_earlier_life_too() {
    let mut rng = crate::protocol::rng::Rng::from_number(2);
    let mut owners = Owners::new();
    // The last of all slots that such a driver came to when each life began with the first one.
    let names = (0..).map(|number: u64| Bytes::from(number.to_be_bytes().to_vec()));
    let key = names.into_iter().find(|key| Slot::of_key(key).get() > 16_000).unwrap();
    (0..3).for_each(|at| owners.store(at, &key, &tombstone(BEGIN - 100_000)));
    let driver = owners.driver(&key);
    let mut lives = 0;
    while owners.held(&key).iter().flatten().count() > 0 {
        lives += 1;
        assert!(lives < 100, "it is never forgotten");
        let reaper = Reaper::new(NodeId(driver as u64 + 1), &ReapConfig::default(), rng.bits());
        owners.owners[driver].reaper = reaper;
        owners.with(driver, |reaper, ground| reaper.begin(ground.now));
        owners.pass(Duration::from_secs(30), |_, _, _| true);
    }
    assert_eq!(owners.held(&key), [None, None, None]);
}
