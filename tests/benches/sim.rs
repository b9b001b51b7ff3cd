//! How many simulated seconds a second of one core buys: 5 nodes, about 50 operations a second, faults and judges on.
//!
//! `cargo bench --bench sim`, under ten seconds; `cargo bench --bench sim -- 100` runs as many seeds. The goal is 500. What is
//! counted is the processor time of this thread where the system tells it, so that a busy machine does not spoil
//! the figure.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::time::{Duration, Instant};

use starling::sim::report::Counts;
use starling::sim::{Options, run};

/// That of the program: what is measured is what its users get.
#[cfg(feature = "cli")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let wanted = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let seeds: u64 = wanted.unwrap_or(20);
    let clock = Clock::start();
    let mut counts = Counts::default();
    let mut simulated = Duration::ZERO;
    let mut slowest = (f64::INFINITY, 0);
    for seed in 0..seeds {
        let begun = clock.spent();
        let report = run(&Options {
            nodes: Some(5),
            clients: Some(20),
            keys: Some(40),
            // Clients wait for their answers and fall silent now and then: what comes out of it is about 50.
            rate: Some(280),
            duration: Duration::from_secs(300),
            ..Options::new(seed)
        });
        let ratio = report.simulated.as_secs_f64() / (clock.spent() - begun).as_secs_f64();
        slowest = if ratio < slowest.0 { (ratio, seed) } else { slowest };
        counts.add(&report.counts);
        simulated += report.simulated;
    }
    let spent = clock.spent().as_secs_f64();
    let seconds = simulated.as_secs_f64();
    println!(
        "{seeds} seeds of 5 nodes: {seconds:.0} simulated seconds in {spent:.2} core-seconds: {:.0} per core-second (goal: 500)",
        seconds / spent
    );
    println!(
        "per simulated second: {:.0} operations, {:.0} messages, {:.0} events; per event: {:.2} us",
        counts.operations as f64 / seconds,
        counts.messages as f64 / seconds,
        counts.events as f64 / seconds,
        spent * 1e6 / counts.events as f64,
    );
    println!("the slowest was seed {} with {:.0}", slowest.1, slowest.0);
}

/// The processor time of this thread, or the time on the wall where the system does not tell it.
struct Clock {
    begun: Instant,
}

impl Clock {
    fn start() -> Clock {
        Clock { begun: Instant::now() }
    }

    fn spent(&self) -> Duration {
        let line = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let nanos = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        nanos.map_or_else(|| self.begun.elapsed(), Duration::from_nanos)
    }
}
