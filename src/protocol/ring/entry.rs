//! What gossip says of a member: the facts that only the member itself may write.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::member::{Weight, Zone};
use crate::protocol::id::{Incarnation, NodeId, Place};

/// The name that people call a node by, unique in a cluster: 1 to 64 letters, digits, `-`, `_` or `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Checks and takes a name.
    pub fn new(name: impl Into<String>) -> Result<Name, String> {
        let name = name.into();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=64).contains(&name.len()) && name.chars().all(fits) {
            Ok(Name(name))
        } else {
            Err(format!("{name:?} is no name for a node: use 1 to 64 letters, digits, '-', '_' or '.'"))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Name, String> {
        Name::new(name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Where a member stands on its way into the ring and out of it. A later phase wins over an earlier one of the same
/// generation; the ring changes of a later version of Starling move through all of them, this one knows two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// A member in no owner set: visible and harmless, until a ring change admits it.
    #[default]
    Learning,
    /// In the ring.
    Active,
}

/// The durable, monotone fact that decides whether a member counts in the ring: merged by maximum, untouched by
/// incarnations, so that a node that restarts can never leave the read quorum of its slots by accident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Phase {
    /// Counts the times that the member set out to join.
    pub generation: u32,
    /// How far it came.
    pub stage: Stage,
}

/// One member's entry. Only its owner writes it, by a higher (incarnation, version); the phase is a fact of its own.
///
/// Entries merge as a CRDT: all fields but `phase` come from the entry with the higher (incarnation, version), `phase`
/// is the maximum. So views converge whatever the order in which they learn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The member.
    pub id: NodeId,
    /// What placement hashes for it.
    pub place: Place,
    /// What people call it.
    pub name: Name,
    /// Where it can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// What may fail together with it.
    pub zone: Zone,
    /// Its share of the ring, relative to the others.
    pub weight: Weight,
    /// Its generation clock.
    pub incarnation: Incarnation,
    /// Counts the changes within an incarnation: a refutation of a false suspicion raises it.
    pub version: u32,
    /// How often it came back without its data ("amnesia generation"): part of the slot digest, so that an old process of the same
    /// identity that still runs somewhere is fenced off.
    pub amnesia: u32,
    /// Where it stands.
    pub phase: Phase,
}

impl Entry {
    /// What decides between two entries of one member.
    #[must_use]
    pub fn age(&self) -> (Incarnation, u32) {
        (self.incarnation, self.version)
    }

    /// Takes over what is newer in `other`; tells whether anything changed. Panics if the members differ.
    pub fn merge(&mut self, other: &Entry) -> bool {
        assert_eq!(self.id, other.id, "entries of two members do not merge");
        let phase = self.phase.max(other.phase);
        let newer = other.age() > self.age();
        let changed = newer || phase != self.phase;
        if newer {
            *self = other.clone();
        }
        self.phase = phase;
        changed
    }
}
