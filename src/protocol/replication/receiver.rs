//! Which writes of other nodes' clients have come in already.

use std::collections::{BTreeSet, VecDeque};

use crate::protocol::id::{NodeId, RequestId};

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
