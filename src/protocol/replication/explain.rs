//! Which replica holds which sibling.

use std::time::Duration;

use bytes::Bytes;

use super::coordinator::{Event, Operation, Progress};
use super::scope::{Origin, Scope};
use crate::protocol::causality::Record;
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Code, Explanation, Problem, Reaping, ReplicaView};
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};
use crate::protocol::wire::reap::Reap;

/// People wait this long for owners that do not answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Asks every owner what it holds, and changes nothing. If one of them holds a deletion, the owner that drives the rounds
/// of reaping is asked why it is still there.
#[derive(Debug)]
pub(super) struct Explain {
    request: RequestId,
    origin: Origin,
    key: Bytes,
    owners: Vec<NodeId>,
    found: Vec<(NodeId, Result<Option<Record>, Problem>)>,
    /// Set when the driver was asked.
    asked: Option<NodeId>,
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
                scope.read_own(request, &key);
            } else {
                scope.send(node, PeerMessage::Fetch { request, digest, key: key.clone() });
            }
        }
        // A little before the client's own deadline, so that the answer still arrives.
        let now = scope.now.monotonic;
        let deadline = now + (deadline.since(now) * 7 / 8).min(PATIENCE);
        Some(Explain { request, origin, key, owners, found, asked: None, deadline })
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
        let is_first = self.found.len() == self.owners.len() && self.asked.is_none();
        if is_first { self.ask_the_driver(scope) } else { Progress::Pending }
    }

    /// Everybody has said what it holds.
    fn ask_the_driver(&mut self, scope: &mut Scope<'_>) -> Progress {
        let Some(&driver) = self.owners.first().filter(|_| self.is_deleted_somewhere()) else {
            return self.answer(None, scope);
        };
        let slot = scope.slot_of(&self.key).slot;
        if driver == scope.own {
            let wait = scope.rounds.wait(slot, scope.now.monotonic);
            return self.answer(Some(Reaping { driver, wait: Ok(wait) }), scope);
        }
        self.asked = Some(driver);
        if !scope.can_reach(driver) {
            return self.give_up(scope);
        }
        scope.send(driver, PeerMessage::Reap(Reap::Ask { request: self.request, slot }));
        Progress::Pending
    }

    fn is_deleted_somewhere(&self) -> bool {
        self.found.iter().any(|(_, found)| matches!(found, Ok(Some(record)) if record.is_tombstone()))
    }

    /// What is not known by now is not waited for.
    fn give_up(&mut self, scope: &mut Scope<'_>) -> Progress {
        let driver = self.asked.or(self.owners.first().copied().filter(|_| self.is_deleted_somewhere()));
        let reaping = driver.map(|driver| {
            let name = scope.peers.name(driver);
            let problem = format!("{name}, which drives the rounds of this slot, did not say");
            Reaping { driver, wait: Err(Problem::new(Code::Timeout, problem)) }
        });
        self.answer(reaping, scope)
    }

    fn answer(&mut self, reaping: Option<Reaping>, scope: &mut Scope<'_>) -> Progress {
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
        scope.answer(self.origin, Answer::Explained(Explanation { slot, replicas, reaping }));
        Progress::Done
    }
}

impl Operation for Explain {
    fn handle(&mut self, event: Event, scope: &mut Scope<'_>) -> Progress {
        match event {
            Event::Fetched { from, reply } => self.note(from, Ok(reply.record), scope),
            Event::Refused { from, reason } => {
                let problem = match reason {
                    PeerRefusal::OtherRing(_) => {
                        Problem::new(Code::RingChanged, "it believes in another ring")
                    }
                    PeerRefusal::NotReady => Problem::new(Code::NotReady, "it is not serving"),
                    PeerRefusal::Overloaded => Problem::new(Code::Overloaded, "it is overloaded"),
                    PeerRefusal::DiskFull => Problem::new(Code::DiskFull, "its disk is nearly full"),
                    PeerRefusal::Refilling => refilling(),
                    PeerRefusal::Lost | PeerRefusal::Reaped => {
                        Problem::new(Code::RecordLost, "its record is damaged")
                    }
                };
                self.note(from, Err(problem), scope)
            }
            Event::ReapTold { from, wait } if self.asked == Some(from) => {
                self.answer(Some(Reaping { driver: from, wait: Ok(wait) }), scope)
            }
            Event::RingChanged { .. } => self.give_up(scope),
            Event::Deadline if scope.now.monotonic >= self.deadline => self.give_up(scope),
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
