//! The get: reads from a quorum, hedged when it is slow.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cluster::Cluster;
use super::error::ReadError;
use super::operation::{self, Ask, Judgement, Target};
use super::options::ReadOptions;
use super::outcome::Fate;
use super::reading::Reading;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{Answer, Code, Level, Problem, Read, ReadAnswer, Request};

/// A get that is being put together; await it to run it. See [`Client::get`](super::Client::get).
#[derive(Clone)]
#[must_use = "a get does nothing until it is awaited"]
pub struct Get {
    cluster: Arc<Cluster>,
    key: Bytes,
    options: ReadOptions,
}

impl Get {
    pub(super) fn new(cluster: Arc<Cluster>, key: Bytes) -> Get {
        let options = ReadOptions::new(&cluster.options.deadlines);
        Get { cluster, key, options }
    }

    /// How many owners must reply. Default: a majority.
    pub fn r(mut self, level: Level) -> Get {
        self.options.r = level;
        self
    }

    /// What is read is at a majority before it is returned, so that no later majority read sees less. Costs a write to
    /// the owners that do not have it yet.
    pub fn atomic(mut self) -> Get {
        self.options.atomic = true;
        self
    }

    /// How long it may take with all its attempts. Default: [`Deadlines::request`](super::Deadlines::request).
    pub fn deadline(mut self, deadline: Duration) -> Get {
        self.options.common.deadline = deadline;
        self
    }

    /// No more attempts than this, hedges included. Default: as many as fit before the deadline.
    pub fn attempts(mut self, max: u32) -> Get {
        self.options.common.attempts = max;
        self
    }

    /// Runs it.
    pub(super) async fn run(self) -> Result<Reading, ReadError> {
        let Get { cluster, key, options } = self;
        let via = cluster.via();
        let ask = GetAsk { key: &key, options, cluster: &cluster, via };
        let target = via.map_or(Target::Key(&key), Target::Node);
        let success =
            operation::run(&cluster, target, options.common, None, ask).await.map_err(ReadError::new)?;
        cluster.with_reads(|latency| latency.note(success.took));
        Ok(Reading::new(key, success.done, success.node))
    }
}

impl IntoFuture for Get {
    type Output = Result<Reading, ReadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

struct GetAsk<'a> {
    key: &'a Bytes,
    options: ReadOptions,
    cluster: &'a Cluster,
    via: Option<NodeId>,
}

impl Ask for GetAsk<'_> {
    type Done = ReadAnswer;

    fn request(&self, _attempt: u32) -> Request {
        Request::Read(Read { key: self.key.clone(), r: self.options.r, atomic: self.options.atomic })
    }

    fn judge(&mut self, answer: Answer) -> Judgement<ReadAnswer> {
        match answer {
            Answer::Read(answer) if answer.available => Judgement::Done(answer),
            Answer::Read(answer) => {
                let unexplained = || Problem::new(Code::Unavailable, "too few owners of the key replied");
                Judgement::Failed(Fate::NotApplied, answer.problem.unwrap_or_else(unexplained))
            }
            Answer::Refused(problem) => Judgement::Failed(Fate::NotApplied, problem),
            _ => Judgement::nonsense(),
        }
    }

    fn patience(&self, attempt: u32) -> Duration {
        let deadlines = &self.cluster.options.deadlines;
        let may_hedge = attempt == 1 && self.cluster.options.hedge && self.via.is_none();
        let p95 = if may_hedge { self.cluster.with_reads(|latency| latency.p95()) } else { None };
        p95.map_or(deadlines.patience, |p95| p95.clamp(deadlines.hedge_min, deadlines.patience))
    }
}
