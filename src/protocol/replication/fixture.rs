//! What the stories of this module are told with: a coordinator among three owners, a disk that obeys the story and
//! peers that are reached as it says.

mod disk;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::author::Author;
use super::coordinator::{Coordinator, Event};
use super::desk::{Desk, Errand, Reply};
use super::hints::{self, Hints, Kept};
use super::latency::Latency;
use super::register::{self, HintRegister};
use super::scope::{Origin, Peers, Rounds, Scope, Stamped};
use super::{recount, replay, replica};
use crate::protocol::causality::{
    Age, Applied, Change, ClusterSecret, ContextToken, Dot, OperationId, OperationMark, Put, Record, Refusal,
};
use crate::protocol::config::{ExchangeConfig, HintConfig, Limits, ReplicationConfig};
use crate::protocol::id::{Actor, ClusterId, Incarnation, NodeId, Place, ReapEpoch, RequestId, SessionId};
use crate::protocol::ledger::Ledger;
use crate::protocol::output::{Destination, Notice, Output};
use crate::protocol::ring::entry::{Entry, Name, Phase, Stage};
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::{RingView, SlotDigest};
use crate::protocol::rng::Rng;
use crate::protocol::storage::epochs::Epochs;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Lsn, MetaKey, Ticket};
use crate::protocol::storage::trust::Trust;
use crate::protocol::time::{Moment, Now, Timestamp, WallTime};
use crate::protocol::wire::client::{
    Answer, Code, Level, Outcome, Read, ReadAnswer, Request, Write, Written,
};
use crate::protocol::wire::life::Milestone;
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};
use crate::protocol::wire::reap::{Reap, ReapCause, ReapWait};

/// The node of the story.
pub(super) const OWN: NodeId = NodeId(1);
/// Another owner.
pub(super) const B: NodeId = NodeId(2);
/// The third owner.
pub(super) const C: NodeId = NodeId(3);
/// A member that owns nothing.
pub(super) const STRANGER: NodeId = NodeId(9);

/// The actor of the node of the story.
pub(super) const ACTOR: Actor = Actor(0xa);
/// The actor of another owner.
pub(super) const OTHER: Actor = Actor(0xb);

/// When every story begins.
pub(super) const WALL: WallTime = WallTime(1_000_000_000);

/// How long every client waits unless the story says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The key of every story.
pub(super) fn key() -> Bytes {
    Bytes::from_static(b"starling")
}

/// The peers of a story.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Those that cannot be reached.
    pub(super) gone: Vec<NodeId>,
    /// How far the own clock is off.
    pub(super) clock_offset: i64,
}

impl Peers for Neighbours {
    fn is_reachable(&self, node: NodeId) -> bool {
        !self.gone.contains(&node)
    }

    fn address(&self, _: NodeId) -> Option<SocketAddr> {
        None
    }

    fn name(&self, node: NodeId) -> String {
        format!("n{}", node.0)
    }

    fn entry(&self, node: NodeId) -> Option<Entry> {
        Some(entry(node))
    }

    fn clock_offset(&self) -> i64 {
        self.clock_offset
    }
}

/// A member of the ring.
pub(super) fn entry(id: NodeId) -> Entry {
    Entry {
        id,
        place: Place(id.0),
        name: Name::new(format!("n{}", id.0)).unwrap(),
        addresses: Vec::new(),
        zone: Zone::default(),
        weight: Weight::default(),
        incarnation: Incarnation(1),
        version: 0,
        amnesia: 0,
        phase: Phase { generation: 0, stage: Stage::Active },
    }
}

fn view(members: &[NodeId], amnesia: u32) -> RingView {
    let entries: Vec<Entry> = members.iter().map(|node| Entry { amnesia, ..entry(*node) }).collect();
    RingView::build(ClusterId(7), Replicas::default(), &entries).unwrap()
}

/// One node of the story, without the parts that do not replicate.
pub(super) struct Story {
    pub(super) now: Now,
    pub(super) config: ReplicationConfig,
    pub(super) limits: Limits,
    pub(super) view: RingView,
    pub(super) secret: ClusterSecret,
    pub(super) peers: Neighbours,
    /// Which slots the node votes for.
    pub(super) trust: Trust,
    pub(super) author: Author,
    pub(super) desk: Desk,
    pub(super) latency: Latency,
    pub(super) register: HintRegister,
    pub(super) hints: Hints,
    pub(super) hint_config: HintConfig,
    pub(super) epochs: Epochs,
    pub(super) ledger: Ledger,
    pub(super) doubts: Vec<NodeId>,
    pub(super) missed: Vec<(NodeId, Slot)>,
    pub(super) coordinator: Coordinator,
    /// What the disk holds.
    pub(super) disk: BTreeMap<Bytes, Record>,
    /// Keys whose records are damaged.
    pub(super) lost: Vec<Bytes>,
    /// Whether the disk trusts what is in its slots.
    pub(super) is_trusted: bool,
    /// What the disk refuses every update for.
    pub(super) refusing: Option<Refusal>,
    /// What was written that is not per key, `None` for what was removed.
    pub(super) meta: BTreeMap<MetaKey, Option<Bytes>>,
    /// Requests that the disk has not executed.
    pub(super) waiting: VecDeque<DiskRequest>,
    /// The newest entry of the log.
    pub(super) log: Lsn,
    /// The positions of the keys' newest entries.
    positions: BTreeMap<Bytes, Lsn>,
    /// The number of the newest client request.
    asked: u64,
}

/// A node whose rounds of reaping wait for a retry.
struct NoRounds;

impl Rounds for NoRounds {
    fn wait(&self, _: Slot, _: Moment) -> ReapWait {
        ReapWait { cause: ReapCause::Young, again_in_ms: 1_000 }
    }
}

impl Story {
    /// A coordinator that owns every key together with [`B`] and [`C`].
    pub(super) fn new() -> Story {
        Story::among(&[OWN, B, C])
    }

    /// A node that owns no key, as they all belong to `owners`.
    pub(super) fn among(owners: &[NodeId]) -> Story {
        let mut author = Author::new(ACTOR);
        author.became_durable(ACTOR);
        Story {
            now: Now { monotonic: Moment(1_000_000), wall: WALL },
            config: ReplicationConfig::default(),
            limits: Limits::default(),
            view: view(owners, 0),
            secret: ClusterSecret::draw(&mut Rng::from_number(1)),
            peers: Neighbours::default(),
            trust: Trust::default(),
            author,
            desk: Desk::default(),
            latency: Latency::default(),
            register: HintRegister::default(),
            hints: Hints::default(),
            hint_config: HintConfig::default(),
            epochs: Epochs::default(),
            ledger: Ledger::new(&ExchangeConfig::default()),
            doubts: Vec::new(),
            missed: Vec::new(),
            coordinator: Coordinator::new(&mut Rng::from_number(1)),
            disk: BTreeMap::new(),
            lost: Vec::new(),
            is_trusted: true,
            refusing: None,
            meta: BTreeMap::new(),
            waiting: VecDeque::new(),
            log: Lsn(0),
            positions: BTreeMap::new(),
            asked: 0,
        }
    }

    fn with_scope(&mut self, act: impl FnOnce(&mut Coordinator, &mut Scope<'_>)) -> Vec<Output> {
        let mut out = Vec::new();
        let mut scope = Scope {
            now: self.now,
            own: OWN,
            config: &self.config,
            limits: &self.limits,
            view: &self.view,
            secret: &self.secret,
            peers: &self.peers,
            milestone: Milestone::default(),
            trust: &self.trust,
            author: &mut self.author,
            desk: &mut self.desk,
            latency: &mut self.latency,
            register: &mut self.register,
            hints: &mut self.hints,
            hint_config: &self.hint_config,
            epochs: &mut self.epochs,
            rounds: &NoRounds,
            ledger: &mut self.ledger,
            doubts: &mut self.doubts,
            missed: &mut self.missed,
            out: &mut out,
        };
        act(&mut self.coordinator, &mut scope);
        self.sort_out(out)
    }

    /// Keeps what the disk is asked for the disk, drops notices and gives back the rest.
    fn sort_out(&mut self, out: Vec<Output>) -> Vec<Output> {
        let mut rest = Vec::new();
        for output in out {
            match output {
                Output::Disk(request) => self.waiting.push_back(request),
                Output::Notice(Notice::Issued(_)) => {}
                output => rest.push(output),
            }
        }
        rest
    }

    /// A client asks; the disk does nothing yet.
    pub(super) fn ask(&mut self, request: Request) -> Vec<Output> {
        self.ask_within(PATIENCE, request)
    }

    /// A client asks that waits this long.
    pub(super) fn ask_within(&mut self, patience: Duration, request: Request) -> Vec<Output> {
        self.asked += 1;
        let origin = Origin::Client { session: SessionId(1), id: self.asked };
        self.with_scope(|coordinator, scope| coordinator.start(origin, request, patience, scope))
    }

    /// A node passes a client's request on.
    pub(super) fn forwarded(&mut self, node: NodeId, request: u64, ask: Request) -> Vec<Output> {
        let origin = Origin::Peer { node, request: RequestId(request) };
        self.with_scope(|coordinator, scope| coordinator.start(origin, ask, PATIENCE, scope))
    }

    /// A peer says something that only replication hears.
    pub(super) fn hear(&mut self, from: NodeId, message: PeerMessage) -> Vec<Output> {
        self.with_scope(|coordinator, scope| match message {
            PeerMessage::Replicate { request, digest, epoch, actor, key, record } => {
                let stamped = Stamped { record, epoch };
                replica::on_replicate(from, request, digest, actor, &key, stamped, scope);
            }
            PeerMessage::Fetch { request, digest, key } => {
                replica::on_fetch(from, request, digest, &key, scope)
            }
            PeerMessage::Stored { request, .. } if replay::is_replay(request) => {
                replay::on_stored(from, request, scope);
            }
            PeerMessage::Hint { request, digest, epoch, target, key, record } => {
                let hint = Kept { digest, target, key, stamped: Stamped { record, epoch } };
                hints::on_hint(from, request, hint, scope);
            }
            PeerMessage::Reap(Reap::Told { request, wait }) => {
                coordinator.handle(request, Event::ReapTold { from, wait }, scope);
            }
            PeerMessage::Hinted { request, .. } => coordinator.handle(request, Event::Hinted(from), scope),
            PeerMessage::AskHints { request, slots } => hints::on_ask(from, request, slots, scope),
            PeerMessage::NoHints { request, slots } => register::on_no_hints(from, request, &slots, scope),
            PeerMessage::Stored { request, entry, .. } => {
                coordinator.handle(request, Event::Stored { from, entry }, scope);
            }
            PeerMessage::Fetched { request, raised, committed, record, .. } => {
                let reply = Reply { record, raised, committed };
                coordinator.handle(request, Event::Fetched { from, reply }, scope);
            }
            PeerMessage::Refused { request, reason } => {
                coordinator.handle(request, Event::Refused { from, reason }, scope);
            }
            PeerMessage::Forwarded { request, answer, .. } => {
                coordinator.handle(request, Event::Forwarded { from, answer }, scope);
            }
            other => panic!("no part of this story: {other:?}"),
        })
    }

    /// The disk executes everything that it was asked, without syncing any of it.
    pub(super) fn execute(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        while let Some(request) = self.waiting.pop_front() {
            let reply = self.submit(request);
            out.extend(self.on_disk(reply));
        }
        out
    }

    /// The disk syncs everything that it has executed.
    pub(super) fn sync(&mut self) -> Vec<Output> {
        let through = self.log;
        self.on_disk(DiskReply::Durable { through })
    }

    fn errand(&mut self, ticket: Ticket) -> Errand {
        self.desk.fetch_errand(ticket).expect("the disk answers what it was asked, once")
    }

    /// Time passes, and whoever wanted to be woken by then is, at the time that it wanted.
    pub(super) fn pass(&mut self, span: Duration) -> Vec<Output> {
        let end = self.now.monotonic + span;
        let mut out = Vec::new();
        while self.coordinator.next_deadline() <= end {
            let due = self.coordinator.next_deadline().max(self.now.monotonic);
            self.advance(due.since(self.now.monotonic));
            out.extend(self.with_scope(|coordinator, scope| coordinator.tick(scope)));
            assert!(
                self.coordinator.next_deadline() > self.now.monotonic,
                "an operation wants to be woken at once, over and over"
            );
        }
        self.advance(end.since(self.now.monotonic));
        out
    }

    /// The node starts anew: what it knew of the hints on its disk is gone, but for what it had written down.
    pub(super) fn restart_hints(&mut self) {
        let written = self.meta.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        self.hints = Hints::parse(&written.collect()).unwrap();
    }

    /// The time to look at hints and at the register has come.
    pub(super) fn look_at_hints(&mut self, after: Duration) -> Vec<Output> {
        self.advance(after);
        self.with_scope(|_, scope| {
            recount::tick(scope);
            replay::tick(scope);
            register::tick(scope);
        })
    }

    fn advance(&mut self, span: Duration) {
        self.now.monotonic = self.now.monotonic + span;
        self.now.wall = self.now.wall.plus(span);
    }

    /// The ring that these members make comes into force.
    pub(super) fn change_ring(&mut self, members: &[NodeId]) -> Vec<Output> {
        self.view = view(members, 1);
        self.with_scope(|coordinator, scope| coordinator.on_ring_change(scope))
    }

    /// The node loses its vote for the slot of the key, and so much that it takes no part any more, or merely does not vote.
    pub(super) fn lose(&mut self, is_closed: bool) {
        let slot = Slot::of_key(&key());
        self.trust.doubt(slot);
        if !is_closed {
            let unsaid = self.trust.unsaid();
            self.trust.said(&unsaid);
            self.trust.mended(slot);
        }
    }

    /// The owners' belief about the slot of the key.
    pub(super) fn digest(&self) -> SlotDigest {
        self.view.slot(Slot::of_key(&key())).digest
    }

    /// The number of the only operation under way, as the messages carry it.
    pub(super) fn request(&self) -> RequestId {
        assert_eq!(self.coordinator.len(), 1, "more or less than one operation is under way");
        self.last_request()
    }

    /// The number of the newest operation.
    pub(super) fn last_request(&self) -> RequestId {
        self.coordinator.newest()
    }

    /// What the node's disk holds for the key.
    pub(super) fn stored(&self) -> Record {
        self.disk.get(&key()).cloned().unwrap_or_default()
    }

    /// A client's context for the key: what these records have seen.
    pub(super) fn context(&self, record: &Record) -> ContextToken {
        ContextToken::seal(record.context(), &key(), &self.secret)
    }

    /// The dot that the node issues first at this time.
    pub(super) fn dot(&self) -> Dot {
        Dot { actor: ACTOR, at: Timestamp::at(self.now.wall) }
    }

    // What outputs look like.

    /// The record goes to an owner.
    pub(super) fn replicate(&self, to: NodeId, record: &Record) -> Output {
        self.replicate_as(self.last_request(), ACTOR, to, record)
    }

    /// The record goes to an owner, which is to state its entry for another node's actor: the write is that node's.
    pub(super) fn replicate_of_another(&self, to: NodeId, record: &Record) -> Output {
        self.replicate_as(self.last_request(), OTHER, to, record)
    }

    /// The record goes to an owner, and nobody waits for an answer.
    pub(super) fn repair(&self, to: NodeId, record: &Record) -> Output {
        self.replicate_as(RequestId(0), ACTOR, to, record)
    }

    fn replicate_as(&self, request: RequestId, actor: Actor, to: NodeId, record: &Record) -> Output {
        let message = PeerMessage::Replicate {
            request,
            digest: self.digest(),
            epoch: ReapEpoch(0),
            actor,
            key: key(),
            record: record.clone(),
        };
        send(to, message)
    }

    /// An owner is asked.
    pub(super) fn fetch(&self, to: NodeId) -> Output {
        let request = self.last_request();
        send(to, PeerMessage::Fetch { request, digest: self.digest(), key: key() })
    }

    /// The operation is passed on.
    pub(super) fn forward(&self, to: NodeId, left: Duration, ask: Request) -> Output {
        let deadline_ms = left.as_millis() as u32;
        send(to, PeerMessage::Forward { request: self.last_request(), deadline_ms, ask })
    }

    /// The answer to the newest client request.
    pub(super) fn respond(&self, answer: Answer) -> Output {
        Output::Respond { session: SessionId(1), id: self.asked, answer }
    }

    // What peers say about the newest operation.

    /// An owner has the record.
    pub(super) fn stored_by(&mut self, from: NodeId, entry: Timestamp) -> Vec<Output> {
        let request = self.last_request();
        self.hear(from, stored(request, entry))
    }

    /// An owner tells what it holds.
    pub(super) fn fetched_from(&mut self, from: NodeId, record: Option<&Record>) -> Vec<Output> {
        let request = self.last_request();
        self.hear(from, fetched(request, record))
    }

    /// An owner refuses.
    pub(super) fn refused_by(&mut self, from: NodeId, reason: PeerRefusal) -> Vec<Output> {
        let request = self.last_request();
        self.hear(from, PeerMessage::Refused { request, reason })
    }

    /// Whom the operation was passed on to answers.
    pub(super) fn answered_by(&mut self, from: NodeId, answer: Answer) -> Vec<Output> {
        let request = self.last_request();
        self.hear(from, PeerMessage::Forwarded { request, milestone: Milestone::default(), answer })
    }
}

pub(super) fn fetched(request: RequestId, record: Option<&Record>) -> PeerMessage {
    fetched_under(request, ReapEpoch::default(), record)
}

/// By an owner that has agreed to rounds of reaping, and completed none of them.
pub(super) fn fetched_under(request: RequestId, raised: ReapEpoch, record: Option<&Record>) -> PeerMessage {
    let (committed, milestone) = Default::default();
    PeerMessage::Fetched { request, raised, committed, milestone, record: record.cloned() }
}

pub(super) fn stored(request: RequestId, entry: Timestamp) -> PeerMessage {
    PeerMessage::Stored { request, entry, milestone: Milestone::default() }
}

pub(super) fn send(to: NodeId, message: PeerMessage) -> Output {
    Output::Send { to: Destination::Node { id: to, address: None }, message }
}

/// An operation that started with the story.
pub(super) fn operation(nonce: u64) -> OperationId {
    OperationId { started: WALL, nonce }
}

/// A blind put with a majority.
pub(super) fn put(value: &'static str) -> Write {
    Write {
        key: key(),
        value: Some(Bytes::from_static(value.as_bytes())),
        context: None,
        operation: operation(1),
        attempt: 1,
        w: Level::Majority,
        sloppy: false,
    }
}

/// A delete without a context.
pub(super) fn delete() -> Write {
    Write { value: None, ..put("") }
}

/// A read by a majority.
pub(super) fn get() -> Read {
    Read { key: key(), r: Level::Majority, atomic: false }
}

/// What the key becomes by a blind write of another owner's actor.
pub(super) fn written(at: u64, value: Option<&'static str>) -> Record {
    write_on(None, at, value)
}

/// What `before` becomes by a write of another owner's actor that has seen all of it.
pub(super) fn overwritten(before: &Record, at: u64, value: Option<&'static str>) -> Record {
    write_on(Some(before), at, value)
}

fn write_on(before: Option<&Record>, at: u64, value: Option<&'static str>) -> Record {
    let change = Change::Put(Put {
        context: before.map(|record| record.context().clone()).unwrap_or_default(),
        dot: Dot { actor: OTHER, at: Timestamp(at) },
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        operation: OperationId { started: WallTime(WALL.0 - 1_000), nonce: 1_000_000 + at },
        base: Some(Record::default()),
        age: Age::default(),
        limits: Limits::default(),
    });
    match Record::apply(&change, before) {
        Applied::Changed { record, .. } => record,
        other => panic!("the write was not executed: {other:?}"),
    }
}

/// The mark of an operation in a record, if it has one.
pub(super) fn mark(record: &Record, operation: OperationId) -> Option<OperationMark> {
    record.operations().iter().copied().find(|mark| mark.operation == operation)
}

/// The answer to a write among the outputs, which must hold exactly one.
pub(super) fn written_answer(out: &[Output]) -> Written {
    match out {
        [Output::Respond { answer: Answer::Written(written), .. }] => written.clone(),
        other => panic!("this is not one answer to a write: {other:?}"),
    }
}

/// The answer to a read among the outputs, which must begin with one.
pub(super) fn read_answer(out: &[Output]) -> ReadAnswer {
    match out {
        [.., Output::Respond { answer: Answer::Read(read), .. }] => read.clone(),
        other => panic!("this does not end with an answer to a read: {other:?}"),
    }
}

/// Outcome and problem of the one answer to a write.
pub(super) fn outcome(out: &[Output]) -> (Outcome, Option<Code>) {
    let written = written_answer(out);
    (written.outcome, written.problem.map(|problem| problem.code))
}
