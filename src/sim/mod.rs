//! The simulated world: whole clusters of the real [`Node`](crate::protocol::node::Node) in virtual time.
//!
//! ```text
//!                      ┌───────────────────────── World ─────────────────────────┐
//!  seed ──▶ Swarm ───▶ │ faults ──▶ crash, pause, cut, jump                       │
//!   (faults, clients)  │              │                                           │
//!           Workload ──┼─ask──▶ Host { clock, disk, Node } ◀──▶ Network            │──▶ Report
//!              ▲       │◀─answer─┘        │ notices, records                       │     │ seed, counts, hash,
//!              │       └──────────────────┼─────────────────────────────────────────┘     │ violations, time line
//!              └──▶ History ──▶ invariants ◀┘                                              ▼
//! ```
//!
//! One thread, one event heap ordered by (time, sequence), one seed: the same seed gives the same trace hash on every
//! machine. A run has two phases. In *safety* the faults that the seed drew go on without end while clients read and
//! write. In *liveness* first a random majority heals and has to serve while the rest stays as broken as it is; then
//! everything heals, and every node has to serve, every operation to commit and every key to
//! converge within a bound of virtual time. What happened is judged by the files under [`invariants`], one each;
//! those that need only what clients saw take a [`history::History`] and nothing else, so that they judge real
//! clusters just as well.
//!
//! The manner is that of FoundationDB and of TigerBeetle's VOPR; drawing the *kinds* of faults anew for every seed is
//! *swarm testing* (Groce et al., 2012).

pub mod campaign;
mod clock;
mod disk;
pub mod faults;
mod figures;
pub mod history;
mod host;
pub mod invariants;
pub mod judged;
mod network;
pub mod options;
#[cfg(test)]
mod planted;
pub mod report;
pub mod scenario;
pub mod shrink;
pub mod story;
pub mod strikes;
mod trace;
mod witness;
mod workload;
mod world;

pub use options::{Options, Recording};
pub use report::Report;

use crate::protocol::time::Moment;
use invariants::Invariant;
use story::Story;
use world::World;

/// Runs one seed and judges it.
///
/// With [`Options::twice`] the run is repeated and both traces compared (invariant 18). When something was violated,
/// the run is repeated once more to record the time line of the key in question: a run that goes well pays nothing
/// for it.
#[must_use]
pub fn run(options: &Options) -> Report {
    told(judged(options))
}

/// Runs a seed and judges it, without the time line of what went wrong.
fn judged(options: &Options) -> Report {
    let mut report = World::new(options).run();
    if options.twice {
        let again = World::new(options).run();
        report.violations.extend(invariants::determinism::judge(report.trace_hash, again.trace_hash));
        report.judged.insert(Invariant::Determinism, 1);
    }
    report
}

/// Adds the story of what went wrong, if something did.
fn told(mut report: Report) -> Report {
    let Some(first) = report.violations.first() else { return report };
    let key = first.key.clone();
    // Of several violations on a key the one that showed first tells the shortest story.
    let of_key = report.violations.iter().filter(|other| other.key == key);
    let violation = of_key.min_by_key(|other| other.span.map_or(Moment::NEVER, |(_, until)| until));
    let violation = violation.unwrap_or(first).clone();
    let recording = key.map_or(Recording::Faults, Recording::Key);
    let again = World::new(&Options { recording, ..report.options.clone() }).run();
    report.story = Some(Story::of(&violation, &again));
    report
}
