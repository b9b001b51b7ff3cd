//! A scripted world: calm weather, no random workload; the clients and the faults of a scenario instead.

#[cfg(test)]
mod long_lives;
#[cfg(test)]
mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::super::host;
use super::super::options::{Options, Recording};
use super::super::scenario::command::{Command, WAIT_DEFAULT};
use super::super::scenario::links::Faults;
use super::super::scenario::script::{DiskState, Trouble};
use super::super::scenario::stage::{Holding, Order, Reply, Stage, Wanted, Where};
use super::super::scenario::{Outcome, Scenario, cast, perform};
use super::super::trace::About;
use super::{Event, FOUNDING_MAX, RECOVERY_MAX, World};
use crate::protocol::causality::OperationId;
use crate::protocol::id::NodeId;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::Stored;
use crate::protocol::time::{Moment, WallTime};
use crate::protocol::wire::client::{
    Answer, Code, Health, Outcome as Written, Problem, Read, Request, Write, Written as WriteAnswer,
};

/// The seed of every scripted world: it decides ids and microseconds, nothing that a story tells.
const SEED: u64 = 1;

/// After how long without an answer an attempt is repeated, while the first one may still answer; as in the client
/// library.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The first pause after a refusal, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What a slow disk takes longer, in thousandths.
const SLOWNESS: u64 = 100_000;

/// How long a node that is killed or paused stays so by itself: until the script says otherwise.
const FOR_GOOD: Duration = Duration::from_secs(1 << 40);

/// Performs a scenario in a world of its own.
pub(in crate::sim) fn simulate(
    scenario: &Scenario,
    recording: Recording,
    say: &mut dyn FnMut(&str),
) -> Outcome {
    Theatre::new(scenario, &options(scenario, recording)).perform(scenario, say)
}

/// A world of which nothing is drawn that a script might decide.
fn options(scenario: &Scenario, recording: Recording) -> Options {
    Options {
        nodes: Some(scenario.nodes),
        replicas: scenario.replicas,
        clients: Some(0),
        faults: Some(Default::default()),
        recording,
        ..Options::new(SEED)
    }
}

/// The requests of a script that are under way.
#[derive(Default)]
pub(super) struct Calls {
    open: BTreeMap<usize, Call>,
    /// On which links messages with records arrive once more, and how much later.
    echoes: BTreeMap<(usize, usize), Duration>,
    done: VecDeque<(usize, Answer, Moment, u32)>,
    numbers: u64,
}

/// One request with all of its attempts.
struct Call {
    /// The hosts that may be asked, in this order, over and over.
    hosts: Vec<usize>,
    request: Request,
    until: Moment,
    attempts: u32,
    failures: u32,
    /// The numbers of the attempts that have no answer.
    awaited: BTreeSet<u64>,
    /// Whether an attempt may have had an effect.
    in_doubt: bool,
    /// When the next attempt is made; never, if no other one is.
    next_at: Moment,
    /// What the attempts told so far.
    told: WriteAnswer,
}

impl World {
    fn call(&mut self, number: usize, hosts: Vec<usize>, deadline: Duration, request: Request) {
        let call = Call {
            hosts,
            request,
            until: self.now + deadline,
            attempts: 0,
            failures: 0,
            awaited: BTreeSet::new(),
            in_doubt: false,
            next_at: self.now,
            told: WriteAnswer {
                outcome: Written::Unknown,
                context: None,
                dot: None,
                siblings: 0,
                acks: Vec::new(),
                hinted: Vec::new(),
                problem: None,
            },
        };
        if let Some(calls) = &mut self.scripted {
            calls.open.insert(number, call);
        }
        self.call_wakes(number);
    }

    /// The time of a request has come: for another attempt, or for giving up.
    pub(super) fn call_wakes(&mut self, number: usize) {
        let (now, told_times): (Moment, Vec<WallTime>) =
            (self.now, self.hosts.iter().map(|host| host.told_time(self.now)).collect());
        let nonce = self.rng.bits();
        let Some(calls) = &mut self.scripted else { return };
        let Some(call) = calls.open.get_mut(&number) else { return };
        if now >= call.until {
            return self.call_ends(number);
        }
        if now < call.next_at {
            return;
        }
        let host = call.hosts[call.attempts as usize % call.hosts.len()];
        call.attempts += 1;
        call.next_at = now + PATIENCE;
        if let Request::Write(write) = &mut call.request {
            write.attempt = call.attempts;
            if call.attempts == 1 {
                write.operation = OperationId { started: told_times[host], nonce };
            }
        }
        calls.numbers += 1;
        let (id, request) = (calls.numbers, call.request.clone());
        call.awaited.insert(id);
        let wait = call.until.since(now).as_millis();
        let (next_at, until) = (call.next_at, call.until);
        self.asked(number, host, id, u32::try_from(wait).unwrap_or(u32::MAX).max(1), request);
        self.schedule(next_at.min(until), Event::ClientWakes { client: number });
    }

    /// An attempt was answered.
    pub(super) fn call_answered(&mut self, number: usize, id: u64, answer: Answer) {
        let now = self.now;
        let Some(calls) = &mut self.scripted else { return };
        let Some(call) = calls.open.get_mut(&number) else { return };
        if !call.awaited.remove(&id) {
            return;
        }
        let problem = match answer {
            Answer::Written(written) if written.outcome != Written::Committed => {
                call.in_doubt |= written.outcome == Written::Unknown;
                call.told.dot = call.told.dot.or(written.dot);
                call.told.acks.extend(written.acks);
                call.told.acks.sort();
                call.told.acks.dedup();
                written.problem
            }
            Answer::Read(read) if !read.available => read.problem,
            Answer::Refused(problem) => Some(problem),
            answer => {
                let attempts = call.attempts;
                calls.open.remove(&number);
                calls.done.push_back((number, answer, now, attempts));
                return;
            }
        };
        let may_pass = problem.as_ref().is_none_or(|problem| may_pass(problem.code));
        call.told.problem = problem.or(call.told.problem.take());
        call.failures += 1;
        let pause = PAUSES.0.saturating_mul(1 << call.failures.min(10)).min(PAUSES.1);
        call.next_at = if may_pass { now + pause } else { Moment::NEVER };
        let at = call.next_at.min(call.until);
        if !may_pass && call.awaited.is_empty() {
            return self.call_ends(number);
        }
        self.schedule(at, Event::ClientWakes { client: number });
    }

    /// No good answer came: says what may be said about it.
    fn call_ends(&mut self, number: usize) {
        let now = self.now;
        let Some(calls) = &mut self.scripted else { return };
        let Some(call) = calls.open.remove(&number) else { return };
        let silent = || Problem::new(Code::Timeout, "no answer in time");
        let problem = call.told.problem.clone().unwrap_or_else(silent);
        let answer = match &call.request {
            Request::Write(_) if call.in_doubt || !call.awaited.is_empty() => {
                Answer::Written(WriteAnswer { problem: Some(problem), ..call.told })
            }
            _ => Answer::Refused(problem),
        };
        calls.done.push_back((number, answer, now, call.attempts));
    }

    fn sees_all(&self) -> bool {
        let running: Vec<_> = self.hosts.iter().filter(|host| host.paused_until <= self.now).collect();
        let up: Vec<NodeId> =
            running.iter().filter_map(|host| Some(host.process.as_ref()?.node.id())).collect();
        running.iter().filter_map(|host| host.process.as_ref()).all(|process| {
            let sees = |id: &NodeId| {
                let membership = process.node.membership();
                *id == process.node.id()
                    || membership.is_reachable(*id) && membership.health(*id) == Some(Health::Alive)
            };
            process.node.is_serving() && up.iter().all(sees)
        })
    }

    /// How much later what is sent on this link arrives once more, if the script says so.
    pub(super) fn scripted_echo(&self, from: usize, to: usize) -> Option<Duration> {
        self.scripted.as_ref().and_then(|calls| calls.echoes.get(&(from, to)).copied())
    }

    fn has_reply(&self) -> bool {
        self.scripted.as_ref().is_some_and(|calls| !calls.done.is_empty())
    }
}

/// Whether the same request may fare better later or through another node.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Timeout
            | Code::Overloaded
            | Code::NotReady
            | Code::RingChanged
            | Code::DiskFull
            | Code::RecordLost
            | Code::Connection
    )
}

/// A world on which a script is performed.
struct Theatre {
    world: World,
    /// When the story began.
    began: Moment,
    faults: Faults,
    names: Vec<String>,
}

impl Theatre {
    fn new(scenario: &Scenario, options: &Options) -> Theatre {
        let mut world = World::new(options);
        world.scripted = Some(Calls::default());
        Theatre { world, began: Moment::default(), faults: Faults::default(), names: scenario.names() }
    }

    fn perform(mut self, scenario: &Scenario, say: &mut dyn FnMut(&str)) -> Outcome {
        if let Err(why) = self.found() {
            say(&why);
            return Outcome::not_begun(why);
        }
        let mut outcome = perform(scenario, &mut self, say);
        for violation in std::mem::take(&mut self.world.violations) {
            say(&violation.to_string());
            outcome.story.push(violation.to_string());
            outcome.violations.push(violation);
        }
        outcome.timeline = self.world.trace.lines;
        outcome
    }

    fn found(&mut self) -> Result<(), String> {
        for host in 0..self.world.hosts.len() {
            self.world.schedule(Moment::default(), Event::Starts { host });
        }
        self.world.run_until(self.world.now + FOUNDING_MAX, World::all_serve);
        self.wait(FOUNDING_MAX)?;
        self.began = self.world.now;
        Ok(())
    }

    fn wait(&mut self, span: Duration) -> Result<(), String> {
        self.world.run_until(self.world.now + span, World::sees_all);
        match self.world.sees_all() {
            true => Ok(()),
            false => Err(format!("after {} s not all nodes that run see each other", span.as_secs())),
        }
    }

    fn hosts(&self, names: &[String]) -> Vec<usize> {
        (0..self.names.len()).filter(|index| names.contains(&self.names[*index])).collect()
    }

    fn apply_faults(&mut self) {
        for (from, sender) in self.names.iter().enumerate() {
            for (to, receiver) in self.names.iter().enumerate() {
                self.world.network.set_fault((from, to), self.faults.of(sender, receiver));
            }
        }
    }

    fn pause(&mut self, host: usize) -> Result<(), String> {
        let is_running = self.world.hosts[host].process.is_some();
        if !is_running || self.world.hosts[host].paused_until > self.world.now {
            return Err(format!("{} does not run", host::name(host)));
        }
        self.world.pause(host, FOR_GOOD);
        Ok(())
    }

    fn resume(&mut self, host: usize) {
        self.world.resume_by(host, self.world.now);
    }

    fn restart(&mut self, host: usize) {
        if self.world.hosts[host].process.is_some() {
            self.resume(host);
            self.world.stop(host, Duration::from_millis(100));
        } else {
            self.world.schedule(self.world.now, Event::Starts { host });
        }
    }

    /// Until these hosts run and serve, as a lab waits for those that it starts.
    fn await_service(&mut self, hosts: &[usize]) -> Result<(), String> {
        let boots: Vec<u64> = hosts.iter().map(|host| self.world.hosts[*host].boot).collect();
        let deadline = self.world.now + RECOVERY_MAX;
        loop {
            let is_there = |(host, boot): (&usize, &u64)| {
                let host = &self.world.hosts[*host];
                host.boot > *boot && host.process.as_ref().is_some_and(|process| process.has_started)
            };
            if hosts.iter().zip(&boots).all(is_there) {
                return Ok(());
            }
            if self.world.now >= deadline || !self.world.violations.is_empty() {
                return Err("a node does not start".to_owned());
            }
            self.world.run_until(self.world.now + Duration::from_millis(1), |_| false);
        }
    }
}

impl Stage for Theatre {
    fn place(&self) -> Where {
        Where::Sim
    }

    fn now(&mut self) -> Duration {
        self.world.now.since(self.began)
    }

    fn owners(&mut self, key: &[u8]) -> Vec<NodeId> {
        let mut processes = self.world.hosts.iter().filter_map(|host| host.process.as_ref());
        let view = processes.find_map(|process| process.node.ring_view());
        view.map(|view| view.slot(Slot::of_key(key)).read_set().to_vec()).unwrap_or_default()
    }

    fn name(&mut self, node: NodeId) -> String {
        self.world.ids.get(&node).map_or_else(|| node.to_string(), |index| host::name(*index))
    }

    fn command(&mut self, command: &Command) -> Result<(), String> {
        self.world.note(About::All, || format!("the script: {command:?}"));
        match command {
            Command::Partition(groups) => self.faults.partition(groups),
            Command::Fault(links, change) => self.faults.change(links, *change, &self.names),
            Command::Heal => {
                self.faults.heal();
                self.world.scripted.iter_mut().for_each(|calls| calls.echoes.clear());
            }
            Command::Kill(names) => {
                for host in self.hosts(names) {
                    if self.world.hosts[host].process.is_none() {
                        return Err(format!("{} does not run", host::name(host)));
                    }
                    self.world.crash(host, FOR_GOOD, "is killed");
                }
            }
            Command::Wipe(names) => {
                for host in self.hosts(names) {
                    if self.world.hosts[host].process.is_some() {
                        self.world.crash(host, FOR_GOOD, "is killed");
                    }
                    self.world.lose_disk(host);
                }
            }
            Command::Backup(names) => {
                self.hosts(names).into_iter().for_each(|host| self.world.copy_disk(host));
            }
            Command::Restore(names) => {
                for host in self.hosts(names) {
                    if self.world.hosts[host].copy.is_none() {
                        return Err(format!("there is no copy of the disk of {}", host::name(host)));
                    }
                    if self.world.hosts[host].process.is_some() {
                        self.world.crash(host, FOR_GOOD, "is killed");
                    }
                    self.world.restore_copy(host);
                }
            }
            Command::Restart(names) => {
                let hosts = self.hosts(names);
                hosts.iter().for_each(|host| self.restart(*host));
                self.await_service(&hosts)?;
            }
            Command::Pause(names) => {
                for host in self.hosts(names) {
                    self.pause(host)?;
                }
            }
            Command::Resume(names) => self.hosts(names).into_iter().for_each(|host| self.resume(host)),
            Command::Wait(span) => self.wait(*span)?,
            Command::Status | Command::Stop => return Err("a script does not do that".to_owned()),
        }
        self.apply_faults();
        Ok(())
    }

    fn trouble(&mut self, trouble: &Trouble, key: &[u8]) -> Result<(), String> {
        match trouble {
            Trouble::Clock(names, by_ms) => {
                for host in self.hosts(names) {
                    self.world.hosts[host].clock.jump(*by_ms);
                }
            }
            Trouble::Disk(names, state) => {
                for host in self.hosts(names) {
                    self.world.hosts[host].slowness = if *state == DiskState::Slow { SLOWNESS } else { 0 };
                }
            }
            Trouble::Rot(names, _) => {
                let key = Bytes::copy_from_slice(key);
                for host in self.hosts(names) {
                    self.world.damage(host, &key)?;
                }
            }
            Trouble::Echo(after, from, to) => {
                for from in self.hosts(from) {
                    for to in self.hosts(to) {
                        if let Some(calls) = &mut self.world.scripted {
                            calls.echoes.insert((from, to), *after);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, number: usize, order: Order) {
        let (key, request) = match order.request {
            Wanted::Write { key, value, context, w, sloppy } => {
                let operation = OperationId { started: WallTime(0), nonce: 0 };
                let write = Write { key: key.clone(), value, context, operation, attempt: 1, w, sloppy };
                (key, Request::Write(write))
            }
            Wanted::Read { key, r, atomic } => (key.clone(), Request::Read(Read { key, r, atomic })),
            Wanted::Explain { key } => (key.clone(), Request::Explain { key }),
            Wanted::Members => (Bytes::new(), Request::Topology),
        };
        let mut hosts = match &order.via {
            Some(name) => self.hosts(std::slice::from_ref(name)),
            None => {
                let owners = self.owners(&key);
                owners.iter().filter_map(|owner| self.world.ids.get(owner).copied()).collect()
            }
        };
        if hosts.is_empty() {
            hosts.push(0);
        }
        self.world.call(number, hosts, order.deadline, request);
    }

    fn next_reply(&mut self, until: Option<Duration>) -> Option<(usize, Reply)> {
        // Every request ends by itself, at its deadline at the latest.
        let deadline = until.map_or(Moment::NEVER, |until| self.began + until);
        self.world.run_until(deadline, World::has_reply);
        let (number, answer, at, attempts) = self.world.scripted.as_mut()?.done.pop_front()?;
        Some((number, Reply { answer, at: at.since(self.began), attempts }))
    }

    fn holdings(&mut self, key: &[u8], owners: &[NodeId]) -> Option<Vec<Holding>> {
        let (slot, key) = (Slot::of_key(key), Bytes::copy_from_slice(key));
        let hosts: Vec<usize> =
            owners.iter().filter_map(|owner| self.world.ids.get(owner).copied()).collect();
        let held = |host: usize| match self.world.hosts[host].disk.look(slot, &key) {
            Some(Stored::Present(record)) => cast::holding_of(Some(&record)),
            Some(_) => Holding::Nothing,
            None => Holding::Down,
        };
        Some(hosts.into_iter().map(held).collect())
    }

    fn recover(&mut self) -> Result<(), String> {
        self.command(&Command::Heal)?;
        self.world.hosts.iter_mut().for_each(|host| host.slowness = 0);
        for host in 0..self.names.len() {
            self.resume(host);
        }
        let down: Vec<usize> =
            (0..self.names.len()).filter(|host| self.world.hosts[*host].process.is_none()).collect();
        down.iter().for_each(|host| self.restart(*host));
        self.await_service(&down)?;
        self.wait(WAIT_DEFAULT)
    }
}
