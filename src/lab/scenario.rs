//! A lab as the stage of a scenario: real processes, real time.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use futures_lite::future::block_on;

use super::cluster::Lab;
use super::process::State;
use crate::client::{AskError, Client, Context, ReadError, WriteError};
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{Answer, Code, Outcome as Verdict, Problem, Written};
use crate::sim::scenario::command::{Command, WAIT_DEFAULT};
use crate::sim::scenario::script::Trouble;
use crate::sim::scenario::stage::{Holding, Order, Reply, Stage, Wanted, Where};
use crate::sim::scenario::{Outcome, Scenario, perform};

/// Performs a scenario on a lab that has just been started and has as many nodes and replicas as the scenario wants.
///
/// # Errors
/// When the lab is another one than the scenario is written for, or does not answer.
pub fn play(scenario: &Scenario, lab: &mut Lab, say: &mut dyn FnMut(&str)) -> Result<Outcome, String> {
    let (nodes, replicas) = (lab.record().nodes.len(), usize::from(lab.record().replicas));
    if nodes != usize::from(scenario.nodes) || replicas != scenario.replicas.get() {
        return Err(format!(
            "the scenario wants {} nodes and {} replicas, the lab has {nodes} and {replicas}",
            scenario.nodes, scenario.replicas
        ));
    }
    let options = lab.connect_options(lab.record().addresses())?;
    let client = block_on(Client::connect(options)).map_err(|error| error.to_string())?;
    let mut pinned = BTreeMap::new();
    for name in scenario.names() {
        // Now, while everybody can be reached: what a scenario breaks should not keep its clients from getting there.
        pinned.insert(name.clone(), lab.client(&name)?);
    }
    let (sender, replies) = channel();
    let mut stage = LabStage { lab, client, pinned, began: Instant::now(), sender, replies };
    Ok(perform(scenario, &mut stage, say))
}

struct LabStage<'a> {
    lab: &'a mut Lab,
    client: Client,
    /// Clients that speak to one node each.
    pinned: BTreeMap<String, Client>,
    began: Instant,
    sender: Sender<(usize, Reply)>,
    replies: Receiver<(usize, Reply)>,
}

impl LabStage<'_> {
    fn client_for(&mut self, via: Option<&str>) -> Result<Client, String> {
        let Some(name) = via else { return Ok(self.client.clone()) };
        if let Some(client) = self.pinned.get(name) {
            return Ok(client.clone());
        }
        let client = self.lab.client(name)?;
        self.pinned.insert(name.to_owned(), client.clone());
        Ok(client)
    }
}

impl Stage for LabStage<'_> {
    fn place(&self) -> Where {
        Where::Lab
    }

    fn now(&mut self) -> Duration {
        self.began.elapsed()
    }

    fn owners(&mut self, key: &[u8]) -> Vec<NodeId> {
        self.client.owners(key)
    }

    fn name(&mut self, node: NodeId) -> String {
        self.client.name_of(node).map_or_else(|| node.to_string(), |name| name.as_str().to_owned())
    }

    fn command(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::Partition(groups) => {
                self.lab.change_faults(|faults, _| faults.partition(groups))?;
            }
            Command::Fault(links, change) => {
                self.lab.change_faults(|faults, nodes| faults.change(links, *change, nodes))?;
            }
            Command::Heal => {
                self.lab.change_faults(|faults, _| faults.heal())?;
            }
            Command::Kill(names) => {
                self.lab.kill(names);
            }
            Command::Wipe(names) => {
                self.lab.wipe(names)?;
            }
            Command::Backup(names) => {
                self.lab.backup(names)?;
            }
            Command::Restore(names) => {
                self.lab.restore(names)?;
            }
            Command::Restart(names) => {
                self.lab.restart(names)?;
            }
            Command::Pause(names) => {
                self.lab.pause(names);
            }
            Command::Resume(names) => {
                self.lab.resume(names)?;
            }
            Command::Wait(span) => self.lab.wait(*span, &mut |_| {})?,
            Command::Status | Command::Stop => return Err("a script does not do that".to_owned()),
        }
        Ok(())
    }

    fn trouble(&mut self, _trouble: &Trouble, _key: &[u8]) -> Result<(), String> {
        Err("a lab can make no such trouble".to_owned())
    }

    fn ask(&mut self, number: usize, order: Order) {
        let (sender, began) = (self.sender.clone(), self.began);
        let client = self.client_for(order.via.as_deref());
        std::thread::spawn(move || {
            let answer = match client {
                Ok(client) => block_on(run(&client, order)),
                Err(why) => Answer::Refused(Problem::new(Code::Connection, why)),
            };
            // Nobody listens any more when the performance was broken off.
            let _ = sender.send((number, Reply { answer, at: began.elapsed(), attempts: 1 }));
        });
    }

    fn next_reply(&mut self, until: Option<Duration>) -> Option<(usize, Reply)> {
        let Some(until) = until else { return self.replies.recv().ok() };
        self.replies.recv_timeout(until.saturating_sub(self.began.elapsed())).ok()
    }

    fn holdings(&mut self, _key: &[u8], _owners: &[NodeId]) -> Option<Vec<Holding>> {
        // To ask would take time and messages, of which the script knows nothing.
        None
    }

    fn recover(&mut self) -> Result<(), String> {
        self.command(&Command::Heal)?;
        let (mut paused, mut down) = (Vec::new(), Vec::new());
        for report in self.lab.report() {
            match report.state {
                State::Paused { .. } => paused.push(report.name),
                State::Down(_) => down.push(report.name),
                State::Running { .. } => {}
                State::Failed(how) => return Err(format!("{} {how}", report.name)),
            }
        }
        self.command(&Command::Resume(paused))?;
        if !down.is_empty() {
            self.command(&Command::Restart(down))?;
        }
        self.command(&Command::Wait(WAIT_DEFAULT))
    }
}

async fn run(client: &Client, order: Order) -> Answer {
    let deadline = order.deadline;
    match order.request {
        Wanted::Write { key, value, context, w, sloppy } => {
            let seen = Context::from_token(&key, context.clone());
            let write = match (value, context.is_some()) {
                (Some(value), true) => client.put_with(&seen, value),
                (Some(value), false) => client.put_blind(&key, value),
                (None, true) => client.delete_with(&seen),
                (None, false) => client.delete(&key),
            };
            let write = if sloppy { write.sloppy() } else { write };
            match write.w(w).deadline(deadline).await {
                Ok(receipt) => Answer::Written(Written {
                    outcome: Verdict::Committed,
                    context: receipt.context.token().cloned(),
                    dot: receipt.dot,
                    siblings: receipt.siblings,
                    acks: receipt.acks,
                    hinted: receipt.hinted,
                    problem: None,
                }),
                Err(WriteError::NotApplied { problem }) => Answer::Refused(problem),
                Err(WriteError::Unknown(unsettled)) => Answer::Written(Written {
                    outcome: Verdict::Unknown,
                    context,
                    dot: unsettled.dot,
                    siblings: 0,
                    acks: unsettled.acks,
                    hinted: Vec::new(),
                    problem: Some(unsettled.problem),
                }),
            }
        }
        Wanted::Read { key, r, atomic } => {
            let get = client.get(&key).r(r).deadline(deadline);
            let get = if atomic { get.atomic() } else { get };
            match get.await {
                Ok(reading) => Answer::Read(reading.into()),
                Err(ReadError::Unavailable(problem) | ReadError::Refused(problem)) => {
                    Answer::Refused(problem)
                }
            }
        }
        Wanted::Explain { key } => client.explain(&key).await.map_or_else(refused, Answer::Explained),
        Wanted::Members => client.topology().await.map_or_else(refused, Answer::Topology),
    }
}

fn refused(error: AskError) -> Answer {
    Answer::Refused(match error {
        AskError::Unavailable(problem) | AskError::Refused(problem) => problem,
        AskError::NoSuchNode(_) => Problem::new(Code::BadRequest, error.to_string()),
    })
}
