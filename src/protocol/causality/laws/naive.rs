//! The oracle: a second implementation of records that is too simple to be wrong.
//!
//! Causal histories are explicit sets of dots. There are no version vectors, nothing is compacted or forgotten, and
//! every rule is a union of sets. It costs memory without bound, which is why it is not the real one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::protocol::causality::{Dot, OperationId, Record};

/// A record as sets of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NaiveRecord {
    /// Every write that this record knows to have happened.
    pub(super) seen: BTreeSet<Dot>,
    /// Those of them that were superseded.
    pub(super) dead: BTreeSet<Dot>,
    values: BTreeMap<Dot, Option<Bytes>>,
    attempts: BTreeMap<OperationId, BTreeSet<Dot>>,
}

impl NaiveRecord {
    /// A client that was shown a record that had seen `shown` writes a value. All that it was shown is superseded by
    /// that, or was before.
    pub(super) fn put(
        &mut self,
        shown: &BTreeSet<Dot>,
        dot: Dot,
        value: Option<Bytes>,
        operation: OperationId,
    ) {
        self.seen.extend(shown);
        self.dead.extend(shown);
        self.seen.insert(dot);
        self.values.insert(dot, value);
        self.attempts.entry(operation).or_default().insert(dot);
        self.bury();
    }

    /// The union of everything.
    pub(super) fn merge(&mut self, other: &NaiveRecord) {
        self.seen.extend(&other.seen);
        self.dead.extend(&other.dead);
        self.values.extend(other.values.clone());
        for (operation, dots) in &other.attempts {
            self.attempts.entry(*operation).or_default().extend(dots);
        }
        self.bury();
    }

    /// An attempt of the operation, if one is known.
    pub(super) fn find(&self, operation: OperationId) -> Option<Dot> {
        self.attempts.get(&operation).and_then(|dots| dots.first().copied())
    }

    fn bury(&mut self) {
        for dots in self.attempts.values() {
            if !dots.is_disjoint(&self.dead) {
                self.dead.extend(dots);
            }
        }
    }

    /// Panics unless `real` tells the same story about each of the dots `issued` so far.
    pub(super) fn assert_tells_the_same(&self, real: &Record, issued: &BTreeSet<Dot>) {
        let live: Vec<(Dot, Option<Bytes>)> =
            self.seen.difference(&self.dead).map(|dot| (*dot, self.values[dot].clone())).collect();
        let real_live: Vec<(Dot, Option<Bytes>)> =
            real.siblings().iter().map(|sibling| (sibling.dot, sibling.value.clone())).collect();
        assert_eq!(real_live, live, "living siblings");
        for &dot in issued {
            assert_eq!(real.context().covers(dot), self.seen.contains(&dot), "has {dot} been seen?");
            assert_eq!(real.is_dead(dot), self.dead.contains(&dot), "is {dot} dead?");
        }
        let marks: Vec<(OperationId, Dot)> =
            self.attempts.iter().flat_map(|(id, dots)| dots.iter().map(|dot| (*id, *dot))).collect();
        let real_marks: Vec<(OperationId, Dot)> =
            real.operations().iter().map(|mark| (mark.operation, mark.dot)).collect();
        assert_eq!(real_marks, marks, "remembered operations");
    }
}
