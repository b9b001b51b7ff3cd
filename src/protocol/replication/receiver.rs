//! Which writes are let in: whose operation may be believed, and which of other nodes' clients have come already.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::protocol::causality::OperationId;
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::time::WallTime;

/// How far ahead of node time an operation may have been started. Its record forgets the operations that are a
/// [lifetime](crate::protocol::causality::OPERATION_LIFETIME) older than the newest, so one from the future would make the
/// key forget all others at once. Well above what honest clients are off, who learn node time when they connect.
const STARTED_AHEAD_MAX: Duration = Duration::from_secs(10);

/// Whether a client of this node, whose node time it is, may have started this operation.
///
/// Asked once, where the client asks. An owner that gets the write passed on does not ask again: its own idea of node time may
/// differ from that of the node which took the request, if the two hear different clocks, and the client was told
/// the time by the other one. It would be refused for ever, wherever that node passes it.
pub(super) fn may_have_started(operation: OperationId, node_time: WallTime) -> bool {
    operation.started <= node_time.plus(STARTED_AHEAD_MAX)
}

/// How many arrivals are remembered. A network that repeats a message later than so many others is not survived in
/// exactness: the record's own marks then keep a second execution from making a second sibling, but a write that was
/// answered *not applied* might still be done.
const ARRIVALS_MAX: usize = 1 << 16;

/// The Idempotent Receiver (*Patterns of Distributed Systems*) for writes that are passed on: each attempt is executed
/// once, however often its message arrives.
///
/// The record itself recognises an operation that was *done*. This is for the one that was *refused*: the client has
/// been told that nothing was or ever will be done, so a copy of the message that comes late must not do it.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    arrived: BTreeSet<Arrival>,
    order: VecDeque<Arrival>,
}

/// Who passed it on, its number for it, and the attempt.
type Arrival = (NodeId, RequestId, u32);

impl Receiver {
    /// Whether an attempt has arrived before.
    pub(super) fn has_met(&self, from: NodeId, request: RequestId, attempt: u32) -> bool {
        self.arrived.contains(&(from, request, attempt))
    }

    /// Takes note of an attempt; tells whether it is new.
    pub(super) fn admit(&mut self, from: NodeId, request: RequestId, attempt: u32) -> bool {
        let arrival = (from, request, attempt);
        if !self.arrived.insert(arrival) {
            return false;
        }
        if self.order.len() == ARRIVALS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.arrived.remove(&oldest);
        }
        self.order.push_back(arrival);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_is_admitted_once() {
        let mut receiver = Receiver::default();
        assert!(!receiver.has_met(NodeId(1), RequestId(1), 1));
        assert!(receiver.admit(NodeId(1), RequestId(5), 1));
        assert!(!receiver.admit(NodeId(1), RequestId(5), 1));
        assert!(receiver.admit(NodeId(1), RequestId(5), 2));
        assert!(receiver.admit(NodeId(2), RequestId(5), 1));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut receiver = Receiver::default();
        for number in 0..=ARRIVALS_MAX as u64 {
            assert!(receiver.admit(NodeId(1), RequestId(number), 1));
        }
        assert_eq!((receiver.arrived.len(), receiver.order.len()), (ARRIVALS_MAX, ARRIVALS_MAX));
        assert!(!receiver.admit(NodeId(1), RequestId(1), 1));
        assert!(receiver.admit(NodeId(1), RequestId(0), 1));
    }
}
