//! Passing an operation to a node that owns its key.

use std::time::Duration;

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
/// If one owner does not answer, the next one is asked, and when all were, the first again; a write then counts as a
/// further attempt of its operation, so that the owners find what an earlier one may have done. A write is *not applied*
/// only if every owner that was asked has said so.
#[derive(Debug)]
pub(super) struct Forward {
    request: RequestId,
    origin: Origin,
    ask: Request,
    deadline: Moment,
    /// Who was asked, the latest last.
    sent: Vec<Sent>,
    /// How often somebody was asked.
    times: u32,
    next_at: Moment,
    pause: Duration,
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
        // Longer than an owner needs to try its own repeats once.
        let pause = scope.config.resend_after * 4;
        let mut forward = Forward {
            request,
            origin,
            ask,
            deadline,
            sent: Vec::new(),
            times: 0,
            next_at: Moment::NEVER,
            pause,
        };
        if let Some(owner) = forward.fresh(scope) {
            forward.send(owner, scope);
            return Some(forward);
        }
        let owners =
            key_of(&forward.ask).map(|key| scope.slot_of(key).read_set().to_vec()).unwrap_or_default();
        let need = match &forward.ask {
            Request::Write(write) => write.w.of(owners.len()),
            Request::Read(read) => read.r.of(owners.len()),
            _ => 1,
        };
        let problem = scope.unavailable(&owners, need);
        forward.finish(refusal(&forward.ask, problem), scope);
        None
    }

    /// The first owner that can be reached and has not been asked.
    fn fresh(&self, scope: &Scope<'_>) -> Option<NodeId> {
        let is_fresh = |node: &NodeId| !self.sent.iter().any(|sent| sent.to == *node);
        let owners = scope.slot_of(key_of(&self.ask)?).read_set();
        owners.iter().copied().find(|node| *node != scope.own && scope.can_reach(*node) && is_fresh(node))
    }

    fn send(&mut self, to: NodeId, scope: &mut Scope<'_>) {
        let mut ask = self.ask.clone();
        if let Request::Write(write) = &mut ask {
            write.attempt = write.attempt.saturating_add(self.times);
        }
        // The owner gives up a little earlier than this node, so that its answer, which knows the dot, still arrives.
        let left = self.deadline.since(scope.now.monotonic) * 7 / 8;
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        scope.send(to, PeerMessage::Forward { request: self.request, deadline_ms, ask });
        self.sent.retain(|sent| sent.to != to);
        self.sent.push(Sent { to, open: true });
        self.times = self.times.saturating_add(1);
        self.next_at = scope.now.monotonic + self.pause;
    }

    /// Whether nobody may do anything any more that this node will not hear of. Who was asked twice may have answered
    /// the one and be busy with the other.
    fn is_closed(&self) -> bool {
        self.sent.iter().all(|sent| !sent.open) && self.times as usize == self.sent.len()
    }

    fn answered(&mut self, from: NodeId, answer: Answer, scope: &mut Scope<'_>) -> Progress {
        let Some(sent) = self.sent.iter_mut().find(|sent| sent.to == from) else { return Progress::Pending };
        sent.open = false;
        let Some(code) = refused_for(&answer) else { return self.finish(answer, scope) };
        if may_pass_elsewhere(code)
            && let Some(next) = self.fresh(scope)
        {
            self.send(next, scope);
            return Progress::Pending;
        }
        // One owner's word that it did nothing says nothing about the others.
        if self.is_closed() { self.finish(answer, scope) } else { Progress::Pending }
    }

    fn on_deadline(&mut self, scope: &mut Scope<'_>) -> Progress {
        if scope.now.monotonic >= self.deadline {
            let message = "the owner that ran the operation did not answer in time";
            let problem = Problem::new(Code::Timeout, message);
            let answer = match &self.ask {
                Request::Write(_) => Answer::Written(failed(Outcome::Unknown, None, problem)),
                _ => refusal(&self.ask, problem),
            };
            return self.finish(answer, scope);
        }
        if scope.now.monotonic >= self.next_at {
            let again = || self.sent.iter().map(|sent| sent.to).find(|node| scope.can_reach(*node));
            let next = self.fresh(scope).or_else(again);
            self.pause *= 2;
            match next {
                Some(node) => self.send(node, scope),
                None => self.next_at = scope.now.monotonic + self.pause,
            }
        }
        Progress::Pending
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
                let message = "no owner of the key is ready to serve; try again in a moment";
                let answer = refusal(&self.ask, Problem::new(Code::NotReady, message));
                self.answered(from, answer, scope)
            }
            Event::Deadline => self.on_deadline(scope),
            _ => Progress::Pending,
        }
    }

    fn due(&self) -> Moment {
        self.next_at.min(self.deadline)
    }
}

/// Why nothing was done, if the answer says that nothing was.
fn refused_for(answer: &Answer) -> Option<Code> {
    let problem = match answer {
        Answer::Written(written) if written.outcome == Outcome::NotApplied => written.problem.as_ref(),
        Answer::Read(read) if !read.available => read.problem.as_ref(),
        Answer::Refused(problem) => Some(problem),
        _ => return None,
    };
    Some(problem.map_or(Code::NotReady, |problem| problem.code))
}

/// Whether another owner might do what one refused to do.
fn may_pass_elsewhere(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Overloaded
            | Code::NotReady
            | Code::RingChanged
            | Code::DiskFull
            | Code::RecordLost
    )
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

#[cfg(test)]
mod tests;
