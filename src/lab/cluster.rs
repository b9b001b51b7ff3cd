//! The lab itself: its nodes, the faults between them, and what can be done to both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_lite::future::block_on;

use super::faults::Faults;
use super::guardian::Guardian;
use super::process::{NodeProcess, STOP_DEADLINE, State};
use super::record::{LabError, LabLock, LabRecord, free_addresses, is_free};
use crate::client::{AdminError, Client, ConnectOptions};
use crate::protocol::ring::entry::Name;
use crate::protocol::wire::client::{AdminAnswer, AdminRequest, Code, Health, Status, Topology};

/// How long a node may take until it answers after it was started.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a node may take to answer the lab; longer, and it counts as silent.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How often the lab looks again while it waits for something.
const POLL: Duration = Duration::from_millis(50);

/// How often a node is given another port before the lab gives up.
const PORT_ATTEMPTS: usize = 3;

/// A running lab. Dropping it kills its nodes; [`shutdown`](Lab::shutdown) ends them in good order.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    record: LabRecord,
    nodes: Vec<NodeProcess>,
    faults: Faults,
    clients: BTreeMap<String, Client>,
    // Behind the nodes: it is to outlive them, not they it.
    guardian: Guardian,
    interrupted: Arc<AtomicBool>,
    _lock: LabLock,
}

/// What the lab knows of one node.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// n1, n2, ...
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub state: State,
    /// What it says of itself, or why it says nothing.
    pub status: Result<Status, String>,
    /// What goes wrong with what it sends.
    pub faults: Vec<String>,
}

impl Lab {
    /// Takes the lab in `dir`, or makes one there with this many nodes (5) and replicas (3). Starts nothing yet.
    ///
    /// `interrupted` makes long waits end early.
    pub fn open(
        dir: &Path,
        nodes: Option<u16>,
        replicas: Option<u8>,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Lab, LabError> {
        let failed = |error| LabError::File { path: dir.to_owned(), error };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let lock = LabLock::take(&dir)?;
        let record = if LabRecord::exists(&dir) {
            let record = LabRecord::load(&dir)?;
            let (has, wants) = (record.nodes.len(), nodes.map(usize::from));
            if wants.is_some_and(|wants| wants != has) {
                return Err(LabError::Mismatch(format!(
                    "the lab in {} has {has} nodes; start it without --nodes, or make another one in a new directory",
                    dir.display()
                )));
            }
            if replicas.is_some_and(|replicas| replicas != record.replicas) {
                return Err(LabError::Mismatch(format!(
                    "the lab in {} keeps {} replicas; that was fixed when it was founded",
                    dir.display(),
                    record.replicas
                )));
            }
            record
        } else {
            LabRecord::new(nodes.unwrap_or(5), replicas.unwrap_or(3))?
        };
        let nodes = record.nodes.iter().map(|node| NodeProcess::new(&dir, &node.name)).collect();
        let (faults, clients) = (Faults::default(), BTreeMap::new());
        Ok(Lab {
            dir,
            record,
            nodes,
            faults,
            clients,
            guardian: Guardian::start()?,
            interrupted,
            _lock: lock,
        })
    }

    /// Where it lives.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is durable of it.
    #[must_use]
    pub fn record(&self) -> &LabRecord {
        &self.record
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Starts all nodes and waits until all see all.
    pub fn start(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), LabError> {
        let taken: Vec<usize> =
            (0..self.nodes.len()).filter(|at| !is_free(self.record.nodes[*at].address)).collect();
        for (at, fresh) in taken.iter().zip(free_addresses(taken.len())?) {
            say(&format!("{} moves to {fresh}: its old port is taken", self.nodes[*at].name));
            self.record.nodes[*at].address = fresh;
        }
        // Before the first node: it would be lost to the next start with data of a cluster that nobody knows.
        self.record.save(&self.dir)?;
        for at in 0..self.nodes.len() {
            self.launch(at)?;
        }
        self.wait(START_DEADLINE, say).map_err(LabError::Process)
    }

    fn launch(&mut self, at: usize) -> Result<(), LabError> {
        let address = self.record.nodes[at].address;
        self.clients.remove(&self.nodes[at].name);
        self.nodes[at].start(&self.record, address, &mut self.guardian)
    }

    /// Starts one node and waits until it answers; if its port was taken, on another one.
    fn launch_and_meet(&mut self, at: usize) -> Result<(), LabError> {
        for _ in 0..PORT_ATTEMPTS {
            if !is_free(self.record.nodes[at].address) {
                self.move_node(at)?;
            }
            self.launch(at)?;
            let deadline = Instant::now() + START_DEADLINE;
            loop {
                match self.nodes[at].state(&mut self.guardian) {
                    State::Running { .. } => {}
                    // Somebody was faster: the port was free a moment ago.
                    _ if !is_free(self.record.nodes[at].address) => break,
                    State::Failed(how) => return Err(self.failed(at, &how)),
                    _ => return Err(self.failed(at, "it was ended")),
                }
                let name = self.nodes[at].name.clone();
                if self.status_of(&name).is_ok() {
                    self.nodes[at].has_recovered();
                    return Ok(());
                }
                if Instant::now() > deadline || self.is_interrupted() {
                    return Err(self.failed(at, "it does not answer"));
                }
                std::thread::sleep(POLL);
            }
        }
        Err(self.failed(at, "no port could be had for it"))
    }

    fn move_node(&mut self, at: usize) -> Result<(), LabError> {
        if let Some(fresh) = free_addresses(1)?.first() {
            self.record.nodes[at].address = *fresh;
        }
        self.record.save(&self.dir)
    }

    fn failed(&self, at: usize, how: &str) -> LabError {
        let node = &self.nodes[at];
        LabError::Process(format!("{} {how}\n{}", node.name, node.last_words()))
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Waits until all nodes that run serve, and see each other alive and in reach.
    pub fn wait(&mut self, span: Duration, say: &mut dyn FnMut(&str)) -> Result<(), String> {
        let deadline = Instant::now() + span;
        let mut said = String::new();
        loop {
            let missing = match self.what_is_missing() {
                Ok(()) => return Ok(()),
                Err(Missing::Fatal(why)) => return Err(why),
                Err(Missing::NotYet(why)) => why,
            };
            if missing != said {
                say(&missing);
                said.clone_from(&missing);
            }
            if self.is_interrupted() {
                return Err(format!("interrupted while {missing}"));
            }
            if Instant::now() > deadline {
                return Err(format!("after {} s still {missing}", span.as_secs()));
            }
            std::thread::sleep(POLL);
        }
    }

    fn what_is_missing(&mut self) -> Result<(), Missing> {
        let mut running = Vec::new();
        for at in 0..self.nodes.len() {
            match self.nodes[at].state(&mut self.guardian) {
                State::Running { .. } => running.push(self.nodes[at].name.clone()),
                State::Failed(how) => return Err(Missing::Fatal(self.failed(at, &how).to_string())),
                State::Paused { .. } | State::Down(_) => {}
            }
        }
        for name in &running {
            let topology = match self.topology_of(name) {
                Ok(topology) => topology,
                Err(_) => return Err(Missing::NotYet(format!("waiting for {name} to answer"))),
            };
            let sees = |other: &String| {
                topology.members.iter().any(|member| {
                    member.entry.name.as_str() == other && member.health == Health::Alive && member.reachable
                })
            };
            if let Some(unseen) = running.iter().find(|other| *other != name && !sees(other)) {
                return Err(Missing::NotYet(format!("waiting for {name} to see {unseen}")));
            }
            match self.status_of(name) {
                Ok(Status { waiting_for: None, .. }) => {}
                Ok(Status { waiting_for: Some(what), .. }) => {
                    return Err(Missing::NotYet(format!("{name} is waiting for {what}")));
                }
                Err(_) => return Err(Missing::NotYet(format!("waiting for {name} to answer"))),
            }
        }
        Ok(())
    }

    /// What is known of every node. Those that run are asked.
    pub fn report(&mut self) -> Vec<NodeReport> {
        let mut reports = Vec::new();
        for at in 0..self.nodes.len() {
            let name = self.nodes[at].name.clone();
            let state = self.nodes[at].state(&mut self.guardian);
            let status = match &state {
                State::Running { .. } => self.status_of(&name),
                State::Paused { .. } => Err("paused".to_owned()),
                State::Down(how) | State::Failed(how) => Err(how.clone()),
            };
            let (address, faults) = (self.record.nodes[at].address, self.faults.described(&name));
            reports.push(NodeReport { name, address, state, status, faults });
        }
        reports
    }

    /// SIGKILL for these nodes.
    pub fn kill(&mut self, names: &[String]) -> Vec<String> {
        let kill = |lab: &mut Lab, at: usize| match lab.nodes[at].state(&mut lab.guardian) {
            State::Down(how) | State::Failed(how) => format!("does not run: {how}"),
            _ => {
                lab.nodes[at].kill(&mut lab.guardian);
                "killed".to_owned()
            }
        };
        self.each(names, kill)
    }

    /// Kills these nodes and deletes what is on their disks. The next start recovers each of them from the others.
    pub fn wipe(&mut self, names: &[String]) -> Result<Vec<String>, String> {
        self.kill(names);
        self.each_or_fail(names, NodeProcess::wipe, "has lost its disk")
    }

    /// Copies what is on the disks of these nodes, each at one moment. An earlier copy is replaced.
    pub fn backup(&mut self, names: &[String]) -> Result<Vec<String>, String> {
        self.each_or_fail(names, NodeProcess::back_up, "is copied")
    }

    /// Kills these nodes and puts the last copies of their disks back. The next start finds out whether they are too old.
    pub fn restore(&mut self, names: &[String]) -> Result<Vec<String>, String> {
        let has_none = |node: &&NodeProcess| names.contains(&node.name) && !node.has_copy();
        if let Some(node) = self.nodes.iter().find(has_none) {
            return Err(format!("there is no copy of the disk of {0}: `backup {0}` makes one", node.name));
        }
        self.kill(names);
        self.each_or_fail(names, NodeProcess::restore, "has an old disk")
    }

    fn each_or_fail(
        &mut self,
        names: &[String],
        act: impl Fn(&mut NodeProcess) -> Result<(), LabError>,
        done: &str,
    ) -> Result<Vec<String>, String> {
        let mut failed = None;
        let said = self.each(names, |lab, at| match act(&mut lab.nodes[at]) {
            Ok(()) => done.to_owned(),
            Err(error) => {
                failed = Some(error.to_string());
                error.to_string()
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(said),
        }
    }

    /// SIGSTOP for these nodes.
    pub fn pause(&mut self, names: &[String]) -> Vec<String> {
        self.each(names, |lab, at| match lab.nodes[at].state(&mut lab.guardian) {
            State::Running { .. } if lab.nodes[at].pause() => "paused".to_owned(),
            State::Paused { .. } => "is paused already".to_owned(),
            _ => "does not run".to_owned(),
        })
    }

    /// SIGCONT for these nodes. What changed in the faults meanwhile is told to them.
    pub fn resume(&mut self, names: &[String]) -> Result<Vec<String>, String> {
        let mut woken = Vec::new();
        let said = self.each(names, |lab, at| {
            if lab.nodes[at].resume() {
                woken.push(lab.nodes[at].name.clone());
                "resumed".to_owned()
            } else {
                "was not paused".to_owned()
            }
        });
        self.apply_faults(&woken)?;
        Ok(said)
    }

    /// Starts these nodes; those that run are stopped in good order before. They come back with the faults in force: the
    /// lab sets them as soon as the node answers. For the moment before that a cut still holds, since the nodes at the
    /// other end make it too; delay and loss of what the node sends do not.
    pub fn restart(&mut self, names: &[String]) -> Result<Vec<String>, String> {
        let chosen: Vec<usize> =
            (0..self.nodes.len()).filter(|at| names.contains(&self.nodes[*at].name)).collect();
        let addresses = self.record.addresses();
        for at in &chosen {
            self.nodes[*at].ask_to_stop();
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        for at in &chosen {
            self.nodes[*at].await_end(deadline, &mut self.guardian);
        }
        for at in &chosen {
            self.launch_and_meet(*at).map_err(|error| error.to_string())?;
        }
        if self.record.addresses() == addresses {
            self.apply_faults(names)?;
        } else if !self.faults.is_empty() {
            // Faults go by address, so everybody has to hear of a new one.
            let running = self.running_names();
            self.apply_faults(&running)?;
        }
        Ok(self.each(names, |lab, at| match lab.nodes[at].state(&mut lab.guardian) {
            State::Running { pid } => format!("runs again, process {pid}"),
            other => format!("{other:?}"),
        }))
    }

    /// Stops these nodes in good order. Tells which of them had to be killed.
    pub fn stop(&mut self, names: &[String]) -> Vec<String> {
        let chosen = |node: &&mut NodeProcess| names.contains(&node.name);
        self.nodes.iter_mut().filter(chosen).for_each(NodeProcess::ask_to_stop);
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut killed = Vec::new();
        for node in self.nodes.iter_mut().filter(chosen) {
            if !node.await_end(deadline, &mut self.guardian) {
                killed.push(node.name.clone());
            }
        }
        killed
    }

    /// Starts a node that does not run, and leaves it to itself. If its port was taken, nothing is started.
    pub fn launch_without_waiting(&mut self, name: &str) -> Result<(), LabError> {
        let at = self.nodes.iter().position(|node| node.name == name);
        let at = at.ok_or_else(|| LabError::Process(format!("there is no node {name}")))?;
        if is_free(self.record.nodes[at].address) { self.launch(at) } else { Ok(()) }
    }

    /// The nodes that ended although nobody told them to, and how.
    pub fn failures(&mut self) -> Vec<(String, String)> {
        let mut failures = Vec::new();
        for node in &mut self.nodes {
            if let State::Failed(how) = node.state(&mut self.guardian) {
                failures.push((node.name.clone(), format!("{how}\n{}", node.last_words())));
            }
        }
        failures
    }

    /// The nodes that do not run, or stand still.
    pub fn down(&mut self) -> Vec<String> {
        let running = self.running_names();
        self.record.names().into_iter().filter(|name| !running.contains(name)).collect()
    }

    fn each(&mut self, names: &[String], mut what: impl FnMut(&mut Lab, usize) -> String) -> Vec<String> {
        let mut said = Vec::new();
        for at in 0..self.nodes.len() {
            if names.contains(&self.nodes[at].name) {
                let outcome = what(self, at);
                said.push(format!("{}: {outcome}", self.nodes[at].name));
            }
        }
        said
    }

    /// Changes the faults and tells the nodes. What could not be told stays remembered: a node that is paused or down
    /// hears of it when it is back.
    pub fn change_faults(
        &mut self,
        change: impl FnOnce(&mut Faults, &[String]),
    ) -> Result<Vec<String>, String> {
        change(&mut self.faults, &self.record.names());
        let mut later = Vec::new();
        for at in 0..self.nodes.len() {
            let name = self.nodes[at].name.clone();
            match self.nodes[at].state(&mut self.guardian) {
                State::Running { .. } => {}
                State::Paused { .. } => {
                    later.push(format!("{name}: paused, will be told when it is resumed"))
                }
                State::Down(_) | State::Failed(_) => {
                    later.push(format!("{name}: does not run, will be told when it is restarted"));
                }
            }
        }
        let running = self.running_names();
        self.apply_faults(&running)?;
        Ok(later)
    }

    fn running_names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for node in &mut self.nodes {
            if node.state(&mut self.guardian).is_running() {
                names.push(node.name.clone());
            }
        }
        names
    }

    /// Tells nodes that run which faults are in force at them.
    fn apply_faults(&mut self, names: &[String]) -> Result<(), String> {
        let mut told = Vec::new();
        for name in names {
            let requests: Vec<AdminRequest> = if self.faults.is_empty() {
                vec![AdminRequest::ClearFaults]
            } else {
                let peers = self.record.nodes.iter().filter(|peer| peer.name != *name);
                peers
                    .map(|peer| {
                        let (outbound, inbound) = self.faults.at(name, &peer.name);
                        AdminRequest::SetFault { peer: peer.address, outbound, inbound }
                    })
                    .collect()
            };
            let client = self.client(name);
            let wanted = name.clone();
            told.push((
                name,
                async_std::task::spawn(async move {
                    let client = client?;
                    let wanted = Name::new(wanted)?;
                    for request in requests {
                        tell(&client, &wanted, request).await.map_err(|error| error.to_string())?;
                    }
                    Ok::<(), String>(())
                }),
            ));
        }
        let mut failed = Vec::new();
        for (name, told) in told {
            if let Err(error) = block_on(told) {
                self.clients.remove(name);
                failed.push(format!("{name} could not be told its faults: {error}"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    }

    /// A client that speaks to this node alone, so that no cut between nodes comes between it and the lab.
    pub fn client(&mut self, name: &str) -> Result<Client, String> {
        if let Some(client) = self.clients.get(name) {
            return Ok(client.clone());
        }
        let record = self.record.nodes.iter().find(|node| node.name == name);
        let address = record.ok_or_else(|| format!("there is no node {name}"))?.address;
        let mut options = self.connect_options(vec![address])?;
        options.via = Some(Name::new(name)?);
        options.deadlines.connect = ANSWER_DEADLINE;
        options.deadlines.request = ANSWER_DEADLINE;
        let client = block_on(Client::connect(options)).map_err(|error| error.to_string())?;
        self.clients.insert(name.to_owned(), client.clone());
        Ok(client)
    }

    /// What a client of the lab needs.
    pub fn connect_options(&self, seeds: Vec<SocketAddr>) -> Result<ConnectOptions, String> {
        let credentials = self.record.client_credentials().map_err(|error| error.to_string())?;
        Ok(ConnectOptions::new(seeds, credentials))
    }

    fn status_of(&mut self, name: &str) -> Result<Status, String> {
        let (client, node) = (self.client(name)?, Name::new(name)?);
        block_on(client.status(&node)).map_err(|error| {
            self.clients.remove(name);
            error.to_string()
        })
    }

    /// What a node believes.
    pub fn topology_of(&mut self, name: &str) -> Result<Topology, String> {
        let (client, node) = (self.client(name)?, Name::new(name)?);
        block_on(client.topology_of(&node)).map_err(|error| {
            self.clients.remove(name);
            error.to_string()
        })
    }

    /// Ends all nodes in good order, those that do not within the deadline by SIGKILL. Tells which.
    pub fn shutdown(mut self) -> Vec<String> {
        self.clients.clear();
        for node in &mut self.nodes {
            node.ask_to_stop();
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut killed = Vec::new();
        for node in &mut self.nodes {
            if !node.await_end(deadline, &mut self.guardian) {
                killed.push(node.name.clone());
            }
        }
        killed
    }
}

/// Tells a node something that may be told twice. A connection is lost over it when the node was paused for so long that it
/// has given the lab up: the next one holds.
async fn tell(client: &Client, node: &Name, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
    match client.admin(node, request.clone()).await {
        Err(AdminError::Unknown(problem) | AdminError::NotDone(problem))
            if problem.code == Code::Connection =>
        {
            client.admin(node, request).await
        }
        told => told,
    }
}

/// Why a lab is not complete yet.
enum Missing {
    /// It may come.
    NotYet(String),
    /// It will not.
    Fatal(String),
}
