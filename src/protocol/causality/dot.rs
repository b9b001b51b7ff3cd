//! One write event.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::id::Actor;
use crate::protocol::time::Timestamp;

/// One write event: who, and when by that actor's own hybrid clock. Unique for ever: a dot names one value for all
/// time, and the simulator asserts it on every issue and every merge.
///
/// Reusing a dot, or covering one that its owner no longer holds, silently destroys acknowledged writes. That is why
/// an [`Actor`] lives for a single start of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The start of a node that coordinated the write.
    pub actor: Actor,
    /// Strictly rising per actor.
    pub at: Timestamp,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.actor, self.at)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dot({self})")
    }
}
