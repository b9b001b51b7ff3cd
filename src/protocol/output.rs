//! What a node wants done.

use std::net::SocketAddr;

use crate::protocol::causality::Dot;
use crate::protocol::id::{NodeId, SessionId};
use crate::protocol::storage::op::DiskRequest;
use crate::protocol::wire::client::Answer;
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
    /// The cluster cannot be founded or joined as configured; people have to do something.
    Trouble(String),
    /// The node has said goodbye and finished its work; the shell may close the disk.
    Stopped,
}
