//! Many seeds of the simulator: the gate that every change to the protocol passes.
//!
//! `STARLING_SEEDS=1000..5000 cargo test --test sim` runs others, or more. Of what fails a small run is looked for, and its
//! story is told with the command that repeats it.

#![allow(clippy::disallowed_methods, reason = "the run is timed for people, nothing depends on it")]

use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use starling::sim::campaign::Totals;
use starling::sim::shrink::{RUNS_MAX, shrink};
use starling::sim::{Options, Report, judged, run};

/// That of the program, which is faster.
#[cfg(feature = "cli")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a plain `cargo test` runs.
const SEEDS: Range<u64> = 0..1_000;

/// For how long faults go on in each of them: a little shorter than in a campaign, so that the gate stays within its time.
const FAULTS_FOR: Duration = Duration::from_secs(45);

/// How many failing seeds are made small; of the others the command is printed.
const SHRUNK_MAX: usize = 3;

fn seeds() -> Range<u64> {
    let Ok(wanted) = std::env::var("STARLING_SEEDS") else { return SEEDS };
    let parsed = wanted.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    match parsed {
        Some((Ok(from), Ok(to))) => from..to,
        _ => panic!("STARLING_SEEDS={wanted:?} is not a range such as 0..200"),
    }
}

/// Runs all seeds on all cores. Returns what they add up to, and the failing ones in order.
fn run_all(seeds: Range<u64>, options: impl Fn(u64) -> Options + Sync) -> (Totals, Vec<Report>) {
    let next = AtomicU64::new(seeds.start);
    let totals = Mutex::new((Totals::default(), Vec::new()));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let report = run(&options(seed));
            let (totals, failed) = &mut *totals.lock().expect("a worker panicked");
            totals.add(&report);
            failed.extend((!report.is_ok()).then_some(report));
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (0..cores).for_each(|_| drop(scope.spawn(worker)));
    });
    let (totals, mut failed) = totals.into_inner().expect("a worker panicked");
    failed.sort_by_key(|report| report.options.seed);
    (totals, failed)
}

/// Tells what failed: the story of a small run, as long as there are few of them.
fn tell(failed: &[Report]) {
    for (index, report) in failed.iter().enumerate() {
        println!("seed {}: {}", report.options.seed, report.violations[0]);
        if index >= SHRUNK_MAX {
            continue;
        }
        match shrink(&report.options, RUNS_MAX, &mut |_| ControlFlow::Continue(())) {
            Some(shrunk) => println!("shrunk from {} to {}\n{}", shrunk.before, shrunk.after, shrunk.report),
            None => println!("it does not fail again:\n{report}"),
        }
    }
}

#[test]
fn no_seed_breaks_an_invariant() {
    let begun = Instant::now();
    // Every tenth seed runs twice, to compare the traces.
    let (totals, failed) = run_all(seeds(), |seed| Options {
        twice: seed % 40 == 0,
        duration: FAULTS_FOR,
        ..Options::new(seed)
    });
    let Totals { seeds, simulated, counts, .. } = &totals;
    println!("{seeds} seeds, {simulated:.0?} simulated in {:.1?}: {counts:?}", begun.elapsed());
    tell(&failed);
    let commands: Vec<String> = failed.iter().map(|report| report.options.command()).collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), commands.join("\n"));
    // A simulator in which nothing happens finds nothing, and a judge that is given nothing says nothing.
    assert!(counts.committed > 10 * seeds, "too few writes were committed: {counts:?}");
    assert!(counts.unknown > 0 && counts.unavailable > 0 && counts.crashes > 0, "too little went wrong");
    for (invariant, count) in &totals.judged {
        assert!(*count > 0, "{} was given no {}", invariant.name(), judged::unit(*invariant));
    }
}
