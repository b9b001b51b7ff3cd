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
use crate::protocol::wire::reap::{Reap, ReapWait};

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
    told: Option<Result<ReapWait, Problem>>,
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
        Some(Explain { request, origin, key, owners, found, asked: None, told: None, deadline })
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
        // An owner that is away answers nothing: that is what the driver may wait for.
        if self.asked.is_none() && self.is_deleted_somewhere() {
            self.ask_the_driver(scope);
        }
        self.answer_if_known(scope)
    }

    fn is_deleted_somewhere(&self) -> bool {
        self.found.iter().any(|(_, found)| matches!(found, Ok(Some(record)) if record.is_tombstone()))
    }

    fn ask_the_driver(&mut self, scope: &mut Scope<'_>) {
        let Some(&driver) = self.owners.first() else { return };
        let slot = scope.slot_of(&self.key).slot;
        self.asked = Some(driver);
        if driver == scope.own {
            self.told = Some(Ok(scope.rounds.wait(slot, scope.now.monotonic)));
        } else {
            scope.send(driver, PeerMessage::Reap(Reap::Ask { request: self.request, slot }));
        }
    }

    fn answer_if_known(&mut self, scope: &mut Scope<'_>) -> Progress {
        let is_known = self.found.len() == self.owners.len() && (self.asked.is_none() || self.told.is_some());
        if is_known { self.answer(scope) } else { Progress::Pending }
    }

    fn answer(&mut self, scope: &mut Scope<'_>) -> Progress {
        let silent = |driver| {
            let problem =
                format!("{}, which drives the rounds of this slot, did not say", scope.peers.name(driver));
            Err(Problem::new(Code::Timeout, problem))
        };
        let reaping = self.asked.map(|driver| {
            let wait = self.told.take().unwrap_or_else(|| silent(driver));
            Reaping { driver, wait }
        });
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
                self.told = Some(Ok(wait));
                self.answer_if_known(scope)
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
