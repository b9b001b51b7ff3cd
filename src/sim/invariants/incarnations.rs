//! Invariant 14: incarnations rise, durably, before the first dot or message; and a node keeps its identity.
//!
//! A node that comes back without its disk rises above all that a majority of the others has heard of. A life of which
//! none of them had heard may have had a higher incarnation, so that after a lost disk only another one is demanded.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation};
use crate::protocol::id::{Incarnation, NodeId};

/// The starts of all nodes, by the host that each runs on.
#[derive(Clone, Debug, Default)]
pub struct Starts {
    last: BTreeMap<usize, (NodeId, Incarnation)>,
    /// Hosts that have lost their disk since.
    lost: BTreeSet<usize>,
}

/// What a node does that it may only do once it has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It says that it has started.
    Start,
    /// It sends a message.
    Send,
    /// It issues a dot.
    Issue,
}

impl Starts {
    /// The disk of `host` is gone, and with it the last incarnation.
    pub fn lost(&mut self, host: usize) {
        self.lost.insert(host);
    }

    /// An old copy of the disk of `host` was put in its place. Its node may use an incarnation once more: it is for the
    /// others to find that out.
    pub fn restored(&mut self, host: usize) {
        if let Some((_, incarnation)) = self.last.get_mut(&host) {
            *incarnation = Incarnation::default();
        }
    }

    /// The node on `host` says that it has started.
    pub fn started(&mut self, host: usize, id: NodeId, incarnation: Incarnation) -> Option<Violation> {
        let was_lost = self.lost.remove(&host);
        let evidence = match self.last.insert(host, (id, incarnation)) {
            Some((before, _)) if before != id => {
                format!("the node on host {} was {before} before its restart and is {id} now", host + 1)
            }
            Some((_, before)) if was_lost && before > incarnation => return None,
            Some((_, before)) if before >= incarnation => format!(
                "node {id} started with incarnation {incarnation} although it had {before} the last time"
            ),
            _ => return None,
        };
        Some(Violation::general(Invariant::Incarnations, evidence))
    }

    /// Judges what a node does while its incarnation and actor are, or are not, in the synced log.
    #[must_use]
    pub fn did(&self, host: usize, deed: Deed, is_durable: bool) -> Option<Violation> {
        (!is_durable).then(|| {
            let evidence = format!(
                "the node on host {} does this before its incarnation and actor are durable: {deed:?}",
                host + 1
            );
            Violation::general(Invariant::Incarnations, evidence)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_that_does_not_rise_is_reported() {
        let mut starts = Starts::default();
        assert_eq!(starts.started(0, NodeId(7), Incarnation(1)), None);
        assert_eq!(starts.started(1, NodeId(8), Incarnation(1)), None);
        assert_eq!(starts.started(0, NodeId(7), Incarnation(2)), None);
        assert!(starts.started(0, NodeId(7), Incarnation(2)).is_some());
        assert!(starts.started(1, NodeId(9), Incarnation(5)).is_some(), "another identity");
    }

    #[test]
    fn after_a_lost_disk_an_incarnation_may_be_lower_but_not_the_same() {
        let mut starts = Starts::default();
        starts.started(0, NodeId(7), Incarnation(5));
        starts.lost(0);
        assert_eq!(starts.started(0, NodeId(7), Incarnation(4)), None);
        assert!(starts.started(0, NodeId(7), Incarnation(3)).is_some(), "once");
        starts.lost(0);
        assert!(starts.started(0, NodeId(7), Incarnation(3)).is_some());
    }

    #[test]
    fn a_deed_before_the_start_is_durable_is_reported() {
        let starts = Starts::default();
        assert_eq!(starts.did(0, Deed::Send, true), None);
        assert!(starts.did(0, Deed::Issue, false).is_some());
    }
}
