//! Histories made by hand.

use std::ops::Range;

use bytes::Bytes;

use super::super::history::{Action, Basis, Ending, History, Operation, Remains, Seen, WriteId};
use crate::protocol::causality::{Applied, Change, Dot, OperationId, Put, Record};
use crate::protocol::config::Limits;
use crate::protocol::id::{Actor, NodeId};
use crate::protocol::time::{Moment, Timestamp, WallTime};
use crate::protocol::wire::client::Level;

/// A history under construction, on one key at a time, by a client of its own for each operation.
pub(super) struct Story {
    pub(super) history: History,
    key: Bytes,
}

impl Story {
    pub(super) fn new(owners: usize) -> Story {
        let history = History { owners, retries_are_exact: true, ..History::default() };
        Story { history, key: Bytes::from_static(b"k") }
    }

    /// From here on another key.
    pub(super) fn on(&mut self, key: &'static str) -> &mut Story {
        self.key = Bytes::from_static(key.as_bytes());
        self
    }

    pub(super) fn put(&mut self, id: u64, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.put_of(Level::Majority, id, shown, when)
    }

    pub(super) fn put_of(&mut self, w: Level, id: u64, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.write(id, false, basis(shown), w, when, Ending::Committed(Some(dot(id))))
    }

    /// Hints counted for the write that was added last.
    pub(super) fn sloppy(&mut self) -> &mut Story {
        if let Some(Operation { action: Action::Write { sloppy, .. }, .. }) =
            self.history.operations.last_mut()
        {
            *sloppy = true;
        }
        self
    }

    pub(super) fn unknown_put(&mut self, id: u64, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.write(id, false, basis(shown), Level::Majority, when, Ending::Unknown)
    }

    pub(super) fn failed_put(&mut self, id: u64, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.write(id, false, basis(shown), Level::Majority, when, Ending::NotApplied)
    }

    /// A put with a context that is none of its key.
    pub(super) fn wrong_put(&mut self, id: u64, when: Range<u64>, ending: Ending) -> &mut Story {
        self.write(id, false, Basis::Nothing, Level::Majority, when, ending)
    }

    pub(super) fn delete(&mut self, id: u64, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.write(id, true, basis(shown), Level::Majority, when, Ending::Committed(None))
    }

    /// A delete without a context.
    pub(super) fn sweep(&mut self, id: u64, when: Range<u64>) -> &mut Story {
        self.write(id, true, Basis::WhateverIsThere, Level::Majority, when, Ending::Committed(None))
    }

    pub(super) fn read(&mut self, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.read_of(Level::Majority, shown, when)
    }

    pub(super) fn read_of(&mut self, r: Level, shown: &[u64], when: Range<u64>) -> &mut Story {
        let values = shown.iter().map(|id| (WriteId(*id), dot(*id))).collect();
        self.add(
            Action::Read { r, atomic: false },
            when,
            Ending::Answered(Seen { values, ..Seen::default() }),
        )
    }

    pub(super) fn atomic_read(&mut self, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.atomic_read_of(Level::Majority, shown, when)
    }

    pub(super) fn atomic_read_of(&mut self, r: Level, shown: &[u64], when: Range<u64>) -> &mut Story {
        self.read_of(r, shown, when);
        if let Some(last) = self.history.operations.last_mut() {
            last.action = Action::Read { r, atomic: true };
        }
        self
    }

    /// The read of all owners at the end.
    pub(super) fn remains(&mut self, shown: &[u64]) -> &mut Story {
        self.read_of(Level::All, shown, 1_000..1_010);
        let read = self.history.operations.len() - 1;
        self.history.remains.insert(self.key.clone(), Remains { read, owners: Vec::new() });
        self
    }

    /// What each owner holds then.
    pub(super) fn held(&mut self, owners: &[&[u64]]) -> &mut Story {
        if let Some(remains) = self.history.remains.get_mut(&self.key) {
            remains.owners = (1_u64..)
                .zip(owners)
                .map(|(node, ids)| {
                    let pairs: Vec<_> = ids.iter().map(|id| (*id, *id)).collect();
                    (NodeId(node), Some((!pairs.is_empty()).then(|| record(&pairs))))
                })
                .collect();
        }
        self
    }

    fn write(
        &mut self,
        id: u64,
        deletes: bool,
        basis: Basis,
        w: Level,
        when: Range<u64>,
        ending: Ending,
    ) -> &mut Story {
        self.add(Action::Write { id: WriteId(id), deletes, basis, w, sloppy: false }, when, ending)
    }

    fn add(&mut self, action: Action, when: Range<u64>, ending: Ending) -> &mut Story {
        self.history.operations.push(Operation {
            client: self.history.operations.len() as u32,
            key: self.key.clone(),
            action,
            invoked: Moment(when.start),
            ended: Moment(when.end),
            ending,
            attempts: 1,
            owed_by: None,
        });
        self
    }
}

fn basis(shown: &[u64]) -> Basis {
    Basis::Shown(shown.iter().map(|id| WriteId(*id)).collect())
}

/// The dot with this number. Each hundred is an actor of its own.
pub(in crate::sim) fn dot(number: u64) -> Dot {
    Dot { actor: Actor(1 + number / 100), at: Timestamp(number) }
}

/// A record with these siblings: numbers of dots and of values. Each is an operation of its own.
pub(in crate::sim) fn record(siblings: &[(u64, u64)]) -> Record {
    let siblings: Vec<_> = siblings.iter().map(|&(number, value)| (number, value, number)).collect();
    record_of(&siblings)
}

/// A record with these siblings: numbers of dots, of values and of operations.
pub(in crate::sim) fn record_of(siblings: &[(u64, u64, u64)]) -> Record {
    siblings.iter().fold(Record::default(), |record, &(number, value, operation)| {
        written(&record, &put(number, Some(value), operation, &[]))
    })
}

/// A put under these numbers, with a context that covers these dots.
pub(in crate::sim) fn put(number: u64, value: Option<u64>, operation: u64, covered: &[u64]) -> Put {
    Put {
        context: covered.iter().map(|number| dot(*number)).collect(),
        dot: dot(number),
        value: value.map(|value| WriteId(value).to_value()),
        operation: OperationId { started: WallTime(1), nonce: operation },
        base: Some(Record::default()),
        limits: Limits::default(),
    }
}

/// What the put makes of a record.
pub(in crate::sim) fn written(record: &Record, put: &Put) -> Record {
    match Record::apply(&Change::Put(put.clone()), Some(record)) {
        Applied::Changed { record, .. } => record,
        other => panic!("{other:?}"),
    }
}
