//! Which faults a run meets, and how hard: drawn anew for every seed (swarm testing).
//!
//! A run in which everything goes wrong at once finds little, since nothing gets far enough to break in an interesting
//! way. So each seed switches every kind of fault on or off for itself.

mod kind;
mod shapes;

use std::collections::BTreeSet;
use std::time::Duration;

use super::clock::micros;
use super::network::Weather;
use crate::protocol::rng::Rng;

pub use kind::{KINDS, Kind, WAITING};
pub(super) use shapes::both_ways;

/// Syncs in a thousand after which the store is fed where nothing else is drawn.
const FEED_PER_MILLE: u32 = 300;

/// What may go wrong in one run, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// The kinds of faults that there are.
    pub kinds: BTreeSet<Kind>,
    /// Those of them that strike now and then.
    pub striking: Vec<Kind>,
    /// How the network behaves when it is neither cut nor clogged.
    pub weather: Weather,
    /// The mean time from one fault to the next.
    pub interval: Duration,
    /// The longest time that a fault lasts, a restart takes, or a pause.
    pub span_max: Duration,
    /// Whether the faults begin while the cluster is being founded, or only when it serves.
    pub from_the_start: bool,
    /// How far the wall clocks are off at most, in milliseconds.
    pub skew_ms: u64,
    /// How much too fast or slow the monotonic clocks run at most, in millionths.
    pub drift_ppm: u32,
    /// How far a clock jumps at most, in milliseconds.
    pub jump_ms: u64,
    /// Executions of disk requests in a thousand that are followed by a crash at once: after *applied*, before
    /// *durable*.
    pub crash_after_applied_per_mille: u32,
    /// Syncs in a thousand that are followed by a crash at once: after *durable*.
    pub crash_after_durable_per_mille: u32,
    /// Restarts in a thousand that find no disk.
    pub lost_disk_per_mille: u32,
    /// Messages with records in them in a thousand that arrive once more, much later.
    pub echo_per_mille: u32,
    /// Syncs in a thousand after which the store is fed: with few of them it lags far behind its log.
    pub feed_per_mille: u32,
    /// How long a sync takes at most.
    pub sync_max: Duration,
    /// Client requests or answers in a thousand that never arrive.
    pub client_loss_per_mille: u32,
}

/// One fault, of hosts by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// See [`Kind::Crash`].
    Crash {
        /// Which.
        host: usize,
        /// For how long it is down.
        down: Duration,
    },
    /// See [`Kind::Stop`].
    Stop {
        /// Which.
        host: usize,
        /// For how long it is down.
        down: Duration,
    },
    /// See [`Kind::Pause`].
    Pause {
        /// Which.
        host: usize,
        /// For how long.
        span: Duration,
    },
    /// Nothing arrives on these links (sender, receiver).
    Cut {
        /// What it looks like, for people.
        shape: String,
        /// The links.
        links: Vec<(usize, usize)>,
        /// For how long.
        span: Duration,
    },
    /// Everything on this link takes longer.
    Clog {
        /// The link.
        link: (usize, usize),
        /// By how much.
        delay: Duration,
        /// For how long.
        span: Duration,
    },
    /// The wall clock is set.
    Jump {
        /// Whose.
        host: usize,
        /// By how much.
        by_ms: i64,
    },
    /// The disk takes longer.
    SlowDisk {
        /// Whose.
        host: usize,
        /// How many times as long, less one, in thousandths.
        slowness: u64,
        /// For how long.
        span: Duration,
    },
    /// See [`Kind::SyncError`].
    SyncError {
        /// Whose disk.
        host: usize,
    },
    /// See [`Kind::FullDisk`].
    FullDisk {
        /// Whose.
        host: usize,
        /// For how long.
        span: Duration,
    },
    /// See [`Kind::Idle`].
    Idle {
        /// For how long.
        span: Duration,
    },
    /// See [`Kind::Figures`].
    Figure,
    /// See [`Kind::Rot`].
    Rot {
        /// Whose.
        host: usize,
    },
}

impl Swarm {
    /// Nothing goes wrong.
    #[must_use]
    pub fn calm() -> Swarm {
        Swarm {
            kinds: BTreeSet::new(),
            striking: Vec::new(),
            weather: Weather::fair(),
            interval: Duration::from_secs(1),
            span_max: Duration::from_secs(1),
            from_the_start: false,
            skew_ms: 0,
            drift_ppm: 0,
            jump_ms: 0,
            crash_after_applied_per_mille: 0,
            crash_after_durable_per_mille: 0,
            lost_disk_per_mille: 0,
            echo_per_mille: 0,
            feed_per_mille: FEED_PER_MILLE,
            sync_max: Duration::from_millis(2),
            client_loss_per_mille: 0,
        }
    }

    /// What goes wrong under a seed. With `only` these kinds do, and how hard is drawn; the same draws are made either way, so
    /// that a run whose kinds are named is the run in which they were drawn.
    #[must_use]
    pub fn draw(rng: &mut Rng, only: Option<&BTreeSet<Kind>>) -> Swarm {
        let mut drawn: BTreeSet<Kind> = KINDS
            .into_iter()
            .filter(|(kind, _)| rng.chance(kind.per_mille()))
            .map(|(kind, _)| kind)
            .collect();
        if !drawn.contains(&Kind::Crash) {
            drawn.remove(&Kind::CrashApplied);
            drawn.remove(&Kind::CrashDurable);
        }
        let kinds = only.cloned().unwrap_or(drawn);
        let interval = Duration::from_millis(one_of(rng, &[300, 1_000, 3_000, 10_000]));
        let span_max = Duration::from_millis(one_of(rng, &[500, 3_000, 10_000, 20_000]));
        let from_the_start = rng.chance(200);
        let mut swarm = Swarm { interval, span_max, from_the_start, ..Swarm::calm() };
        // Every number is drawn whether its kind is on or not.
        let mut hardness = |kind: Kind, choices: &[u64], calm: u64| {
            let hard = one_of(rng, choices);
            if kinds.contains(&kind) { hard } else { calm }
        };
        let weather = &mut swarm.weather;
        weather.delay_spread = Duration::from_micros(hardness(
            Kind::Delay,
            &[1_000, 10_000, 100_000],
            micros(weather.delay_spread),
        ));
        weather.tail_per_mille = hardness(Kind::Delay, &[0, 10, 50], 0) as u32;
        weather.loss_per_mille = hardness(Kind::Loss, &[10, 50, 300], 0) as u32;
        weather.duplicate_per_mille = hardness(Kind::Duplicate, &[50, 500], 0) as u32;
        swarm.skew_ms = hardness(Kind::Skew, &[10, 400, 2_000, 3_600_000], 0);
        swarm.drift_ppm = hardness(Kind::Drift, &[50, 1_000], 0) as u32;
        swarm.jump_ms = hardness(Kind::Jump, &[300, 2_000, 3_600_000], 0);
        swarm.crash_after_applied_per_mille = hardness(Kind::CrashApplied, &[2, 10], 0) as u32;
        swarm.crash_after_durable_per_mille = hardness(Kind::CrashDurable, &[2, 10], 0) as u32;
        swarm.sync_max = Duration::from_millis(hardness(Kind::Sync, &[5, 30, 200], 1));
        swarm.client_loss_per_mille = hardness(Kind::ClientLoss, &[10, 100], 0) as u32;
        swarm.lost_disk_per_mille = hardness(Kind::LostDisk, &[50, 150, 300], 0) as u32;
        swarm.echo_per_mille = hardness(Kind::Echo, &[2, 20, 100], 0) as u32;
        let feed = u64::from(FEED_PER_MILLE);
        swarm.feed_per_mille = hardness(Kind::Sync, &[feed, feed / 10, 1], feed) as u32;
        weather.reorders = kinds.contains(&Kind::Reorder);
        swarm.striking = kinds.iter().copied().filter(|kind| !kind.is_condition()).collect();
        swarm.kinds = kinds;
        swarm
    }

    /// Whether the clocks of any two nodes always agree to within this many milliseconds, drift apart.
    #[must_use]
    pub fn clocks_agree_within(&self, span_ms: u64) -> bool {
        // Jumps add up in the worst case; a few of the small ones do no harm.
        2 * self.skew_ms < span_ms && self.jump_ms * 20 < span_ms
    }

    /// The time until the next fault.
    pub fn wait(&self, rng: &mut Rng) -> Duration {
        Duration::from_micros(rng.between(1, 2 * self.interval.as_micros() as u64))
    }

    /// A fault among `hosts`, with its kind; `None` if the kind that was drawn needs more of them, or if nothing strikes.
    pub fn next(&self, hosts: usize, rng: &mut Rng) -> Option<(Kind, Fault)> {
        let kind = *rng.pick(&self.striking)?;
        let host = rng.index(hosts);
        let span = Duration::from_micros(rng.between(10_000, self.span_max.as_micros() as u64));
        let mut order: Vec<usize> = (0..hosts).collect();
        rng.shuffle(&mut order);
        let fault = match kind {
            Kind::Crash => Fault::Crash { host, down: span },
            Kind::Stop => Fault::Stop { host, down: span },
            // A machine that was suspended, or whose disk hung: it comes back with everything that it held in its hands.
            Kind::Pause if rng.chance(30) => {
                Fault::Pause { host, span: Duration::from_millis(rng.between(20_000, 150_000)) }
            }
            Kind::Pause => Fault::Pause { host, span },
            Kind::SyncError => Fault::SyncError { host },
            Kind::FullDisk => Fault::FullDisk { host, span },
            Kind::Idle => Fault::Idle { span: Duration::from_millis(rng.between(1_000, 30_000)) },
            Kind::Figures => Fault::Figure,
            Kind::Rot => Fault::Rot { host },
            Kind::Jump => {
                let by_ms = rng.between(0, 2 * self.jump_ms) as i64 - self.jump_ms as i64;
                Fault::Jump { host, by_ms }
            }
            Kind::SlowDisk => Fault::SlowDisk { host, slowness: one_of(rng, &[10_000, 100_000]), span },
            _ if hosts < 2 || kind.is_condition() => return None,
            Kind::Clog => {
                let delay = Duration::from_millis(rng.between(100, 3_000));
                Fault::Clog { link: (order[0], order[1]), delay, span }
            }
            Kind::Partition => shapes::partition(&order, rng).during(span),
            Kind::OneWay => shapes::one_way(&order, rng).during(span),
            Kind::Odd => shapes::odd(&order, rng).during(span),
            _ => return None,
        };
        Some((kind, fault))
    }
}

fn one_of(rng: &mut Rng, choices: &[u64]) -> u64 {
    choices[rng.index(choices.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_drawn_by_some_seed_and_none_by_all() {
        let swarms: Vec<Swarm> =
            (0..500).map(|seed| Swarm::draw(&mut Rng::from_number(seed), None)).collect();
        for (kind, name) in KINDS {
            let drawn = swarms.iter().filter(|swarm| swarm.kinds.contains(&kind)).count();
            assert!((50..450).contains(&drawn), "{name}: {drawn}");
        }
    }

    #[test]
    fn naming_the_kinds_that_were_drawn_changes_nothing() {
        for seed in 0..100 {
            let drawn = Swarm::draw(&mut Rng::from_number(seed), None);
            assert_eq!(Swarm::draw(&mut Rng::from_number(seed), Some(&drawn.kinds)), drawn);
        }
    }

    #[test]
    fn what_is_not_named_does_not_happen() {
        let none = Swarm::draw(&mut Rng::from_number(1), Some(&BTreeSet::new()));
        assert_eq!(none.weather, Weather::fair());
        assert_eq!((none.striking.len(), none.skew_ms, none.client_loss_per_mille), (0, 0, 0));
    }

    #[test]
    fn faults_name_hosts_that_exist_in_clusters_of_every_size() {
        let all: BTreeSet<Kind> = KINDS.into_iter().map(|(kind, _)| kind).collect();
        for hosts in 1..8 {
            let mut rng = Rng::from_number(hosts as u64);
            let swarm = Swarm::draw(&mut rng, Some(&all));
            for _ in 0..300 {
                match swarm.next(hosts, &mut rng).map(|(_, fault)| fault) {
                    Some(Fault::Cut { links, .. }) => {
                        assert!(links.iter().all(|&(from, to)| from < hosts && to < hosts && from != to));
                        assert!(!links.is_empty());
                    }
                    Some(Fault::Crash { host, .. } | Fault::Jump { host, .. }) => assert!(host < hosts),
                    _ => {}
                }
            }
        }
    }
}
