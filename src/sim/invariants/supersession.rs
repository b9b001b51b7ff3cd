//! Which writes may have taken the place of which: the chain of what clients were shown.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Basis, History, WriteId, WriteOf};
use crate::protocol::time::Moment;

/// The writes of one key.
pub(super) struct Writes<'a> {
    by_id: BTreeMap<WriteId, WriteOf<'a>>,
    successors: BTreeMap<WriteId, Vec<WriteId>>,
    /// Deletes that looked for themselves what there was to delete.
    sweeping: Vec<WriteId>,
    retries_are_exact: bool,
}

impl<'a> Writes<'a> {
    pub(super) fn of(history: &'a History, operations: &[usize]) -> Writes<'a> {
        let mut writes = Writes {
            by_id: BTreeMap::new(),
            successors: BTreeMap::new(),
            sweeping: Vec::new(),
            retries_are_exact: history.retries_are_exact,
        };
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
            writes.by_id.insert(write.id, write);
        }
        writes
    }

    pub(super) fn get(&self, id: WriteId) -> Option<&WriteOf<'a>> {
        self.by_id.get(&id)
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
                if !write.is_possible() || write.operation.invoked >= until {
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

    /// Whether a delete without a context may have found this write.
    fn is_swept(&self, id: WriteId, until: Moment) -> bool {
        let Some(swept) = self.get(id) else { return false };
        self.sweeping.iter().filter_map(|delete| self.get(*delete)).any(|delete| {
            // One that was not answered may still be under way; and while clocks disagree, another attempt of one that was.
            let ended = if delete.is_committed() && self.retries_are_exact {
                delete.operation.ended
            } else {
                Moment::NEVER
            };
            delete.is_possible() && delete.operation.invoked < until && swept.operation.invoked < ended
        })
    }
}
