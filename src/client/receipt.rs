//! What a committed write leaves in the hands of its writer.

use bytes::Bytes;

use super::context::Context;
use crate::protocol::causality::Dot;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::Written;

/// The proof of a committed write: it is on the disks of as many owners as were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// For the next write of the key. It covers what this write was based on, and this write itself only if no
    /// concurrent value stands beside it: nobody can replace a value that they were never shown.
    pub context: Context,
    /// The dot of the write, where it is known.
    pub dot: Option<Dot>,
    /// How many values the key had afterwards, as the coordinator saw it; 0 if that is not known. More than one: read
    /// to resolve.
    pub siblings: u32,
    /// The owners that have it on disk.
    pub acks: Vec<NodeId>,
    /// The nodes that keep a hint of it.
    pub hinted: Vec<NodeId>,
    /// The node that ran the write.
    pub coordinator: NodeId,
    /// Which attempt got through, from 1.
    pub attempt: u32,
}

impl Receipt {
    pub(super) fn new(key: Bytes, written: Written, coordinator: NodeId, attempt: u32) -> Receipt {
        Receipt {
            context: Context::new(key, written.context),
            dot: written.dot,
            siblings: written.siblings,
            acks: written.acks,
            hinted: written.hinted,
            coordinator,
            attempt,
        }
    }
}
