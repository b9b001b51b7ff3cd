//! How long replicas usually take.

use std::time::Duration;

/// A running estimate of the 95th percentile: it moves up by 19 steps for each sample above it and down by one for each
/// below, so it rests where one sample in twenty is above. No history is kept (after Ma, Muthukrishnan, Sandler: *Frugal
/// Streaming for Estimating Quantiles*, 2013, with a step in proportion to the estimate).
#[derive(Clone, Debug)]
pub struct Latency {
    p95_us: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { p95_us: 20_000 }
    }
}

impl Latency {
    /// Takes note of one answer's time.
    pub fn note(&mut self, took: Duration) {
        let sample = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let step = (self.p95_us / 1_000).max(1);
        if sample > self.p95_us {
            self.p95_us = self.p95_us.saturating_add(19 * step).min(10_000_000);
        } else {
            self.p95_us = self.p95_us.saturating_sub(step).max(100);
        }
    }

    /// The time within which 19 answers of 20 come.
    #[must_use]
    pub fn p95(&self) -> Duration {
        Duration::from_micros(self.p95_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::rng::Rng;

    #[test]
    fn the_estimate_settles_near_the_ninety_fifth_percentile() {
        let (mut latency, mut rng) = (Latency::default(), Rng::from_number(1));
        for _ in 0..50_000 {
            latency.note(Duration::from_micros(rng.between(0, 10_000)));
        }
        let p95 = latency.p95().as_micros();
        assert!((9_000..=9_999).contains(&p95), "{p95}");
    }
}
