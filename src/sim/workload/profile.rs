//! How the clients of one run behave, and how much the nodes put up with.

use std::time::Duration;

use crate::protocol::config::{HintConfig, Limits, NodeConfig};
use crate::protocol::rng::Rng;

/// How the clients of one run behave, drawn from its seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Profile {
    pub(in crate::sim) keys: u32,
    /// The longest pause between two operations.
    pub(in crate::sim) think_max: Duration,
    /// How long a client waits for one attempt before it makes another one elsewhere.
    pub(in crate::sim) attempt: Duration,
    /// How long it waits in all.
    pub(in crate::sim) patience: Duration,
    /// Attempts at most.
    pub(in crate::sim) attempts_max: u32,
    /// Operations in a thousand with a level other than majority.
    pub(in crate::sim) odd_level_per_mille: u32,
    /// Reads in a thousand that are atomic.
    pub(in crate::sim) atomic_per_mille: u32,
    /// Writes in a thousand for which hints count.
    pub(in crate::sim) sloppy_per_mille: u32,
    /// Weights: read, read-modify-write, blind put, put with a context kept from earlier, delete, delete without a
    /// context, write with a context of another key or a damaged one.
    pub(in crate::sim) weights: [u64; 7],
    /// What the nodes refuse to exceed: so little under some seeds that clients run into it.
    pub(in crate::sim) limits: Limits,
    /// How many requests a node has under way at most: as little under some seeds.
    pub(in crate::sim) requests_max: usize,
    /// How many bytes of hints it keeps at most: hardly any under some seeds.
    pub(in crate::sim) hint_bytes_max: u64,
    /// How soon an operation in the healed core of a cluster has to succeed, with as many attempts as it takes.
    pub(in crate::sim) core_deadline: Duration,
}

impl Profile {
    /// How `clients` behave under a seed, who begin `rate` operations a second together. What is not given is drawn.
    pub(in crate::sim) fn draw(rng: &mut Rng, keys: Option<u32>, rate: Option<u32>, clients: u32) -> Profile {
        let attempt = rng.between(200, 1_000);
        // Few keys make conflicts, many make a cluster whose records differ in many places.
        let most = *rng.pick(&[3, 40, 40, 1_000]).unwrap_or(&40);
        let drawn_keys = rng.between(1, most) as u32;
        let drawn_rate = *rng.pick(&[10, 30, 60, 150]).unwrap_or(&30);
        let rate = u64::from(rate.unwrap_or(drawn_rate).max(1));
        let mut profile = Profile {
            keys: keys.unwrap_or(drawn_keys).max(1),
            // Pauses are drawn evenly, so that the mean is half of the longest.
            think_max: Duration::from_micros((2_000_000 * u64::from(clients) / rate).max(2_000)),
            attempt: Duration::from_millis(attempt),
            patience: Duration::from_millis(attempt * rng.between(1, 5)),
            attempts_max: rng.between(1, 4) as u32,
            odd_level_per_mille: [0, 100, 400][rng.index(3)],
            atomic_per_mille: [0, 200, 700][rng.index(3)],
            sloppy_per_mille: 0,
            weights: [
                40,
                rng.between(10, 40),
                rng.between(2, 30),
                rng.between(0, 10),
                rng.between(0, 10),
                if rng.chance(300) { 3 } else { 0 },
                if rng.chance(300) { 3 } else { 0 },
            ],
            limits: Limits::default(),
            requests_max: NODE_REQUESTS_MAX,
            hint_bytes_max: HintConfig::default().bytes_max,
            core_deadline: CORE_DEADLINE,
        };
        if rng.chance(150) {
            profile.limits.siblings_max = rng.between(2, 6) as usize;
        }
        if rng.chance(50) {
            profile.limits.record_bytes_max = rng.between(600, 1_500);
        }
        if rng.chance(100) {
            profile.requests_max = rng.between(2, 6) as usize;
        }
        profile.sloppy_per_mille = [0, 100, 500][rng.index(3)];
        if rng.chance(100) {
            profile.hint_bytes_max = rng.between(500, 5_000);
        }
        profile
    }

    /// Tells a node what it has to refuse in this run.
    pub(in crate::sim) fn bound(&self, config: &mut NodeConfig) {
        config.limits = self.limits;
        config.replication.requests_max = self.requests_max;
        config.hints.bytes_max = self.hint_bytes_max;
        config.hints.bytes_per_target_max = self.hint_bytes_max / 2;
    }
}

/// What a core owes its clients where nothing stricter is asked.
const CORE_DEADLINE: Duration = Duration::from_secs(5);

/// As many as a node has by default.
const NODE_REQUESTS_MAX: usize = 4_096;
