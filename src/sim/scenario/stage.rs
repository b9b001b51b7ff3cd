//! Where a scenario is performed: a simulated cluster or a real one.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::command::Command;
use super::script::Trouble;
use crate::protocol::causality::ContextToken;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{Answer, Level};

/// A world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The simulator.
    Sim,
    /// Real processes.
    Lab,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Where::Sim => "sim",
            Where::Lab => "lab",
        })
    }
}

/// A request of a client, with all the attempts that it takes.
#[derive(Clone, Debug)]
pub struct Order {
    /// The node that is asked; otherwise an owner of the key.
    pub via: Option<String>,
    /// How long the client waits in all.
    pub deadline: Duration,
    /// What it asks for.
    pub request: Wanted,
}

/// What is asked for, with the key as the cluster knows it.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Store or delete.
    Write {
        /// Where.
        key: Bytes,
        /// What; `None` deletes.
        value: Option<Bytes>,
        /// The context that is sent.
        context: Option<ContextToken>,
        /// How many owners must have it on disk.
        w: Level,
        /// Whether hints count as owners.
        sloppy: bool,
    },
    /// Fetch.
    Read {
        /// What.
        key: Bytes,
        /// How many owners must reply.
        r: Level,
        /// Whether the answer is at a majority before it is given.
        atomic: bool,
    },
    /// What each owner holds.
    Explain {
        /// Of what.
        key: Bytes,
    },
    /// What the node believes of the others.
    Members,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The verdict over all attempts: for a write *not applied* only if every attempt was refused.
    pub answer: Answer,
    /// When it came, since the beginning.
    pub at: Duration,
    /// How many attempts were made.
    pub attempts: u32,
}

/// What the disk of a node holds of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing at all.
    Nothing,
    /// The memory of a deletion.
    Deletion,
    /// These values, in alphabetical order.
    Values(Vec<String>),
    /// The node is down.
    Down,
}

/// A cluster that is complete and healthy at the beginning, and its clock.
pub trait Stage {
    /// Which world it is in.
    fn place(&self) -> Where;

    /// How long ago the beginning was.
    fn now(&mut self) -> Duration;

    /// The owners of a key, in the order of preference.
    fn owners(&mut self, key: &[u8]) -> Vec<NodeId>;

    /// What a node is called.
    fn name(&mut self, node: NodeId) -> String;

    /// Does something to the cluster. An error if it cannot be done.
    fn command(&mut self, command: &Command) -> Result<(), String>;

    /// Makes a trouble that only the simulator can; if it is about a key, about this one.
    fn trouble(&mut self, trouble: &Trouble, key: &[u8]) -> Result<(), String>;

    /// Sends a request under this number and returns at once.
    fn ask(&mut self, number: usize, order: Order);

    /// The next reply, or `None` when the time has come. There must be a request under way if there is no time.
    fn next_reply(&mut self, until: Option<Duration>) -> Option<(usize, Reply)>;

    /// What the disks of these nodes hold, in a world in which one can look.
    fn holdings(&mut self, key: &[u8], owners: &[NodeId]) -> Option<Vec<Holding>>;

    /// Ends all faults, starts what is down, resumes what is paused, and waits until all see all.
    fn recover(&mut self) -> Result<(), String>;
}

/// A node that is asked for a name by those who know it by its id only.
pub(super) fn names(stage: &mut dyn Stage, nodes: &[NodeId]) -> Vec<String> {
    let mut names: Vec<String> = nodes.iter().map(|node| stage.name(*node)).collect();
    names.sort();
    names
}
