//! What is told of a run: the seed and the options first, then what happened, and the story of what went wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::faults::{Kind, Swarm};
use super::history::History;
use super::invariants::Violation;
use super::judged::Judged;
use super::options::Options;
use super::story::Story;
use super::strikes::{Strike, is_single};
use super::trace::Holding;
pub use super::trace::{Line, Topic};
use crate::protocol::time::Moment;

/// What happened in a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the run was told.
    pub options: Options,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many clients worked during the faults.
    pub clients: u32,
    /// How many keys they used.
    pub keys: u32,
    /// When the clients began, and the faults with them unless these began at once.
    pub begun: Moment,
    /// The faults that the seed drew.
    pub swarm: Swarm,
    /// A hash of everything that happened: equal for equal options on every machine.
    pub trace_hash: u64,
    /// What was violated. A run is stopped at the first violation that shows while it is going on.
    pub violations: Vec<Violation>,
    /// What happened how often.
    pub counts: Counts,
    /// What the judges were given.
    pub judged: Judged,
    /// The faults that struck, those among them that were drawn for a chosen moment.
    pub strikes: Vec<Strike>,
    /// How much virtual time passed.
    pub simulated: Duration,
    /// What was recorded.
    pub timeline: Vec<Line>,
    /// What went wrong, if something did.
    pub story: Option<Story>,
    /// What each host was known to hold of the recorded key at the end.
    pub(super) holdings: Vec<(usize, Holding)>,
    /// What the clients did and saw.
    pub history: History,
}

/// What happened how often in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events of the world.
    pub events: u64,
    /// Messages between nodes.
    pub messages: u64,
    /// Of which lost.
    pub lost: u64,
    /// Of which delivered twice.
    pub duplicated: u64,
    /// Faults, crashes at chosen moments among them.
    pub faults: u64,
    /// Crashes of every kind.
    pub crashes: u64,
    /// Starts of nodes.
    pub starts: u64,
    /// Of which without their disk.
    pub disks_lost: u64,
    /// Nodes that found that they had forgotten something.
    pub amnesia: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Writes that were committed.
    pub committed: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Writes that were not applied.
    pub not_applied: u64,
    /// Reads that were answered.
    pub answered: u64,
    /// Reads that were not.
    pub unavailable: u64,
}

impl Counts {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.messages += other.messages;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.starts += other.starts;
        self.disks_lost += other.disks_lost;
        self.amnesia += other.amnesia;
        self.operations += other.operations;
        self.committed += other.committed;
        self.unknown += other.unknown;
        self.not_applied += other.not_applied;
        self.answered += other.answered;
        self.unavailable += other.unavailable;
    }
}

impl Report {
    /// Whether nothing was violated.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }

    /// The kinds of faults: those that struck, with how often, and the conditions that held.
    #[must_use]
    pub fn faults(&self) -> String {
        let mut struck: BTreeMap<Kind, u32> = BTreeMap::new();
        for strike in &self.strikes {
            *struck.entry(strike.kind).or_default() += 1;
        }
        let struck = struck.into_iter().map(|(kind, count)| format!("{count} {}", kind.name()));
        let held =
            self.swarm.kinds.iter().filter(|kind| !is_single(**kind)).map(|kind| kind.name().to_owned());
        let all: Vec<String> = struck.chain(held).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    }
}

/// A number of things, for people.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { events, messages, lost, crashes, faults, operations, .. } = self.counts;
        writeln!(
            f,
            "seed {}: {}, {}, {}, {:.0?} simulated, {operations} operations, {messages} messages ({lost} lost), {}, \
             {crashes} crashes, {events} events, trace {:016x}",
            self.options.seed,
            counted(self.nodes as u64, "node"),
            counted(u64::from(self.clients), "client"),
            counted(u64::from(self.keys), "key"),
            self.simulated,
            counted(faults, "fault"),
            self.trace_hash,
        )?;
        writeln!(f, "faults: {}", self.faults())?;
        if self.is_ok() {
            return Ok(());
        }
        for violation in &self.violations {
            let Violation { invariant, key, evidence, .. } = violation;
            write!(f, "broken: invariant {}, {}", invariant.number(), invariant.name())?;
            match key {
                Some(key) => writeln!(f, ", on key {}", String::from_utf8_lossy(key))?,
                None => writeln!(f)?,
            }
            writeln!(f, "        {evidence}")?;
        }
        writeln!(f, "again:  {}", self.options.command())?;
        match &self.story {
            Some(story) => write!(f, "\n{story}"),
            None => Ok(()),
        }
    }
}
