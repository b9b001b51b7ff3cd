//! A write by quorum: puts and deletes.

use std::cell::Cell;
use std::time::Duration;

use super::coordinator::{Event, Operation, Progress};
use super::desk::Errand;
use super::gather::{Gather, Gathered};
use super::get::check_key;
use super::hinting::{Hint, Hinting};
use super::quorum::{Quorum, Verdict};
use super::register;
use super::scope::{Origin, Scope, Stamped};
use crate::protocol::causality::{
    Applied, Change, ContextError, Dot, OPERATION_LIFETIME, Put as Update, Record, Refusal, VersionVector,
};
use crate::protocol::id::{NodeId, ReapEpoch, RequestId};
use crate::protocol::output::{Notice, Output};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::trust::Standing;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Code, Level, Outcome, Problem, Write, Written};
use crate::protocol::wire::peer::PeerRefusal;

/// A put or a delete, run by an owner of the key.
///
/// ```text
/// Gathering ──▶ Applying ──▶ Replicating ──▶ answered ──▶ done
///   for retries,   │ own disk     until W owners     until hints
///   blind deletes, │ executes     have it durable    are placed
///   and if the  ◀──┘
///   disk is behind
/// ```
///
/// For every owner that cannot be reached another node is asked to keep a hint. That counts towards W only if the client
/// asked for a *sloppy* quorum.
///
/// Until the own disk has executed the change the answer may be *not applied*. From then on it never is: this node's
/// own log holds the dot, whatever the others say, so a failure to reach W is *unknown*.
#[derive(Debug)]
pub(super) struct Put {
    request: RequestId,
    origin: Origin,
    write: Write,
    deadline: Moment,
    state: State,
    hinting: Hinting,
    is_answered: bool,
}

#[derive(Debug)]
enum State {
    /// Reading what a majority holds: a retry must find its earlier attempts, a blind delete what to delete, and a replica
    /// that the client's context is beyond what it has missed.
    Gathering { gather: Gather, context: VersionVector },
    /// The own disk executes the change.
    Applying { issued: Dot },
    /// The record is on its way to the owners' logs.
    Replicating {
        record: Record,
        /// Under which it was read from the own store.
        epoch: ReapEpoch,
        /// The dot of the operation: a new one, or that of an earlier attempt, which may be another node's. The owners state
        /// their entry for its actor with their acknowledgements.
        dot: Dot,
        holders: Quorum,
        resend_at: Moment,
        pause: Duration,
    },
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
        let begun = Put::check(&write, scope).and_then(|context| {
            let needs_read = write.attempt > 1 || (write.value.is_none() && write.context.is_none());
            let state = if needs_read {
                Gather::start(request, &write.key, Level::Majority, scope)
                    .map(|gather| State::Gathering { gather, context })
            } else {
                return execute(request, &write, context, None, ReapEpoch::default(), scope);
            };
            state.map_err(|problem| (Outcome::NotApplied, problem))
        });
        match begun {
            Ok(state) => {
                let hinting = Hinting::default();
                Some(Put { request, origin, write, deadline, state, hinting, is_answered: false })
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
        check_memory(write, scope)?;
        let slot = scope.slot_of(&write.key);
        let quorum = Quorum::of_writes(&slot, write.w);
        if !could_commit(&quorum, write, scope) {
            return Err(refused(scope.unavailable(slot.read_set(), quorum.need())));
        }
        Ok(context)
    }

    /// A majority has told what it holds. If that shows the operation, the own disk will find it there and adopt it.
    fn gathered(
        &mut self,
        gathered: Gathered,
        mut context: VersionVector,
        scope: &mut Scope<'_>,
    ) -> Progress {
        let Gathered { record, epoch, .. } = gathered;
        if self.write.value.is_none() && self.write.context.is_none() {
            // Also where there is nothing to delete a tombstone is written: it carries the mark of the operation. Without
            // it another attempt, one that waited in a paused node or went another way, would find no trace of this one
            // and delete what was written after the client had its answer.
            context = record.as_ref().map(|record| record.context().clone()).unwrap_or_default();
        }
        self.execute(context, record, epoch, scope)
    }

    /// The own disk executes the write, knowing what a majority holds, or that no majority can be asked.
    fn execute(
        &mut self,
        context: VersionVector,
        base: Option<Record>,
        epoch: ReapEpoch,
        scope: &mut Scope<'_>,
    ) -> Progress {
        match execute(self.request, &self.write, context, Some(base.unwrap_or_default()), epoch, scope) {
            Ok(state) => {
                self.state = state;
                Progress::Pending
            }
            Err((outcome, problem)) => {
                scope.answer(self.origin, Answer::Written(failed(outcome, None, problem)));
                Progress::Done
            }
        }
    }

    /// The client was shown more than this replica has merged: what it has missed is with the others. If they cannot be
    /// asked, the write is done all the same, as the client asked for no more than W of them.
    fn catch_up(&mut self, scope: &mut Scope<'_>) -> Progress {
        let token = self.write.context.as_ref();
        let context =
            token.and_then(|token| token.open(&self.write.key, scope.secret).ok()).unwrap_or_default();
        match Gather::start(self.request, &self.write.key, Level::Majority, scope) {
            Ok(gather) => {
                self.state = State::Gathering { gather, context };
                Progress::Pending
            }
            Err(_) => self.execute(context, None, ReapEpoch::default(), scope),
        }
    }

    /// The own disk executed the change, for which `issued` had been issued.
    fn applied(&mut self, applied: Applied, issued: Dot, scope: &mut Scope<'_>) -> Progress {
        let (record, dot) = match applied {
            Applied::Refused(Refusal::Behind | Refusal::Reaped) => return self.catch_up(scope),
            Applied::Refused(refusal) => return self.refuse(problem_of(refusal), scope),
            Applied::Adopted { record, dot, .. } => (record, dot),
            Applied::Changed { record, .. } | Applied::Unchanged { record } => (record, issued),
        };
        let holders = Quorum::of_writes(&scope.slot_of(&self.write.key), self.write.w);
        let pause = scope.config.resend_after;
        self.state = State::Replicating {
            record,
            epoch: scope.stamp(Slot::of_key(&self.write.key)),
            dot,
            holders,
            resend_at: scope.now.monotonic + pause,
            pause,
        };
        self.fan_out(scope);
        self.hint(scope, Hinting::cover);
        Progress::Pending
    }

    /// Lets the hints of this write go on.
    fn hint(
        &mut self,
        scope: &mut Scope<'_>,
        act: impl FnOnce(&mut Hinting, &Quorum, &Hint<'_>, &mut Scope<'_>),
    ) {
        let State::Replicating { record, epoch, holders, .. } = &self.state else { return };
        let hint = Hint { request: self.request, key: &self.write.key, record, epoch: *epoch };
        if hint.may_be_asked_for(holders, scope) {
            act(&mut self.hinting, holders, &hint, scope);
        }
    }

    /// A node keeps the record for an owner.
    fn hinted_by(&mut self, node: NodeId, scope: &mut Scope<'_>) -> Progress {
        let Some(target) = self.hinting.on_hinted(node) else { return Progress::Pending };
        // Struck off meanwhile, it may already have brought the hint to its owners, or be asked for it without anybody's
        // knowledge when deletions are forgotten.
        if !register::confirmed(Slot::of_key(&self.write.key), node, scope) {
            return Progress::Pending;
        }
        if let State::Replicating { holders, .. } = &mut self.state
            && counts_hints(&self.write)
        {
            holders.cover(target);
        }
        self.look_at_the_quorum(scope)
    }

    /// Sends the record to every owner that can be reached and has not acknowledged it.
    fn fan_out(&self, scope: &mut Scope<'_>) {
        let State::Replicating { record, epoch, dot, holders, .. } = &self.state else { return };
        for node in holders.silent() {
            if node != scope.own && scope.can_reach(node) {
                scope.replicate(node, self.request, dot.actor, &self.write.key, record, *epoch);
            }
        }
    }

    fn held_by(&mut self, node: NodeId, scope: &mut Scope<'_>) -> Progress {
        let State::Replicating { holders, .. } = &mut self.state else { return Progress::Pending };
        holders.accept(node);
        self.look_at_the_quorum(scope)
    }

    /// Answers as soon as enough have it, and is done when its hints are placed too.
    fn look_at_the_quorum(&mut self, scope: &mut Scope<'_>) -> Progress {
        let State::Replicating { holders, .. } = &self.state else { return Progress::Pending };
        if !self.is_answered && holders.verdict() == Verdict::Reached {
            return self.answer(Outcome::Committed, None, scope);
        }
        self.rest()
    }

    fn rest(&self) -> Progress {
        if self.is_answered && self.hinting.is_settled() { Progress::Done } else { Progress::Pending }
    }

    /// The owners are under another digest. What one of them acknowledged under the last one it may have lost, so that it
    /// must not be counted together with what another one acknowledges now: all of them are asked again, under a number
    /// to which nobody has answered yet.
    fn begin_anew(&mut self, fresh: RequestId, scope: &mut Scope<'_>) -> Progress {
        if !scope.slot_of(&self.write.key).is_owner(scope.own) {
            let message = "the owners of the key changed while the write was under way; try again";
            return self.give_up(Problem::new(Code::RingChanged, message), scope);
        }
        if self.is_answered {
            // What is left of it are hints, and those are refused under another digest: an exchange sees to it.
            self.hinting.abandon(&self.write.key, scope);
            return Progress::Done;
        }
        match &mut self.state {
            State::Gathering { gather, .. } => match gather.restart(fresh, Level::Majority, scope) {
                Ok(anew) => *gather = anew,
                Err(problem) => return self.give_up(problem, scope),
            },
            // Nobody was asked to acknowledge anything so far, and the own disk answers under the old number.
            State::Applying { .. } => return Progress::Pending,
            State::Replicating { record, epoch, holders, resend_at, pause, .. } => {
                *holders = Quorum::of_writes(&scope.slot_of(&self.write.key), self.write.w);
                *pause = scope.config.resend_after;
                *resend_at = scope.now.monotonic + *pause;
                if scope.standing_of(&self.write.key) != Standing::Closed {
                    let stamped = Stamped { record: record.clone(), epoch: *epoch };
                    let change = scope.merge(&self.write.key, stamped);
                    scope.update(Errand::Operation(fresh), &self.write.key, change);
                }
            }
        }
        self.request = fresh;
        self.hinting = Hinting::default();
        self.fan_out(scope);
        self.hint(scope, Hinting::cover);
        Progress::Renumbered
    }

    fn on_deadline(&mut self, scope: &mut Scope<'_>) -> Progress {
        let now = scope.now.monotonic;
        if now >= self.deadline {
            self.hinting.abandon(&self.write.key, scope);
            if self.is_answered {
                return Progress::Done;
            }
            let message = match self.state {
                State::Gathering { .. } => {
                    "the owners of the key did not tell in time what they hold; nothing was written"
                }
                _ => "the owners of the key did not acknowledge in time; the write may still become visible",
            };
            return self.give_up(Problem::new(Code::Timeout, message), scope);
        }
        match &mut self.state {
            State::Gathering { gather, .. } => {
                let verdict = gather.on_deadline(scope);
                self.judge(verdict, scope)
            }
            State::Applying { .. } => Progress::Pending,
            State::Replicating { holders, resend_at, pause, .. } => {
                if now < *resend_at {
                    return Progress::Pending;
                }
                *pause *= 2;
                *resend_at = now + *pause;
                if !self.is_answered && !could_commit(holders, &self.write, scope) {
                    let need = holders.need();
                    let problem = scope.unavailable(scope.slot_of(&self.write.key).read_set(), need);
                    return self.give_up(problem, scope);
                }
                let own = scope.own;
                holders.silent().filter(|node| *node != own).for_each(|node| scope.doubt(node));
                if !self.is_answered {
                    self.fan_out(scope);
                }
                self.hint(scope, Hinting::repeat);
                self.rest()
            }
        }
    }

    fn judge(&mut self, verdict: Verdict, scope: &mut Scope<'_>) -> Progress {
        let State::Gathering { gather, context } = &mut self.state else { return Progress::Pending };
        match verdict {
            Verdict::Pending => Progress::Pending,
            // The client has given up waiting, and nothing is done yet.
            Verdict::Reached if scope.now.monotonic >= self.deadline => self.on_deadline(scope),
            Verdict::Reached => {
                let (gathered, context) = (gather.finish(), std::mem::take(context));
                self.gathered(gathered, context, scope)
            }
            Verdict::Impossible if self.write.attempt == 1 && self.write.context.is_some() => {
                let context = std::mem::take(context);
                self.execute(context, None, ReapEpoch::default(), scope)
            }
            Verdict::Impossible => {
                let problem = gather.problem(scope);
                self.refuse(problem, scope)
            }
        }
    }

    /// Ends a write that cannot reach its quorum: *not applied* before the log was touched, *unknown* after.
    fn give_up(&mut self, problem: Problem, scope: &mut Scope<'_>) -> Progress {
        #[cfg(test)]
        if planted::is(Planted::LoggedAsNotApplied) {
            return self.refuse(problem, scope);
        }
        match &self.state {
            _ if self.is_answered => Progress::Done,
            State::Gathering { .. } => self.refuse(problem, scope),
            State::Applying { .. } | State::Replicating { .. } => {
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
            written.hinted = self.hinting.held();
            // The record's context covers siblings that this client was never shown. Handing it out would let the
            // client erase them with its next write without having seen them.
            let is_only_sibling = matches!(record.siblings(), [only] if only.dot == *dot);
            #[cfg(test)]
            let is_only_sibling = is_only_sibling || planted::is(Planted::ContextOfSiblings);
            written.context = if is_only_sibling {
                Some(scope.seal(record, &self.write.key))
            } else {
                self.write.context.clone()
            };
        }
        scope.answer(self.origin, Answer::Written(written));
        self.is_answered = true;
        self.rest()
    }
}

impl Operation for Put {
    fn handle(&mut self, event: Event, scope: &mut Scope<'_>) -> Progress {
        match (&mut self.state, event) {
            (State::Gathering { gather, .. }, Event::Fetched { from, reply }) => {
                let verdict = gather.on_reply(from, reply, scope);
                self.judge(verdict, scope)
            }
            (State::Gathering { gather, .. }, Event::Refused { from, reason }) => {
                let verdict = gather.on_refusal(from, &reason, scope);
                self.judge(verdict, scope)
            }
            (State::Applying { issued }, Event::Applied(applied)) => {
                let issued = *issued;
                self.applied(applied, issued, scope)
            }
            (State::Replicating { .. }, Event::Logged) => {
                let own = scope.own;
                self.held_by(own, scope)
            }
            (State::Replicating { dot, .. }, Event::Stored { from, entry }) => {
                let proves = scope.author.believes(*dot, entry);
                #[cfg(test)]
                let proves = proves || planted::is(Planted::AckUnchecked);
                if proves { self.held_by(from, scope) } else { Progress::Pending }
            }
            // The record in hand is older than a round of reaping that an owner has completed since; the own store is not.
            (State::Replicating { epoch, .. }, Event::Refused { reason: PeerRefusal::Reaped, .. }) => {
                // It can be read anew under a newer epoch only; otherwise the next repetition has to do.
                if *epoch < scope.stamp(Slot::of_key(&self.write.key)) {
                    scope.read_own(self.request, &self.write.key);
                }
                Progress::Pending
            }
            (State::Replicating { record, epoch, .. }, Event::Fetched { from, reply }) => {
                // A late answer to what was asked before the write is older than the write.
                if let Some(newer) = reply.record.filter(|newer| from == scope.own && newer.includes(record))
                {
                    (*record, *epoch) = (newer, reply.raised);
                    self.fan_out(scope);
                    self.hint(scope, Hinting::repeat);
                }
                Progress::Pending
            }
            (State::Replicating { .. }, Event::Registered(holder)) => {
                self.hint(scope, |hinting, _, hint, scope| hinting.on_registered(holder, hint, scope));
                Progress::Pending
            }
            (State::Replicating { .. }, Event::Hinted(from)) => self.hinted_by(from, scope),
            (State::Replicating { .. }, Event::Refused { from, .. })
                if !scope.slot_of(&self.write.key).is_owner(from) =>
            {
                self.hint(scope, |hinting, holders, hint, scope| {
                    hinting.on_refused(from, holders, hint, scope);
                });
                self.rest()
            }
            (State::Replicating { holders, .. }, Event::Refused { from, reason }) => {
                if matches!(reason, PeerRefusal::Lost | PeerRefusal::DiskFull) {
                    holders.decline(from);
                }
                if holders.verdict() == Verdict::Impossible && !self.is_answered {
                    let message = "too many owners of the key cannot store it (disk full or record damaged); the write is on \
                                   some of them and may become visible";
                    return self.give_up(Problem::new(Code::Unavailable, message), scope);
                }
                Progress::Pending
            }
            (State::Replicating { holders, .. }, Event::Applied(Applied::Refused(_))) => {
                holders.decline(scope.own);
                Progress::Pending
            }
            (_, Event::RingChanged { fresh }) => self.begin_anew(fresh, scope),
            (_, Event::Deadline) => self.on_deadline(scope),
            _ => Progress::Pending,
        }
    }

    fn due(&self) -> Moment {
        let due = match &self.state {
            State::Gathering { gather, .. } => gather.due(),
            State::Applying { .. } => Moment::NEVER,
            State::Replicating { resend_at, .. } => *resend_at,
        };
        due.min(self.deadline)
    }
}

/// Whether a hint counts as the owner that it is kept for.
fn counts_hints(write: &Write) -> bool {
    #[cfg(test)]
    if planted::is(Planted::HintForStrict) {
        return true;
    }
    write.sloppy
}

/// Whether enough owners can be reached, or, for a sloppy quorum, enough of those who would stand in for them.
fn could_commit(quorum: &Quorum, write: &Write, scope: &Scope<'_>) -> bool {
    if quorum.could_be_reached(|node| scope.can_reach(node)) {
        return true;
    }
    if !counts_hints(write) {
        return false;
    }
    let spare = Cell::new(Hinting::spare(Slot::of_key(&write.key), scope));
    quorum.could_be_reached(|node| scope.can_reach(node) || spare.replace(spare.get().saturating_sub(1)) > 0)
}

/// A retry must find its earlier attempts. Whoever may have forgotten them cannot execute it: neither a minute later nor
/// after the key was reaped, whatever the clocks say.
fn check_memory(write: &Write, scope: &Scope<'_>) -> Result<(), (Outcome, Problem)> {
    let started = write.operation.started;
    let is_expired = scope.node_time() > started.plus(OPERATION_LIFETIME);
    let is_reaped = started < scope.epochs.asked(Slot::of_key(&write.key)).forgotten;
    if write.attempt > 1 && (is_expired || is_reaped) {
        let message = "the operation started more than 60 s ago, so nobody remembers its earlier attempts; read the key to \
                       see whether it was done";
        return Err((Outcome::Unknown, Problem::new(Code::OperationExpired, message)));
    }
    Ok(())
}

/// Issues the dot and hands the change to the own disk, in one step: puts of one key must be executed in the order of
/// their dots.
fn execute(
    request: RequestId,
    write: &Write,
    context: VersionVector,
    base: Option<Record>,
    epoch: ReapEpoch,
    scope: &mut Scope<'_>,
) -> Result<State, (Outcome, Problem)> {
    check_memory(write, scope)?;
    let Some(dot) = scope.author.issue(scope.now.wall) else {
        let message = "the node is taking a new actor and issues no writes for the moment; try again";
        return Err((Outcome::NotApplied, Problem::new(Code::NotReady, message)));
    };
    scope.out.push(Output::Notice(Notice::Issued(dot)));
    let (value, operation, limits) = (write.value.clone(), write.operation, *scope.limits);
    let age = scope.age(&write.key, epoch);
    let update = Update { context, dot, value, operation, base, age, limits };
    scope.update(Errand::Operation(request), &write.key, Change::Put(update));
    Ok(State::Applying { issued: dot })
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
        Refusal::Amnesia | Refusal::Behind | Refusal::Reaped => Code::NotReady,
        Refusal::Lost => Code::RecordLost,
    };
    Problem::new(code, refusal.to_string())
}

#[cfg(test)]
mod tests;
