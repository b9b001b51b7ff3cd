//! A read by quorum.

use std::time::Duration;

use bytes::Bytes;

use super::coordinator::{Event, Operation, Progress};
use super::desk::Errand;
use super::gather::{Gather, Gathered};
use super::quorum::{Quorum, Verdict};
use super::scope::{Origin, Scope};
use crate::protocol::causality::{Applied, Change, Dot, Record, Sibling};
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::storage::trust::Standing;
use crate::protocol::time::{Moment, Timestamp};
use crate::protocol::wire::client::{Answer, Code, Level, Problem, Read, ReadAnswer};
use crate::protocol::wire::peer::PeerRefusal;

/// A get: R owners are asked, their records merged and shown, and those that knew less are repaired behind the answer.
///
/// An *atomic* get first makes sure that a majority holds what it will show, so that no later majority read can see less
/// (the write-back of Attiya, Bar-Noy and Dolev, *Sharing Memory Robustly in Message-Passing Systems*, 1995).
#[derive(Debug)]
pub(super) struct Get {
    request: RequestId,
    origin: Origin,
    ask: Read,
    deadline: Moment,
    state: State,
}

#[derive(Debug)]
enum State {
    Gathering(Gather),
    /// The merged record is known and being written back.
    WritingBack {
        record: Record,
        replies: Vec<NodeId>,
        /// The newest of the writes that will be shown. The owners state their entry for its actor with their
        /// acknowledgements.
        newest: Dot,
        holders: Quorum,
        resend_at: Moment,
        pause: Duration,
    },
}

impl Get {
    /// Begins a get; answers at once and gives nothing back if it cannot be done.
    pub(super) fn start(
        request: RequestId,
        origin: Origin,
        ask: Read,
        deadline: Moment,
        scope: &mut Scope<'_>,
    ) -> Option<Get> {
        match Gather::start(request, &ask.key, ask.r, scope) {
            Ok(gather) => Some(Get { request, origin, ask, deadline, state: State::Gathering(gather) }),
            Err(problem) => {
                scope.answer(origin, Answer::Read(unavailable(problem)));
                None
            }
        }
    }

    fn gathered(&mut self, gathered: Gathered, scope: &mut Scope<'_>) -> Progress {
        let Gathered { record, replies, stale } = gathered;
        let Some(record) = record else { return self.show(None, replies, scope) };
        if self.ask.atomic {
            let mut holders = Quorum::of_writes(&scope.slot_of(&self.ask.key), Level::Majority);
            for node in replies.iter().filter(|node| !stale.contains(node)) {
                holders.accept(*node);
            }
            if holders.verdict() != Verdict::Reached {
                if holders.silent().any(|node| node == scope.own) {
                    let change = Change::Merge { record: record.clone(), own: scope.author.actor() };
                    scope.update(Errand::Operation(self.request), &self.ask.key, change);
                }
                let pause = scope.config.resend_after;
                // Reaping may compact what is dead out of a context, but never a sibling that lives.
                let dots = record.siblings().iter().map(|sibling| sibling.dot);
                let none = Dot { actor: scope.author.actor(), at: Timestamp::default() };
                self.state = State::WritingBack {
                    newest: dots.max_by_key(|dot| (dot.at, dot.actor)).unwrap_or(none),
                    record,
                    replies,
                    holders,
                    resend_at: scope.now.monotonic + pause,
                    pause,
                };
                self.write_back(scope);
                return Progress::Pending;
            }
        }
        for node in stale {
            if !scope.repair(node, &self.ask.key, &record) {
                // Left to the exchange, which is between this node and another one.
                let fellow = if node == scope.own {
                    replies.iter().find(|other| **other != node)
                } else {
                    Some(&node)
                };
                fellow.into_iter().for_each(|fellow| scope.miss(*fellow, &self.ask.key));
            }
        }
        self.show(Some(&record), replies, scope)
    }

    /// Sends the merged record to every other owner that is not known to hold it.
    fn write_back(&self, scope: &mut Scope<'_>) {
        let State::WritingBack { record, newest, holders, .. } = &self.state else { return };
        for node in holders.silent() {
            if node != scope.own && scope.can_reach(node) {
                scope.replicate(node, self.request, newest.actor, &self.ask.key, record);
            }
        }
    }

    fn held_by(&mut self, node: NodeId, scope: &mut Scope<'_>) -> Progress {
        let State::WritingBack { record, replies, holders, .. } = &mut self.state else {
            return Progress::Pending;
        };
        holders.accept(node);
        if holders.verdict() != Verdict::Reached {
            return Progress::Pending;
        }
        let (record, replies) = (std::mem::take(record), std::mem::take(replies));
        self.show(Some(&record), replies, scope)
    }

    fn declined_by(&mut self, node: NodeId, scope: &mut Scope<'_>) -> Progress {
        let State::WritingBack { holders, .. } = &mut self.state else { return Progress::Pending };
        holders.decline(node);
        if holders.verdict() != Verdict::Impossible {
            return Progress::Pending;
        }
        let message =
            "too few owners can take over what was read, so it may not be shown as atomic; try again";
        self.fail(Problem::new(Code::Unavailable, message), scope)
    }

    fn show(&self, record: Option<&Record>, replies: Vec<NodeId>, scope: &mut Scope<'_>) -> Progress {
        let answer = ReadAnswer {
            available: true,
            values: record.map(shown).unwrap_or_default(),
            deleted: record.is_some_and(Record::is_tombstone),
            context: record.map(|record| scope.seal(record, &self.ask.key)),
            replies,
            problem: None,
        };
        scope.answer(self.origin, Answer::Read(answer));
        Progress::Done
    }

    fn fail(&self, problem: Problem, scope: &mut Scope<'_>) -> Progress {
        scope.answer(self.origin, Answer::Read(unavailable(problem)));
        Progress::Done
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
                self.fail(problem, scope)
            }
        }
    }

    /// The owners are under another digest: nothing that they said under the last one counts beside what they say now.
    fn begin_anew(&mut self, fresh: RequestId, scope: &mut Scope<'_>) -> Progress {
        if !scope.slot_of(&self.ask.key).is_owner(scope.own) {
            let message = "the owners of the key changed while it was read; try again";
            return self.fail(Problem::new(Code::RingChanged, message), scope);
        }
        self.request = fresh;
        match &mut self.state {
            State::Gathering(gather) => match gather.restart(fresh, self.ask.r, scope) {
                Ok(anew) => *gather = anew,
                Err(problem) => return self.fail(problem, scope),
            },
            State::WritingBack { record, holders, .. } => {
                *holders = Quorum::of_writes(&scope.slot_of(&self.ask.key), Level::Majority);
                if scope.standing_of(&self.ask.key) != Standing::Closed {
                    let change = Change::Merge { record: record.clone(), own: scope.author.actor() };
                    scope.update(Errand::Operation(fresh), &self.ask.key, change);
                }
                self.write_back(scope);
            }
        }
        Progress::Renumbered
    }

    fn on_deadline(&mut self, scope: &mut Scope<'_>) -> Progress {
        if scope.now.monotonic >= self.deadline {
            let message = "the owners of the key did not answer in time; try again, with a longer deadline or a lower level";
            return self.fail(Problem::new(Code::Timeout, message), scope);
        }
        match &mut self.state {
            State::Gathering(gather) => {
                let verdict = gather.on_deadline(scope);
                self.judge(verdict, scope)
            }
            State::WritingBack { resend_at, pause, .. } => {
                if scope.now.monotonic >= *resend_at {
                    *pause *= 2;
                    *resend_at = scope.now.monotonic + *pause;
                    self.write_back(scope);
                }
                Progress::Pending
            }
        }
    }
}

impl Operation for Get {
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
            (State::WritingBack { newest, .. }, Event::Stored { from, entry }) => {
                let is_held = scope.author.believes(*newest, entry);
                if is_held { self.held_by(from, scope) } else { Progress::Pending }
            }
            (State::WritingBack { .. }, Event::Logged) => {
                let own = scope.own;
                self.held_by(own, scope)
            }
            (State::WritingBack { .. }, Event::Applied(Applied::Refused(_))) => {
                let own = scope.own;
                self.declined_by(own, scope)
            }
            (
                State::WritingBack { .. },
                Event::Refused { from, reason: PeerRefusal::Lost | PeerRefusal::DiskFull },
            ) => self.declined_by(from, scope),
            (_, Event::RingChanged { fresh }) => self.begin_anew(fresh, scope),
            (_, Event::Deadline) => self.on_deadline(scope),
            _ => Progress::Pending,
        }
    }

    fn due(&self) -> Moment {
        let due = match &self.state {
            State::Gathering(gather) => gather.due(),
            State::WritingBack { resend_at, .. } => *resend_at,
        };
        due.min(self.deadline)
    }
}

/// The siblings with a value as clients see them, oldest dot first, equal bytes once.
fn shown(record: &Record) -> Vec<Sibling> {
    let mut siblings: Vec<&Sibling> = record.siblings().iter().filter(|s| s.value.is_some()).collect();
    siblings.sort_by_key(|sibling| (sibling.dot.at, sibling.dot.actor));
    let mut shown: Vec<Sibling> = Vec::new();
    for sibling in siblings {
        if !shown.iter().any(|earlier| earlier.value == sibling.value) {
            shown.push(sibling.clone());
        }
    }
    shown
}

/// The answer of a read that found too few owners.
pub(super) fn unavailable(problem: Problem) -> ReadAnswer {
    ReadAnswer {
        available: false,
        values: Vec::new(),
        deleted: false,
        context: None,
        replies: Vec::new(),
        problem: Some(problem),
    }
}

/// Checks a key before anything is done with it.
pub(super) fn check_key(key: &Bytes, bytes_max: usize) -> Result<(), Problem> {
    match key.len() {
        0 => Err(Problem::new(Code::BadKey, "the key is empty; a key has at least one byte")),
        len if len > bytes_max => Err(Problem::new(
            Code::BadKey,
            format!("the key has {len} bytes; at most {bytes_max} are allowed"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
