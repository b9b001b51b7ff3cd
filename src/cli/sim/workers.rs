//! Seeds on all cores. The order in which they are told of is that of the seeds, whatever the number of threads.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::sim::campaign::InOrder;
use crate::sim::{self, Options, Report};

/// How often somebody looks how far it is, at least.
const TICK: Duration = Duration::from_millis(200);

/// How many threads run unless told otherwise: one on each core.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// What happened while seeds run.
pub(super) enum News {
    /// A seed was run, in whatever order.
    Ran(Duration),
    /// The next seed in order.
    Next(Box<Report>),
    /// Nothing, for a while.
    Tick,
}

/// Runs the seeds on `jobs` threads until all are done or `stop` is set; what is under way then is finished.
pub(super) fn run_all(
    seeds: Range<u64>,
    jobs: usize,
    stop: &AtomicBool,
    options: impl Fn(u64) -> Options + Sync,
    mut tell: impl FnMut(News),
) {
    let mut order = InOrder::from(seeds.start);
    let next = AtomicU64::new(seeds.start);
    // A slow reader, such as a search for a small failing run, holds the threads up before the memory is full.
    let (sender, receiver) = sync_channel::<Report>(256);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, options) = (sender.clone(), &next, &options);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sender.send(sim::run(&options(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(report) => {
                    tell(News::Ran(report.simulated));
                    order.put(report.options.seed, report);
                    while let Some(report) = order.take() {
                        tell(News::Next(Box::new(report)));
                    }
                }
                Err(RecvTimeoutError::Timeout) => tell(News::Tick),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(jobs: usize, stop_at: u64) -> Vec<u64> {
        let stop = AtomicBool::new(false);
        let mut seen = Vec::new();
        let options = |seed| {
            let mut options = Options::new(seed);
            options.duration = Duration::from_millis(100);
            options
        };
        run_all(3..15, jobs, &stop, options, |news| {
            if let News::Next(report) = news {
                seen.push(report.options.seed);
                stop.fetch_or(report.options.seed == stop_at, Ordering::Relaxed);
            }
        });
        seen
    }

    #[test]
    fn seeds_come_in_order_whatever_the_number_of_threads() {
        for jobs in [1, 4] {
            assert_eq!(seeds(jobs, 99), (3..15).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn a_stop_ends_it_without_a_gap() {
        let seen = seeds(2, 4);
        assert_eq!(seen, (3..3 + seen.len() as u64).collect::<Vec<u64>>());
        assert!(seen.len() >= 2, "those that were stopped at are there");
    }
}
