//! What an operation may use of the node that runs it.

use std::net::SocketAddr;

use bytes::Bytes;

use super::author::Author;
use super::desk::{Desk, Errand, Reply};
use super::hints::Hints;
use super::latency::Latency;
use super::register::HintRegister;
use crate::protocol::causality::{Age, Change, ClusterSecret, ContextToken, Record};
use crate::protocol::config::{CLOCK_SKEW_MAX, HintConfig, Limits, ReplicationConfig};
use crate::protocol::id::{Actor, NodeId, ReapEpoch, RequestId, SessionId};
use crate::protocol::ledger::Ledger;
use crate::protocol::output::{Destination, Output};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::{RingView, SlotView};
use crate::protocol::storage::epochs::Epochs;
use crate::protocol::storage::op::DiskRequest;
use crate::protocol::storage::trust::{Standing, Trust};
use crate::protocol::time::{Moment, Now, WallTime};
use crate::protocol::wire::client::{Answer, Code, Problem};
use crate::protocol::wire::life::Milestone;
use crate::protocol::wire::peer::PeerMessage;
use crate::protocol::wire::reap::ReapWait;

/// What replication needs to know of the other members.
pub trait Peers {
    /// Whether this node can reach it now, by direct signs of life.
    fn is_reachable(&self, node: NodeId) -> bool;
    /// Where it can be reached.
    fn address(&self, node: NodeId) -> Option<SocketAddr>;
    /// What people call it.
    fn name(&self, node: NodeId) -> String;
    /// What it says of itself.
    fn entry(&self, node: NodeId) -> Option<Entry>;
    /// How far this node's wall clock is ahead of the median that it hears, itself included, in milliseconds.
    fn clock_offset(&self) -> i64;
}

/// What people may ask of the rounds of reaping that this node drives.
pub trait Rounds {
    /// Why the deletions of a slot are not forgotten yet.
    fn wait(&self, slot: Slot, now: Moment) -> ReapWait;
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// To a client of this node.
    Client {
        /// Its connection.
        session: SessionId,
        /// Its number for the request.
        id: u64,
    },
    /// To a node that passed a client's request on.
    Peer {
        /// The node.
        node: NodeId,
        /// Its number for the request.
        request: RequestId,
    },
}

/// A record, and the reap epoch under which it was read from a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The record.
    pub record: Record,
    /// The epoch: *raised*, at whoever read it, when it did.
    pub epoch: ReapEpoch,
}

/// What an operation may use of the node that runs it, for the time of one input.
pub struct Scope<'a> {
    /// The time of the input.
    pub now: Now,
    /// This node.
    pub own: NodeId,
    /// How it runs requests.
    pub config: &'a ReplicationConfig,
    /// What it refuses to exceed.
    pub limits: &'a Limits,
    /// Who owns what.
    pub view: &'a RingView,
    /// What contexts are sealed with.
    pub secret: &'a ClusterSecret,
    /// The other members.
    pub peers: &'a dyn Peers,
    /// How far this node has got: it goes with whatever others count on.
    pub milestone: Milestone,
    /// Which slots this node votes for.
    pub trust: &'a Trust,
    /// Who issues dots.
    pub author: &'a mut Author,
    /// Who waits for the disk.
    pub desk: &'a mut Desk,
    /// How long replicas take.
    pub latency: &'a mut Latency,
    /// Who may keep hints of this node's slots.
    pub register: &'a mut HintRegister,
    /// What this node keeps for others.
    pub hints: &'a mut Hints,
    /// How much of it.
    pub hint_config: &'a HintConfig,
    /// What repair of all kinds may cost.
    pub ledger: &'a mut Ledger,
    /// Nodes that did not answer in time: the membership looks after them at once.
    pub doubts: &'a mut Vec<NodeId>,
    /// Which rounds of reaping its slots have gone through.
    pub epochs: &'a mut Epochs,
    /// What rounds of reaping wait for.
    pub rounds: &'a dyn Rounds,
    /// Owners that a write could not be sent to, and its slot: an exchange sees to them.
    pub missed: &'a mut Vec<(NodeId, Slot)>,
    /// Where outputs go.
    pub out: &'a mut Vec<Output>,
}

/// Node time: a wall clock without its distance from the median of the nodes. Operation ids carry it, so that no single
/// node's clock decides whether an operation is too old.
#[must_use]
pub fn node_time(wall: WallTime, clock_offset: i64) -> WallTime {
    WallTime(wall.0.saturating_add_signed(clock_offset.saturating_neg()))
}

/// How many may wait for the disk for each request that clients may have under way: an owner works for its own clients
/// and, with three replicas, as a replica for those of two other nodes.
const DISK_WAITERS_PER_REQUEST: usize = 4;

impl Scope<'_> {
    /// Whether so much waits for the disk that nothing may be added. Requests that were answered without it leave what
    /// they asked of it behind, so that bounding the requests alone would not bound this.
    #[must_use]
    pub fn is_disk_behind(&self) -> bool {
        self.desk.len() >= DISK_WAITERS_PER_REQUEST * self.config.requests_max
    }

    /// Whether this node's clock is too far off for it to issue dots if another owner can.
    #[must_use]
    pub fn is_clock_off(&self) -> bool {
        u128::from(self.peers.clock_offset().unsigned_abs()) > CLOCK_SKEW_MAX.as_millis()
    }

    /// See [`node_time`].
    #[must_use]
    pub fn node_time(&self) -> WallTime {
        node_time(self.now.wall, self.peers.clock_offset())
    }

    /// The slot of a key as this node sees it.
    #[must_use]
    pub fn slot_of(&self, key: &[u8]) -> SlotView<'_> {
        self.view.slot(Slot::of_key(key))
    }

    /// What this node's own copy of a key may be used for.
    #[must_use]
    pub fn standing_of(&self, key: &[u8]) -> Standing {
        self.trust.standing(Slot::of_key(key))
    }

    /// Whether this node's own copy of a key is an answer to a read.
    #[must_use]
    pub fn votes_for(&self, key: &[u8]) -> bool {
        #[cfg(test)]
        if planted::is(Planted::VotelessAnswers) {
            return true;
        }
        self.standing_of(key) == Standing::Votes
    }

    /// Whether a message to `node` has a chance to be answered; the node itself always has.
    #[must_use]
    pub fn can_reach(&self, node: NodeId) -> bool {
        node == self.own || self.peers.is_reachable(node)
    }

    /// A node that seemed reachable did not answer in time.
    pub fn doubt(&mut self, node: NodeId) {
        if !self.doubts.contains(&node) {
            self.doubts.push(node);
        }
    }

    /// A write cannot be delivered to an owner now.
    pub fn miss(&mut self, node: NodeId, key: &[u8]) {
        let missed = (node, Slot::of_key(key));
        if !self.missed.contains(&missed) {
            self.missed.push(missed);
        }
    }

    /// Sends a message to another node.
    pub fn send(&mut self, node: NodeId, message: PeerMessage) {
        let to = Destination::Node { id: node, address: self.peers.address(node) };
        self.out.push(Output::Send { to, message });
    }

    /// Answers whoever asked.
    pub fn answer(&mut self, origin: Origin, answer: Answer) {
        match origin {
            Origin::Client { session, id } => self.out.push(Output::Respond { session, id, answer }),
            Origin::Peer { node, request } => {
                let milestone = self.milestone;
                self.send(node, PeerMessage::Forwarded { request, milestone, answer });
            }
        }
    }

    /// Sends a record to an owner, which is to state its entry for `actor` when it has the record; `epoch` is that
    /// under which the record was read from a store.
    pub fn replicate(
        &mut self,
        node: NodeId,
        request: RequestId,
        actor: Actor,
        key: &Bytes,
        record: &Record,
        epoch: ReapEpoch,
    ) {
        let digest = self.slot_of(key).digest;
        let message = PeerMessage::Replicate {
            request,
            digest,
            epoch,
            actor,
            key: key.clone(),
            record: record.clone(),
        };
        self.send(node, message);
    }

    /// The change that merges a record into the own store, which was read under `epoch`.
    #[must_use]
    pub fn merge(&self, key: &[u8], stamped: Stamped) -> Change {
        let Stamped { record, epoch } = stamped;
        Change::Merge { record, own: self.author.actor(), age: self.age(key, epoch) }
    }

    /// How old something is here that was read under `epoch`.
    #[must_use]
    pub fn age(&self, key: &[u8], epoch: ReapEpoch) -> Age {
        Age { read: epoch, committed: self.epochs.asked(Slot::of_key(key)).committed }
    }

    /// What is read from the own store now is stamped with this.
    #[must_use]
    pub fn stamp(&self, slot: Slot) -> ReapEpoch {
        self.epochs.durable(slot).raised
    }

    /// The reply to a question that the own disk answers with this now.
    #[must_use]
    pub fn reply(&self, slot: Slot, record: Option<Record>) -> Reply {
        Reply { record, raised: self.stamp(slot), committed: self.epochs.asked(slot).committed }
    }

    /// Asks this node's own disk to change a record.
    pub fn update(&mut self, errand: Errand, key: &Bytes, change: Change) {
        let (slot, key) = (Slot::of_key(key), key.clone());
        self.desk.ask(errand, |ticket| DiskRequest::Update { ticket, slot, key, change }, self.out);
    }

    /// Asks this node's own disk for a record, for an operation that this node coordinates.
    pub fn read_own(&mut self, request: RequestId, key: &Bytes) {
        self.read(Errand::OwnRead(request, Slot::of_key(key)), key);
    }

    /// Asks this node's own disk for a record.
    pub fn read(&mut self, errand: Errand, key: &Bytes) {
        let (slot, key) = (Slot::of_key(key), key.clone());
        self.desk.ask(errand, |ticket| DiskRequest::Read { ticket, slot, key }, self.out);
    }

    /// Brings an owner up to a merged record, behind the answer: Read Repair. Nobody waits for it, so it may cost what the
    /// account of repairs has. Tells whether it was done.
    #[must_use]
    pub fn repair(&mut self, node: NodeId, key: &Bytes, record: &Record, epoch: ReapEpoch) -> bool {
        let bytes = key.len() as u64 + record.encoded_len();
        if !self.ledger.charge_read_repair(self.now.monotonic, bytes) {
            return false;
        }
        if node == self.own {
            let change = self.merge(key, Stamped { record: record.clone(), epoch });
            self.update(Errand::Repair, key, change);
        } else {
            // Nobody waits for the answer, so the request has no number of its own.
            self.replicate(node, RequestId::default(), self.author.actor(), key, record, epoch);
        }
        true
    }

    /// The context of a record as a client gets it.
    #[must_use]
    pub fn seal(&self, record: &Record, key: &[u8]) -> ContextToken {
        ContextToken::seal(record.context(), key, self.secret)
    }

    /// A problem that names who can be reached: too few of `owners` for a quorum of `need`.
    #[must_use]
    pub fn unavailable(&self, owners: &[NodeId], need: usize) -> Problem {
        let name = |node: &NodeId| self.peers.name(*node);
        let (there, gone): (Vec<NodeId>, Vec<NodeId>) =
            owners.iter().partition(|node| self.can_reach(**node));
        let list = |nodes: &[NodeId]| match nodes {
            [] => "none".to_owned(),
            nodes => nodes.iter().map(name).collect::<Vec<_>>().join(", "),
        };
        Problem::new(
            Code::Unavailable,
            format!(
                "{need} of the key's {} owners are needed and {} can be reached from {} ({}; not: {}); try again when the \
                 network heals, through a node on the other side, or with a lower level",
                owners.len(),
                there.len(),
                name(&self.own),
                list(&there),
                list(&gone),
            ),
        )
    }
}
