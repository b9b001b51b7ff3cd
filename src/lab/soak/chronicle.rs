//! The chronicle: what clients did and saw and what was broken, in the order of one clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::{Client, Level, Put, Reading, Receipt, WriteError};
use crate::protocol::time::Moment;
use crate::sim::history::{Action, Basis, Ending, History, Operation, Remains, Seen, WriteId};

/// What clients did and saw so far.
///
/// Times are those of this process: an operation begins before the client library is called and ends after it has answered, so
/// that it took place between the two, whatever the nodes' clocks say. All attempts of an operation are the library's
/// business; here it is one operation with one outcome.
#[derive(Debug)]
pub struct Chronicle {
    begun: Instant,
    owners: usize,
    noted: Mutex<Noted>,
    tally: Tally,
    next_write: AtomicU64,
}

#[derive(Debug, Default)]
struct Noted {
    operations: Vec<Operation>,
    remains: Vec<(Bytes, Remains)>,
    events: Vec<Event>,
    now: String,
}

/// Something that was done to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was done, which is when the lab had finished doing it.
    pub at: Moment,
    /// What, for people.
    pub what: String,
}

#[derive(Debug, Default)]
struct Tally {
    committed: AtomicU64,
    unknown: AtomicU64,
    not_applied: AtomicU64,
    answered: AtomicU64,
    unavailable: AtomicU64,
}

/// How many operations ended how, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Writes that were committed.
    pub committed: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Writes that were not applied.
    pub not_applied: u64,
    /// Reads that were answered.
    pub answered: u64,
    /// Reads that were not.
    pub unavailable: u64,
}

impl Counts {
    /// All operations.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.committed + self.unknown + self.not_applied + self.answered + self.unavailable
    }

    /// Counts the operations of a history.
    #[must_use]
    pub fn of(operations: &[Operation]) -> Counts {
        let tally = Tally::default();
        operations.iter().for_each(|operation| tally.count(&operation.ending));
        tally.counts()
    }
}

impl Tally {
    fn count(&self, ending: &Ending) {
        let count = match ending {
            Ending::Committed(_) => &self.committed,
            Ending::Unknown => &self.unknown,
            Ending::NotApplied => &self.not_applied,
            Ending::Answered(_) => &self.answered,
            Ending::Unavailable => &self.unavailable,
            Ending::Open | Ending::Equal => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            committed: read(&self.committed),
            unknown: read(&self.unknown),
            not_applied: read(&self.not_applied),
            answered: read(&self.answered),
            unavailable: read(&self.unavailable),
        }
    }
}

/// A read, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ReadWish<'a> {
    /// Of which key.
    pub key: &'a str,
    /// How many owners must reply.
    pub r: Level,
    /// Whether a majority must hold what is shown before it is shown.
    pub atomic: bool,
    /// How long it may take.
    pub deadline: Duration,
    /// Whether the cluster owes an answer within the deadline.
    pub is_owed: bool,
}

/// A write, as it is asked for.
#[derive(Clone, Debug)]
pub struct WriteWish<'a> {
    /// Of which key.
    pub key: &'a str,
    /// Which size its value has; `None` for a delete.
    pub value_size: Option<usize>,
    /// What it may supersede: what the client was shown with the context that it sends.
    pub basis: Basis,
    /// How many owners must have it.
    pub w: Level,
    /// How long it may take.
    pub deadline: Duration,
}

impl Chronicle {
    /// The chronicle of a cluster whose keys have this many owners begins now.
    #[must_use]
    pub fn begin(owners: usize) -> Arc<Chronicle> {
        Arc::new(Chronicle {
            begun: Instant::now(),
            owners,
            noted: Mutex::default(),
            tally: Tally::default(),
            next_write: AtomicU64::new(1),
        })
    }

    /// How many operations ended how, so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Microseconds since it began.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Notes that something was done to the cluster.
    pub fn event(&self, what: impl Into<String>) {
        let event = Event { at: self.now(), what: what.into() };
        self.noted().events.push(event);
    }

    /// What is wrong with the cluster now, for people who watch.
    pub fn is_now(&self, what: &str) {
        what.clone_into(&mut self.noted().now);
    }

    /// What is wrong with the cluster now.
    #[must_use]
    pub fn what_is_now(&self) -> String {
        self.noted().now.clone()
    }

    /// Reads through the client library. Gives the place of the operation, for [`remains`](Chronicle::remains).
    pub async fn read(&self, client: u32, store: &Client, wish: ReadWish<'_>) -> (usize, Option<Reading>) {
        let ReadWish { key, r, atomic, deadline, is_owed } = wish;
        let invoked = self.now();
        let get = store.get(key).r(r).deadline(deadline);
        let result = if atomic { get.atomic().await } else { get.await };
        let ending = match &result {
            Ok(reading) => Ending::Answered(Seen::of(reading.siblings(), reading.is_deleted())),
            Err(_) => Ending::Unavailable,
        };
        // The client itself needs a moment to give up.
        let owed_by = is_owed.then(|| invoked + deadline + Duration::from_secs(1));
        (self.note(client, key, Action::Read { r, atomic }, (invoked, owed_by), ending, 1), result.ok())
    }

    /// Writes through the client library: `put` makes the request of the value, or of none for a delete.
    pub async fn write(
        &self,
        client: u32,
        wish: WriteWish<'_>,
        put: impl FnOnce(Option<Bytes>) -> Put,
    ) -> (WriteId, Option<Receipt>) {
        let WriteWish { key, value_size, basis, w, deadline } = wish;
        let id = WriteId(self.next_write.fetch_add(1, Ordering::Relaxed));
        let invoked = self.now();
        let result = put(value_size.map(|size| id.to_sized_value(size))).w(w).deadline(deadline).await;
        let (ending, attempts) = match &result {
            Ok(receipt) => (Ending::Committed(receipt.dot), receipt.attempt),
            Err(WriteError::Unknown(unsettled)) => (Ending::Unknown, unsettled.attempts),
            Err(WriteError::NotApplied { .. }) => (Ending::NotApplied, 1),
        };
        let action = Action::Write { id, deletes: value_size.is_none(), basis, w, sloppy: false };
        self.note(client, key, action, (invoked, None), ending, attempts);
        (id, result.ok())
    }

    fn note(
        &self,
        client: u32,
        key: &str,
        action: Action,
        (invoked, owed_by): (Moment, Option<Moment>),
        ending: Ending,
        attempts: u32,
    ) -> usize {
        let ended = self.now();
        self.tally.count(&ending);
        let key = Bytes::copy_from_slice(key.as_bytes());
        let mut noted = self.noted();
        noted.operations.push(Operation { client, key, action, invoked, ended, ending, attempts, owed_by });
        noted.operations.len() - 1
    }

    /// What remained of a key at the end; `read` counts operations as [`read`](Chronicle::read) does.
    pub fn remains(&self, key: &str, remains: Remains) {
        self.noted().remains.push((Bytes::copy_from_slice(key.as_bytes()), remains));
    }

    /// All keys that anybody read or wrote.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let noted = self.noted();
        let mut keys: Vec<&Bytes> = noted.operations.iter().map(|operation| &operation.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    /// Ends the chronicle: everything that clients saw, in the order in which it began, and what was done to the cluster.
    #[must_use]
    pub fn close(&self) -> (History, Vec<Event>) {
        let Noted { operations, remains, events, .. } = std::mem::take(&mut *self.noted());
        // Operations were noted as they ended; the judges want them as they began, and the places of the last reads with
        // them.
        let mut order: Vec<(usize, Operation)> = operations.into_iter().enumerate().collect();
        order.sort_by_key(|(_, operation)| operation.invoked);
        let mut place = vec![0; order.len()];
        for (now, (before, _)) in order.iter().enumerate() {
            place[*before] = now;
        }
        let moved =
            |(key, remains): (Bytes, Remains)| (key, Remains { read: place[remains.read], ..remains });
        let history = History {
            hints: Vec::new(),
            owners: self.owners,
            // The nodes of one machine have one clock.
            lost_disks: Vec::new(),
            retries_are_exact: true,
            reaped: None,
            remains: remains.into_iter().map(moved).collect(),
            operations: order.into_iter().map(|(_, operation)| operation).collect(),
        };
        (history, events)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        // What is noted under the lock is whole even if somebody panicked with it.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
