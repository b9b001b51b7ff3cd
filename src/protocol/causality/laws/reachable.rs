//! Records that can really come about: a few replicas, clients that only hold contexts that they were shown, retries
//! of one operation through other coordinators, and merges in any order.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::naive::NaiveRecord;
use crate::protocol::causality::{Age, Applied, Change, Dot, OperationId, Put, Record, VersionVector};
use crate::protocol::codec;
use crate::protocol::config::Limits;
use crate::protocol::id::Actor;
use crate::protocol::time::{Timestamp, WallTime};

pub(super) const REPLICAS: usize = 3;
pub(super) const CLIENTS: usize = 2;

/// One event of a run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A client reads from two replicas (or twice from one).
    Read { client: usize, replicas: [usize; 2] },
    /// A client writes with the context that it was last given.
    Write { client: usize, replica: usize },
    /// A write without a context.
    Blind { replica: usize },
    /// Another attempt of an earlier operation (counted back from the last), perhaps on top of what another replica
    /// holds.
    Retry { back: usize, replica: usize, base: Option<usize> },
    /// One replica's record reaches another.
    Merge { from: usize, to: usize },
    /// A replica starts again, under a new actor.
    Restart { replica: usize },
}

#[derive(Clone)]
struct Replica {
    actor: Actor,
    record: Record,
    naive: NaiveRecord,
}

/// What a client was last shown: as the real context, and as the set of events that it stands for.
#[derive(Clone, Default)]
struct Shown {
    context: VersionVector,
    history: BTreeSet<Dot>,
}

#[derive(Clone)]
struct Operation {
    id: OperationId,
    value: Option<Bytes>,
    shown: Shown,
}

/// A run so far. Every step is taken by the real record and by the naive one.
#[derive(Clone)]
pub(super) struct World {
    /// Milliseconds between the starts of two operations.
    pace: u64,
    /// Whether the oracle watches.
    watched: bool,
    replicas: Vec<Replica>,
    clients: Vec<Shown>,
    operations: Vec<Operation>,
    issued: BTreeSet<Dot>,
    actors: u64,
    /// Every different record that a replica held or a reader saw.
    snapshots: Vec<Record>,
}

impl World {
    /// Operations start one millisecond apart: all stay within the window for as long as there are at most 64.
    pub(super) fn new() -> World {
        World { watched: true, ..World::at_pace(1) }
    }

    /// A world in which operations may fall out of the window, where the oracle, which forgets nothing, is silent.
    pub(super) fn at_pace(pace: u64) -> World {
        let replica =
            |n| Replica { actor: Actor(n), record: Record::default(), naive: NaiveRecord::default() };
        World {
            pace,
            watched: false,
            replicas: (1..=REPLICAS as u64).map(replica).collect(),
            clients: vec![Shown::default(); CLIENTS],
            operations: Vec::new(),
            issued: BTreeSet::new(),
            actors: REPLICAS as u64,
            snapshots: vec![Record::default()],
        }
    }

    pub(super) fn snapshots(&self) -> &[Record] {
        &self.snapshots
    }

    pub(super) fn issued(&self) -> &BTreeSet<Dot> {
        &self.issued
    }

    pub(super) fn record(&self, replica: usize) -> &Record {
        &self.replicas[replica].record
    }

    /// Everything that decides how the run can go on and what it has shown so far.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let mut snapshots: Vec<Vec<u8>> = self.snapshots.iter().map(codec::encode).collect();
        snapshots.sort_unstable();
        let replicas: Vec<(Actor, &Record)> = self.replicas.iter().map(|r| (r.actor, &r.record)).collect();
        let clients: Vec<&VersionVector> = self.clients.iter().map(|shown| &shown.context).collect();
        let operations: Vec<(OperationId, &VersionVector)> =
            self.operations.iter().map(|operation| (operation.id, &operation.shown.context)).collect();
        codec::encode(&(snapshots, replicas, clients, operations))
    }

    /// Takes one step. Panics if the real record and the oracle come apart.
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Read { client, replicas: [a, b] } => {
                let record = self.replicas[a].record.merged(&self.replicas[b].record);
                let mut naive = self.replicas[a].naive.clone();
                naive.merge(&self.replicas[b].naive);
                self.compare(&record, &naive);
                self.clients[client] = Shown { context: record.context().clone(), history: naive.seen };
                self.keep(record);
            }
            Step::Write { client, replica } => {
                let operation = self.start(self.clients[client].clone());
                if let Some(shown) = self.put(&operation, replica, None) {
                    self.clients[client] = shown;
                }
            }
            Step::Blind { replica } => {
                let operation = self.start(Shown::default());
                self.put(&operation, replica, None);
            }
            Step::Retry { back, replica, base } => {
                let count = self.operations.len();
                if let Some(operation) = self.operations.get(count.wrapping_sub(1 + back)).cloned() {
                    self.put(&operation, replica, base);
                }
            }
            Step::Merge { from, to } => {
                let (record, naive) = (self.replicas[from].record.clone(), self.replicas[from].naive.clone());
                let to = &mut self.replicas[to];
                let change = Change::Merge { record, own: to.actor, age: Age::default() };
                let merged = match Record::apply(&change, Some(&to.record)) {
                    Applied::Changed { record, amnesia: false } => record,
                    Applied::Unchanged { record } => {
                        assert_eq!(record, to.record);
                        record
                    }
                    other => panic!("a merge came out as {other:?}"),
                };
                to.record = merged.clone();
                to.naive.merge(&naive);
                let naive = to.naive.clone();
                self.compare(&merged, &naive);
                self.keep(merged);
            }
            Step::Restart { replica } => {
                self.actors += 1;
                self.replicas[replica].actor = Actor(self.actors);
            }
        }
    }

    fn start(&mut self, shown: Shown) -> Operation {
        let number = self.operations.len() as u64;
        let id = OperationId { started: WallTime(number * self.pace), nonce: number };
        // Every third operation is a deletion.
        let value = (number % 3 != 2).then(|| Bytes::from(format!("value {number}")));
        let operation = Operation { id, value, shown };
        self.operations.push(operation.clone());
        operation
    }

    /// One attempt of an operation. Gives back what the client may be shown afterwards: the context of the record, if
    /// the client's own sibling is the only one.
    fn put(&mut self, operation: &Operation, replica: usize, base: Option<usize>) -> Option<Shown> {
        let base = base.map(|base| (self.replicas[base].record.clone(), self.replicas[base].naive.clone()));
        let at = &mut self.replicas[replica];
        let dot = Dot { actor: at.actor, at: Timestamp(at.record.context().get(at.actor).0 + 1) };
        let put = Put {
            context: operation.shown.context.clone(),
            dot,
            value: operation.value.clone(),
            operation: operation.id,
            base: Some(base.as_ref().map(|(record, _)| record.clone()).unwrap_or_default()),
            age: Age::default(),
            limits: Limits { siblings_max: usize::MAX, ..Limits::default() },
        };
        if let Some((_, naive)) = &base {
            at.naive.merge(naive);
        }
        let (record, dot) = match Record::apply(&Change::Put(put), Some(&at.record)) {
            Applied::Changed { record, amnesia: false } => {
                assert!(self.issued.insert(dot), "a dot was used twice");
                at.naive.put(&operation.shown.history, dot, operation.value.clone(), operation.id);
                (record, dot)
            }
            Applied::Adopted { record, dot, changed, amnesia: false } => {
                assert_eq!(changed, record != at.record);
                if self.watched {
                    assert_eq!(at.naive.find(operation.id), Some(dot));
                }
                (record, dot)
            }
            other => panic!("a put came out as {other:?}"),
        };
        at.record = record.clone();
        let naive = at.naive.clone();
        self.compare(&record, &naive);
        let only = matches!(record.siblings(), [sibling] if sibling.dot == dot);
        let shown = Shown { context: record.context().clone(), history: naive.seen };
        self.keep(record);
        only.then_some(shown)
    }

    fn compare(&self, record: &Record, naive: &NaiveRecord) {
        if self.watched {
            naive.assert_tells_the_same(record, &self.issued);
        }
    }

    fn keep(&mut self, record: Record) {
        if !self.snapshots.contains(&record) {
            self.snapshots.push(record);
        }
    }
}
