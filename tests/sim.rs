//! Many seeds of the simulator: the gate that every change to the protocol passes.
//!
//! `STARLING_SEEDS=1000..5000 cargo test --test sim` runs others, or more; a failing seed is printed with the command
//! that repeats it.

#![allow(clippy::disallowed_methods, reason = "the run is timed for people, nothing depends on it")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use starling::sim::report::Counts;
use starling::sim::{Options, Report, run};

/// What a plain `cargo test` runs.
const SEEDS: Range<u64> = 0..200;

fn seeds() -> Range<u64> {
    let Ok(wanted) = std::env::var("STARLING_SEEDS") else { return SEEDS };
    let parsed = wanted.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    match parsed {
        Some((Ok(from), Ok(to))) => from..to,
        _ => panic!("STARLING_SEEDS={wanted:?} is not a range such as 0..200"),
    }
}

/// Runs all seeds on all cores; the order does not matter, since every run is a world of its own.
fn run_all(seeds: Range<u64>, options: impl Fn(u64) -> Options + Sync) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return reports;
            }
            reports.push(run(&options(seed)));
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker panicked")).collect()
    })
}

#[test]
fn no_seed_breaks_an_invariant() {
    let begun = Instant::now();
    // Every tenth seed runs twice, to compare the traces.
    let reports = run_all(seeds(), |seed| Options { twice: seed % 10 == 0, ..Options::new(seed) });
    let mut counts = Counts::default();
    let mut simulated = Duration::ZERO;
    for report in &reports {
        counts.add(&report.counts);
        simulated += report.simulated;
    }
    println!("{} seeds, {simulated:.0?} simulated in {:.1?}: {counts:?}", reports.len(), begun.elapsed());
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.is_ok()).collect();
    for report in &failed {
        println!("{report}");
    }
    let commands: Vec<String> = failed.iter().map(|report| report.options.command()).collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), commands.join("\n"));
    // A simulator in which nothing happens finds nothing.
    assert!(counts.committed > 10 * reports.len() as u64, "too few writes were committed: {counts:?}");
    assert!(counts.unknown > 0 && counts.unavailable > 0 && counts.crashes > 0, "too little went wrong");
}
