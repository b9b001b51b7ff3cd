//! Clients that write, and the chronicle of what they did and saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_std::task::{JoinHandle, block_on, spawn};
use bytes::Bytes;
use starling::client::{Client, Context, Level, Put, Reading, WriteError};
use starling::protocol::rng::Rng;
use starling::protocol::time::Moment;
use starling::sim::history::{Action, Basis, Ending, History, Operation, Remains, Seen, WriteId};

/// Clients at work at a time.
const WORKERS: u32 = 8;

/// Keys that all clients write.
const SHARED_KEYS: u64 = 200;

/// Of them those that are written much more often.
const HOT_KEYS: u64 = 4;

/// Keys read at a time at the end.
const READERS: usize = 16;

/// What clients did and saw so far.
pub(crate) struct Chronicle {
    begun: Instant,
    operations: Mutex<Vec<Operation>>,
    acknowledged: AtomicUsize,
    next_write: AtomicU64,
}

impl Chronicle {
    pub(crate) fn begin() -> Arc<Chronicle> {
        Arc::new(Chronicle {
            begun: Instant::now(),
            operations: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            next_write: AtomicU64::new(1),
        })
    }

    /// How many writes were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.begun.elapsed().as_micros()).unwrap())
    }

    fn note(&self, client: u32, key: &str, action: Action, invoked: Moment, ending: Ending) -> usize {
        if matches!(ending, Ending::Committed(_)) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let mut operations = self.operations.lock().unwrap();
        operations.push(Operation {
            client,
            key: Bytes::copy_from_slice(key.as_bytes()),
            action,
            invoked,
            ended: self.now(),
            ending,
            attempts: 1,
            owed_by: None,
        });
        operations.len() - 1
    }

    async fn read(&self, client: u32, store: &Client, key: &str, r: Level) -> (usize, Option<Reading>) {
        let invoked = self.now();
        let result = store.get(key).r(r).await;
        let ending = match &result {
            Ok(reading) => Ending::Answered(Seen::of(reading.siblings(), reading.is_deleted())),
            Err(_) => Ending::Unavailable,
        };
        (self.note(client, key, Action::Read { r, atomic: false }, invoked, ending), result.ok())
    }

    async fn write(
        &self,
        client: u32,
        key: &str,
        shown: BTreeSet<WriteId>,
        put: impl FnOnce(Option<Bytes>) -> Put,
        deletes: bool,
    ) {
        let id = WriteId(self.next_write.fetch_add(1, Ordering::Relaxed));
        let invoked = self.now();
        let ending = match put((!deletes).then(|| id.to_value())).await {
            Ok(receipt) => Ending::Committed(receipt.dot),
            Err(WriteError::Unknown(_)) => Ending::Unknown,
            Err(WriteError::NotApplied { .. }) => Ending::NotApplied,
        };
        let action = Action::Write { id, deletes, basis: Basis::Shown(shown), w: Level::Majority };
        self.note(client, key, action, invoked, ending);
    }

    /// Reads every key from all of its owners, twice, and gives the whole history to judge. The second reading says what
    /// remains: the repair behind the first one has converged the owners, which `explain` must then show.
    pub(crate) async fn finish(self: &Arc<Chronicle>, store: &Client) -> History {
        let keys: BTreeSet<Bytes> = self.operations.lock().unwrap().iter().map(|o| o.key.clone()).collect();
        let keys: Vec<String> = keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
        let mut remains: BTreeMap<Bytes, Remains> = BTreeMap::new();
        for some in keys.chunks(READERS) {
            let readings: Vec<JoinHandle<(String, usize)>> = some
                .iter()
                .cloned()
                .map(|key| {
                    let (chronicle, store) = (Arc::clone(self), store.clone());
                    spawn(async move {
                        loop {
                            if let (at, Some(_)) = chronicle.read(0, &store, &key, Level::All).await {
                                return (key, at);
                            }
                        }
                    })
                })
                .collect();
            for reading in readings {
                let (key, read) = reading.await;
                remains.insert(Bytes::from(key), Remains { read, owners: Vec::new() });
            }
        }
        for (key, remains) in &mut remains {
            // Repair runs behind the answer: owners are equal soon, not at once.
            let deadline = Instant::now() + super::program::PATIENCE;
            loop {
                let held = store.explain(key).await.unwrap();
                let held: Vec<_> = held.replicas.into_iter().map(|r| (r.node, r.record.ok())).collect();
                let is_equal = held.iter().all(|(_, record)| record.is_some() && *record == held[0].1);
                remains.owners = held;
                if is_equal || Instant::now() > deadline {
                    break;
                }
            }
        }
        let mut operations = std::mem::take(&mut *self.operations.lock().unwrap());
        // The judges want them in the order of their beginning, and the places of the last reads with them.
        let mut order: Vec<usize> = (0..operations.len()).collect();
        order.sort_by_key(|at| operations[*at].invoked);
        let mut place = vec![0; order.len()];
        for (now, before) in order.iter().enumerate() {
            place[*before] = now;
        }
        for remains in remains.values_mut() {
            remains.read = place[remains.read];
        }
        operations.sort_by_key(|operation| operation.invoked);
        History { owners: 3, operations, retries_are_exact: true, remains }
    }
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(client: &Client, chronicle: &Arc<Chronicle>, rng: &mut Rng) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let work = |number| {
            let (client, chronicle, stop) = (client.clone(), Arc::clone(chronicle), Arc::clone(&stop));
            let rng = rng.fork();
            spawn(async move { work(number, client, chronicle, rng, stop).await })
        };
        let workers = (1..=WORKERS).map(work).collect();
        Load { stop, workers }
    }

    /// Lets everybody finish what they are at.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            block_on(worker);
        }
    }
}

async fn work(me: u32, store: Client, chronicle: Arc<Chronicle>, mut rng: Rng, stop: Arc<AtomicBool>) {
    let mut fresh = 0;
    while !stop.load(Ordering::Relaxed) {
        if rng.chance(100) {
            // A key of its own, written once.
            fresh += 1;
            let key = format!("c{me}-{fresh}");
            let put = |value: Option<Bytes>| store.put_blind(&key, value.unwrap());
            chronicle.write(me, &key, BTreeSet::new(), put, false).await;
            continue;
        }
        let range = if rng.chance(200) { HOT_KEYS } else { SHARED_KEYS };
        let key = format!("shared-{}", rng.below(range));
        let (_, Some(reading)) = chronicle.read(me, &store, &key, Level::Majority).await else { continue };
        let shown = Seen::of(reading.siblings(), false).ids();
        let seen: Context = reading.into_context();
        let deletes = rng.chance(50) && !shown.is_empty();
        let put = |value: Option<Bytes>| match value {
            Some(value) => store.put_with(&seen, value),
            None => store.delete_with(&seen),
        };
        chronicle.write(me, &key, shown, put, deletes).await;
    }
}
