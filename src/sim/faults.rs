//! Which faults a run meets, and how hard: drawn anew for every seed (swarm testing).
//!
//! A run in which everything goes wrong at once finds little, since nothing gets far enough to break in an interesting
//! way. So each seed switches every kind of fault on or off for itself.

use std::time::Duration;

use super::network::Weather;
use crate::protocol::rng::Rng;

/// What may go wrong in one run, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// How the network behaves when it is neither cut nor clogged.
    pub weather: Weather,
    /// The kinds of faults that happen.
    pub kinds: Vec<Kind>,
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
    /// How long a sync takes at most.
    pub sync_max: Duration,
    /// Client requests or answers in a thousand that never arrive.
    pub client_loss_per_mille: u32,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A machine loses power and starts again.
    Crash,
    /// A node is stopped in good order and starts again.
    Stop,
    /// A process stands still for a while.
    Pause,
    /// The network falls into two halves.
    Partition,
    /// One node hears nothing, or is not heard.
    OneWay,
    /// One link is cut, or each node only reaches the next one.
    Odd,
    /// A link delays everything by seconds.
    Clog,
    /// A wall clock is set.
    Jump,
    /// A disk becomes slow.
    SlowDisk,
}

/// All kinds.
pub const KINDS: [Kind; 9] = [
    Kind::Crash,
    Kind::Stop,
    Kind::Pause,
    Kind::Partition,
    Kind::OneWay,
    Kind::Odd,
    Kind::Clog,
    Kind::Jump,
    Kind::SlowDisk,
];

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
}

impl Swarm {
    /// Nothing goes wrong.
    #[must_use]
    pub fn calm() -> Swarm {
        Swarm {
            weather: Weather::fair(),
            kinds: Vec::new(),
            interval: Duration::from_secs(1),
            span_max: Duration::from_secs(1),
            from_the_start: false,
            skew_ms: 0,
            drift_ppm: 0,
            jump_ms: 0,
            crash_after_applied_per_mille: 0,
            crash_after_durable_per_mille: 0,
            sync_max: Duration::from_millis(2),
            client_loss_per_mille: 0,
        }
    }

    /// What goes wrong under a seed.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Swarm {
        let mut swarm = Swarm::calm();
        let weather = &mut swarm.weather;
        weather.delay_spread = Duration::from_micros(one_of(rng, &[200, 1_000, 10_000, 100_000]));
        weather.tail_per_mille = one_of(rng, &[0, 0, 10, 50]) as u32;
        weather.loss_per_mille = one_of(rng, &[0, 0, 10, 50, 300]) as u32;
        weather.duplicate_per_mille = one_of(rng, &[0, 0, 50, 500]) as u32;
        weather.reorders = rng.chance(500);
        swarm.kinds = KINDS.into_iter().filter(|_| rng.chance(400)).collect();
        swarm.interval = Duration::from_millis(one_of(rng, &[300, 1_000, 3_000, 10_000]));
        swarm.span_max = Duration::from_millis(one_of(rng, &[500, 3_000, 10_000, 20_000]));
        swarm.from_the_start = rng.chance(200);
        swarm.skew_ms = one_of(rng, &[0, 10, 400, 2_000, 3_600_000]);
        swarm.drift_ppm = one_of(rng, &[0, 50, 1_000]) as u32;
        swarm.jump_ms = one_of(rng, &[300, 2_000, 3_600_000]);
        if swarm.kinds.contains(&Kind::Crash) {
            swarm.crash_after_applied_per_mille = one_of(rng, &[0, 0, 2, 10]) as u32;
            swarm.crash_after_durable_per_mille = one_of(rng, &[0, 0, 2, 10]) as u32;
        }
        swarm.sync_max = Duration::from_millis(one_of(rng, &[1, 5, 30, 200]));
        swarm.client_loss_per_mille = one_of(rng, &[0, 0, 10, 100]) as u32;
        swarm
    }

    /// Whether the clocks of any two nodes always agree to within this many milliseconds, drift apart.
    #[must_use]
    pub fn clocks_agree_within(&self, span_ms: u64) -> bool {
        let jumps = if self.kinds.contains(&Kind::Jump) { self.jump_ms } else { 0 };
        // Jumps add up in the worst case; a few of the small ones do no harm.
        2 * self.skew_ms < span_ms && jumps * 20 < span_ms
    }

    /// The time until the next fault.
    pub fn wait(&self, rng: &mut Rng) -> Duration {
        Duration::from_micros(rng.between(1, 2 * self.interval.as_micros() as u64))
    }

    /// A fault among `hosts`; `None` if the kind that was drawn needs more of them, or if there are no kinds.
    pub fn next(&self, hosts: usize, rng: &mut Rng) -> Option<Fault> {
        let kind = *rng.pick(&self.kinds)?;
        let host = rng.index(hosts);
        let span = Duration::from_micros(rng.between(10_000, self.span_max.as_micros() as u64));
        let mut order: Vec<usize> = (0..hosts).collect();
        rng.shuffle(&mut order);
        Some(match kind {
            Kind::Crash => Fault::Crash { host, down: span },
            Kind::Stop => Fault::Stop { host, down: span },
            Kind::Pause => Fault::Pause { host, span },
            Kind::Jump => {
                let by_ms = rng.between(0, 2 * self.jump_ms) as i64 - self.jump_ms as i64;
                Fault::Jump { host, by_ms }
            }
            Kind::SlowDisk => Fault::SlowDisk { host, slowness: one_of(rng, &[10_000, 100_000]), span },
            _ if hosts < 2 => return None,
            Kind::Clog => {
                let delay = Duration::from_millis(rng.between(100, 3_000));
                Fault::Clog { link: (order[0], order[1]), delay, span }
            }
            Kind::Partition => {
                let (one, other) = order.split_at(rng.between(1, hosts as u64 - 1) as usize);
                let links = both_ways(one, other);
                Fault::Cut { shape: format!("{} | {}", names(one), names(other)), links, span }
            }
            Kind::OneWay => {
                let (one, others) = order.split_at(1);
                let is_deaf = rng.chance(500);
                let links = others.iter().map(|&o| if is_deaf { (o, one[0]) } else { (one[0], o) }).collect();
                let shape = format!("{} is {}", names(one), if is_deaf { "deaf" } else { "mute" });
                Fault::Cut { shape, links, span }
            }
            Kind::Odd => {
                let (shape, links) = if rng.chance(500) || hosts < 4 {
                    (format!("{} to {}", names(&order[..1]), names(&order[1..2])), vec![(order[0], order[1])])
                } else {
                    let near = |a: usize, b: usize| (a + 1) % hosts == b || (b + 1) % hosts == a;
                    let links = both_ways(&order, &order)
                        .into_iter()
                        .filter(|&(from, to)| from != to && !near(place(&order, from), place(&order, to)));
                    (format!("a ring of {}", names(&order)), links.collect())
                };
                Fault::Cut { shape, links, span }
            }
        })
    }
}

fn one_of(rng: &mut Rng, choices: &[u64]) -> u64 {
    choices[rng.index(choices.len())]
}

fn both_ways(one: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    one.iter().flat_map(|&a| other.iter().flat_map(move |&b| [(a, b), (b, a)])).collect()
}

fn place(order: &[usize], host: usize) -> usize {
    order.iter().position(|&h| h == host).unwrap_or_default()
}

fn names(hosts: &[usize]) -> String {
    let names: Vec<String> = hosts.iter().map(|&host| super::host::name(host)).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_drawn_by_some_seed_and_none_by_all() {
        for kind in KINDS {
            let seeds =
                (0..100).filter(|&seed| Swarm::draw(&mut Rng::from_number(seed)).kinds.contains(&kind));
            assert!((10..90).contains(&seeds.count()), "{kind:?}");
        }
    }

    #[test]
    fn faults_name_hosts_that_exist_in_clusters_of_every_size() {
        for hosts in 1..8 {
            let mut rng = Rng::from_number(hosts as u64);
            let swarm = Swarm { kinds: KINDS.to_vec(), ..Swarm::draw(&mut rng) };
            for _ in 0..300 {
                match swarm.next(hosts, &mut rng) {
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
