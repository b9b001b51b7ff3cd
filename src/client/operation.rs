//! One operation with all its attempts: the loop that every verb runs in.
//!
//! ```text
//!        ┌──────────── a passing problem: pause, another node ───────────┐
//!        ▼                                                               │
//! begin ─┴─▶ attempt n ──▶ wait ──▶ done ──▶ the answer                  │
//!        ▲                  │ │──▶ failed ──▶ a problem that stays ──▶ the verdict over all attempts
//!        └── silent for too long ◀┘          deadline ────────────────▶
//! ```
//!
//! An attempt that is silent is not given up: the next one goes out beside it, and whichever answers first counts.
//! That is also how a read is hedged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::cluster::Cluster;
use super::connection::Attempt;
use super::inbox::{Delivery, Mailbox, Reply};
use super::options::CommonOptions;
use super::outcome::{Attempts, Fate, Verdict};
use super::{retry, route};
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{Answer, Code, Problem, Request};

/// What kind of request it is: how it is asked and what its answers mean.
pub(super) trait Ask {
    /// What a good answer is turned into.
    type Done;

    /// The request of this attempt, from 1.
    fn request(&self, attempt: u32) -> Request;

    /// What an answer means.
    fn judge(&mut self, answer: Answer) -> Judgement<Self::Done>;

    /// How long this attempt may be silent before another one goes out beside it.
    fn patience(&self, attempt: u32) -> Duration;
}

/// What an answer means.
pub(super) enum Judgement<T> {
    /// It is what was asked for.
    Done(T),
    /// It is not, for this reason, and this is what it says about the state of the store.
    Failed(Fate, Problem),
}

impl<T> Judgement<T> {
    /// The answer to another question than the one that was asked: the node's fault, and no word about the state.
    pub(super) fn nonsense() -> Judgement<T> {
        let text = "the node answered another question than the one that was asked";
        Judgement::Failed(Fate::Unknown, Problem::new(Code::Connection, text))
    }
}

/// Who may take the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// An owner of the key if possible, otherwise anybody, who will pass it on.
    Key(&'a [u8]),
    /// This node and no other.
    Node(NodeId),
    /// Anybody.
    Any,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Success<T> {
    pub(super) done: T,
    /// Who gave it.
    pub(super) node: NodeId,
    /// Of which attempt.
    pub(super) attempt: u32,
    /// How long that attempt took.
    pub(super) took: Duration,
}

/// No good answer, and what may be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) verdict: Verdict,
    /// The last thing that was heard, or that nothing was.
    pub(super) problem: Problem,
    /// How many attempts were begun.
    pub(super) attempts: u32,
}

/// Runs an operation to its end. No attempt begins at or after `last_start`.
pub(super) async fn run<A: Ask>(
    cluster: &Arc<Cluster>,
    target: Target<'_>,
    options: CommonOptions,
    last_start: Option<Instant>,
    mut ask: A,
) -> Result<Success<A::Done>, Failure> {
    let begun = clock::now();
    let mut run = Run {
        cluster,
        target,
        deadline: begun + options.deadline,
        mailbox: Mailbox::new(),
        attempts: Attempts::default(),
        sent: Vec::new(),
        problem: None,
    };
    let attempts_max = options.attempts.max(1);
    let mut failures = 0;
    // When the next attempt goes out; `None` when there will not be another one.
    let mut next_at = Some(begun);
    loop {
        let now = clock::now();
        if now >= run.deadline {
            break;
        }
        if next_at.is_some_and(|at| now >= at) {
            let too_late = last_start.is_some_and(|last| now >= last);
            next_at = if run.attempts.count() < attempts_max && !too_late {
                let number = run.begin(&ask, now);
                Some(now + ask.patience(number))
            } else {
                None
            };
        }
        if next_at.is_none() && !run.attempts.any_pending() {
            break;
        }
        let until = next_at.map_or(run.deadline, |at| at.min(run.deadline));
        let Some(Delivery { attempt, reply }) = run.mailbox.next(until).await else { continue };
        let (fate, problem) = match reply {
            Reply::Answer(answer) => match ask.judge(answer) {
                Judgement::Done(done) => return Ok(run.succeeded(done, attempt)),
                Judgement::Failed(fate, problem) => (fate, problem),
            },
            Reply::Lost(problem) => (Fate::Unknown, problem),
            Reply::NotSent(problem) => (Fate::NotSent, problem),
        };
        run.attempts.settle(attempt, fate);
        failures += 1;
        match problem.code {
            _ if !retry::may_pass(problem.code) => next_at = None,
            // A late failure of an earlier attempt changes nothing for the one that is under way.
            _ if attempt != run.attempts.count() => {}
            // Another node knows nothing of a broken connection, so it is asked at once; but if the failures go on...
            Code::Connection if failures <= 2 && !matches!(run.target, Target::Node(_)) => {
                next_at = next_at.map(|_| clock::now());
            }
            _ => {
                next_at = next_at.map(|_| clock::now() + cluster.with_rng(|rng| retry::pause(failures, rng)))
            }
        }
        if matches!(problem.code, Code::RingChanged | Code::NotReady) {
            cluster.look_again();
        }
        run.problem = Some(problem);
    }
    Err(run.failed(options.deadline))
}

struct Run<'a> {
    cluster: &'a Arc<Cluster>,
    target: Target<'a>,
    deadline: Instant,
    mailbox: Mailbox,
    attempts: Attempts,
    /// Where each attempt went and when.
    sent: Vec<(NodeId, Instant)>,
    problem: Option<Problem>,
}

impl Run<'_> {
    /// Begins the next attempt, at the node that is best for it now.
    fn begin<A: Ask>(&mut self, ask: &A, now: Instant) -> u32 {
        let number = self.attempts.begin();
        let attempt = Attempt {
            number,
            request: ask.request(number),
            deadline: self.deadline,
            inbox: Arc::clone(self.mailbox.inbox()),
        };
        match self.choose() {
            Some(node) => {
                self.sent.push((node, now));
                self.cluster.send(node, attempt);
            }
            None => {
                // A topology holds at least the node that told it; this is a node that said nothing sensible.
                self.sent.push((NodeId(0), now));
                attempt.fail(Problem::new(Code::Connection, "no node of the cluster is known"));
            }
        }
        number
    }

    fn choose(&self) -> Option<NodeId> {
        let key = match &self.target {
            Target::Node(node) => return Some(*node),
            Target::Key(key) => Some(*key),
            Target::Any => None,
        };
        let tried: Vec<NodeId> = self.sent.iter().map(|(node, _)| *node).collect();
        let candidates = self.cluster.candidates(key, &tried);
        self.cluster.with_rng(|rng| route::choose(&candidates, rng))
    }

    fn succeeded<T>(&self, done: T, attempt: u32) -> Success<T> {
        let (node, since) = self.sent[attempt as usize - 1];
        Success { done, node, attempt, took: clock::now() - since }
    }

    fn failed(mut self, deadline: Duration) -> Failure {
        // Attempts that still wait for a connection never left, and now never will.
        let sent = self.mailbox.close();
        for number in (1..=self.attempts.count()).filter(|number| !sent.contains(number)) {
            self.attempts.settle(number, Fate::NotSent);
        }
        let silent = || {
            let view = self.cluster.view();
            let mut asked: Vec<String> = self.sent.iter().map(|(node, _)| view.name_of(*node)).collect();
            asked.dedup();
            let text = format!("no answer within {} ms from {}", deadline.as_millis(), asked.join(", "));
            Problem::new(Code::Timeout, text)
        };
        let problem = self.problem.unwrap_or_else(silent);
        Failure { verdict: self.attempts.verdict(), problem, attempts: self.attempts.count() }
    }
}
