//! Puts and deletes: written to a quorum, repeated under one operation id.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::clock;
use super::cluster::Cluster;
use super::error::{Unsettled, WriteError};
use super::operation::{self, Ask, Judgement, Target};
use super::options::WriteOptions;
use super::outcome::{Fate, Verdict};
use super::receipt::Receipt;
use crate::protocol::causality::{ContextToken, Dot, OPERATION_LIFETIME, OperationId};
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{Answer, Code, Level, Outcome, Problem, Request, Write, Written};

/// A put or a delete that is being put together; await it to run it. See [`Client::put_with`](super::Client::put_with),
/// [`Client::put_blind`](super::Client::put_blind), [`Client::delete`](super::Client::delete) and
/// [`Client::delete_with`](super::Client::delete_with).
///
/// It has one effect however often it has to be repeated: all attempts carry one operation id, by which the replicas
/// know each other's work (Idempotent Receiver). That is exact for the newest 64 operations of a key and for a minute,
/// after which the client makes no further attempt.
#[derive(Clone)]
#[must_use = "a write does nothing until it is awaited"]
pub struct Put {
    cluster: Arc<Cluster>,
    key: Bytes,
    value: Option<Bytes>,
    context: Option<ContextToken>,
    /// Without a context nothing is written. Nodes take a deletion without one for "delete whatever is there".
    only_with_context: bool,
    options: WriteOptions,
}

impl Put {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        key: Bytes,
        value: Option<Bytes>,
        context: Option<ContextToken>,
    ) -> Put {
        let options = WriteOptions::new(&cluster.options.deadlines);
        Put { cluster, key, value, context, only_with_context: false, options }
    }

    /// How many owners must have it on disk. Default: a majority.
    pub fn w(mut self, level: Level) -> Put {
        self.options.w = level;
        self
    }

    /// Lets hints on other nodes count for owners that cannot be reached.
    pub fn sloppy(mut self) -> Put {
        self.options.sloppy = true;
        self
    }

    /// How long it may take with all its attempts. Default: [`Deadlines::request`](super::Deadlines::request).
    pub fn deadline(mut self, deadline: Duration) -> Put {
        self.options.common.deadline = deadline;
        self
    }

    /// No more attempts than this. Default: as many as fit before the deadline.
    pub fn attempts(mut self, max: u32) -> Put {
        self.options.common.attempts = max;
        self
    }

    pub(super) fn of_what_was_seen(mut self) -> Put {
        self.only_with_context = true;
        self
    }

    pub(super) fn options(mut self, options: WriteOptions) -> Put {
        self.options = options;
        self
    }

    /// Runs it.
    pub(super) async fn run(self) -> Result<Receipt, WriteError> {
        let Put { cluster, key, value, context, only_with_context, options } = self;
        if only_with_context && context.is_none() {
            let problem =
                Problem::new(Code::BadRequest, "nothing was seen of the key, so there is nothing to delete");
            return Err(WriteError::NotApplied { problem });
        }
        let begun = clock::now();
        let nonce = cluster.with_rng(|rng| rng.bits());
        let operation = OperationId { started: cluster.view().time_at(begun), nonce };
        let write =
            Write { key, value, context, operation, attempt: 1, w: options.w, sloppy: options.sloppy };
        let mut heard = Heard::default();
        let ask = PutAsk { write: &write, heard: &mut heard, patience: cluster.options.deadlines.patience };
        let target = cluster.via().map_or(Target::Key(&write.key), Target::Node);
        let last_start = begun + OPERATION_LIFETIME;
        let ran = operation::run(&cluster, target, options.common, Some(last_start), ask).await;
        match ran {
            Ok(success) => Ok(Receipt::new(write.key, success.done, success.node, success.attempt)),
            Err(failure) => Err(match failure.verdict {
                Verdict::NotApplied => WriteError::NotApplied { problem: failure.problem },
                Verdict::Unknown | Verdict::Committed => WriteError::Unknown(Box::new(Unsettled {
                    problem: failure.problem,
                    dot: heard.dot,
                    acks: heard.acks,
                    attempts: failure.attempts,
                })),
            }),
        }
    }
}

impl IntoFuture for Put {
    type Output = Result<Receipt, WriteError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// What attempts that did not commit have told.
#[derive(Default)]
struct Heard {
    dot: Option<Dot>,
    acks: Vec<NodeId>,
}

struct PutAsk<'a> {
    write: &'a Write,
    heard: &'a mut Heard,
    patience: Duration,
}

impl Ask for PutAsk<'_> {
    type Done = Written;

    fn request(&self, attempt: u32) -> Request {
        Request::Write(Write { attempt, ..self.write.clone() })
    }

    fn judge(&mut self, answer: Answer) -> Judgement<Written> {
        match answer {
            Answer::Written(written) => {
                let fate = match written.outcome {
                    Outcome::Committed => return Judgement::Done(written),
                    Outcome::Unknown => Fate::Unknown,
                    Outcome::NotApplied => Fate::NotApplied,
                };
                self.heard.dot = self.heard.dot.or(written.dot);
                self.heard.acks.extend(written.acks);
                self.heard.acks.sort();
                self.heard.acks.dedup();
                let unexplained = || Problem::new(Code::Unavailable, "the node did not say why");
                Judgement::Failed(fate, written.problem.unwrap_or_else(unexplained))
            }
            Answer::Refused(problem) => Judgement::Failed(Fate::NotApplied, problem),
            _ => Judgement::nonsense(),
        }
    }

    fn patience(&self, _attempt: u32) -> Duration {
        self.patience
    }
}
