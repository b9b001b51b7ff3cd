//! A write by quorum: puts and deletes.

use std::time::Duration;

use super::coordinator::{Event, Operation, Progress};
use super::desk::Errand;
use super::gather::{Gather, Gathered};
use super::get::check_key;
use super::quorum::{Quorum, Verdict};
use super::scope::{Origin, Scope};
use crate::protocol::causality::{
    Applied, Change, ContextError, Dot, OPERATION_LIFETIME, Put as Update, Record, Refusal, VersionVector,
};
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::output::{Notice, Output};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Code, Level, Outcome, Problem, Write, Written};
use crate::protocol::wire::peer::PeerRefusal;

/// A put or a delete, run by an owner of the key.
///
/// ```text
/// Gathering ──▶ Applying ──▶ Replicating ──▶ answered
///   only for      own disk      until W owners
///   retries and   executes      have it durable
///   blind deletes
/// ```
///
/// Until the own disk has executed the change the answer may be *not applied*. From then on it never is: this node's
/// own log holds the dot, whatever the others say, so a failure to reach W is *unknown*.
#[derive(Debug)]
pub(super) struct Put {
    request: RequestId,
    origin: Origin,
    write: Write,
    context: VersionVector,
    deadline: Moment,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Reading what a majority holds: a retry must find its earlier attempts, a blind delete what to delete.
    Gathering(Gather),
    /// The own disk executes the change, under this dot unless an earlier attempt came through.
    Applying(Option<Dot>),
    /// The record is on its way to the owners' logs.
    Replicating { record: Record, dot: Dot, holders: Quorum, resend_at: Moment, pause: Duration },
}

impl Put {
    /// Begins a write; answers at once and gives nothing back if it cannot be done.
    pub(super) fn start(
        request: RequestId,
        origin: Origin,
        write: Write,
        deadline: Moment,
        scope: &mut Scope<'_>,
    ) -> Option<Put> {
        match Put::check(&write, scope) {
            Ok(context) => {
                let needs_read = write.attempt > 1 || (write.value.is_none() && write.context.is_none());
                let mut put = Put { request, origin, write, context, deadline, state: State::Applying(None) };
                if !needs_read {
                    return (put.apply(None, scope) == Progress::Pending).then_some(put);
                }
                match Gather::start(request, &put.write.key, Level::Majority, scope) {
                    Ok(gather) => {
                        put.state = State::Gathering(gather);
                        Some(put)
                    }
                    Err(problem) => {
                        put.refuse(problem, scope);
                        None
                    }
                }
            }
            Err((outcome, problem)) => {
                scope.answer(origin, Answer::Written(failed(outcome, None, problem)));
                None
            }
        }
    }

    /// Everything that can be known to be wrong before anything is done.
    fn check(write: &Write, scope: &Scope<'_>) -> Result<VersionVector, (Outcome, Problem)> {
        let refused = |problem| (Outcome::NotApplied, problem);
        check_key(&write.key, scope.limits.key_bytes_max).map_err(refused)?;
        if let Some(value) = write.value.as_ref().filter(|value| value.len() > scope.limits.value_bytes_max) {
            let message = format!(
                "the value has {} bytes; at most {} are allowed",
                value.len(),
                scope.limits.value_bytes_max
            );
            return Err(refused(Problem::new(Code::ValueTooLarge, message)));
        }
        let context = match &write.context {
            Some(token) => token.open(&write.key, scope.secret).map_err(|error| {
                let code = match error {
                    ContextError::AnotherKey => Code::ContextOfAnotherKey,
                    ContextError::Damaged => Code::ContextDamaged,
                };
                refused(Problem::new(code, error.to_string()))
            })?,
            None => VersionVector::new(),
        };
        // Records have forgotten by now whether an earlier attempt came through.
        if write.attempt > 1 && scope.now.wall > write.operation.started.plus(OPERATION_LIFETIME) {
            let message = "the operation started more than 60 s ago, so nobody remembers its earlier attempts; read the key \
                           to see whether it was done";
            return Err((Outcome::Unknown, Problem::new(Code::OperationExpired, message)));
        }
        let slot = scope.slot_of(&write.key);
        let quorum = Quorum::of_writes(&slot, write.w);
        if !quorum.could_be_reached(|node| scope.can_reach(node)) {
            return Err(refused(scope.unavailable(slot.read_set(), quorum.need())));
        }
        Ok(context)
    }

    fn gathered(&mut self, gathered: Gathered, scope: &mut Scope<'_>) -> Progress {
        let Gathered { record, .. } = gathered;
        let is_blind_delete = self.write.value.is_none() && self.write.context.is_none();
        if is_blind_delete {
            // Also where there is nothing to delete a tombstone is written: it carries the mark of the operation. Without
            // it another attempt, one that waited in a paused node or went another way, would find no trace of this one
            // and delete what was written after the client had its answer.
            self.context = record.as_ref().map(|record| record.context().clone()).unwrap_or_default();
        }
        self.apply(record, scope)
    }

    /// Issues the dot and hands the change to the own disk.
    fn apply(&mut self, base: Option<Record>, scope: &mut Scope<'_>) -> Progress {
        let Some(dot) = scope.author.issue(scope.now.wall) else {
            let message = "the node is taking a new actor and issues no writes for the moment; try again";
            return self.refuse(Problem::new(Code::NotReady, message), scope);
        };
        scope.out.push(Output::Notice(Notice::Issued(dot)));
        let update = Update {
            context: self.context.clone(),
            dot,
            value: self.write.value.clone(),
            operation: self.write.operation,
            base,
            limits: *scope.limits,
        };
        self.state = State::Applying(Some(dot));
        scope.update(Errand::Operation(self.request), &self.write.key, Change::Put(update));
        Progress::Pending
    }

    fn applied(&mut self, applied: Applied, issued: Option<Dot>, scope: &mut Scope<'_>) -> Progress {
        let (record, dot) = match applied {
            Applied::Refused(refusal) => return self.refuse(problem_of(refusal), scope),
            Applied::Adopted { record, dot, .. } => (record, dot),
            Applied::Changed { record, .. } | Applied::Unchanged { record } => {
                // The record need not remember the operation: under a clock that is behind by more than the lifetime of
                // an operation its mark is forgotten as soon as it is made.
                let Some(dot) = issued else { return self.answer(Outcome::Unknown, None, scope) };
                (record, dot)
            }
        };
        let holders = Quorum::of_writes(&scope.slot_of(&self.write.key), self.write.w);
        let pause = scope.config.resend_after;
        self.state =
            State::Replicating { record, dot, holders, resend_at: scope.now.monotonic + pause, pause };
        self.fan_out(scope);
        Progress::Pending
    }

    /// Sends the record to every owner that can be reached and has not acknowledged it.
    fn fan_out(&self, scope: &mut Scope<'_>) {
        let State::Replicating { record, holders, .. } = &self.state else { return };
        let silent: Vec<NodeId> =
            holders.silent().filter(|node| *node != scope.own && scope.can_reach(*node)).collect();
        for node in silent {
            scope.replicate(node, self.request, &self.write.key, record);
        }
    }

    fn held_by(&mut self, node: NodeId, scope: &mut Scope<'_>) -> Progress {
        let State::Replicating { holders, .. } = &mut self.state else { return Progress::Pending };
        holders.accept(node);
        match holders.verdict() {
            Verdict::Reached => self.answer(Outcome::Committed, None, scope),
            Verdict::Pending | Verdict::Impossible => Progress::Pending,
        }
    }

    fn on_deadline(&mut self, scope: &mut Scope<'_>) -> Progress {
        let now = scope.now.monotonic;
        if now >= self.deadline {
            let message =
                "the owners of the key did not acknowledge in time; the write may still become visible";
            return self.give_up(Problem::new(Code::Timeout, message), scope);
        }
        match &mut self.state {
            State::Gathering(gather) => {
                let verdict = gather.on_deadline(scope);
                self.judge(verdict, scope)
            }
            State::Applying(_) => Progress::Pending,
            State::Replicating { holders, resend_at, pause, .. } => {
                if now < *resend_at {
                    return Progress::Pending;
                }
                *pause *= 2;
                *resend_at = now + *pause;
                if !holders.could_be_reached(|node| scope.can_reach(node)) {
                    let need = holders.need();
                    let problem = scope.unavailable(scope.slot_of(&self.write.key).read_set(), need);
                    return self.give_up(problem, scope);
                }
                self.fan_out(scope);
                Progress::Pending
            }
        }
    }

    fn judge(&mut self, verdict: Verdict, scope: &mut Scope<'_>) -> Progress {
        let State::Gathering(gather) = &mut self.state else { return Progress::Pending };
        match verdict {
            Verdict::Pending => Progress::Pending,
            Verdict::Reached => {
                let gathered = gather.finish();
                self.gathered(gathered, scope)
            }
            Verdict::Impossible => {
                let problem = gather.problem(scope);
                self.refuse(problem, scope)
            }
        }
    }

    /// Ends a write that cannot reach its quorum: *not applied* before the log was touched, *unknown* after.
    fn give_up(&mut self, problem: Problem, scope: &mut Scope<'_>) -> Progress {
        match &self.state {
            State::Gathering(_) => self.refuse(problem, scope),
            State::Applying(_) | State::Replicating { .. } => {
                self.answer(Outcome::Unknown, Some(problem), scope)
            }
        }
    }

    /// Ends a write of which nothing was logged.
    fn refuse(&self, problem: Problem, scope: &mut Scope<'_>) -> Progress {
        scope.answer(self.origin, Answer::Written(failed(Outcome::NotApplied, None, problem)));
        Progress::Done
    }

    fn answer(&mut self, outcome: Outcome, problem: Option<Problem>, scope: &mut Scope<'_>) -> Progress {
        let mut written = Written {
            outcome,
            context: None,
            dot: None,
            siblings: 0,
            acks: Vec::new(),
            hinted: Vec::new(),
            problem,
        };
        if let State::Replicating { record, dot, holders, .. } = &mut self.state {
            written.dot = Some(*dot);
            written.siblings = record.siblings().len() as u32;
            written.acks = holders.accepted().to_vec();
            // The record's context covers siblings that this client was never shown. Handing it out would let the
            // client erase them with its next write without having seen them.
            let is_only_sibling = matches!(record.siblings(), [only] if only.dot == *dot);
            written.context = if is_only_sibling {
                Some(scope.seal(record, &self.write.key))
            } else {
                self.write.context.clone()
            };
        }
        scope.answer(self.origin, Answer::Written(written));
        Progress::Done
    }
}

impl Operation for Put {
    fn handle(&mut self, event: Event, scope: &mut Scope<'_>) -> Progress {
        match (&mut self.state, event) {
            (State::Gathering(gather), Event::Fetched { from, record }) => {
                let verdict = gather.on_reply(from, record, scope);
                self.judge(verdict, scope)
            }
            (State::Gathering(gather), Event::Refused { from, reason }) => {
                let verdict = gather.on_refusal(from, &reason, scope);
                self.judge(verdict, scope)
            }
            (State::Applying(dot), Event::Applied(applied)) => {
                let dot = *dot;
                self.applied(applied, dot, scope)
            }
            (State::Replicating { .. }, Event::Logged) => {
                let own = scope.own;
                self.held_by(own, scope)
            }
            (State::Replicating { dot, .. }, Event::Stored { from, entry }) => {
                // An owner that has seen less of this actor than the dot did not merge the record.
                let proves = dot.actor != scope.author.actor() || entry >= dot.at;
                if proves { self.held_by(from, scope) } else { Progress::Pending }
            }
            (State::Replicating { holders, .. }, Event::Refused { from, reason }) => {
                if matches!(reason, PeerRefusal::Lost | PeerRefusal::DiskFull) {
                    holders.decline(from);
                }
                if holders.verdict() == Verdict::Impossible {
                    let message = "too many owners of the key cannot store it (disk full or record damaged); the write is on \
                                   some of them and may become visible";
                    return self.give_up(Problem::new(Code::Unavailable, message), scope);
                }
                Progress::Pending
            }
            (_, Event::Deadline) => self.on_deadline(scope),
            _ => Progress::Pending,
        }
    }

    fn due(&self) -> Moment {
        let due = match &self.state {
            State::Gathering(gather) => gather.due(),
            State::Applying(_) => Moment::NEVER,
            State::Replicating { resend_at, .. } => *resend_at,
        };
        due.min(self.deadline)
    }
}

/// The answer of a write that is not committed.
pub(super) fn failed(outcome: Outcome, dot: Option<Dot>, problem: Problem) -> Written {
    Written {
        outcome,
        context: None,
        dot,
        siblings: 0,
        acks: Vec::new(),
        hinted: Vec::new(),
        problem: Some(problem),
    }
}

fn problem_of(refusal: Refusal) -> Problem {
    let code = match refusal {
        Refusal::TooManySiblings(_) => Code::TooManySiblings,
        Refusal::RecordTooLarge(_) => Code::RecordTooLarge,
        Refusal::ContextTooLong(_) => Code::ContextTooLong,
        Refusal::DiskFull => Code::DiskFull,
        Refusal::Overloaded => Code::Overloaded,
        Refusal::Amnesia => Code::NotReady,
        Refusal::Lost => Code::RecordLost,
    };
    Problem::new(code, refusal.to_string())
}
