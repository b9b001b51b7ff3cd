//! What clients ask and nodes answer.
//!
//! ```text
//! client ──ClientFrame { id, deadline, Request }──▶ node
//! client ◀──AnswerFrame { id, Answer }───────────── node      in any order: requests are pipelined
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use super::fault::{Direction, Fault, FaultRule, Injected};
pub use super::reap::{Obstacle, ReapCause, ReapWait};
use crate::protocol::causality::{ContextToken, Dot, OperationId, Record, Sibling};
use crate::protocol::id::{ClusterId, Incarnation, NodeId};
use crate::protocol::ring::entry::{Entry, Name};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::WallTime;

/// One numbered request (Request Pipeline): the answer carries the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFrame {
    /// The client's number for it, unique on its connection.
    pub id: u64,
    /// How many milliseconds the client still waits. Work that is later than that is dropped, not done.
    pub deadline_ms: u32,
    /// What is asked.
    pub request: Request,
}

/// One numbered answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerFrame {
    /// The number of the request.
    pub id: u64,
    /// The answer.
    pub answer: Answer,
}

/// How many owners have to agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// A single owner. Promises little: a majority read may miss what was written this way.
    One,
    /// More than half of the owners: any two such quorums share a replica (Majority Quorum).
    #[default]
    Majority,
    /// Every owner.
    All,
    /// This many; more than there are owners means all of them, zero means one.
    Count(u8),
}

impl Level {
    /// How many of `owners` that is.
    #[must_use]
    pub fn of(self, owners: usize) -> usize {
        match self {
            Level::One => 1,
            Level::Majority => owners / 2 + 1,
            Level::All => owners,
            Level::Count(count) => usize::from(count).clamp(1, owners.max(1)),
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Store or delete a value.
    Write(Write),
    /// Fetch all concurrent values of a key.
    Read(Read),
    /// Which replica holds which sibling, and why.
    Explain {
        /// The key.
        key: Bytes,
    },
    /// What one needs to route requests: members, replicas, node time. The handshake of a client.
    Topology,
    /// How the node is.
    Status,
    /// For people with the admin role; answered by the shell, not by the protocol.
    Admin(AdminRequest),
}

/// A put or a delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The key.
    pub key: Bytes,
    /// The value; `None` deletes.
    pub value: Option<Bytes>,
    /// The context of the read that this write answers. A put without one is *blind*: it adds a sibling. A delete
    /// without one reads first and deletes what it read.
    pub context: Option<ContextToken>,
    /// Names the operation over all its attempts.
    pub operation: OperationId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How many owners must have it on disk.
    pub w: Level,
    /// Whether hints on other nodes may count (they cannot yet: no node keeps hints in this version).
    pub sloppy: bool,
}

/// A get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The key.
    pub key: Bytes,
    /// How many owners must reply.
    pub r: Level,
    /// Whether the answer must be at a majority before it is given, so that no later majority read sees less.
    pub atomic: bool,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To a write.
    Written(Written),
    /// To a read.
    Read(ReadAnswer),
    /// To explain.
    Explained(Explanation),
    /// To topology.
    Topology(Topology),
    /// To status.
    Status(Status),
    /// To an admin request.
    Admin(AdminAnswer),
    /// The request could not be begun; nothing was changed.
    Refused(Problem),
}

/// The outcome of a write. It never lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// On the disks of as many owners as were asked for.
    Committed,
    /// Some replica may hold it. It may still become visible, now or later.
    Unknown,
    /// No replica holds it or ever will: the attempt ended before anything was logged. About this attempt; the client
    /// library says it of an operation only if it holds for every attempt.
    NotApplied,
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What became of it.
    pub outcome: Outcome,
    /// For the client's next write of this key: the record's context if the written value is now the only one,
    /// otherwise the context that was sent ("read to resolve").
    pub context: Option<ContextToken>,
    /// The write's dot, where it is known.
    pub dot: Option<Dot>,
    /// How many siblings the key had afterwards at the coordinator; 0 if that is not known.
    pub siblings: u32,
    /// The owners that have it on disk.
    pub acks: Vec<NodeId>,
    /// The nodes that keep a hint of it.
    pub hinted: Vec<NodeId>,
    /// Why it is not committed.
    pub problem: Option<Problem>,
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAnswer {
    /// Whether enough owners replied. If not, the rest of the answer is empty.
    pub available: bool,
    /// The concurrent values, oldest dot first. Siblings with equal bytes appear once.
    pub values: Vec<Sibling>,
    /// Whether the key was deleted, not merely absent.
    pub deleted: bool,
    /// For the next write of this key; `None` if no replica knows of it.
    pub context: Option<ContextToken>,
    /// The owners whose replies were merged.
    pub replies: Vec<NodeId>,
    /// Why it is not available.
    pub problem: Option<Problem>,
}

/// One owner's view of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// The owner.
    pub node: NodeId,
    /// Whether the coordinator believes that it can reach it.
    pub reachable: bool,
    /// What it holds, or why that is not known.
    pub record: Result<Option<Record>, Problem>,
}

/// The answer to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The slot of the key.
    pub slot: u16,
    /// Every owner, in the order of the ring.
    pub replicas: Vec<ReplicaView>,
    /// If an owner holds a deletion: why it is still there.
    pub reaping: Option<Reaping>,
}

/// Why a deletion is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaping {
    /// The owner that drives the rounds of reaping of the slot: its first one.
    pub driver: NodeId,
    /// What it waits for, or why that is not known.
    pub wait: Result<ReapWait, Problem>,
}

/// Where a node believes another one to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Heard of lately.
    Alive,
    /// Said goodbye.
    Stopped,
    /// Some observer cannot reach it.
    Suspect,
    /// It did not refute the suspicion in time.
    Down,
}

/// One line of `members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// What it says of itself.
    pub entry: Entry,
    /// What gossip believes of it.
    pub health: Health,
    /// Whether the answering node can reach it now. Routing goes by this, not by `health`.
    pub reachable: bool,
}

/// What a client needs to route its requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The answering node.
    pub node: NodeId,
    /// Its cluster, once founded.
    pub cluster: Option<ClusterId>,
    /// Replicas of every key.
    pub replicas: Replicas,
    /// Everybody that the node knows of, itself included.
    pub members: Vec<MemberView>,
    /// The node's wall clock: operation ids carry node time.
    pub time: WallTime,
    /// Changes whenever the answer would, node time apart: a client compares this to see that something changed.
    pub version: u64,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// Its cluster, once founded.
    pub cluster: Option<ClusterId>,
    /// What keeps it from serving, if anything does.
    pub waiting_for: Option<String>,
    /// Its generation clock.
    pub incarnation: Incarnation,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Slots that it owns.
    pub slots_owned: u32,
    /// Client requests under way.
    pub requests: u32,
    /// How far its clock is from the median that it hears, in milliseconds.
    pub clock_offset_ms: i64,
    /// Named counts since the start, and gauges, in alphabetical order; the shell adds its own.
    pub counts: Vec<(String, u64)>,
    /// Slots of which the node has reason to think that not all owners hold the same, or does not trust its own contents:
    /// first and last of each run, ascending. What two owners know of each other's differences one of them tells.
    pub dirty: Vec<(u16, u16)>,
    /// Nodes that own slots and that it cannot reach now.
    pub unreachable: Vec<NodeId>,
}

impl Status {
    /// The dirty slots one by one.
    pub fn dirty_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let runs = self.dirty.iter().map(|(first, last)| *first..=*last);
        runs.flatten().filter_map(|index| Slot::new(index).ok())
    }

    /// Tells of further dirty slots.
    pub fn add_dirty(&mut self, slots: impl IntoIterator<Item = Slot>) {
        let mut all: BTreeSet<u16> = self.dirty_slots().map(Slot::get).collect();
        all.extend(slots.into_iter().map(Slot::get));
        self.dirty.clear();
        for slot in all {
            match self.dirty.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => self.dirty.push((slot, slot)),
            }
        }
    }
}

/// What went wrong, for programs (`code`) and for people (`message`).
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// For people: what happened and what to do.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(code: Code, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into() }
    }
}

/// What kind of problem it is. Stable names, also in `--json` (snake case).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    /// Too few owners can be reached.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// Too much work is waiting; try again in a moment.
    Overloaded,
    /// The node is not (or not any more) ready to serve.
    NotReady,
    /// The node and an owner see different rings.
    RingChanged,
    /// The key is empty or too long.
    BadKey,
    /// The value is too large.
    ValueTooLarge,
    /// The record would become too large.
    RecordTooLarge,
    /// Too many concurrent values.
    TooManySiblings,
    /// The context has too many entries.
    ContextTooLong,
    /// The context is of another key.
    ContextOfAnotherKey,
    /// The context is damaged or forged.
    ContextDamaged,
    /// The operation id is too old.
    OperationExpired,
    /// The disk is nearly full.
    DiskFull,
    /// The stored record is damaged.
    RecordLost,
    /// The certificate does not allow it.
    Forbidden,
    /// The request makes no sense.
    BadRequest,
    /// The connection broke.
    Connection,
}

impl Code {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::Unavailable => "unavailable",
            Code::Timeout => "timeout",
            Code::Overloaded => "overloaded",
            Code::NotReady => "not_ready",
            Code::RingChanged => "ring_changed",
            Code::BadKey => "bad_key",
            Code::ValueTooLarge => "value_too_large",
            Code::RecordTooLarge => "record_too_large",
            Code::TooManySiblings => "too_many_siblings",
            Code::ContextTooLong => "context_too_long",
            Code::ContextOfAnotherKey => "context_of_another_key",
            Code::ContextDamaged => "context_damaged",
            Code::OperationExpired => "operation_expired",
            Code::DiskFull => "disk_full",
            Code::RecordLost => "record_lost",
            Code::Forbidden => "forbidden",
            Code::BadRequest => "bad_request",
            Code::Connection => "connection",
        }
    }
}

/// Administration of one node, by frames of the client protocol under the admin role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// Replace the fault towards and from one peer address; needs a node started with `--faults`.
    SetFault {
        /// The peer.
        peer: SocketAddr,
        /// What to do to datagrams sent to it.
        outbound: Fault,
        /// What to do to datagrams received from it: only `cut` and `loss_per_mille` have a meaning here.
        inbound: Fault,
    },
    /// Remove all faults.
    ClearFaults,
    /// Which faults are in force.
    ListFaults,
    /// Stop in good order.
    Stop,
}

/// The answer to an admin request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAnswer {
    /// Done.
    Done,
    /// The faults in force.
    Faults(Vec<FaultRule>),
}
