mod asking;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;

use super::*;
use crate::protocol::causality::Applied;
use crate::protocol::causality::{Age, OperationId, Record};
use crate::protocol::id::ReapEpoch;
use crate::protocol::ring::entry::Name;
use crate::protocol::ring::slot::Slot;
use crate::protocol::rng::Rng;
use crate::protocol::storage::epochs::Standing as ReapStanding;
use crate::protocol::storage::op::DoubtReason;
use crate::protocol::storage::op::{DiskReply, Stored};
use crate::protocol::storage::trust::Standing;
use crate::protocol::time::{Timestamp, WallTime};
use crate::protocol::wire::client::{Health, Level, Outcome, Read, Write};
use crate::protocol::wire::exchange::{Exchange, QuestionId};
use crate::protocol::wire::gossip::{Body, Gossip, News};

const WALL: WallTime = WallTime(1_000_000_000);
const PEER: NodeId = NodeId(42);

/// A node that founds a cluster of one, and a disk that obeys the story.
struct Story {
    node: Node,
    now: Now,
    disk: Vec<DiskRequest>,
    meta: BTreeMap<MetaKey, Bytes>,
    records: BTreeMap<Bytes, Record>,
    log: Lsn,
}

impl Story {
    fn start(meta: BTreeMap<MetaKey, Bytes>, seed: u64) -> (Story, Vec<Output>) {
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        let config = NodeConfig::new(Name::new("n1").unwrap(), address);
        let now = Now { monotonic: Moment(1_000_000), wall: WALL };
        let mut out = Vec::new();
        let node = Node::start(config, &meta, Lsn(0), now, Rng::from_number(seed), &mut out).unwrap();
        let (disk, records) = (Vec::new(), BTreeMap::new());
        (Story { node, now, disk, meta, records, log: Lsn(0) }, out)
    }

    /// A node that serves.
    fn serving() -> Story {
        let (mut story, out) = Story::start(BTreeMap::new(), 1);
        story.keep(out);
        for _ in 0..100 {
            if story.node.is_serving() {
                // What the disk still owes is of no interest to the story.
                story.work();
                return story;
            }
            story.work();
            let due = story.node.next_deadline().max(story.now.monotonic);
            story.now.monotonic = due;
            story.hear(Input::Deadline);
        }
        panic!("it never serves: {:?}", story.node.why_not_ready());
    }

    fn keep(&mut self, out: Vec<Output>) -> Vec<Output> {
        let mut rest = Vec::new();
        for output in out {
            match output {
                Output::Disk(request) => self.disk.push(request),
                Output::Notice(Notice::Issued(_)) => {}
                output => rest.push(output),
            }
        }
        rest
    }

    fn hear(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.node.handle(self.now, input, &mut out);
        self.keep(out)
    }

    /// The disk executes what it was asked and syncs nothing.
    fn execute(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        while !self.disk.is_empty() {
            let request = self.disk.remove(0);
            self.log.0 += 1;
            let lsn = self.log;
            let reply = match request {
                DiskRequest::Meta { ticket, entries } => {
                    for (key, value) in entries {
                        match value {
                            Some(value) => self.meta.insert(key, value),
                            None => self.meta.remove(&key),
                        };
                    }
                    DiskReply::MetaApplied { ticket, lsn }
                }
                DiskRequest::Update { ticket, slot, key, change } => {
                    let applied = Record::apply(&change, self.records.get(&key));
                    if let Applied::Changed { record, .. } = &applied {
                        self.records.insert(key, record.clone());
                    }
                    DiskReply::Applied { ticket, slot, lsn, applied }
                }
                DiskRequest::Remove { ticket, key, .. } => {
                    self.records.remove(&key);
                    DiskReply::Removed { ticket, lsn, is_gone: true }
                }
                DiskRequest::Read { ticket, key, .. } => {
                    let stored = self.records.get(&key).cloned().map_or(Stored::Absent, Stored::Present);
                    DiskReply::Read { ticket, lsn, stored }
                }
                DiskRequest::Sums { ticket, first, last } => {
                    DiskReply::Sums { ticket, first, last, sums: Vec::new() }
                }
                DiskRequest::List { ticket, .. } => DiskReply::Listed { ticket, page: None },
                DiskRequest::ReadMany { ticket, .. } => DiskReply::ReadMany { ticket, found: Vec::new() },
                DiskRequest::Mend { ticket, .. } => DiskReply::Mended { ticket, lsn, dropped: 0 },
            };
            out.extend(self.hear(Input::Disk(reply)));
        }
        out
    }

    fn sync(&mut self) -> Vec<Output> {
        let through = self.log;
        self.hear(Input::Disk(DiskReply::Durable { through }))
    }

    /// The disk executes and syncs until it has nothing left to do.
    fn work(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        while !self.disk.is_empty() {
            out.extend(self.execute());
            out.extend(self.sync());
        }
        out
    }

    fn ask(&mut self, request: Request) -> Vec<Output> {
        self.hear(Input::Client { session: SessionId(1), id: 1, deadline_ms: 5_000, request })
    }
}

fn put(nonce: u64) -> Request {
    Request::Write(Write {
        key: Bytes::from_static(b"k"),
        value: Some(Bytes::from_static(b"v")),
        context: None,
        operation: OperationId { started: WALL, nonce },
        attempt: 1,
        w: Level::Majority,
        sloppy: false,
    })
}

fn outcome(out: &[Output]) -> Outcome {
    match out {
        [.., Output::Respond { answer: Answer::Written(written), .. }] => written.outcome,
        other => panic!("this does not end with an answer to a write: {other:?}"),
    }
}

fn says_something(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Send { .. }))
}

fn fetch(digest: u64) -> Input {
    let digest = crate::protocol::ring::view::SlotDigest(digest);
    let message = PeerMessage::Fetch { request: RequestId(5), digest, key: Bytes::from_static(b"k") };
    Input::Peer { from: PEER, message }
}

#[test]
fn a_start_asks_for_nothing_but_the_disk_until_the_incarnation_is_durable() {
    let (mut story, out) = Story::start(BTreeMap::new(), 1);
    let [Output::Disk(DiskRequest::Meta { entries, .. })] = &out[..] else { panic!("{out:?}") };
    assert_eq!(
        entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        [MetaKey::Identity, MetaKey::Start, MetaKey::OwnLife]
    );
    story.keep(out);
    assert_eq!((story.node.hello(), story.node.next_deadline()), (None, Moment::NEVER));
    assert_eq!(story.hear(fetch(0)), []);
    assert_eq!(story.hear(Input::Deadline), []);
    assert_eq!(story.execute(), []);
    assert_eq!(story.node.hello(), None);
    assert_eq!(story.sync()[0], Output::Notice(Notice::Started));
    assert_eq!(story.node.hello().map(|hello| hello.incarnation), Some(Incarnation(1)));
}

#[test]
fn every_start_raises_the_incarnation_and_draws_a_new_actor() {
    let mut story = Story::serving();
    let (first, actor) = (story.node.id(), story.node.author.actor());
    story.work();
    let (again, out) = Story::start(story.meta.clone(), 2);
    assert_eq!((again.node.id(), again.node.incarnation()), (first, Incarnation(2)));
    assert_ne!(again.node.author.actor(), actor);
    assert_eq!(out.len(), 1);
}

#[test]
fn a_restarted_member_serves_as_soon_as_it_may_talk() {
    let story = Story::serving();
    let (mut again, out) = Story::start(story.meta.clone(), 2);
    again.keep(out);
    assert!(!again.node.is_serving());
    again.execute();
    let out = again.sync();
    assert!(again.node.is_serving());
    let serving = out.iter().filter(|output| **output == Output::Notice(Notice::Serving)).count();
    assert_eq!((&out[0], serving), (&Output::Notice(Notice::Started), 1));
}

#[test]
fn data_of_another_name_is_refused() {
    let story = Story::serving();
    let config = NodeConfig::new(Name::new("n2").unwrap(), ([127, 0, 0, 1], 1).into());
    let result = Node::start(config, &story.meta, Lsn(0), story.now, Rng::from_number(3), &mut Vec::new());
    assert!(matches!(result, Err(StartError::AnotherName { .. })));
}

#[test]
fn a_node_that_is_stopped_while_it_starts_says_nothing_to_anybody() {
    let (mut story, out) = Story::start(BTreeMap::new(), 1);
    story.keep(out);
    assert_eq!(story.hear(Input::Stop), [Output::Notice(Notice::Stopped)]);
    assert_eq!(story.node.hello(), None);
    assert_eq!(story.execute(), []);
    assert_eq!(story.sync(), []);
    assert_eq!(story.hear(fetch(0)), []);
}

#[test]
fn a_put_commits_in_a_cluster_of_one_when_its_log_is_synced() {
    let mut story = Story::serving();
    assert_eq!(story.ask(put(1)), []);
    assert_eq!(story.execute(), []);
    assert_eq!(outcome(&story.sync()), Outcome::Committed);
    let read = Read { key: Bytes::from_static(b"k"), r: Level::Majority, atomic: true };
    story.ask(Request::Read(read));
    assert!(matches!(
        &story.work()[..],
        [Output::Respond { answer: Answer::Read(read), .. }] if read.values.len() == 1
    ));
}

#[test]
fn a_node_that_stops_finishes_what_is_under_way_and_takes_no_new_work() {
    let mut story = Story::serving();
    story.ask(put(1));
    let out = story.hear(Input::Stop);
    assert!(!out.contains(&Output::Notice(Notice::Stopped)));
    let refused = story.ask(put(2));
    assert!(matches!(
        &refused[..],
        [Output::Respond { answer: Answer::Refused(problem), .. }] if problem.code == Code::NotReady
    ));
    let declined = story.hear(fetch(0));
    assert!(matches!(
        &declined[..],
        [Output::Send { message: PeerMessage::Refused { reason: PeerRefusal::NotReady, .. }, .. }]
    ));
    let out = story.work();
    let (last, before) = out.split_last().unwrap();
    assert_eq!((outcome(before), last), (Outcome::Committed, &Output::Notice(Notice::Stopped)));
    assert_eq!((story.hear(fetch(0)), story.node.next_deadline()), (vec![], Moment::NEVER));
}

#[test]
fn a_node_that_stops_still_acknowledges_what_its_disk_had_begun() {
    let mut story = Story::serving();
    let key = Bytes::from_static(b"k");
    let digest = story.node.ring_view().unwrap().slot(Slot::of_key(&key)).digest;
    let message = PeerMessage::Replicate {
        request: RequestId(5),
        digest,
        epoch: ReapEpoch(0),
        actor: Actor(9),
        key,
        record: Record::default(),
    };
    story.hear(Input::Peer { from: PEER, message });
    story.hear(Input::Stop);
    let out = story.work();
    assert!(out.iter().any(|output| matches!(
        output,
        Output::Send { message: PeerMessage::Stored { request: RequestId(5), .. }, .. }
    )));
    assert_eq!(out.last(), Some(&Output::Notice(Notice::Stopped)));
}

#[test]
fn a_stop_ends_even_if_a_client_waits_for_ever_and_the_disk_does_not_answer() {
    let mut story = Story::serving();
    let request = put(1);
    story.hear(Input::Client { session: SessionId(1), id: 1, deadline_ms: u32::MAX, request });
    story.hear(Input::Stop);
    let due = story.node.next_deadline();
    assert!(due <= story.now.monotonic + Duration::from_secs(60));
    story.now.monotonic = due;
    assert_eq!(outcome(&story.hear(Input::Deadline)), Outcome::Unknown);
    assert_eq!(story.work().last(), Some(&Output::Notice(Notice::Stopped)));
}

#[test]
fn a_wall_that_jumps_back_costs_the_actor_and_writes_go_on_under_a_durable_new_one() {
    let mut story = Story::serving();
    story.ask(put(1));
    story.work();
    let actor = story.node.author.actor();
    story.now.wall = WallTime(WALL.0 - 60_000);
    let request = match put(2) {
        Request::Write(write) => {
            Request::Write(Write { operation: OperationId { started: story.now.wall, nonce: 2 }, ..write })
        }
        other => other,
    };
    let out = story.ask(request.clone());
    assert!(out.contains(&Output::Notice(Notice::Amnesia)));
    assert_eq!(outcome(&out[..1]), Outcome::NotApplied);
    assert_ne!(story.node.author.actor(), actor);
    story.execute();
    assert_eq!(outcome(&story.ask(request.clone())), Outcome::NotApplied);
    story.sync();
    story.ask(request);
    assert_eq!(outcome(&story.work()), Outcome::Committed);
}

#[test]
fn a_record_that_knows_more_of_the_own_actor_costs_it_once() {
    let mut story = Story::serving();
    let (key, actor) = (Bytes::from_static(b"k"), story.node.author.actor());
    let digest = story.node.ring_view().unwrap().slot(Slot::of_key(&key)).digest;
    let forgotten = crate::protocol::causality::Put {
        context: Default::default(),
        dot: crate::protocol::causality::Dot { actor, at: Timestamp(7) },
        value: None,
        operation: OperationId { started: WALL, nonce: 3 },
        base: Some(Record::default()),
        age: Age::default(),
        limits: Default::default(),
    };
    let change = crate::protocol::causality::Change::Put(forgotten);
    let Applied::Changed { record, .. } = Record::apply(&change, None) else { unreachable!() };
    let message = PeerMessage::Replicate {
        request: RequestId(5),
        digest,
        epoch: ReapEpoch(0),
        actor: Actor(9),
        key,
        record,
    };
    story.hear(Input::Peer { from: PEER, message: message.clone() });
    let out = story.work();
    assert!(out.contains(&Output::Notice(Notice::Amnesia)));
    assert_ne!(story.node.author.actor(), actor);
    story.hear(Input::Peer { from: PEER, message });
    assert!(!story.work().contains(&Output::Notice(Notice::Amnesia)));
    assert!(says_something(&story.hear(fetch(0))));
}

fn doubt(story: &mut Story, slot: Slot) -> Vec<Output> {
    let reply = DiskReply::Doubted { slots: vec![slot], why: DoubtReason::Damaged };
    story.hear(Input::Disk(reply))
}

#[test]
fn a_doubted_slot_is_withdrawn_before_the_generation_is_raised_and_mended_only_when_that_is_durable() {
    let mut story = Story::serving();
    story.ask(put(1));
    story.work();
    let (actor, slot) = (story.node.author.actor(), Slot::of_key(b"k"));
    let before = story.node.ring_view().unwrap().slot(slot).digest;
    let out = doubt(&mut story, slot);
    assert!(out.contains(&Output::Notice(Notice::Doubted { slots: 1, why: DoubtReason::Damaged })));
    assert_ne!(story.node.author.actor(), actor, "before its next dot");
    assert_eq!(story.node.trust().standing(slot), Standing::Closed);
    let keys = |disk: &[DiskRequest]| -> Vec<MetaKey> {
        let entries = disk.iter().filter_map(|request| match request {
            DiskRequest::Meta { entries, .. } => Some(entries.iter().map(|(key, _)| key.clone())),
            _ => None,
        });
        entries.flatten().collect()
    };
    assert_eq!(keys(&story.disk), [MetaKey::Start, MetaKey::Trust]);
    story.execute();
    assert_eq!(story.node.membership().own().amnesia, 0, "it is on its way, and told to nobody");
    assert!(!story.disk.iter().any(|request| matches!(request, DiskRequest::Mend { .. })));
    story.sync();
    assert_eq!(story.node.membership().own().amnesia, 1);
    assert_ne!(story.node.ring_view().unwrap().slot(slot).digest, before);
    assert!(story.disk.iter().any(|request| matches!(request, DiskRequest::Mend { .. })));
    story.work();
    assert_eq!(story.node.trust().standing(slot), Standing::Refilling);
    // The disk may say it again before it is asked to mend; and a second loss is a second loss.
    assert!(!doubt(&mut story, slot).is_empty());
    assert_eq!(story.node.trust().standing(slot), Standing::Closed);
    // A crash forgets nothing of that.
    story.work();
    let (again, _) = Story::start(story.meta.clone(), 2);
    assert_eq!(again.node.trust().standing(slot), Standing::Closed);
    assert_eq!(again.node.membership().own().amnesia, 1);
}

#[test]
fn rounds_that_others_have_gone_through_are_adopted_for_slots_without_a_vote_and_for_no_others() {
    let mut story = Story::serving();
    let (lost, whole) = (Slot::of_key(b"k"), Slot::of_key(b"another"));
    doubt(&mut story, lost);
    story.work();
    let of_others = ReapStanding { raised: ReapEpoch(3), committed: ReapEpoch(2), ..ReapStanding::default() };
    let (differing, voteless, closed) = Default::default();
    let epochs = vec![(lost, of_others), (whole, of_others)];
    let weighed = Exchange::Weighed { id: QuestionId(1), differing, voteless, closed, epochs };
    story.hear(Input::Peer { from: PEER, message: PeerMessage::Exchange(weighed) });
    assert_eq!(story.node.epochs.asked(lost), of_others);
    assert_eq!(story.node.epochs.durable(lost), ReapStanding::default(), "and not told before it is durable");
    // Where it votes, its own part in a round is all that counts: it may not have what the others promised with theirs.
    assert_eq!(story.node.epochs.asked(whole), ReapStanding::default());
    story.work();
    assert_eq!(story.node.epochs.durable(lost), of_others);
}

#[test]
fn what_no_other_node_has_a_copy_of_comes_back_if_the_operator_accepts_the_loss_and_not_otherwise() {
    for accepts in [false, true] {
        let mut story = Story::serving();
        story.node.config.accept_loss = accepts;
        let slot = Slot::of_key(b"k");
        doubt(&mut story, slot);
        story.work();
        let standing = if accepts { Standing::Votes } else { Standing::Refilling };
        assert_eq!(story.node.trust().standing(slot), standing);
        let read = Read { key: Bytes::from_static(b"k"), r: Level::One, atomic: false };
        story.ask(Request::Read(read));
    }
}

#[test]
fn a_process_that_hears_of_a_later_life_of_its_own_says_nothing_any_more() {
    let mut story = Story::serving();
    let mut later = story.node.membership().own().clone();
    later.incarnation = Incarnation(9);
    let cluster = story.node.cluster();
    let tell = |entry| {
        let news = vec![News { entry, health: Health::Alive }];
        let message = PeerMessage::Gossip(Gossip { cluster, body: Body::Items { news } });
        Input::Peer { from: PEER, message }
    };
    // One that merely has a higher incarnation is an old memory.
    story.hear(tell(later.clone()));
    story.work();
    assert!(story.node.is_serving());
    assert!(story.node.membership().own().age() > later.age());
    later.incarnation = Incarnation(1_000);
    later.amnesia = 1;
    let out = story.hear(tell(later));
    assert!(out.contains(&Output::Notice(Notice::Fenced { generation: 1 })), "{out:?}");
    assert!(!story.node.is_serving());
    assert_eq!((story.hear(fetch(0)), story.node.next_deadline()), (vec![], Moment::NEVER));
    assert_eq!(story.work(), []);
}

#[test]
fn a_node_that_comes_back_without_its_disk_keeps_its_id_and_has_a_say_in_nothing() {
    let mut known = Story::serving().node.membership().own().clone();
    (known.incarnation, known.amnesia) = (Incarnation(7), 3);
    let config = NodeConfig::new(known.name.clone(), ([127, 0, 0, 1], 1).into());
    let mut out = Vec::new();
    let now = Now { monotonic: Moment(5_000_000), wall: WALL };
    let node = Node::recover(config, &known, now, Rng::from_number(4), &mut out).unwrap();
    assert_eq!(node.id(), known.id);
    assert!(node.incarnation() > known.incarnation && node.membership().own().amnesia > known.amnesia);
    assert_eq!(node.trust().voteless().len(), usize::from(crate::protocol::ring::slot::SLOTS));
    assert_eq!((node.hello(), node.is_serving()), (None, false), "nothing leaves before that is durable");
    let [Output::Disk(DiskRequest::Meta { entries, .. })] = &out[..] else { panic!("{out:?}") };
    let meta = entries.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    let (again, _) = Story::start(meta, 5);
    assert!(again.node.incarnation() > node.incarnation());
    assert_eq!(again.node.membership().own().amnesia, node.membership().own().amnesia);
    assert_eq!(again.node.trust().standing(Slot::of_key(b"k")), Standing::Closed);
}
