//! Sequences of what passes in which something is wrong, and the same without that.

use super::*;
use crate::protocol::causality::{Age, ClusterSecret, ContextToken, Put};
use crate::protocol::id::{Actor, RequestId, SessionId};
use crate::protocol::ring::slot::Slot;
use crate::protocol::rng::Rng;
use crate::protocol::wire::client::{Level, Read, ReadAnswer};
use crate::sim::clock::Clock;
use crate::sim::disk::Disk;
use crate::sim::invariants::fixture::{dot, put, record, written};
use crate::sim::world::Copied;

struct Scene {
    witness: Witness,
    dots: Dots,
    tickets: u64,
}

const KEY: Bytes = Bytes::from_static(b"k");

impl Scene {
    fn new() -> Scene {
        let host = |index| Host {
            config: host::config(index, 2).unwrap(),
            clock: Clock::new(0, 0, 0),
            disk: Disk::new(300, &mut Rng::from_number(1)),
            process: None,
            boot: 1,
            id: None,
            paused_until: Moment::default(),
            slowness: 0,
            has_served: false,
            is_frozen: false,
            sync_fails: false,
            has_lost: false,
            copied: Copied::No,
            copy: None,
            nonce: 0,
            started_at: Moment::default(),
            doubters: Vec::new(),
            log_is_damaged: false,
            loses_a_record: false,
        };
        let mut witness = Witness::new(&[host(0), host(1)], 2);
        (0..2).for_each(|index| witness.started(index, NodeId(index as u64 + 1)));
        Scene { witness, dots: Dots::default(), tickets: 0 }
    }

    fn told(&mut self) -> Vec<Invariant> {
        self.witness.take_violations().map(|violation| violation.invariant).collect()
    }

    fn happens(&mut self, host: usize, input: Input) {
        self.witness.input(host, Moment(1), &input, &mut self.dots);
    }

    fn changes(&mut self, host: usize, change: Change, applied: Applied) {
        self.tickets += 1;
        let (ticket, slot) = (Ticket(self.tickets), Slot::of_key(&KEY));
        let request = DiskRequest::Update { ticket, slot, key: KEY, change };
        self.witness.disk_is_asked(host, Moment(1), &request);
        let lsn = Lsn(self.tickets);
        self.happens(host, Input::Disk(DiskReply::Applied { ticket, slot: Slot::default(), lsn, applied }));
    }

    /// A node is asked for a write, and its disk executes it on what it holds.
    fn writes(&mut self, host: usize, current: &Record, put: &Put) -> Record {
        let write = crate::protocol::wire::client::Write {
            key: KEY,
            value: put.value.clone(),
            context: None,
            operation: put.operation,
            attempt: 1,
            w: Level::Majority,
            sloppy: false,
        };
        let (session, id) = (SessionId(1), put.operation.nonce);
        self.happens(host, Input::Client { session, id, deadline_ms: 1, request: Request::Write(write) });
        assert_eq!(self.dots.issued(host, put.dot), None);
        self.witness.issued(host, put.dot);
        let record = written(current, put);
        self.changes(
            host,
            Change::Put(put.clone()),
            Applied::Changed { record: record.clone(), amnesia: false },
        );
        record
    }

    fn merges(&mut self, host: usize, other: &Record, result: &Record) {
        let change = Change::Merge { record: other.clone(), own: Actor(9), age: Age::default() };
        self.changes(host, change, Applied::Changed { record: result.clone(), amnesia: false });
    }

    fn reads_disk(&mut self, host: usize, stored: Stored) {
        self.tickets += 1;
        let (ticket, lsn) = (Ticket(self.tickets), Lsn(self.tickets));
        let request = DiskRequest::Read { ticket, slot: Slot::of_key(&KEY), key: KEY };
        self.witness.disk_is_asked(host, Moment(1), &request);
        self.happens(host, Input::Disk(DiskReply::Read { ticket, lsn, stored }));
    }
}

#[test]
fn writes_that_spread_by_whole_records_are_in_order() {
    let mut scene = Scene::new();
    let first = scene.writes(0, &Record::default(), &put(1, Some(1), 1, &[]));
    scene.merges(1, &first, &first);
    let second = scene.writes(1, &first, &put(102, Some(2), 2, &[1]));
    scene.merges(0, &second, &second);
    scene.reads_disk(0, Stored::Present(second));
    assert_eq!(scene.told(), []);
}

#[test]
fn a_merge_that_drops_or_makes_up_something_is_reported() {
    let mut scene = Scene::new();
    let first = scene.writes(0, &Record::default(), &put(1, Some(1), 1, &[]));
    let second = scene.writes(1, &Record::default(), &put(102, Some(2), 2, &[]));
    scene.merges(0, &second, &second);
    let told = scene.told();
    assert!(
        told.contains(&Invariant::RepairOnlyAdds) && told.contains(&Invariant::HonestContexts),
        "{told:?}"
    );
    scene.reads_disk(1, Stored::Present(second.clone()));
    scene.merges(1, &second, &first.merged(&second));
    assert_eq!(scene.told(), [Invariant::RepairOnlyAdds]);
}

#[test]
fn what_was_durable_must_survive_and_what_was_not_need_not() {
    let mut scene = Scene::new();
    let first = scene.writes(0, &Record::default(), &put(1, Some(1), 1, &[]));
    scene.happens(0, Input::Disk(DiskReply::Durable { through: Lsn(scene.tickets) }));
    scene.writes(0, &first, &put(2, Some(2), 2, &[1]));
    scene.witness.started(0, NodeId(1));
    scene.reads_disk(0, Stored::Present(first));
    assert_eq!(scene.told(), []);
    scene.witness.started(0, NodeId(1));
    scene.reads_disk(0, Stored::Absent);
    assert_eq!(scene.told(), [Invariant::HonestContexts]);
}

#[test]
fn what_was_first_seen_when_it_was_synced_long_ago_must_survive_as_well() {
    let mut scene = Scene::new();
    let first = scene.writes(0, &Record::default(), &put(1, Some(1), 1, &[]));
    scene.witness.started(0, NodeId(1));
    scene.happens(0, Input::Disk(DiskReply::Durable { through: Lsn(10) }));
    scene.reads_disk(0, Stored::Present(first));
    scene.witness.started(0, NodeId(1));
    scene.reads_disk(0, Stored::Absent);
    assert_eq!(scene.told(), [Invariant::HonestContexts]);
}

#[test]
fn a_removal_that_a_crash_may_have_kept_may_show_after_the_next_crash() {
    for (starts, expected) in [(0, vec![Invariant::HonestContexts]), (1, vec![]), (2, vec![])] {
        let mut scene = Scene::new();
        let first = scene.writes(0, &Record::default(), &put(1, None, 1, &[]));
        scene.happens(0, Input::Disk(DiskReply::Durable { through: Lsn(scene.tickets) }));
        if starts > 0 {
            let (ticket, slot, certified) = (Ticket(50), Slot::of_key(&KEY), first.hash(&KEY));
            let request = DiskRequest::Remove { ticket, slot, key: KEY, certified };
            scene.witness.disk_is_asked(0, Moment(1), &request);
        }
        (0..starts).for_each(|_| scene.witness.started(0, NodeId(1)));
        scene.reads_disk(0, Stored::Absent);
        assert_eq!(scene.told(), expected, "{starts}");
    }
}

#[test]
fn a_dot_of_nobody_on_a_disk_or_in_a_reply_is_reported() {
    let mut scene = Scene::new();
    scene.reads_disk(0, Stored::Present(record(&[(1, 1)])));
    assert!(scene.told().contains(&Invariant::OneDotOneValue));
}

#[test]
fn a_write_that_is_coordinated_here_and_passed_on_is_reported() {
    let mut scene = Scene::new();
    let write = put(1, Some(1), 1, &[]);
    scene.writes(0, &Record::default(), &write);
    let ask = crate::protocol::wire::client::Write {
        key: KEY,
        value: write.value.clone(),
        context: None,
        operation: write.operation,
        attempt: 1,
        w: Level::Majority,
        sloppy: false,
    };
    let message = PeerMessage::Forward { request: RequestId(7), deadline_ms: 1, ask: Request::Write(ask) };
    scene.witness.sent(0, NodeId(2), Moment(1), &message, None);
    assert_eq!(scene.told(), [Invariant::RepairOnlyAdds]);
}

/// A read of two owners through the first, which holds `own` while the other one holds `other`, answered with `shown`.
fn read(own: &Record, other: &Record, shown: &Record) -> Vec<Invariant> {
    let mut scene = Scene::new();
    for dot in [dot(1), dot(102)] {
        assert_eq!(scene.dots.issued(0, dot), None);
    }
    let (session, id) = (SessionId(1), 1);
    let ask = Request::Read(Read { key: KEY, r: Level::Majority, atomic: false });
    scene.happens(0, Input::Client { session, id, deadline_ms: 1, request: ask });
    let digest = crate::protocol::ring::view::SlotDigest(0);
    let (ticket, request) = (Ticket(1), RequestId(5));
    let disk = DiskRequest::Read { ticket, slot: Slot::of_key(&KEY), key: KEY };
    scene.witness.disk_is_asked(0, Moment(1), &disk);
    let fetch = PeerMessage::Fetch { request, digest, key: KEY };
    scene.witness.sent(0, NodeId(2), Moment(1), &fetch, None);
    let reply = DiskReply::Read { ticket, lsn: Lsn(1), stored: Stored::Present(own.clone()) };
    scene.happens(0, Input::Disk(reply));
    let record = Some(other.clone());
    let (raised, committed, milestone) = Default::default();
    let fetched = PeerMessage::Fetched { request, raised, committed, milestone, record };
    scene.happens(0, Input::Peer { from: NodeId(2), message: fetched });
    let secret = ClusterSecret::draw(&mut Rng::from_number(1));
    let answer = ReadAnswer {
        available: true,
        values: shown.siblings().to_vec(),
        deleted: false,
        context: Some(ContextToken::seal(own.merged(other).context(), &KEY, &secret)),
        replies: vec![NodeId(1), NodeId(2)],
        problem: None,
    };
    let origin = Origin::Client(session, id);
    scene.witness.answered(0, origin, Moment(2), &Answer::Read(answer), Some(&secret));
    scene.told().into_iter().filter(|told| *told == Invariant::ExactSiblings).collect()
}

#[test]
fn a_read_is_held_against_its_replies() {
    let (one, other) = (record(&[(1, 1)]), record(&[(102, 2)]));
    assert_eq!(read(&one, &other, &one.merged(&other)), []);
    assert_eq!(read(&one, &other, &other), [Invariant::ExactSiblings]);
    assert_eq!(read(&one, &one, &one.merged(&other)), [Invariant::ExactSiblings]);
}

#[test]
fn of_two_reads_that_one_message_began_the_first_answer_has_to_fit_and_the_second_is_left_alone() {
    let (mut scene, none) = (Scene::new(), Record::default());
    let digest = crate::protocol::ring::view::SlotDigest(0);
    for request in [RequestId(5), RequestId(6)] {
        let ask = Request::Read(Read { key: KEY, r: Level::One, atomic: false });
        let message = PeerMessage::Forward { request: RequestId(9), deadline_ms: 1, ask };
        scene.happens(0, Input::Peer { from: NodeId(2), message });
        let fetch = PeerMessage::Fetch { request, digest, key: KEY };
        scene.witness.sent(0, NodeId(2), Moment(1), &fetch, None);
    }
    let fetched = PeerMessage::Fetched {
        request: RequestId(6),
        raised: Default::default(),
        committed: Default::default(),
        milestone: Default::default(),
        record: None,
    };
    scene.happens(0, Input::Peer { from: NodeId(2), message: fetched });
    let answer = |available, of: &Record| {
        Answer::Read(ReadAnswer {
            available,
            values: of.siblings().to_vec(),
            deleted: false,
            context: None,
            replies: vec![NodeId(2)],
            problem: None,
        })
    };
    let origin = Origin::Node(NodeId(2), RequestId(9));
    scene.witness.answered(0, origin, Moment(2), &answer(true, &none), None);
    assert_eq!(scene.told(), [], "it is the answer of the second read");
    scene.witness.answered(0, origin, Moment(2), &answer(true, &record(&[(1, 1)])), None);
    assert_eq!(scene.told(), []);
}

#[test]
fn what_a_write_asks_of_others_is_no_reply_to_a_read_of_one_owner() {
    let mut scene = Scene::new();
    let (session, digest) = (SessionId(1), crate::protocol::ring::view::SlotDigest(0));
    let ask = Request::Read(Read { key: KEY, r: Level::One, atomic: false });
    scene.happens(0, Input::Client { session, id: 1, deadline_ms: 1, request: ask });
    let ticket = Ticket(1);
    let disk = DiskRequest::Read { ticket, slot: Slot::of_key(&KEY), key: KEY };
    scene.witness.disk_is_asked(0, Moment(1), &disk);
    let explain = Request::Explain { key: KEY };
    scene.happens(0, Input::Client { session, id: 2, deadline_ms: 1, request: explain });
    let fetch = |request| PeerMessage::Fetch { request, digest, key: KEY };
    scene.witness.sent(0, NodeId(2), Moment(1), &fetch(RequestId(5)), None);
    scene.happens(0, Input::Deadline);
    scene.witness.sent(0, NodeId(2), Moment(1), &fetch(RequestId(6)), None);
    let (raised, committed, milestone) = Default::default();
    let fetched = PeerMessage::Fetched { request: RequestId(6), raised, committed, milestone, record: None };
    scene.happens(0, Input::Peer { from: NodeId(2), message: fetched });
    let answer = ReadAnswer {
        available: true,
        values: Vec::new(),
        deleted: false,
        context: None,
        replies: vec![NodeId(2)],
        problem: None,
    };
    scene.witness.answered(0, Origin::Client(session, 1), Moment(2), &Answer::Read(answer), None);
    assert_eq!(scene.told(), [], "the sixth request is the hedge of the read");
}
