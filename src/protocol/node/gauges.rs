//! How much a node has on its hands.

use super::Node;

/// How much a node has on its hands right now: what has to stay under a cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Operations that it runs or has passed on.
    pub requests: usize,
    /// What waits for its disk: requests without a reply, and replies that are not durable yet.
    pub disk_waiters: usize,
    /// Members in its address book, itself included.
    pub members: usize,
    /// Bytes of the hints that it keeps, with what they cost in memory.
    pub hint_bytes: u64,
}

impl Node {
    /// How much it has on its hands.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            requests: self.coordinator.len(),
            disk_waiters: self.desk.len(),
            members: self.membership.entries().count(),
            hint_bytes: self.hints.bytes(),
        }
    }
}
