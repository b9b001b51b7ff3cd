//! The end of a soak: what remains of every key, read from all of its owners.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_std::task::{sleep, spawn};

use super::chronicle::{Chronicle, ReadWish};
use crate::client::{Client, Level};
use crate::sim::history::Remains;

/// Keys read at a time.
const READERS: usize = 16;

/// A healed cluster owes every last read an answer within this.
pub const OWED_WITHIN: Duration = Duration::from_secs(60);

/// How long owners may take to become equal once they were read.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);

/// The client of the last reads in the history.
const READER: u32 = 0;

/// Reads every key of the chronicle from all of its owners, twice, and asks each owner what it holds. The second reading says
/// what remains: the repair behind the first one has converged the owners, which is then seen from what they hold.
///
/// A key that is not answered for within `owed_within` is noted as owed and not given, for the judge of liveness.
pub async fn read_all(chronicle: &Arc<Chronicle>, store: &Client, owed_within: Duration) {
    let keys = Arc::new(chronicle.keys());
    let next = Arc::new(AtomicUsize::new(0));
    let reader = |_| {
        let (chronicle, store) = (Arc::clone(chronicle), store.clone());
        let (keys, next) = (Arc::clone(&keys), Arc::clone(&next));
        spawn(async move {
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                read_one(&chronicle, &store, key, owed_within).await;
            }
        })
    };
    let readers: Vec<_> = (0..READERS).map(reader).collect();
    for reader in readers {
        reader.await;
    }
}

async fn read_one(chronicle: &Chronicle, store: &Client, key: &str, owed_within: Duration) {
    let wish = ReadWish { key, r: Level::All, atomic: false, deadline: owed_within, is_owed: true };
    if chronicle.read(READER, store, wish).await.1.is_none() {
        return;
    }
    let (read, Some(_)) = chronicle.read(READER, store, wish).await else { return };
    // Repair runs behind the answer: owners are equal soon, not at once.
    let deadline = Instant::now() + EQUAL_WITHIN;
    let owners = loop {
        let held: Vec<_> = match store.explain(key).await {
            Ok(held) => held.replicas.into_iter().map(|r| (r.node, r.record.ok())).collect(),
            Err(_) => Vec::new(),
        };
        let is_equal = held.iter().all(|(_, record)| record.is_some() && *record == held[0].1);
        if is_equal && !held.is_empty() || Instant::now() > deadline {
            break held;
        }
        sleep(Duration::from_millis(20)).await;
    };
    chronicle.remains(key, Remains { read, owners });
}
