//! What a node wants done.

use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::causality::Dot;
use crate::protocol::id::{NodeId, SessionId};
use crate::protocol::storage::op::{DiskRequest, DoubtReason};
use crate::protocol::wire::client::Answer;
use crate::protocol::wire::life::{Claim, Life};
use crate::protocol::wire::peer::PeerMessage;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A node; the shell uses the connection that it has, or dials the address.
    Node {
        /// Who.
        id: NodeId,
        /// Where it said it could be reached.
        address: Option<SocketAddr>,
    },
    /// Whoever answers there: a seed.
    Address(SocketAddr),
}

/// What a [`Node`](crate::protocol::node::Node) wants done: plain data that tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message. It may be lost; the node repeats what it must.
    Send {
        /// To whom.
        to: Destination,
        /// What.
        message: PeerMessage,
    },
    /// Answer a client.
    Respond {
        /// On which connection.
        session: SessionId,
        /// The client's number for the request.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// Ask the disk.
    Disk(DiskRequest),
    /// Tell people.
    Notice(Notice),
}

/// Something that people, logs and the simulator's judges want to know. The node's behaviour does not depend on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The node may talk: its new incarnation and actor are durable.
    Started,
    /// It is part of a founded cluster and serves requests.
    Serving,
    /// A dot was issued. The simulator asserts that none is issued twice.
    Issued(Dot),
    /// What gossip believes of a member changed.
    Health {
        /// Who.
        member: NodeId,
        /// What is believed now.
        health: crate::protocol::wire::client::Health,
    },
    /// A peer knew of a write by this node's actor that this node has not applied: it lost data. It takes a new actor.
    Amnesia,
    /// The disk cannot stand for some slots any more: the node has no vote for them until they are refilled.
    Doubted {
        /// How many.
        slots: usize,
        /// What is wrong with them.
        why: DoubtReason,
    },
    /// A refill that takes long, how far it is.
    Refilling {
        /// Slots without a vote.
        slots_left: usize,
        /// Records that came so far.
        records: u64,
        /// So many of them in a second.
        per_second: u64,
        /// How long it will take at this rate, once that can be said.
        left_for: Option<Duration>,
    },
    /// The node votes for all of its slots again.
    Whole {
        /// Records that came for that.
        records: u64,
        /// How long it took.
        took: Duration,
    },
    /// A later life of this node runs somewhere, with a higher amnesia generation: this process has no say any more and
    /// does nothing from now on. The shell ends it.
    Fenced {
        /// The other's generation.
        generation: u32,
    },
    /// A member remembers more of this node than its directory holds, which is an old copy then, or in use elsewhere: the
    /// process has no say and does nothing from now on. The shell ends it.
    Denied {
        /// Who remembers it.
        by: NodeId,
        /// What.
        remembers: Life,
        /// What this node could show.
        claim: Claim,
    },
    /// The cluster cannot be founded or joined as configured; people have to do something.
    Trouble(String),
    /// The node has said goodbye and finished its work; the shell may close the disk.
    Stopped,
}
