//! Passing an operation to a node that owns its key.

use super::coordinator::{Event, Operation, Progress};
use super::get::unavailable;
use super::put::failed;
use super::scope::{Origin, Scope};
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Code, Outcome, Problem, Request};
use crate::protocol::wire::peer::PeerMessage;

/// An operation that an owner runs for a client of this node.
///
/// If one owner does not answer, the next one is asked; a write then counts as a further attempt of its operation, so
/// that the owners find what the first one may have done. A write is *not applied* only if every owner that was asked has
/// said so.
#[derive(Debug)]
pub(super) struct Forward {
    request: RequestId,
    origin: Origin,
    ask: Request,
    deadline: Moment,
    sent: Vec<Sent>,
    next_at: Moment,
}

#[derive(Debug)]
struct Sent {
    to: NodeId,
    /// Whether it may still do something that this node will not hear of.
    open: bool,
}

impl Forward {
    /// Sends the operation to an owner; answers at once and gives nothing back if none can be reached.
    pub(super) fn start(
        request: RequestId,
        origin: Origin,
        ask: Request,
        deadline: Moment,
        scope: &mut Scope<'_>,
    ) -> Option<Forward> {
        let mut forward =
            Forward { request, origin, ask, deadline, sent: Vec::new(), next_at: Moment::NEVER };
        if forward.send(scope) {
            return Some(forward);
        }
        let owners =
            key_of(&forward.ask).map(|key| scope.slot_of(key).read_set().to_vec()).unwrap_or_default();
        let problem = scope.unavailable(&owners, 1);
        forward.finish(refusal(&forward.ask, problem), scope);
        None
    }

    /// Asks the next owner that can be reached and has not been asked; tells whether there is one.
    fn send(&mut self, scope: &mut Scope<'_>) -> bool {
        let Some(key) = key_of(&self.ask) else { return false };
        let owners = scope.slot_of(key).read_set();
        let fresh = |node: &&NodeId| {
            **node != scope.own && scope.can_reach(**node) && !self.sent.iter().any(|sent| sent.to == **node)
        };
        let Some(to) = owners.iter().find(fresh).copied() else { return false };
        let mut ask = self.ask.clone();
        if let Request::Write(write) = &mut ask {
            write.attempt = write.attempt.saturating_add(self.sent.len() as u32);
        }
        let left = self.deadline.since(scope.now.monotonic).as_millis();
        let deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
        scope.send(to, PeerMessage::Forward { request: self.request, deadline_ms, ask });
        self.sent.push(Sent { to, open: true });
        // Longer than an owner needs to try its own repeats once.
        self.next_at = scope.now.monotonic + scope.config.resend_after * 4;
        true
    }

    fn close(&mut self, node: NodeId) {
        for sent in self.sent.iter_mut().filter(|sent| sent.to == node) {
            sent.open = false;
        }
    }

    fn answered(&mut self, from: NodeId, answer: Answer, scope: &mut Scope<'_>) -> Progress {
        self.close(from);
        let is_refused = match &answer {
            Answer::Written(written) => written.outcome == Outcome::NotApplied,
            Answer::Refused(_) => true,
            _ => false,
        };
        // One owner's word that it did nothing says nothing about the others.
        if is_refused && self.sent.iter().any(|sent| sent.open) {
            return Progress::Pending;
        }
        self.finish(answer, scope)
    }

    fn finish(&mut self, answer: Answer, scope: &mut Scope<'_>) -> Progress {
        scope.answer(self.origin, answer);
        Progress::Done
    }
}

impl Operation for Forward {
    fn handle(&mut self, event: Event, scope: &mut Scope<'_>) -> Progress {
        match event {
            Event::Forwarded { from, answer } => self.answered(from, answer, scope),
            Event::Refused { from, .. } => {
                self.close(from);
                if self.send(scope) || self.sent.iter().any(|sent| sent.open) {
                    return Progress::Pending;
                }
                let message = "no owner of the key is ready to serve; try again in a moment";
                self.finish(refusal(&self.ask, Problem::new(Code::NotReady, message)), scope)
            }
            Event::Deadline => {
                if scope.now.monotonic >= self.deadline {
                    let message = "the owner that ran the operation did not answer in time";
                    let problem = Problem::new(Code::Timeout, message);
                    let answer = match &self.ask {
                        Request::Write(_) => Answer::Written(failed(Outcome::Unknown, None, problem)),
                        _ => refusal(&self.ask, problem),
                    };
                    return self.finish(answer, scope);
                }
                if scope.now.monotonic >= self.next_at && !self.send(scope) {
                    self.next_at = Moment::NEVER;
                }
                Progress::Pending
            }
            _ => Progress::Pending,
        }
    }

    fn due(&self) -> Moment {
        self.next_at.min(self.deadline)
    }
}

/// The key that a request is about.
pub(super) fn key_of(ask: &Request) -> Option<&bytes::Bytes> {
    match ask {
        Request::Write(write) => Some(&write.key),
        Request::Read(read) => Some(&read.key),
        Request::Explain { key } => Some(key),
        Request::Topology | Request::Status | Request::Admin(_) => None,
    }
}

/// The answer to a request of which nothing was done.
pub(super) fn refusal(ask: &Request, problem: Problem) -> Answer {
    match ask {
        Request::Write(_) => Answer::Written(failed(Outcome::NotApplied, None, problem)),
        Request::Read(_) => Answer::Read(unavailable(problem)),
        _ => Answer::Refused(problem),
    }
}
