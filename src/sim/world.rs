//! The world of one run: machines, network, clients, and the one order in which everything happens.

mod backups;
mod clients;
mod core;
mod disks;
mod faulty;
mod lives;
mod losses;
mod messages;
mod playing;
mod reliance;
mod scheduled;
pub(super) mod scripted;
mod service;
#[cfg(test)]
mod tests;
mod watch;

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::clock::Clock;
use super::disk::Disk;
use super::faults::Swarm;
use super::history::{Action, Ending, History};
use super::host::{self, Host};
use super::invariants::circles::Circles;
use super::invariants::incarnations::Starts;
use super::invariants::one_dot_one_value::Dots;
use super::invariants::{self, Invariant, Violation};
use super::judged;
use super::network::Network;
use super::options::Options;
use super::report::{Counts, Report};
use super::strikes::Strikes;
use super::trace::{About, Trace};
use super::witness::Witness;
use super::workload::{Profile, Wish, Workload};
use crate::protocol::config::ReapConfig;
use crate::protocol::id::{NodeId, SessionId};
use crate::protocol::input::Input;
use crate::protocol::output::Output;
use crate::protocol::rng::Rng;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Request};
use crate::protocol::wire::peer::PeerMessage;
pub(super) use backups::{Copied, Copy};
use scheduled::Scheduled;

/// How long a cluster without faults may take until all of its nodes serve.
const FOUNDING_MAX: Duration = Duration::from_secs(30);

/// How long after healing every node that was healed has to serve.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// How long what was under way at the moment of healing may go on, before the last part begins.
const SETTLING: Duration = Duration::from_secs(10);

/// How long the last part may take: every operation commits, every key converges.
const LAST_PART_MAX: Duration = Duration::from_secs(60);

/// How many nodes the cluster of a seed has, each equally likely.
const NODES_DRAWN: [usize; 20] = [1, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 7, 7, 9];

/// How often in a row a node may be woken in one virtual millisecond without anything else happening.
const WAKES_IN_A_ROW_MAX: u32 = 2_000;

/// How much may happen in one virtual millisecond.
const EVENTS_IN_A_ROW_MAX: u32 = 50_000;

/// Something that is going to happen.
enum Event {
    Deliver {
        to: usize,
        boot: u64,
        from: NodeId,
        message: Box<PeerMessage>,
    },
    /// A message arrives once more, much later.
    Echoes {
        to: usize,
        from: NodeId,
        message: Box<PeerMessage>,
    },
    Wake {
        host: usize,
        boot: u64,
    },
    DiskWorks {
        host: usize,
        boot: u64,
    },
    DiskSynced {
        host: usize,
        boot: u64,
    },
    /// The scrub of a disk on which something rots comes by.
    Scrubs {
        host: usize,
    },
    Asked {
        host: usize,
        boot: u64,
        client: usize,
        id: u64,
        deadline_ms: u32,
        request: Box<Request>,
    },
    Answered {
        client: usize,
        id: u64,
        answer: Box<Answer>,
    },
    ClientWakes {
        client: usize,
    },
    FaultBegins,
    FaultEnds(Relief),
    Starts {
        host: usize,
    },
    Resumes {
        host: usize,
    },
    /// Somebody has copied its disk a moment ago.
    LosesPower {
        host: usize,
        boot: u64,
        down: Duration,
    },
    FigureGoesOn {
        figure: u64,
        act: usize,
    },
    StopTakesTooLong {
        host: usize,
        boot: u64,
        down: Duration,
    },
}

/// How a fault ends.
enum Relief {
    Healed(Vec<(usize, usize)>),
    Unclogged((usize, usize)),
    DiskIsFastAgain { host: usize, slowness: u64 },
    DiskHasRoom { host: usize },
}

/// The world of one run.
pub(super) struct World {
    options: Options,
    swarm: Swarm,
    now: Moment,
    heap: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    hosts: Vec<Host>,
    /// What happens on each host as soon as it is no longer paused.
    held: Vec<Vec<Event>>,
    ids: BTreeMap<NodeId, usize>,
    network: Network,
    workload: Workload,
    wishes: Vec<Wish>,
    outputs: Vec<Output>,
    rng: Rng,
    /// Decides which faults come up and when, whatever else happens.
    fault_rng: Rng,
    strikes: Strikes,
    clients: u32,
    keys: u32,
    begun: Moment,
    trace: Trace,
    dots: Dots,
    starts: Starts,
    witness: Witness,
    circles: Circles,
    counts: Counts,
    violations: Vec<Violation>,
    is_safe: bool,
    playing: Option<playing::Playing>,
    figures: u64,
    /// The clients of a script, if one is performed.
    scripted: Option<scripted::Calls>,
    wakes_in_a_row: (u64, u32),
    events_in_a_row: (u64, u32),
    #[cfg(test)]
    planted: super::planted::Bench,
}

impl World {
    /// The world of a seed, before anything happened.
    pub(super) fn new(options: &Options) -> World {
        let mut rng = Rng::from_number(options.seed);
        let drawn = NODES_DRAWN[rng.index(NODES_DRAWN.len())];
        let nodes = options.nodes.map_or(drawn, usize::from).max(1);
        let mut swarm_rng = rng.fork();
        #[cfg_attr(not(test), expect(unused_mut, reason = "bugs are planted in tests only"))]
        let mut swarm = Swarm::draw(&mut swarm_rng, options.faults.as_ref());
        #[cfg(test)]
        let planted = super::planted::Bench::new(options.planted, options.seed);
        #[cfg(test)]
        planted.favour_faults(&mut swarm);
        let history = History {
            owners: nodes.min(options.replicas.get()),
            retries_are_exact: swarm.clocks_agree_within(40_000),
            ..History::default()
        };
        let fault_rng = rng.fork();
        let mut client_rng = rng.fork();
        let most = [3, 10, 10, 40][client_rng.index(4)];
        let drawn = client_rng.between(1, most) as u32;
        let clients = options.clients.unwrap_or(drawn);
        let mut profile = Profile::draw(&mut client_rng, options.keys, options.rate, clients);
        if clients == 0 {
            // A script tells what happens on real nodes, too: they forget deletions no sooner than by default.
            profile.reap_rest = ReapConfig::default().rest;
        }
        #[cfg(test)]
        planted.favour_clients(&mut profile);
        let keys = profile.keys;
        let hosts = (0..nodes).filter_map(|index| {
            let mut config = host::config(index, nodes).ok()?;
            config.replicas = options.replicas;
            profile.bound(&mut config);
            let drift = rng.between(0, 2 * u64::from(swarm.drift_ppm)) as i32 - swarm.drift_ppm as i32;
            let skew = rng.between(0, 2 * swarm.skew_ms) as i64 - swarm.skew_ms as i64;
            Some(Host {
                config,
                clock: Clock::new(0, drift, skew),
                disk: Disk::new(swarm.feed_per_mille, &mut rng),
                process: None,
                boot: 0,
                id: None,
                paused_until: Moment::default(),
                slowness: 0,
                has_served: false,
                is_frozen: false,
                has_lost: false,
                copied: Copied::No,
                copy: None,
                nonce: 0,
                started_at: Moment::default(),
                doubters: Vec::new(),
                log_is_damaged: false,
                loses_a_record: false,
                sync_fails: false,
            })
        });
        let hosts: Vec<Host> = hosts.collect();
        let witness = Witness::new(&hosts, history.owners);
        #[cfg_attr(not(test), expect(unused_mut, reason = "bugs are planted in tests only"))]
        let mut workload = Workload::new(profile, clients, history, &mut client_rng);
        #[cfg(test)]
        {
            workload.forgets_attempts = planted.is(super::planted::Planted::LastAttemptDecides);
        }
        World {
            network: Network::new(hosts.len(), swarm.weather.clone()),
            trace: Trace::new(options.recording.clone()),
            #[cfg(test)]
            planted,
            options: options.clone(),
            swarm,
            now: Moment::default(),
            heap: BinaryHeap::new(),
            sequence: 0,
            held: hosts.iter().map(|_| Vec::new()).collect(),
            hosts,
            ids: BTreeMap::new(),
            workload,
            wishes: Vec::new(),
            outputs: Vec::new(),
            rng,
            fault_rng,
            strikes: Strikes::new(options.only_faults.clone()),
            clients,
            keys,
            begun: Moment::default(),
            dots: Dots::default(),
            starts: Starts::default(),
            witness,
            circles: Circles::default(),
            counts: Counts::default(),
            violations: Vec::new(),
            is_safe: true,
            playing: None,
            figures: 0,
            scripted: None,
            wakes_in_a_row: (0, 0),
            events_in_a_row: (0, 0),
        }
    }

    /// Both phases, and the judgement.
    pub(super) fn run(mut self) -> Report {
        for host in 0..self.hosts.len() {
            let at = self.now + Duration::from_millis(self.rng.between(0, 300));
            self.schedule(at, Event::Starts { host });
        }
        if !self.swarm.from_the_start {
            self.run_until(self.now + FOUNDING_MAX, World::all_serve);
            self.demand_service("without any fault", FOUNDING_MAX);
        }
        self.begun = self.now;
        self.workload.begin(self.now, &mut self.wishes);
        self.grant_wishes();
        if !self.swarm.striking.is_empty() {
            self.schedule(self.now, Event::FaultBegins);
        }
        self.run_until(self.now + self.options.duration, |_| false);

        self.core_part();
        self.heal();
        self.run_until(self.now + RECOVERY_MAX, World::all_serve);
        self.demand_service("after healing", RECOVERY_MAX);
        self.run_until(self.now + SETTLING, |_| false);
        self.await_hints();
        let (now, owed_by) = (self.now, self.now + LAST_PART_MAX);
        let mut rng = self.rng.fork();
        let heals_alone = rng.chance(500);
        self.workload.begin_last_part(now, owed_by, heals_alone, &mut rng, &mut self.wishes);
        self.grant_wishes();
        self.run_until(owed_by + Duration::from_secs(1), |world| world.workload.is_idle());
        if heals_alone {
            self.exchange_once_more();
        }
        self.demand_whole_nodes();
        self.demand_one_view();
        self.await_hints();
        // A run that was broken off has given them no time.
        if self.violations.is_empty() {
            self.workload.history.hints = self.hints().collect();
        }
        self.report()
    }

    fn report(mut self) -> Report {
        self.workload.history.reaped = Some(self.witness.reaped());
        let was_broken_off = self.violations.iter().any(|v| v.invariant == Invariant::Sane);
        let found = invariants::judge(&self.workload.history).into_iter();
        // Nor has it given anybody the time to answer.
        self.violations.extend(found.filter(|v| !was_broken_off || v.invariant != Invariant::Liveness));
        #[cfg(test)]
        self.planted.mute(&mut self.violations);
        self.counts.lost = self.network.lost;
        self.counts.duplicated = self.network.duplicated;
        for operation in &self.workload.history.operations {
            self.counts.operations += 1;
            let count = match (&operation.action, &operation.ending) {
                (_, Ending::Committed(_)) => &mut self.counts.committed,
                (Action::Write { .. }, Ending::NotApplied) => &mut self.counts.not_applied,
                (Action::Write { .. }, _) => &mut self.counts.unknown,
                (_, Ending::Answered(_) | Ending::Equal) => &mut self.counts.answered,
                _ => &mut self.counts.unavailable,
            };
            *count += 1;
        }
        let judged = judged::count(&self.workload.history, self.counts.starts, self.witness.drops());
        Report {
            judged,
            story: None,
            options: self.options,
            nodes: self.hosts.len(),
            clients: self.clients,
            keys: self.keys,
            begun: self.begun,
            swarm: self.swarm,
            trace_hash: self.trace.hash(),
            violations: self.violations,
            counts: self.counts,
            strikes: self.strikes.struck,
            simulated: self.now.since(Moment::default()),
            holdings: self.trace.holdings(),
            timeline: self.trace.lines,
            history: self.workload.history,
        }
    }

    fn schedule(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Scheduled { at: at.max(self.now), sequence: self.sequence, event }));
    }

    /// Lets things happen until `deadline`, or until `is_enough`, or until something was violated during the run: what
    /// follows a violation is not worth judging.
    fn run_until(&mut self, deadline: Moment, is_enough: fn(&World) -> bool) {
        while self.violations.is_empty() && !is_enough(self) {
            if self.heap.peek().is_none_or(|Reverse(next)| next.at > deadline) {
                self.now = deadline;
                return;
            }
            let Some(Reverse(Scheduled { at, event, .. })) = self.heap.pop() else { return };
            self.now = at;
            self.counts.events += 1;
            let millisecond = at.0 / 1_000;
            let (last, count) = self.events_in_a_row;
            self.events_in_a_row = (millisecond, if last == millisecond { count + 1 } else { 0 });
            if count > EVENTS_IN_A_ROW_MAX {
                let what = "the world does not get on: too much happens in one millisecond";
                self.violations.push(Violation::general(Invariant::Sane, what));
            }
            let host = event.host();
            // A panic is a bug of this seed: it must not end a campaign of many. What the world holds afterwards is not
            // looked at any more, apart from the history.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.happen(event))) {
                self.panicked(host, panic.as_ref());
            }
            #[cfg(test)]
            self.planted.mute(&mut self.violations);
        }
    }

    fn panicked(&mut self, host: Option<usize>, panic: &(dyn Any + Send)) {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let whose = host.map_or("the world".to_owned(), |host| format!("the node on {}", host::name(host)));
        self.note(About::All, || format!("{whose} panics: {message}"));
        self.violations.push(Violation::general(Invariant::Sane, format!("{whose} panicked: {message}")));
    }

    fn happen(&mut self, event: Event) {
        if let Some(host) = event.host()
            && self.hosts[host].paused_until > self.now
        {
            return self.held[host].push(event);
        }
        // One that found nothing to do told nothing.
        self.trace.fault(None);
        match event {
            Event::Answered { client, id, answer } if self.scripted.is_some() => {
                self.call_answered(client, id, *answer);
            }
            Event::ClientWakes { client } if self.scripted.is_some() => self.call_wakes(client),
            Event::Deliver { to, boot, from, message } => self.deliver(to, boot, from, *message),
            Event::Echoes { to, from, message } => self.echo(to, from, *message),
            Event::Wake { host, boot } => self.wake(host, boot),
            Event::DiskWorks { host, boot } => self.disk_works(host, boot),
            Event::DiskSynced { host, boot } => self.disk_synced(host, boot),
            Event::Scrubs { host } => self.disk_scrubs(host),
            Event::Asked { host, boot, client, id, deadline_ms, request } => {
                if self.hosts[host].boot == boot {
                    self.trace.event(self.now, b'q', host, id);
                    let session = SessionId(client as u64);
                    self.input(host, Input::Client { session, id, deadline_ms, request: *request });
                }
            }
            Event::Answered { client, id, answer } => {
                self.trace.event(self.now, b'a', client, id);
                self.trace.content(&*answer);
                self.see(|workload, sight, wishes| workload.answer(client, id, *answer, sight, wishes));
                self.cue_client(client);
            }
            Event::ClientWakes { client } => {
                self.see(|workload, sight, wishes| workload.wake(client, sight, wishes));
                self.cue_client(client);
            }
            Event::FaultBegins => {
                if self.is_safe {
                    self.fault_begins();
                    let wait = self.swarm.wait(&mut self.fault_rng);
                    self.schedule(self.now + wait, Event::FaultBegins);
                }
            }
            // Everything was healed at once when the safety phase ended.
            Event::FaultEnds(_) if !self.is_safe => {}
            Event::FaultEnds(ending) => self.fault_ends(ending),
            Event::Starts { host } if self.hosts[host].is_frozen => {}
            Event::Starts { host } => self.start(host),
            Event::Resumes { host } => self.resume(host),
            Event::LosesPower { host, boot, down } => {
                if self.is_safe && self.hosts[host].boot == boot {
                    self.crash(host, down, "crashes");
                }
            }
            Event::FigureGoesOn { figure, act } => self.figure_goes_on(figure, act),
            Event::StopTakesTooLong { host, boot, down } => {
                if self.hosts[host].boot == boot && self.hosts[host].process.is_some() {
                    self.crash(host, down, "is killed since it does not stop");
                }
            }
        }
    }

    fn input(&mut self, index: usize, input: Input) {
        let host = &mut self.hosts[index];
        let Some(process) = &mut host.process else { return };
        self.witness.input(index, self.now, &input, &mut self.dots);
        let before = process.node.gauges();
        let asked = watch::asked(&input);
        let passed_on_to = reliance::passed_on_to(&input);
        let mut outputs = std::mem::take(&mut self.outputs);
        process.node.handle(host.clock.now(self.now), input, &mut outputs);
        self.watch(index, before, asked, &outputs);
        self.take_note_of_reliance(index, passed_on_to, &outputs);
        self.carry_out(index, outputs);
        self.demand_that_a_copy_is_noticed(index);
    }

    /// Does what a node wants done, in order, and schedules its next wake.
    fn carry_out(&mut self, index: usize, mut outputs: Vec<Output>) {
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, message } => self.send(index, to, message),
                Output::Respond { session, id, answer } => self.respond(index, session, id, answer),
                Output::Disk(request) => self.ask_disk(index, request),
                Output::Notice(notice) => self.notice(index, notice),
            }
        }
        self.outputs = outputs;
        self.violations.extend(self.witness.take_violations());
        let host = &mut self.hosts[index];
        let Some(process) = &mut host.process else { return };
        let at = host.clock.when(process.node.next_deadline());
        if at < process.wakes_at {
            // Never at this very microsecond: the node has just been asked.
            process.wakes_at = at.max(self.now + Duration::from_micros(1));
            let (at, boot) = (process.wakes_at, host.boot);
            self.schedule(at, Event::Wake { host: index, boot });
        }
    }

    fn wake(&mut self, index: usize, boot: u64) {
        let host = &mut self.hosts[index];
        let Some(process) = &mut host.process else { return };
        if host.boot != boot || process.wakes_at > self.now {
            return;
        }
        process.wakes_at = Moment::NEVER;
        let millisecond = self.now.0 / 1_000;
        let (last, count) = self.wakes_in_a_row;
        self.wakes_in_a_row = (millisecond, if last == millisecond { count + 1 } else { 0 });
        if count > WAKES_IN_A_ROW_MAX {
            return self.insane(index, "asks to be woken without end");
        }
        if process.node.next_deadline() <= host.clock.now(self.now).monotonic {
            self.trace.event(self.now, b'w', index, 0);
            self.input(index, Input::Deadline);
        } else {
            self.carry_out(index, Vec::new());
        }
    }

    fn note(&mut self, about: About<'_>, text: impl FnOnce() -> String) {
        self.trace.line(self.now, about, text);
    }

    fn insane(&mut self, index: usize, what: &str) {
        let evidence = format!("the node on {} {what}", host::name(index));
        self.violations.push(Violation::general(Invariant::Sane, evidence));
    }
}

impl Event {
    /// The host on which it happens, for what does not happen while the host is paused.
    fn host(&self) -> Option<usize> {
        match self {
            Event::Deliver { to: host, .. }
            | Event::Echoes { to: host, .. }
            | Event::Wake { host, .. }
            | Event::DiskWorks { host, .. }
            | Event::DiskSynced { host, .. }
            | Event::Asked { host, .. } => Some(*host),
            _ => None,
        }
    }
}
