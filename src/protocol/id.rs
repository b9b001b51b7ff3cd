//! Identities: newtypes, so that no two of them can be confused.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! random_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }
    };
}

random_id!(
    /// The identity of a node: 64 random bits, drawn at its very first start and durable from then on.
    ///
    /// It survives restarts. A node that was removed from the cluster never returns under the same id.
    NodeId
);
random_id!(
    /// The author half of a [dot](crate::protocol::causality::Dot): 64 random bits, drawn anew **at every start** of
    /// a node and durable before the first dot, so that no backup, clone or crash can make a dot be used twice.
    Actor
);
random_id!(
    /// What placement hashes in place of the node itself: the node's own id at first. A replacement inherits the place
    /// of the dead, so that exactly its share of the ring moves.
    Place
);
random_id!(
    /// The identity of a cluster, fixed at founding together with the number of replicas and the placement version.
    ClusterId
);

/// The Generation Clock of a node (*Patterns of Distributed Systems*): raised and made durable at every start, before
/// the first message leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Incarnation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The generation of a slot's deletions: raised by every round of reaping, carried by every message that carries a
/// record read from a store. It stays zero until reaping exists; the formats hold it from the first day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReapEpoch(pub u64);

/// Numbers the requests that one node has under way. Unique within one start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// One client's connection as the node sees it; the shell gives them out and knows where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);
