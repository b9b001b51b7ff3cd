//! Many seeds: what they add up to.
//!
//! Pure, like a single run: threads, wall time and progress are the business of whoever runs the seeds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::faults::Kind;
use super::judged::Judged;
use super::report::{Counts, Report};
use super::strikes::is_single;

/// What the runs of a campaign add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many seeds ran.
    pub seeds: u64,
    /// Those that violated an invariant.
    pub failed: Vec<u64>,
    /// What happened how often.
    pub counts: Counts,
    /// How much virtual time passed.
    pub simulated: Duration,
    /// Single faults that struck, by kind.
    pub struck: BTreeMap<Kind, u64>,
    /// Under how many seeds each condition held.
    pub held: BTreeMap<Kind, u64>,
    /// What the judges were given.
    pub judged: Judged,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        if !report.is_ok() {
            self.failed.push(report.options.seed);
        }
        self.counts.add(&report.counts);
        self.simulated += report.simulated;
        for strike in &report.strikes {
            *self.struck.entry(strike.kind).or_default() += 1;
        }
        for kind in report.swarm.kinds.iter().filter(|kind| !is_single(**kind)) {
            *self.held.entry(*kind).or_default() += 1;
        }
        for (invariant, count) in &report.judged {
            *self.judged.entry(*invariant).or_default() += count;
        }
    }
}

/// Puts what was done by several hands back into the order of the seeds, so that the same campaign tells the same whatever
/// the number of hands.
#[derive(Clone, Debug)]
pub struct InOrder<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
}

impl<T> InOrder<T> {
    /// The first seed is this one.
    #[must_use]
    pub fn from(seed: u64) -> InOrder<T> {
        InOrder { next: seed, waiting: BTreeMap::new() }
    }

    /// What became of a seed is known.
    pub fn put(&mut self, seed: u64, item: T) {
        self.waiting.insert(seed, item);
    }

    /// The next seed in order, if it is known what became of it.
    pub fn take(&mut self) -> Option<T> {
        let item = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, run};
    use super::*;

    #[test]
    fn totals_are_sums() {
        let options = |seed| Options { duration: Duration::from_secs(5), ..Options::new(seed) };
        let reports = [run(&options(3)), run(&options(4))];
        let mut totals = Totals::default();
        reports.iter().for_each(|report| totals.add(report));
        let failed: Vec<u64> = reports.iter().filter(|r| !r.is_ok()).map(|r| r.options.seed).collect();
        assert_eq!((totals.seeds, &totals.failed), (2, &failed), "{}{}", reports[0], reports[1]);
        assert_eq!(totals.simulated, reports[0].simulated + reports[1].simulated);
        assert_eq!(totals.counts.operations, reports[0].counts.operations + reports[1].counts.operations);
        assert_eq!(totals.struck.values().sum::<u64>(), totals.counts.faults);
        assert!(totals.counts.faults > 0, "nothing was injected, so nothing was added");
        let mut twice = totals.clone();
        reports.iter().for_each(|report| twice.add(report));
        assert!(twice.judged.iter().all(|(invariant, count)| *count == 2 * totals.judged[invariant]));
    }

    #[test]
    fn what_comes_early_waits_for_its_turn() {
        let mut order = InOrder::from(5);
        order.put(6, "six");
        assert_eq!(order.take(), None);
        order.put(5, "five");
        assert_eq!((order.take(), order.take(), order.take()), (Some("five"), Some("six"), None));
    }
}
