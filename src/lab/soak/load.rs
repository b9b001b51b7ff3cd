//! The clients: what they ask, and what they remember having been shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_std::task::{JoinHandle, block_on, sleep, spawn};

use super::super::cluster::Lab;
use super::chronicle::{Chronicle, ReadWish, WriteWish};
use crate::client::{Client, Context, Level};
use crate::protocol::rng::Rng;
use crate::sim::history::{Basis, Seen, WriteId};

/// Keys that a client keeps contexts of, to come back with them later.
const HELD_MAX: usize = 32;

/// Of the shared keys every so many is one that clients also delete without having looked. Such a delete excuses the
/// absence of whatever was there, and one of unknown outcome that of whatever comes later, so the judges see little on these keys.
const SWEPT_EVERY: u64 = 10;

/// Of the shared keys those that are asked for much more often.
const HOT_KEYS: u64 = 8;

/// What clients ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// How many clients work at once.
    pub clients: u32,
    /// How many keys they share.
    pub keys: u64,
    /// The size of a value in bytes.
    pub value_size: usize,
    /// The longest pause of a client between two operations.
    pub think_max: Duration,
    /// Operations in a thousand with another level than majority.
    pub odd_level_per_mille: u32,
    /// Reads in a thousand that are atomic.
    pub atomic_per_mille: u32,
    /// Operations in a thousand that go through one node of the client's choice, dead or cut off or not, instead of the best.
    pub pinned_per_mille: u32,
    /// Weights of the steps, in the order of [`Step`].
    pub weights: [u64; 8],
}

impl Default for Demand {
    fn default() -> Demand {
        Demand {
            clients: 8,
            keys: 200,
            value_size: 0,
            think_max: Duration::from_millis(50),
            odd_level_per_mille: 200,
            atomic_per_mille: 250,
            pinned_per_mille: 250,
            weights: [20, 35, 5, 12, 6, 3, 2, 5],
        }
    }
}

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read.
    Read,
    /// Read, and write with the context of the reading.
    Update,
    /// Write without a context.
    PutBlind,
    /// Write with a context kept from earlier.
    PutLate,
    /// Read, and delete what was read.
    Delete,
    /// Delete with a context kept from earlier.
    DeleteLate,
    /// Delete without a context.
    Sweep,
    /// Write a key that nobody else writes, once.
    PutFresh,
}

const STEPS: [Step; 8] = [
    Step::Read,
    Step::Update,
    Step::PutBlind,
    Step::PutLate,
    Step::Delete,
    Step::DeleteLate,
    Step::Sweep,
    Step::PutFresh,
];

/// The ways to the cluster.
#[derive(Clone, Debug)]
pub struct Roads {
    /// Clients of the library that find their way; the load's clients take them in turn.
    pub free: Vec<Client>,
    /// For each node one that sends everything through it. Through them clients see a partition from the inside.
    pub pinned: Vec<Client>,
}

impl Roads {
    /// Connects this many clients to a lab, and one more for each node.
    pub fn open(lab: &Lab, clients: u32) -> Result<Roads, String> {
        let free = (0..clients.max(1)).map(|_| super::connect(lab, None)).collect::<Result<_, _>>()?;
        let names = lab.record().names();
        let pinned = names.iter().map(|name| super::connect(lab, Some(name))).collect::<Result<_, _>>()?;
        Ok(Roads { free, pinned })
    }

    /// A single client for everybody.
    #[must_use]
    pub fn of(client: &Client) -> Roads {
        Roads { free: vec![client.clone()], pinned: Vec::new() }
    }

    /// Closes all of them.
    pub async fn close(self) {
        for client in self.free.into_iter().chain(self.pinned) {
            client.close().await;
        }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Lets everybody begin.
    #[must_use]
    pub fn start(roads: &Roads, chronicle: &Arc<Chronicle>, demand: Demand, mut rng: Rng) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let demand = Arc::new(demand);
        let free = roads.free.iter().cycle();
        let worker = |(number, free): (u32, &Client)| {
            let worker = Worker {
                number,
                free: free.clone(),
                pinned: roads.pinned.clone(),
                chronicle: Arc::clone(chronicle),
                demand: Arc::clone(&demand),
                rng: rng.fork(),
                held: BTreeMap::new(),
                fresh: 0,
            };
            spawn(worker.work(Arc::clone(&stop)))
        };
        let workers = (1..=demand.clients).zip(free).map(worker).collect();
        Load { stop, workers }
    }

    /// Lets everybody finish what they are at.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            block_on(worker);
        }
    }
}

/// A context, and what the client was shown with it.
#[derive(Clone)]
struct Held {
    context: Context,
    shown: BTreeSet<WriteId>,
}

struct Worker {
    number: u32,
    free: Client,
    pinned: Vec<Client>,
    chronicle: Arc<Chronicle>,
    demand: Arc<Demand>,
    rng: Rng,
    held: BTreeMap<String, Held>,
    fresh: u64,
}

impl Worker {
    async fn work(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let think = self.rng.below(self.demand.think_max.as_micros() as u64 + 1);
            sleep(Duration::from_micros(think)).await;
            self.act().await;
        }
    }

    async fn act(&mut self) {
        let step = self.step();
        match step {
            Step::PutFresh => {
                self.fresh += 1;
                let key = format!("c{}-{}", self.number, self.fresh);
                self.write(key, Some(self.demand.value_size), None).await;
            }
            Step::PutLate | Step::DeleteLate => {
                let keys: Vec<&String> = self.held.keys().collect();
                let Some(key) = self.rng.pick(&keys).map(|key| (*key).clone()) else { return };
                let held = self.held.get(&key).cloned();
                let size = (step == Step::PutLate).then_some(self.demand.value_size);
                self.write(key, size, held).await;
            }
            Step::Read => {
                let key = self.key();
                self.read(&key).await;
            }
            Step::Update | Step::Delete => {
                let key = self.key();
                let Some(held) = self.read(&key).await else { return };
                // Somebody who writes at once hides how the store treats those who take their time.
                if self.rng.chance(100) {
                    sleep(Duration::from_millis(self.rng.below(500))).await;
                }
                let size = (step == Step::Update).then_some(self.demand.value_size);
                if size.is_some() || !held.shown.is_empty() {
                    self.write(key, size, Some(held)).await;
                }
            }
            Step::PutBlind => {
                let key = self.key();
                self.write(key, Some(self.demand.value_size), None).await;
            }
            Step::Sweep => {
                let swept = self.rng.below(self.demand.keys.div_ceil(SWEPT_EVERY));
                self.write(format!("k{}", swept * SWEPT_EVERY), None, None).await;
            }
        }
    }

    fn step(&mut self) -> Step {
        let weights = self.demand.weights;
        let mut drawn = self.rng.below(weights.iter().sum());
        for (step, weight) in STEPS.into_iter().zip(weights) {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return step,
            }
        }
        Step::Read
    }

    fn key(&mut self) -> String {
        let keys = self.demand.keys.max(1);
        let range = if self.rng.chance(100) { HOT_KEYS.min(keys) } else { keys };
        format!("k{}", self.rng.below(range))
    }

    fn level(&mut self) -> Level {
        if !self.rng.chance(self.demand.odd_level_per_mille) {
            return Level::Majority;
        }
        *self.rng.pick(&[Level::One, Level::All, Level::Count(2)]).unwrap_or(&Level::All)
    }

    fn deadline(&mut self) -> Duration {
        Duration::from_millis([300, 1_000, 3_000, 5_000][self.rng.index(4)])
    }

    fn road(&mut self) -> Client {
        if !self.pinned.is_empty() && self.rng.chance(self.demand.pinned_per_mille) {
            return self.pinned[self.rng.index(self.pinned.len())].clone();
        }
        self.free.clone()
    }

    async fn read(&mut self, key: &str) -> Option<Held> {
        let (store, r, deadline) = (self.road(), self.level(), self.deadline());
        let atomic = self.rng.chance(self.demand.atomic_per_mille);
        let wish = ReadWish { key, r, atomic, deadline, is_owed: false };
        let reading = self.chronicle.read(self.number, &store, wish).await.1?;
        let shown = Seen::of(reading.siblings(), reading.is_deleted()).ids();
        let held = Held { context: reading.into_context(), shown };
        self.keep(key, held.clone());
        Some(held)
    }

    /// Writes with a context, or without one.
    async fn write(&mut self, key: String, value_size: Option<usize>, held: Option<Held>) {
        let (store, w, deadline) = (self.road(), self.level(), self.deadline());
        let basis = match &held {
            Some(held) => Basis::Shown(held.shown.clone()),
            None if value_size.is_none() => Basis::WhateverIsThere,
            None => Basis::Shown(BTreeSet::new()),
        };
        let wish = WriteWish { key: &key, value_size, basis, w, deadline };
        let put = |value| match (value, &held) {
            (Some(value), Some(held)) => store.put_with(&held.context, value),
            (Some(value), None) => store.put_blind(&key, value),
            (None, Some(held)) => store.delete_with(&held.context),
            (None, None) => store.delete(&key),
        };
        let (id, receipt) = self.chronicle.write(self.number, wish, put).await;
        let Some(receipt) = receipt else { return };
        if receipt.context.has_seen_nothing() {
            self.held.remove(&key);
            return;
        }
        // Its own value is the only one: then the client has seen everything that this context covers. Otherwise it is the
        // context that was sent, and covers what had been shown with it.
        let mut shown = held.map(|held| held.shown).unwrap_or_default();
        if receipt.siblings == 1 && value_size.is_some() {
            shown.insert(id);
        }
        self.keep(&key, Held { context: receipt.context, shown });
    }

    fn keep(&mut self, key: &str, held: Held) {
        // Sometimes it holds on to the older one: a context may be as old as its client likes.
        if self.held.contains_key(key) && self.rng.chance(300) {
            return;
        }
        if self.held.len() >= HELD_MAX && !self.held.contains_key(key) {
            let keys: Vec<&String> = self.held.keys().collect();
            let dropped = self.rng.pick(&keys).map(|key| (*key).clone());
            dropped.and_then(|key| self.held.remove(&key));
        }
        self.held.insert(key.to_owned(), held);
    }
}
