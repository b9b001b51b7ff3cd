//! How the clients of one run behave, and how much the nodes put up with.

use std::time::Duration;

use crate::protocol::config::{Limits, NodeConfig};
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
    /// Weights: read, read-modify-write, blind put, put with a context kept from earlier, delete, delete without a
    /// context, write with a context of another key or a damaged one.
    pub(in crate::sim) weights: [u64; 7],
    /// What the nodes refuse to exceed: so little under some seeds that clients run into it.
    pub(in crate::sim) limits: Limits,
    /// How many requests a node has under way at most: as little under some seeds.
    pub(in crate::sim) requests_max: usize,
}

impl Profile {
    pub(in crate::sim) fn draw(rng: &mut Rng, keys: Option<u32>) -> Profile {
        let attempt = rng.between(200, 1_000);
        let mut profile = Profile {
            keys: keys.unwrap_or(rng.between(1, 40) as u32).max(1),
            think_max: Duration::from_millis(rng.between(50, 800)),
            attempt: Duration::from_millis(attempt),
            patience: Duration::from_millis(attempt * rng.between(1, 5)),
            attempts_max: rng.between(1, 4) as u32,
            odd_level_per_mille: [0, 100, 400][rng.index(3)],
            atomic_per_mille: [0, 200, 700][rng.index(3)],
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
        profile
    }

    /// Tells a node what it has to refuse in this run.
    pub(in crate::sim) fn bound(&self, config: &mut NodeConfig) {
        config.limits = self.limits;
        config.replication.requests_max = self.requests_max;
    }
}

/// As many as a node has by default.
const NODE_REQUESTS_MAX: usize = 4_096;
