//! What an operator may set for a node, parsed once into values that cannot be wrong.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a coordinator refuses to exceed. Repairs, handoffs and hints are exempt: what was accepted once must be able
/// to spread, so a record can reach three times these sizes when three separated coordinators each filled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a key. Default 4 KiB.
    pub key_bytes_max: usize,
    /// Bytes of a value. Default 1 MiB.
    pub value_bytes_max: usize,
    /// Canonical bytes of a record. Default 4 MiB.
    pub record_bytes_max: u64,
    /// Concurrent values of a key, deletions included. Default 64.
    pub siblings_max: usize,
    /// Actors in a context. Default 1,024.
    pub context_entries_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes_max: 4 << 10,
            value_bytes_max: 1 << 20,
            record_bytes_max: 4 << 20,
            siblings_max: 64,
            context_entries_max: 1_024,
        }
    }
}

/// How far a wall clock may be off before it is distrusted: 500 ms.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_millis(500);
