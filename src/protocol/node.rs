//! One node of a cluster, as a state machine.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use crate::protocol::config::NodeConfig;
use crate::protocol::id::{ClusterId, Incarnation, NodeId};
use crate::protocol::input::Input;
use crate::protocol::output::Output;
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::MetaKey;
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::peer::Hello;

/// One node of a cluster: routes inputs to the parts that own the rules, and owns those parts. It holds no algorithm.
///
/// # Contract
/// * Call [`handle`](Node::handle) for everything that happens, in one order, and carry out the outputs that it appends.
/// * Call it with [`Input::Deadline`] when the time of [`next_deadline`](Node::next_deadline) has come; ask again after every input.
/// * `now` must never go back (its monotonic half; the wall clock may jump).
/// * Messages may be lost, repeated, delayed and reordered. Disk replies may not.
#[derive(Debug)]
pub struct Node {}

/// Why a node cannot start from what its disk holds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    /// The data directory belongs to a node of another name.
    #[error(
        "the data belongs to node {found}, not to {wanted}; start it under its own name or give this node a directory of its own"
    )]
    AnotherName {
        /// The name in the data.
        found: String,
        /// The name in the configuration.
        wanted: String,
    },
    /// The durable state cannot be read.
    #[error(
        "the durable state of the node cannot be read ({0}); the directory is damaged or of another version"
    )]
    Unreadable(String),
}

impl Node {
    /// A node that starts from the durable state `meta` (empty at its very first start).
    ///
    /// Outputs of the start are appended to `out`: nothing but disk requests until the new incarnation and actor are
    /// durable.
    pub fn start(
        _config: NodeConfig,
        _meta: &BTreeMap<MetaKey, Bytes>,
        _now: Now,
        _rng: Rng,
        _out: &mut Vec<Output>,
    ) -> Result<Node, StartError> {
        Ok(Node {})
    }

    /// Takes note of something that happened at `now` and appends what is to be done to `out`.
    pub fn handle(&mut self, _now: Now, _input: Input, _out: &mut Vec<Output>) {}

    /// When to call [`handle`](Node::handle) with [`Input::Deadline`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        Moment::NEVER
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(0)
    }

    /// What the shell says first on every connection to a peer.
    #[must_use]
    pub fn hello(&self) -> Option<Hello> {
        None
    }

    /// Its generation clock.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(0)
    }

    /// Its cluster, once founded.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        None
    }

    /// Whether it serves requests.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        false
    }
}
