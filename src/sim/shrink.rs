//! A failing run made small: the fewest nodes, clients, keys, faults and seconds that still break the same invariant.
//!
//! ```text
//!            ┌──────────────── until nothing helps, or the runs are used up ─────────────────┐
//! failing ─▶ neighbouring seeds ─▶ shorter ─▶ kinds of faults ─▶ nodes ─▶ clients ─▶ keys ─▶ single faults ─▶ calmer seeds
//! ```
//!
//! Every candidate is a run of its own, judged as any other. It is kept if the same invariant breaks in it and it is
//! smaller; so the search ends, and it takes the same way every time. Single faults go by *delta debugging* (Zeller and
//! Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*, 2002): a fault that is left out takes its draws with
//! it, so that the others stay what they were.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use super::faults::Kind;
use super::invariants::Invariant;
use super::options::{Options, Recording};
use super::report::{Report, counted};

/// How many runs a search may take unless told otherwise.
pub const RUNS_MAX: u32 = 300;

/// How many seeds behind the failing one are tried at each of the [`SMALL`] sizes.
const NEIGHBOURS: u64 = 12;

/// How many seeds are tried for one that does with fewer faults.
const CALMER: u64 = 60;

/// Nodes, clients, keys and seconds of runs that a person can follow, the smallest first.
const SMALL: [(u16, u32, u32, u64); 4] = [(3, 1, 1, 10), (3, 2, 1, 10), (3, 3, 2, 20), (4, 6, 1, 20)];

/// A failing run made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// How large the run was.
    pub before: Size,
    /// How large it is now.
    pub after: Size,
    /// How many runs the search took.
    pub runs: u32,
    /// The small run, told.
    pub report: Report,
}

/// How large a run is: the smaller, the easier to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many clients work during the faults.
    pub clients: u32,
    /// How many keys they use.
    pub keys: u32,
    /// How many kinds of faults are on.
    pub kinds: usize,
    /// How many single faults struck.
    pub faults: usize,
    /// How long the faults may go on.
    pub duration: Duration,
}

/// How far a search is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs so far.
    pub runs: u32,
    /// Runs at most.
    pub runs_max: u32,
    /// The smallest failing run so far.
    pub size: Size,
}

impl Size {
    /// Of the run that was reported.
    #[must_use]
    pub fn of(report: &Report) -> Size {
        Size {
            nodes: report.nodes,
            clients: report.clients,
            keys: report.keys,
            kinds: report.swarm.kinds.len(),
            faults: report.strikes.len(),
            duration: report.options.duration,
        }
    }

    /// One number to compare by. A node more to follow is as bad as two faults or two seconds.
    fn weight(&self) -> u64 {
        let things = 8 * self.nodes as u64
            + 6 * u64::from(self.clients)
            + 3 * u64::from(self.keys)
            + 2 * self.kinds as u64
            + 4 * self.faults as u64;
        things * 250 + u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX / 2)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, {}, {} of {}, {:?} of faults",
            counted(self.nodes as u64, "node"),
            counted(u64::from(self.clients), "client"),
            counted(u64::from(self.keys), "key"),
            counted(self.faults as u64, "fault"),
            counted(self.kinds as u64, "kind"),
            self.duration,
        )
    }
}

/// Makes the run of these options small, in at most `runs_max` runs. `watch` is told after every run, and may break off:
/// then what was reached counts. `None` if the run breaks no invariant.
#[must_use]
pub fn shrink(
    options: &Options,
    runs_max: u32,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Option<Shrunk> {
    let options = Options { recording: Recording::Nothing, ..options.clone() };
    let first = super::judged(&options);
    let invariant = first.violations.first()?.invariant;
    let before = Size::of(&first);
    let mut search = Search { invariant, best: first, runs: 1, runs_max, watch, is_over: false };
    // From here on the kinds are named, which changes nothing and lets them be dropped one by one.
    search.best.options.faults = Some(search.best.swarm.kinds.clone());
    search.best.options.twice = invariant == Invariant::Determinism;
    let seed = search.best.options.seed;
    search.neighbours(seed);
    search.descend();
    // What is left may be small only for its seed: others of its size may do with fewer faults.
    while search.find_calmer() {
        search.descend();
    }
    // And if it is not small at all, the runs that are left go to the seeds farther behind.
    let mut farther = seed;
    while !search.is_over && !search.is_small() {
        farther = farther.saturating_add(NEIGHBOURS + 1);
        if search.neighbours(farther) {
            search.descend();
        }
    }
    search.tidy();
    let Search { best, runs, .. } = search;
    Some(Shrunk { before, after: Size::of(&best), runs, report: super::told(best) })
}

/// A search under way.
struct Search<'a> {
    invariant: Invariant,
    best: Report,
    runs: u32,
    runs_max: u32,
    watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    is_over: bool,
}

impl Search<'_> {
    /// Runs a candidate. Keeps it if it fails in the same way and is smaller.
    fn attempt(&mut self, change: impl FnOnce(&mut Options)) -> bool {
        let mut options = self.best.options.clone();
        change(&mut options);
        if options == self.best.options {
            return false;
        }
        let Some(report) = self.run(&options) else { return false };
        let fails = report.violations.iter().any(|violation| violation.invariant == self.invariant);
        let is_kept = fails && Size::of(&report).weight() < Size::of(&self.best).weight();
        if is_kept {
            self.best = report;
        }
        let progress = Progress { runs: self.runs, runs_max: self.runs_max, size: Size::of(&self.best) };
        self.is_over |= (self.watch)(progress).is_break();
        is_kept
    }

    /// Runs something, if that is still allowed.
    fn run(&mut self, options: &Options) -> Option<Report> {
        self.is_over |= self.runs >= self.runs_max;
        if self.is_over {
            return None;
        }
        self.runs += 1;
        Some(super::judged(options))
    }

    /// Every way of making it smaller, until none helps.
    fn descend(&mut self) {
        loop {
            let weight = Size::of(&self.best).weight();
            self.shorten();
            self.drop_kinds();
            self.lessen();
            self.drop_faults();
            if self.is_over || Size::of(&self.best).weight() == weight {
                return;
            }
        }
    }

    /// A run of the same size, of a seed behind this one, with fewer faults: only its first ones strike.
    fn find_calmer(&mut self) -> bool {
        let faults = self.best.strikes.len() as u32;
        let seed = self.best.options.seed;
        (1..=CALMER).filter(|_| faults > 0).any(|step| {
            self.attempt(|options| {
                options.seed = seed.saturating_add(step);
                options.only_faults = Some((1..faults).collect());
            })
        })
    }

    /// Small runs of a seed and of those behind it: what a large run shows by chance, some small one often shows too, and
    /// everything that follows is faster.
    fn neighbours(&mut self, seed: u64) -> bool {
        for (nodes, clients, keys, seconds) in SMALL {
            for seed in seed..=seed.saturating_add(NEIGHBOURS) {
                let found = self.attempt(|options| {
                    options.seed = seed;
                    options.nodes = Some(nodes);
                    options.clients = Some(clients);
                    options.keys = Some(keys);
                    options.duration = options.duration.min(Duration::from_secs(seconds));
                    options.only_faults = None;
                });
                if found {
                    return true;
                }
            }
        }
        false
    }

    /// Whether it is no larger than what is looked for among the neighbours.
    fn is_small(&self) -> bool {
        let Size { nodes, clients, .. } = Size::of(&self.best);
        SMALL.iter().any(|small| nodes <= usize::from(small.0) && clients <= small.1)
    }

    /// Faults that end earlier: just after the violation, then in ever smaller steps.
    fn shorten(&mut self) {
        let until =
            self.best.violations.iter().filter_map(|violation| violation.span).map(|(_, until)| until);
        if let Some(until) = until.min() {
            let needed = whole_millis(until.since(self.best.begun)) + Duration::from_millis(1);
            if needed < self.best.options.duration {
                self.attempt(|options| options.duration = needed);
            }
        }
        for eighths in [1, 2, 4, 6, 7] {
            let shorter = whole_millis(self.best.options.duration * eighths / 8);
            // The same part of what is left, as long as that works.
            if self.attempt(|options| options.duration = shorter) {
                while self.attempt(|options| options.duration = whole_millis(options.duration * eighths / 8))
                {
                }
                return;
            }
        }
    }

    /// No faults at all, no conditions, and each kind by itself.
    fn drop_kinds(&mut self) {
        if self.attempt(|options| options.faults = Some(BTreeSet::new())) {
            return;
        }
        let is_on =
            |kind: &Kind, options: &Options| options.faults.as_ref().is_some_and(|on| on.contains(kind));
        let kinds = self.best.swarm.kinds.clone();
        let striking = |options: &mut Options| {
            options.faults.iter_mut().for_each(|on| on.retain(|kind| !kind.is_condition()));
        };
        self.attempt(striking);
        for kind in kinds {
            if is_on(&kind, &self.best.options) {
                self.attempt(|options| {
                    options.faults.iter_mut().for_each(|on| on.retain(|other| *other != kind));
                });
            }
        }
    }

    /// Fewer nodes, clients and keys: the fewest first.
    fn lessen(&mut self) {
        let Size { nodes, clients, keys, .. } = Size::of(&self.best);
        let nodes = u16::try_from(nodes).unwrap_or(u16::MAX);
        let _ = (1..nodes.min(8)).any(|fewer| self.attempt(|options| options.nodes = Some(fewer)));
        let _ = (1..clients.min(8)).any(|fewer| self.attempt(|options| options.clients = Some(fewer)));
        let _ = (1..keys.min(8)).any(|fewer| self.attempt(|options| options.keys = Some(fewer)));
    }

    /// Fewer single faults.
    fn drop_faults(&mut self) {
        let struck: Vec<u32> = self.best.strikes.iter().map(|strike| strike.number).collect();
        minimize(struck, &mut |numbers: &[u32]| {
            let only = numbers.iter().copied().collect();
            self.attempt(|options| options.only_faults = Some(only))
        });
    }

    /// Leaves out of the command what makes no difference to the run.
    fn tidy(&mut self) {
        let changes: [fn(&mut Options); 5] = [
            |options| options.faults = None,
            |options| options.only_faults = None,
            |options| options.nodes = None,
            |options| options.clients = None,
            |options| options.keys = None,
        ];
        self.is_over = false;
        self.runs_max = self.runs + changes.len() as u32;
        for change in changes {
            let mut options = self.best.options.clone();
            change(&mut options);
            if let Some(report) = self.run(&options)
                && report.trace_hash == self.best.trace_hash
            {
                self.best = report;
            }
        }
    }
}

fn whole_millis(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// The algorithm *ddmin*: leaves out ever smaller parts of `items` as long as the rest still fails. `fails` is asked about rests.
fn minimize<T: Clone>(mut items: Vec<T>, fails: &mut dyn FnMut(&[T]) -> bool) -> Vec<T> {
    if items.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let mut parts = 2;
    while items.len() > 1 {
        let size = items.len().div_ceil(parts);
        let chunks: Vec<Vec<T>> = items.chunks(size).map(<[T]>::to_vec).collect();
        let one = chunks.iter().find(|chunk| fails(chunk)).cloned();
        if let Some(chunk) = one {
            (items, parts) = (chunk, 2);
            continue;
        }
        let without = |index: usize| -> Vec<T> {
            let others = chunks.iter().enumerate().filter(|(other, _)| *other != index);
            others.flat_map(|(_, chunk)| chunk.iter().cloned()).collect()
        };
        // With two parts the rests are the parts.
        let rest = (0..chunks.len()).filter(|_| chunks.len() > 2).map(without).find(|rest| fails(rest));
        match rest {
            Some(rest) => (items, parts) = (rest, (parts - 1).max(2)),
            None if parts >= items.len() => break,
            None => parts = (2 * parts).min(items.len()),
        }
    }
    items
}

#[cfg(test)]
mod tests;
