//! What can go wrong, by family of operations. Every variant says what happened to the state of the store.

use std::fmt;
use std::net::SocketAddr;

use thiserror::Error;

use super::operation::Failure;
use super::outcome::Verdict;
use super::receipt::Receipt;
use crate::protocol::causality::Dot;
use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::Name;
use crate::protocol::wire::client::Problem;
use crate::transport::BindError;

/// No cluster could be reached. Nothing was changed anywhere.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// There was nowhere to begin.
    #[error("no address of a node was given: name at least one (--connect ADDR)")]
    NoSeeds,
    /// The client's own socket could not be opened.
    #[error("the client's own socket could not be opened: {0}")]
    Socket(#[from] BindError),
    /// The system gave no random numbers, without which operations cannot be told apart.
    #[error("the system gave no random numbers: {0}")]
    Randomness(String),
    /// Every seed was tried in vain.
    #[error("no node could be reached\n{}", Said(.0))]
    NoNode(Vec<SeedError>),
    /// The cluster was reached, but it has no node of the name that was asked for.
    #[error("there is no node {wanted} in the cluster: it has {}", Names(.known))]
    NoSuchNode {
        /// Whom the requests were to go through.
        wanted: Name,
        /// Who is there.
        known: Vec<Name>,
    },
}

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{address}: {said}")]
pub struct SeedError {
    /// The seed.
    pub address: SocketAddr,
    /// What it said, or that it said nothing.
    pub said: String,
}

/// A read found nothing out. Reads change nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Too few owners of the key could be asked, until the deadline.
    #[error("the key cannot be read now: {0}")]
    Unavailable(Problem),
    /// The request itself is wrong, or not allowed; it would fail again.
    #[error("the read was refused: {0}")]
    Refused(Problem),
}

/// A put or a delete that is not known to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// Nothing was changed and nothing will be: every attempt was explicitly refused before any node had logged it, or
    /// never left this process.
    #[error("nothing was written: {problem}")]
    NotApplied {
        /// Why.
        problem: Problem,
    },
    /// Some replica may hold it. It may become visible, now or later, or never.
    ///
    /// To find out, read the key: the write is there if its value is, or its dot. To make sure, write again, with a new
    /// reading; a blind put that is repeated may show up twice.
    #[error("it is not known whether the write took place: {}", .0.problem)]
    Unknown(Box<Unsettled>),
}

/// What is known of a write whose end is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The last that was heard.
    pub problem: Problem,
    /// The write's dot, if some attempt got that far and could say so.
    pub dot: Option<Dot>,
    /// The owners that are known to have it on disk: fewer than were asked for.
    pub acks: Vec<NodeId>,
    /// How many attempts were made.
    pub attempts: u32,
}

/// An update that did not end with its result as the key's only value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpdateError {
    /// The key could not be read. Nothing was changed.
    #[error(transparent)]
    Read(ReadError),
    /// The first write failed; what that means for the state, it says itself.
    #[error(transparent)]
    Write(WriteError),
    /// The change **is committed**, but others wrote at the same time, and their values stand beside it. The next
    /// update of the key merges them.
    #[error("the change was written, but concurrent values remain beside it: {}", .0.reason)]
    Unmerged(Box<Unmerged>),
}

/// What an update left behind that could not merge everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmerged {
    /// Of the last write of this update that was committed.
    pub receipt: Receipt,
    /// What kept it from merging the rest.
    pub reason: UnmergedReason,
}

/// What kept an update from merging concurrent values.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnmergedReason {
    /// Others wrote faster than this update could merge.
    #[error("others kept writing through {0} rounds")]
    Contention(u32),
    /// The key could not be read again.
    #[error(transparent)]
    Read(ReadError),
    /// The merged value could not be written; what that means for it, it says itself.
    #[error(transparent)]
    Write(WriteError),
}

/// A question about the cluster that was not answered. Questions change nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// No node that could have answered did.
    #[error("no answer: {0}")]
    Unavailable(Problem),
    /// The node will not answer this.
    #[error("the question was refused: {0}")]
    Refused(Problem),
    /// There is no node of this name.
    #[error("there is no node {0} in the cluster")]
    NoSuchNode(Name),
}

/// An administrative request that is not known to be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdminError {
    /// Nothing was changed.
    #[error("nothing was changed: {0}")]
    NotDone(Problem),
    /// The node may have done it.
    #[error("it is not known whether it was done: {0}")]
    Unknown(Problem),
    /// There is no node of this name. Nothing was changed.
    #[error("there is no node {0} in the cluster")]
    NoSuchNode(Name),
}

impl ReadError {
    /// What the nodes said.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        let (ReadError::Unavailable(problem) | ReadError::Refused(problem)) = self;
        problem
    }

    pub(super) fn new(failure: Failure) -> ReadError {
        if super::retry::may_pass(failure.problem.code) {
            ReadError::Unavailable(failure.problem)
        } else {
            ReadError::Refused(failure.problem)
        }
    }
}

impl WriteError {
    /// What the nodes said.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        match self {
            WriteError::NotApplied { problem } => problem,
            WriteError::Unknown(unsettled) => &unsettled.problem,
        }
    }
}

impl AskError {
    pub(super) fn new(failure: Failure) -> AskError {
        if super::retry::may_pass(failure.problem.code) {
            AskError::Unavailable(failure.problem)
        } else {
            AskError::Refused(failure.problem)
        }
    }
}

impl AdminError {
    pub(super) fn new(failure: Failure) -> AdminError {
        match failure.verdict {
            Verdict::NotApplied => AdminError::NotDone(failure.problem),
            Verdict::Unknown | Verdict::Committed => AdminError::Unknown(failure.problem),
        }
    }
}

/// One line for each seed.
struct Said<'a>(&'a [SeedError]);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}  {error}")?;
        }
        Ok(())
    }
}

/// Names with commas between them.
struct Names<'a>(&'a [Name]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(Name::as_str).collect();
        f.write_str(&names.join(", "))
    }
}
