//! How long reads take: a running estimate of their 95th percentile, after which a read is hedged.

use std::time::Duration;

/// How many samples the estimate looks back on.
const WINDOW: usize = 256;

/// The estimate is made anew after this many samples; sorting on every read would cost more than it tells.
const REFRESH: usize = 32;

/// The 95th percentile over the last reads (*The Tail at Scale*, Dean and Barroso, 2013): hedging after it costs one
/// read in twenty and cuts the tail off.
///
/// When everything gets slower, so does the estimate: hedging does not feed an overload for long.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    /// Microseconds, a ring buffer.
    samples: Vec<u32>,
    next: usize,
    p95: Option<Duration>,
}

impl Latency {
    /// Nothing is known.
    pub(super) fn new() -> Latency {
        Latency { samples: Vec::with_capacity(WINDOW), next: 0, p95: None }
    }

    /// One read took this long.
    pub(super) fn note(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.samples.len() < WINDOW {
            self.samples.push(micros);
        } else {
            self.samples[self.next % WINDOW] = micros;
        }
        self.next += 1;
        if self.next.is_multiple_of(REFRESH) {
            let mut sorted = self.samples.clone();
            let rank = sorted.len() * 95 / 100;
            let (_, p95, _) = sorted.select_nth_unstable(rank);
            self.p95 = Some(Duration::from_micros(u64::from(*p95)));
        }
    }

    /// The estimate, once there were enough reads.
    pub(super) fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_percentile_and_follows_a_change() {
        let mut latency = Latency::new();
        assert_eq!(latency.p95(), None);
        for millis in 0..200 {
            latency.note(Duration::from_millis(millis % 100));
        }
        let early = latency.p95().unwrap();
        assert!((Duration::from_millis(90)..Duration::from_millis(99)).contains(&early), "{early:?}");
        for _ in 0..2 * WINDOW {
            latency.note(Duration::from_millis(500));
        }
        assert_eq!(latency.p95(), Some(Duration::from_millis(500)));
    }
}
