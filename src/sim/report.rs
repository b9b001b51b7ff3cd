//! What is told of a run: the seed and the options first, then what happened, and the story of what went wrong.

use std::fmt;
use std::time::Duration;

use super::clock;
use super::faults::Swarm;
use super::history::History;
use super::invariants::Violation;
use super::options::Options;
use super::strikes::Strike;
pub use super::trace::Line;
use crate::protocol::time::Moment;

/// The most lines of a time line that a report shows; the trace has them all.
const LINES_MAX: usize = 150;

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
    /// The faults that struck, those among them that were drawn for a chosen moment.
    pub strikes: Vec<Strike>,
    /// How much virtual time passed.
    pub simulated: Duration,
    /// What was recorded, or, after a violation, what happened around it.
    pub timeline: Vec<Line>,
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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { events, messages, lost, crashes, faults, operations, .. } = self.counts;
        writeln!(
            f,
            "seed {}: {} nodes, {:.0?} simulated, {operations} operations, {messages} messages ({lost} lost), \
             {faults} faults, {crashes} crashes, {events} events, trace {:016x}",
            self.options.seed, self.nodes, self.simulated, self.trace_hash,
        )?;
        if self.is_ok() {
            return Ok(());
        }
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        writeln!(f, "again: {}", self.options.command())?;
        for line in &self.timeline {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", clock::show(self.at), self.text)
    }
}

/// The lines around what took shape in `span`, with a little of what came before and after; the newest ones if there
/// are too many.
pub(super) fn around(lines: Vec<Line>, span: Option<(Moment, Moment)>) -> Vec<Line> {
    let (from, until) = span.unwrap_or((Moment::default(), Moment::NEVER));
    let (from, until) = (from - Duration::from_secs(1), until + Duration::from_millis(100));
    let mut lines: Vec<Line> = lines.into_iter().filter(|line| line.at >= from && line.at <= until).collect();
    let surplus = lines.len().saturating_sub(LINES_MAX);
    if surplus > 0 {
        // The beginning shows where it came from, the end what came of it.
        let head = LINES_MAX / 3;
        let gap = Line { at: lines[head].at, text: format!("... {} lines are left out ...", surplus + 1) };
        lines.splice(head..=head + surplus, [gap]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_line_loses_its_middle() {
        let lines: Vec<Line> =
            (0..1_000).map(|number| Line { at: Moment(number * 10_000), text: number.to_string() }).collect();
        let kept = around(lines.clone(), None);
        assert_eq!(kept.len(), LINES_MAX);
        assert_eq!((kept[0].text.as_str(), kept[LINES_MAX - 1].text.as_str()), ("0", "999"));
        let kept = around(lines, Some((Moment(5_000_000), Moment(5_100_000))));
        assert_eq!((kept[0].at, kept[kept.len() - 1].at), (Moment(4_000_000), Moment(5_200_000)));
    }
}
