//! Which writes may have taken the place of which: the chain of what clients were shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::history::{Basis, Ending, History, WriteId, WriteOf};
use crate::protocol::causality::{Dot, OPERATION_LIFETIME, OPERATIONS_MAX};
use crate::protocol::time::Moment;

/// Operations are ordered by the time of the nodes that their clients learned it from. In histories whose retries are exact
/// those clocks differ by so little that this covers it.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(5);

/// The writes of one key.
pub(super) struct Writes<'a> {
    by_id: BTreeMap<WriteId, WriteOf<'a>>,
    successors: BTreeMap<WriteId, Vec<WriteId>>,
    /// Deletes that looked for themselves what there was to delete.
    sweeping: Vec<WriteId>,
    /// When the writes that may have happened began, in order.
    begun: Vec<Moment>,
    retries_are_exact: bool,
    /// The dots under which anybody saw each value; none if somebody was told that it is stored, but not under which.
    dots: BTreeMap<WriteId, Option<Dot>>,
}

impl<'a> Writes<'a> {
    pub(super) fn of(history: &'a History, operations: &[usize]) -> Writes<'a> {
        let mut writes = Writes {
            by_id: BTreeMap::new(),
            successors: BTreeMap::new(),
            sweeping: Vec::new(),
            begun: Vec::new(),
            retries_are_exact: history.retries_are_exact,
            dots: BTreeMap::new(),
        };
        let mut seen_under = |id: WriteId, dot: Option<Dot>| {
            let known = writes.dots.entry(id).or_insert(dot);
            *known = known.filter(|known| Some(*known) == dot);
        };
        for &index in operations {
            let operation = &history.operations[index];
            match (operation.as_write(index), &operation.ending) {
                (Some(write), Ending::Committed(dot)) => seen_under(write.id, *dot),
                (_, Ending::Answered(seen)) => {
                    seen.values.iter().for_each(|(id, dot)| seen_under(*id, Some(*dot)));
                }
                _ => {}
            }
        }
        for &index in operations {
            let Some(write) = history.operations[index].as_write(index) else { continue };
            match write.basis {
                Basis::Shown(shown) => {
                    for id in shown {
                        writes.successors.entry(*id).or_default().push(write.id);
                    }
                }
                Basis::WhateverIsThere => writes.sweeping.push(write.id),
                Basis::Nothing => {}
            }
            if write.is_possible() {
                writes.begun.push(write.operation.invoked);
            }
            writes.by_id.insert(write.id, write);
        }
        writes.begun.sort_unstable();
        writes
    }

    pub(super) fn get(&self, id: WriteId) -> Option<&WriteOf<'a>> {
        self.by_id.get(&id)
    }

    /// Whether everybody saw this value under the same dot.
    ///
    /// Each attempt of a write may have a dot of its own. Then one client may be shown the one and supersede it while
    /// another is shown the other, until their owners have met; with a single dot a context that covers the value
    /// covers it everywhere.
    pub(super) fn has_one_dot(&self, id: WriteId) -> bool {
        self.dots.get(&id).is_some_and(Option::is_some)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WriteOf<'a>> {
        self.by_id.values()
    }

    /// Whether it is in order that somebody who looked before `until` was shown `visible` and not `missing`: an
    /// unbroken chain leads from it to something visible, or to a delete, of writes that may have happened and whose
    /// clients had been shown the one before.
    ///
    /// A delete ends the chain, since a deletion cannot be shown.
    pub(super) fn is_explained(&self, missing: WriteId, visible: &BTreeSet<WriteId>, until: Moment) -> bool {
        self.is_explained_by(missing, visible, until, |_| true)
    }

    /// The same, by writes only that somebody who was shown `visible` may know of.
    pub(super) fn is_explained_by(
        &self,
        missing: WriteId,
        visible: &BTreeSet<WriteId>,
        until: Moment,
        may_know: impl Fn(WriteId) -> bool,
    ) -> bool {
        let mut waiting = vec![missing];
        let mut met = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !met.insert(id) {
                continue;
            }
            if visible.contains(&id) || self.is_swept(id, until) {
                return true;
            }
            for successor in self.successors.get(&id).into_iter().flatten() {
                let Some(write) = self.get(*successor) else { continue };
                // What began when the reader had just been answered may have been seen: nobody can tell two ends apart.
                if !write.is_possible() || write.operation.invoked > until || !may_know(*successor) {
                    continue;
                }
                if write.deletes {
                    return true;
                }
                waiting.push(*successor);
            }
        }
        false
    }

    /// Whether every record that a reader met before `until` had to recognise another attempt of this write. Records know
    /// the newest [`OPERATIONS_MAX`] operations of their key only, and none that began a lifetime before the newest. Behind
    /// that an attempt that arrives late, or that two coordinators executed apart of each other and whose records meet
    /// late, is taken for a new write, and its value comes back. That limit is documented.
    pub(super) fn is_remembered(&self, id: WriteId, until: Moment) -> bool {
        let Some(write) = self.get(id) else { return true };
        let invoked = write.operation.invoked;
        let before = |moment| self.begun.partition_point(|begun| *begun < moment);
        let outlived = invoked + OPERATION_LIFETIME - CLOCKS_DIFFER_MAX;
        before(until) - before(invoked - CLOCKS_DIFFER_MAX) <= OPERATIONS_MAX
            && before(until) <= before(outlived)
    }

    /// Whether a delete without a context may have found this write.
    fn is_swept(&self, id: WriteId, until: Moment) -> bool {
        let Some(swept) = self.get(id) else { return false };
        let possible = |delete: &&WriteOf<'a>| delete.is_possible() && delete.operation.invoked < until;
        self.sweeping.iter().filter_map(|delete| self.get(*delete)).filter(possible).any(|delete| {
            // One that was not answered may still be under way, and so may another attempt of one that was, when it comes
            // so late that records have forgotten the first: but no longer than an operation lives, unless clocks disagree.
            let is_over = delete.operation.attempts < 2 || self.is_remembered(delete.id, until);
            let ended = match delete.operation.ended {
                _ if !self.retries_are_exact => Moment::NEVER,
                ended if delete.is_committed() && is_over => ended,
                Moment::NEVER => Moment::NEVER,
                ended => ended + OPERATION_LIFETIME + CLOCKS_DIFFER_MAX,
            };
            swept.operation.invoked < ended
        })
    }
}

/// Values that may not be shown any more, if each [has one dot](Writes::has_one_dot).
#[derive(Default)]
pub(super) struct Superseded(BTreeSet<WriteId>);

impl Superseded {
    pub(super) fn contains(&self, id: WriteId) -> bool {
        self.0.contains(&id)
    }

    /// This write has happened: what it may supersede is superseded, and all that came before. Each value is visited once.
    ///
    /// Returns what was not superseded before.
    pub(super) fn by(&mut self, writes: &Writes<'_>, id: WriteId) -> BTreeSet<WriteId> {
        let new = self.beside(writes, [id]);
        self.0.extend(&new);
        new
    }

    /// What else is superseded for somebody who was shown these.
    pub(super) fn beside(
        &self,
        writes: &Writes<'_>,
        shown: impl IntoIterator<Item = WriteId>,
    ) -> BTreeSet<WriteId> {
        let mut waiting: Vec<WriteId> = shown.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            let Some(Basis::Shown(basis)) = writes.get(id).map(|write| write.basis) else { continue };
            waiting.extend(basis.iter().filter(|id| !self.contains(**id) && found.insert(**id)));
        }
        found
    }
}
