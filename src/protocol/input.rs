//! What can happen to a node.

use crate::protocol::id::{NodeId, SessionId};
use crate::protocol::storage::op::DiskReply;
use crate::protocol::wire::client::Request;
use crate::protocol::wire::peer::PeerMessage;

/// Everything that can happen to a [`Node`](crate::protocol::node::Node). The order in which inputs are handled is the order in which
/// the node's state changes (Singular Update Queue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A peer said something. The shell has checked who it is.
    Peer {
        /// Who.
        from: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// A client asked something.
    Client {
        /// Where the answer goes.
        session: SessionId,
        /// The client's number for the request.
        id: u64,
        /// How long the client waits, in milliseconds.
        deadline_ms: u32,
        /// What it asked.
        request: Request,
    },
    /// The disk answered.
    Disk(DiskReply),
    /// The deadline that the node asked for has come, or the shell thinks that it might have.
    Deadline,
    /// The operator wants the node to stop in good order: it says goodbye and takes no new work.
    Stop,
}
