//! What clients did and saw: the evidence that the judges work with.
//!
//! A history holds client-visible facts only, so that the same judges serve the simulator and a real cluster. The
//! central one is what a client was **shown**: a write may supersede a value only if its client had been shown that
//! value and sent the context that it got with it. Contexts prove nothing: a context that covers too much is exactly
//! the kind of bug that loses acknowledged writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use crate::protocol::causality::{Dot, Record, Sibling};
use crate::protocol::id::NodeId;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::Level;

/// Names one write operation of a history, deletes included; a put's value says which one it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

impl WriteId {
    /// The value that the write puts.
    #[must_use]
    pub fn to_value(self) -> Bytes {
        Bytes::from(format!("v{}", self.0))
    }

    /// The same, padded to a size; without padding if it is as large by itself. The size is part of the value, so that one that
    /// lost some of its bytes is nobody's.
    #[must_use]
    pub fn to_sized_value(self, size: usize) -> Bytes {
        let mut value = format!("v{}/{size}/", self.0).into_bytes();
        if value.len() > size {
            return self.to_value();
        }
        value.resize(size, b'.');
        Bytes::from(value)
    }

    /// The value that the write of a scenario puts: `v3=apple`.
    #[must_use]
    pub fn to_value_with(self, word: &str) -> Bytes {
        Bytes::from(format!("{self}={word}"))
    }

    /// The word in such a value; of another value the whole.
    #[must_use]
    pub fn word_of(value: &[u8]) -> String {
        let text = String::from_utf8_lossy(value);
        match text.split_once('=') {
            Some((id, word)) if WriteId::of_value(id.as_bytes()).is_some() => word.to_owned(),
            _ => text.into_owned(),
        }
    }

    /// Which write put this value, if any of a history did.
    #[must_use]
    pub fn of_value(value: &[u8]) -> Option<WriteId> {
        let text = std::str::from_utf8(value).ok()?.strip_prefix('v')?;
        // A scenario's writes have a word for people behind their number.
        if let Some((Ok(id), _)) = text.split_once('=').map(|(id, word)| (id.parse(), word)) {
            return Some(WriteId(id));
        }
        let Some((id, rest)) = text.split_once('/') else { return text.parse().ok().map(WriteId) };
        let (size, padding) = rest.split_once('/')?;
        let is_whole = size.parse() == Ok(value.len()) && padding.bytes().all(|byte| byte == b'.');
        id.parse().ok().filter(|_| is_whole).map(WriteId)
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Everything that clients did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// How many owners each key has: the smaller of the replicas and the nodes.
    pub owners: usize,
    /// All operations, in the order in which they were invoked.
    pub operations: Vec<Operation>,
    /// Whether operations have exactly one effect however often they are attempted: not while the clocks of the nodes disagree by
    /// more than the lifetime of an operation id, which is how long nodes remember them.
    pub retries_are_exact: bool,
    /// When which machine lost its disk. Of what was done before then only what a majority acknowledged, or an atomic read
    /// showed, is owed without exception: the rest may have been on that disk alone.
    pub lost_disks: Vec<(Moment, usize)>,
    /// How many hints each node still kept when all was over and they had had their time; only the nodes that told.
    pub hints: Vec<(String, u64)>,
    /// For keys that were read from all owners at the end, after healing: what remained.
    pub remains: BTreeMap<Bytes, Remains>,
    /// Of each key the dots that a certified round of reaping has forgotten: no record needs to know of them. `None` if
    /// nobody saw the rounds.
    pub reaped: Option<BTreeMap<Bytes, BTreeSet<Dot>>>,
}

/// One operation of a client, over all of its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who.
    pub client: u32,
    /// On what.
    pub key: Bytes,
    /// What it asked for.
    pub action: Action,
    /// When its first attempt left.
    pub invoked: Moment,
    /// When the client had its answer or gave up; [`Moment::NEVER`] while it waits.
    pub ended: Moment,
    /// How it ended.
    pub ending: Ending,
    /// How many attempts were made.
    pub attempts: u32,
    /// Set if the cluster owed it success by then: see [`liveness`](super::invariants::liveness).
    pub owed_by: Option<Moment>,
}

/// What an operation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store or delete.
    Write {
        /// Which write it is.
        id: WriteId,
        /// Whether it is a delete.
        deletes: bool,
        /// What it may supersede.
        basis: Basis,
        /// How many owners must have it.
        w: Level,
        /// Whether hints may have stood in for some of them. Not if it was answered that enough owners have it.
        sloppy: bool,
    },
    /// Fetch.
    Read {
        /// How many owners must reply.
        r: Level,
        /// Whether a majority must hold what is shown before it is shown.
        atomic: bool,
    },
    /// Compare what the owners hold.
    Compare,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Write { id, deletes, basis, w, sloppy } => {
                let what = if *deletes { "the delete" } else { "the put" };
                write!(f, "{what} {id} (w={w:?}{}, ", if *sloppy { ", sloppy" } else { "" })?;
                match basis {
                    Basis::Shown(shown) if shown.is_empty() => write!(f, "blind)"),
                    Basis::Shown(shown) => write!(f, "after {shown:?})"),
                    Basis::WhateverIsThere => write!(f, "of whatever is there)"),
                    Basis::Nothing => write!(f, "with a context that must be refused)"),
                }
            }
            Action::Read { r, atomic } => {
                write!(f, "the {}read (r={r:?})", if *atomic { "atomic " } else { "" })
            }
            Action::Compare => write!(f, "the comparison of all owners"),
        }
    }
}

/// What a write may supersede.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The values that the client was shown together with the context that it sends; none for a blind put.
    Shown(BTreeSet<WriteId>),
    /// A delete without a context reads first, out of sight, and deletes what it read.
    WhateverIsThere,
    /// Nothing: the client sends a context of another key, or a damaged one, and the write must be refused.
    Nothing,
}

/// How an operation ended, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has not.
    Open,
    /// A write is on as many disks as were asked for. With its dot, if the answer told it.
    Committed(Option<Dot>),
    /// A write may have happened, may still happen, or may not.
    Unknown,
    /// A write never happened and never will: every attempt was refused before anything was logged.
    NotApplied,
    /// A read was answered.
    Answered(Seen),
    /// A read was not answered, by too few owners or in time.
    Unavailable,
    /// All owners were found to hold the same.
    Equal,
}

/// What a read showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The values and their dots.
    pub values: Vec<(WriteId, Dot)>,
    /// Values that no client ever wrote.
    pub foreign: Vec<Bytes>,
    /// Whether the answer said that the key was deleted.
    pub deleted: bool,
}

impl Seen {
    /// What these siblings show.
    #[must_use]
    pub fn of(siblings: &[Sibling], deleted: bool) -> Seen {
        let mut seen = Seen { deleted, ..Seen::default() };
        for sibling in siblings {
            match sibling.value.as_ref().map(|value| (value, WriteId::of_value(value))) {
                Some((_, Some(id))) => seen.values.push((id, sibling.dot)),
                Some((value, None)) => seen.foreign.push(value.clone()),
                None => {}
            }
        }
        seen
    }

    /// The values alone.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<WriteId> {
        self.values.iter().map(|(id, _)| *id).collect()
    }
}

/// What remained of a key at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The operation that read it from all owners, by its place in the history.
    pub read: usize,
    /// What each owner held, as far as it said.
    pub owners: Vec<(NodeId, Option<Option<Record>>)>,
}

/// One write of a history, with its place in it.
#[derive(Clone, Copy, Debug)]
pub struct WriteOf<'a> {
    /// Its place in the history.
    pub index: usize,
    /// The operation.
    pub operation: &'a Operation,
    /// Which write it is.
    pub id: WriteId,
    /// Whether it deletes.
    pub deletes: bool,
    /// What it may supersede.
    pub basis: &'a Basis,
    /// How many owners must have it.
    pub w: Level,
    /// Whether hints may have stood in for some of them.
    pub sloppy: bool,
}

impl WriteOf<'_> {
    /// Whether it may have happened: it was not refused, and did not have to be.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.operation.ending != Ending::NotApplied && *self.basis != Basis::Nothing
    }

    /// Whether the client was told that it happened.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        matches!(self.operation.ending, Ending::Committed(_))
    }
}

impl Operation {
    /// Its part as a write, if it is one.
    #[must_use]
    pub fn as_write(&self, index: usize) -> Option<WriteOf<'_>> {
        match &self.action {
            Action::Write { id, deletes, basis, w, sloppy } => Some(WriteOf {
                index,
                operation: self,
                id: *id,
                deletes: *deletes,
                basis,
                w: *w,
                sloppy: *sloppy,
            }),
            _ => None,
        }
    }

    /// What it was shown, and from how many owners, if it is a read that was answered.
    #[must_use]
    pub fn as_answered(&self) -> Option<(Level, &Seen)> {
        match (&self.action, &self.ending) {
            (Action::Read { r, .. }, Ending::Answered(seen)) => Some((*r, seen)),
            _ => None,
        }
    }

    /// What it was shown, if it is an atomic read that was answered.
    #[must_use]
    pub fn as_atomic(&self) -> Option<&Seen> {
        match (&self.action, &self.ending) {
            (Action::Read { atomic: true, .. }, Ending::Answered(seen)) => Some(seen),
            _ => None,
        }
    }
}

impl History {
    /// Whether a certified round of reaping may have forgotten this dot.
    #[must_use]
    pub fn may_be_reaped(&self, key: &Bytes, dot: Dot) -> bool {
        let of_key = self.reaped.as_ref().map(|reaped| reaped.get(key));
        of_key.is_none_or(|reaped| reaped.is_some_and(|dots| dots.contains(&dot)))
    }

    /// How many machines lost their disk then or later.
    fn disks_lost_since(&self, since: Moment) -> usize {
        let lost = self.lost_disks.iter().filter(|(at, _)| *at >= since);
        lost.map(|(_, machine)| machine).collect::<BTreeSet<_>>().len()
    }

    /// What is owed of this history: a write that fewer than a majority of owners acknowledged may have happened or not if
    /// as many machines have lost their disks since as had it.
    #[must_use]
    pub fn owed(&self) -> History {
        let mut owed = self.clone();
        let majority = Level::Majority.of(self.owners);
        for operation in owed.operations.iter_mut() {
            if let (Action::Write { w, sloppy, .. }, Ending::Committed(_)) =
                (&operation.action, &operation.ending)
                && (*sloppy || w.of(self.owners) < majority)
                && self.disks_lost_since(operation.invoked) >= w.of(self.owners)
            {
                operation.ending = Ending::Unknown;
            }
        }
        owed
    }

    /// Whether what this read showed of a write has happened for good, given whether the write was committed.
    #[must_use]
    pub fn shows_for_good(&self, read: &Operation, is_committed: bool) -> bool {
        self.disks_lost_since(read.invoked) == 0 || is_committed || read.as_atomic().is_some()
    }

    /// So many owners acknowledged a write: if they are as many as it asked for, no hint stood in for any.
    pub fn acknowledged(&mut self, index: usize, acks: usize) {
        let owners = self.owners;
        if let Some(Operation { action: Action::Write { w, sloppy, .. }, .. }) =
            self.operations.get_mut(index)
        {
            *sloppy &= acks < w.of(owners);
        }
    }

    /// Every key, with the places of its operations in order.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<&Bytes, Vec<usize>> {
        let mut keys: BTreeMap<&Bytes, Vec<usize>> = BTreeMap::new();
        for (index, operation) in self.operations.iter().enumerate() {
            keys.entry(&operation.key).or_default().push(index);
        }
        keys
    }

    /// Whether any read of `r` owners meets any write of `w` owners in at least one.
    #[must_use]
    pub fn overlap(&self, r: Level, w: Level) -> bool {
        r.of(self.owners) + w.of(self.owners) > self.owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_write_only_if_it_is_whole() {
        for size in [0, 3, 7, 8, 100, 5_000] {
            let value = WriteId(42).to_sized_value(size);
            assert_eq!(WriteId::of_value(&value), Some(WriteId(42)), "{size}");
            assert!(value.len() == size || value == WriteId(42).to_value(), "{size}");
        }
        let whole = WriteId(42).to_sized_value(100);
        assert_eq!(WriteId::of_value(&whole[..99]), None);
        let mut altered = whole.to_vec();
        altered[60] = 0;
        assert_eq!(WriteId::of_value(&altered), None);
    }
}
