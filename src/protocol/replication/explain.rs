//! Which replica holds which sibling.

use std::time::Duration;

use bytes::Bytes;

use super::coordinator::{Event, Operation, Progress};
use super::desk::Errand;
use super::scope::{Origin, Scope};
use crate::protocol::causality::Record;
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Code, Explanation, Problem, ReplicaView};
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

/// People wait this long for owners that do not answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Asks every owner what it holds and changes nothing.
#[derive(Debug)]
pub(super) struct Explain {
    origin: Origin,
    key: Bytes,
    owners: Vec<NodeId>,
    found: Vec<(NodeId, Result<Option<Record>, Problem>)>,
    deadline: Moment,
}

impl Explain {
    /// Asks.
    pub(super) fn start(
        request: RequestId,
        origin: Origin,
        key: Bytes,
        deadline: Moment,
        scope: &mut Scope<'_>,
    ) -> Option<Explain> {
        let slot = scope.slot_of(&key);
        let (digest, owners) = (slot.digest, slot.read_set().to_vec());
        let mut found = Vec::new();
        for node in owners.clone() {
            if node == scope.own && !scope.votes_for(&key) {
                found.push((node, Err(refilling())));
            } else if node == scope.own {
                scope.read(Errand::Operation(request), &key);
            } else {
                scope.send(node, PeerMessage::Fetch { request, digest, key: key.clone() });
            }
        }
        // A little before the client's own deadline, so that the answer still arrives.
        let now = scope.now.monotonic;
        let deadline = now + (deadline.since(now) * 7 / 8).min(PATIENCE);
        Some(Explain { origin, key, owners, found, deadline })
    }

    fn note(
        &mut self,
        node: NodeId,
        found: Result<Option<Record>, Problem>,
        scope: &mut Scope<'_>,
    ) -> Progress {
        if self.owners.contains(&node) && !self.found.iter().any(|(known, _)| *known == node) {
            self.found.push((node, found));
        }
        if self.found.len() == self.owners.len() { self.answer(scope) } else { Progress::Pending }
    }

    fn answer(&mut self, scope: &mut Scope<'_>) -> Progress {
        let view = |node: &NodeId| {
            let found = self.found.iter().find(|(known, _)| known == node).map(|(_, found)| found.clone());
            let silent =
                || Err(Problem::new(Code::Timeout, format!("{} did not answer", scope.peers.name(*node))));
            ReplicaView {
                node: *node,
                reachable: scope.can_reach(*node),
                record: found.unwrap_or_else(silent),
            }
        };
        let replicas = self.owners.iter().map(view).collect();
        let slot = scope.slot_of(&self.key).slot.get();
        scope.answer(self.origin, Answer::Explained(Explanation { slot, replicas }));
        Progress::Done
    }
}

impl Operation for Explain {
    fn handle(&mut self, event: Event, scope: &mut Scope<'_>) -> Progress {
        match event {
            Event::Fetched { from, record } => self.note(from, Ok(record), scope),
            Event::Refused { from, reason } => {
                let problem = match reason {
                    PeerRefusal::OtherRing(_) => {
                        Problem::new(Code::RingChanged, "it believes in another ring")
                    }
                    PeerRefusal::NotReady => Problem::new(Code::NotReady, "it is not serving"),
                    PeerRefusal::Overloaded => Problem::new(Code::Overloaded, "it is overloaded"),
                    PeerRefusal::DiskFull => Problem::new(Code::DiskFull, "its disk is nearly full"),
                    PeerRefusal::Refilling => refilling(),
                    PeerRefusal::Lost => Problem::new(Code::RecordLost, "its record is damaged"),
                };
                self.note(from, Err(problem), scope)
            }
            Event::RingChanged { .. } => self.answer(scope),
            Event::Deadline if scope.now.monotonic >= self.deadline => self.answer(scope),
            _ => Progress::Pending,
        }
    }

    fn due(&self) -> Moment {
        self.deadline
    }
}

fn refilling() -> Problem {
    Problem::new(Code::RecordLost, "it has lost some of this slot and is getting it back from the others")
}
