//! A connection to a cluster that runs operations and answers them as the command line has it.

use std::collections::BTreeMap;

use futures_lite::future::block_on;

use super::answer::Answer;
use super::connection::Connection;
use super::failure::Failure;
use super::names::Names;
use super::operation::{Action, Operation, Options};
use crate::client::{AskError, Client, ConnectOptions, Context, ReadError, Receipt, WriteError};
use crate::protocol::causality::ContextToken;
use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::Name;
use crate::protocol::wire::client::{Code, Outcome, Problem, Written};

/// A connection to a cluster.
pub(crate) struct Session {
    options: ConnectOptions,
    client: Client,
    /// Clients that are pinned to one node, for single operations with `via=`.
    pinned: BTreeMap<Name, Client>,
    names: Names,
}

impl Session {
    /// Connects.
    pub(crate) fn connect(connection: &Connection) -> Result<Session, Failure> {
        Session::open(connection.options()?)
    }

    /// Connects with options at hand.
    pub(crate) fn open(options: ConnectOptions) -> Result<Session, Failure> {
        let client = block_on(Client::connect(options.clone())).map_err(Failure::failed)?;
        let names = Names::of_members(&client.members());
        Ok(Session { options, client, pinned: BTreeMap::new(), names })
    }

    /// The client itself.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The names of nodes, as far as they were needed.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Runs one operation to its end.
    pub(crate) fn run(&mut self, operation: &Operation) -> Answer {
        let client = match self.client_for(&operation.options) {
            Ok(client) => client,
            Err(problem) => return Answer::failed(operation, problem),
        };
        let answer = block_on(run(&client, operation));
        let mentioned: Vec<NodeId> = match &answer {
            Answer::Written(written) => [written.acks.as_slice(), &written.hinted].concat(),
            Answer::Read(read) => read.replies.clone(),
            Answer::Explained(Ok(explained)) => {
                explained.replicas.iter().map(|replica| replica.node).collect()
            }
            Answer::Explained(Err(_)) => Vec::new(),
        };
        if mentioned.iter().any(|node| !self.names.knows(*node)) {
            self.names = Names::of_members(&client.members());
        }
        answer
    }

    fn client_for(&mut self, options: &Options) -> Result<Client, Problem> {
        let Some(via) = options.via.as_ref().filter(|via| self.options.via.as_ref() != Some(*via)) else {
            return Ok(self.client.clone());
        };
        if let Some(client) = self.pinned.get(via) {
            return Ok(client.clone());
        }
        let options = self.options.clone().via(via.clone());
        let client = block_on(Client::connect(options))
            .map_err(|error| Problem::new(Code::Connection, error.to_string()))?;
        self.pinned.insert(via.clone(), client.clone());
        Ok(client)
    }
}

/// Runs one operation to its end.
pub(crate) async fn run(client: &Client, operation: &Operation) -> Answer {
    let options = &operation.options;
    match &operation.action {
        Action::Get => {
            let mut get = client.get(&operation.key).r(options.r);
            if options.atomic {
                get = get.atomic();
            }
            if let Some(deadline) = options.deadline {
                get = get.deadline(deadline);
            }
            match get.await {
                Ok(reading) => Answer::Read(reading.into()),
                Err(ReadError::Unavailable(problem) | ReadError::Refused(problem)) => {
                    Answer::failed(operation, problem)
                }
            }
        }
        Action::Put(_) | Action::Delete => {
            let seen = Context::from_token(&operation.key, options.context.clone());
            let mut write = match (&operation.action, options.context.is_some()) {
                (Action::Put(value), true) => client.put_with(&seen, value.clone()),
                (Action::Put(value), false) => client.put_blind(&operation.key, value.clone()),
                (_, true) => client.delete_with(&seen),
                (_, false) => client.delete(&operation.key),
            };
            write = write.w(options.w);
            if options.sloppy {
                write = write.sloppy();
            }
            if let Some(deadline) = options.deadline {
                write = write.deadline(deadline);
            }
            written(write.await, operation)
        }
        Action::Explain => Answer::Explained(client.explain(&operation.key).await.map_err(ask_problem)),
    }
}

fn written(result: Result<Receipt, WriteError>, operation: &Operation) -> Answer {
    let sent: Option<ContextToken> = operation.options.context.clone();
    match result {
        Ok(receipt) => Answer::Written(Written {
            outcome: Outcome::Committed,
            context: receipt.context.token().cloned(),
            dot: receipt.dot,
            siblings: receipt.siblings,
            acks: receipt.acks,
            hinted: receipt.hinted,
            problem: None,
        }),
        Err(WriteError::NotApplied { problem }) => Answer::failed(operation, problem),
        Err(WriteError::Unknown(unsettled)) => Answer::Written(Written {
            outcome: Outcome::Unknown,
            context: sent,
            dot: unsettled.dot,
            siblings: 0,
            acks: unsettled.acks,
            hinted: Vec::new(),
            problem: Some(unsettled.problem),
        }),
    }
}

/// A failed question as a problem.
pub(crate) fn ask_problem(error: AskError) -> Problem {
    match error {
        AskError::Unavailable(problem) | AskError::Refused(problem) => problem,
        AskError::NoSuchNode(_) => Problem::new(Code::BadRequest, error.to_string()),
    }
}
