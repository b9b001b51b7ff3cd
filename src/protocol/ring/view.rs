//! What a node believes about the owners of a slot.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A hash over the owner sets of a slot in force, the phases and amnesia generations of the members that decide it, and
/// the cluster. It rides on every request between nodes: whoever believes otherwise refuses.
///
/// The standing of the members is part of it and not only their ids, since equal owners before a join and after the
/// leave that undoes it are not the same owners: one of them may have dropped its data in between.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotDigest(pub u64);

impl fmt::Debug for SlotDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotDigest({:016x})", self.0)
    }
}
