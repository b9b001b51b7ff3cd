//! What a scenario says, once read.

use std::collections::BTreeSet;
use std::time::Duration;

use super::command::Command;
use super::expectation::Expectation;
use super::parse::{self, ScenarioError};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::wire::client::Level;

/// A script: a cluster, what is done to it when, and what has to come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The first line of the comment at its top.
    pub title: String,
    /// Why it can run in the simulator only: the line of its `only in sim`.
    pub only_in_sim: Option<usize>,
    /// How many nodes the cluster has. Default 5.
    pub nodes: u16,
    /// How many replicas of every key it keeps. Default 3.
    pub replicas: Replicas,
    /// The keys whose owners matter.
    pub keys: Vec<KeyOwners>,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// A word of the script that stands for a key with these owners.
///
/// Which key that is differs from cluster to cluster, since the ring hangs on random ids: one that has the owners is
/// looked for when the cluster is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOwners {
    /// The word.
    pub key: String,
    /// Its owners, in the order of preference of the ring.
    pub owners: Vec<String>,
}

/// Something that is done, and what has to come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it stands in the script.
    pub line: usize,
    /// As it stands there.
    pub text: String,
    /// When it begins.
    pub begins: Begins,
    /// What is done.
    pub deed: Deed,
    /// What has to come of it.
    pub expectations: Vec<Expectation>,
}

/// When a step begins. Never before the one above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// This long after the beginning, or as soon after that as the steps above have begun.
    At(Duration),
    /// When everything above it is answered.
    Then,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// To the nodes or to the network between them: what the lab knows too.
    Command(Command),
    /// What only the simulator can do.
    Trouble(Trouble),
    /// A client asks something.
    Ask(Ask),
}

/// What real machines do by themselves and a lab cannot make them do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The wall clocks of these nodes are set, by so many milliseconds.
    Clock(Vec<String>, i64),
    /// The disks of these nodes become slow, or are well again.
    Disk(Vec<String>, DiskState),
    /// What the stores of these nodes hold of this key is damaged.
    Rot(Vec<String>, String),
    /// What the first of these nodes send to the second, until everything heals, arrives once more, so much later, if it
    /// carries records.
    Echo(Duration, Vec<String>, Vec<String>),
}

/// How a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// Everything takes a hundred times as long.
    Slow,
    /// As usual.
    Well,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who; nobody in particular remembers nothing.
    pub client: Option<String>,
    /// The node that is asked; otherwise an owner of the key.
    pub via: Option<String>,
    /// How long the client waits.
    pub deadline: Duration,
    /// For what.
    pub what: What,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Store a value.
    Put {
        /// Where.
        key: String,
        /// What.
        value: String,
        /// How many owners must have it on disk.
        w: Level,
        /// Whether hints count as owners.
        sloppy: bool,
        /// What it takes the place of.
        basis: BasisOf,
    },
    /// Delete.
    Delete {
        /// What.
        key: String,
        /// How many owners must have it on disk.
        w: Level,
        /// Whether hints count as owners.
        sloppy: bool,
        /// What it removes. Without a context: whatever is there.
        basis: BasisOf,
    },
    /// Read.
    Get {
        /// What.
        key: String,
        /// How many owners must reply.
        r: Level,
        /// Whether the answer is at a majority before it is given.
        atomic: bool,
    },
    /// What each owner holds.
    Explain {
        /// Of what.
        key: String,
    },
    /// What the node that is asked believes of the others.
    Members,
}

/// Whose context a write carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BasisOf {
    /// What the client itself was shown last.
    Own,
    /// None at all.
    Nobody,
    /// What another client was shown last.
    Of(String),
    /// What another client was shown last of another key. Nobody should do that.
    OfKey(String, String),
}

impl Scenario {
    /// Reads a script.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its place and what would be right.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        parse::scenario(text)
    }

    /// Whether real processes can perform it.
    ///
    /// # Errors
    /// Why not, and what to do instead.
    pub fn check_for_lab(&self) -> Result<(), String> {
        self.only_in_sim.map_or(Ok(()), |line| {
            Err(format!(
                "this scenario is only for the simulator, as its line {line} says: it has troubles that a \
                 lab cannot make; run it with: starling sim --scenario FILE"
            ))
        })
    }

    /// The names of its nodes: n1, n2, ...
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| format!("n{number}")).collect()
    }

    /// How many owners each key has.
    #[must_use]
    pub fn owners(&self) -> usize {
        self.replicas.get().min(usize::from(self.nodes))
    }

    /// The keys that it uses.
    #[must_use]
    pub fn used_keys(&self) -> BTreeSet<&str> {
        self.steps.iter().filter_map(|step| step.deed.key()).collect()
    }
}

impl Deed {
    /// The key that it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Deed::Ask(ask) => ask.what.key(),
            Deed::Trouble(Trouble::Rot(_, key)) => Some(key),
            Deed::Trouble(_) | Deed::Command(_) => None,
        }
    }
}

impl What {
    /// The key that it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            What::Put { key, .. }
            | What::Delete { key, .. }
            | What::Get { key, .. }
            | What::Explain { key } => Some(key),
            What::Members => None,
        }
    }
}
