//! Invariant 2: exact siblings, no more and no fewer.
//!
//! * [`judge`] looks at what the owners hold at the end: the writes that none which happened took the place of, by what
//!   its client had been *shown*. More is a false sibling, fewer a false overwrite.
//! * [`reads::Replies`] looks at every read while the run goes on: what the client is shown, and the context that it is
//!   given, follow from what the repliers held when they answered, by a merge that is too simple to be wrong.
//!
//! Several attempts of one operation may stand in a record beside each other, when coordinators that could not hear of
//! each other made each a dot of it; they carry one operation mark and read as one. Two siblings of one write without
//! such a bond are what a retry must never make.
//!
//! False siblings are not judged while the clocks of the nodes disagree by more than the lifetime of an operation id, nor
//! behind more operations than a record remembers: see [`no_resurrection`](super::no_resurrection).

pub mod reads;

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Basis, Ending, History, WriteId};
use super::supersession::Writes;
use super::{Invariant, Record, Violation, seconds};
use bytes::Bytes;

use crate::protocol::causality::OperationId;
use crate::protocol::time::Moment;

/// Judges what the owners of each key hold at the end.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, operations) in history.by_key() {
        let Some(remains) = history.remains.get(key) else { continue };
        let last = &history.operations[remains.read];
        let held =
            || remains.owners.iter().filter_map(|(node, record)| Some((node, record.as_ref()?.as_ref())));
        let writes = Writes::of(history, &operations);
        // What is known to have happened: what was committed, what was shown and cannot have been lost with a disk since,
        // and what is held.
        let committed: BTreeSet<WriteId> = writes.iter().filter(|w| w.is_committed()).map(|w| w.id).collect();
        let mut happened = committed.clone();
        for read in operations.iter().map(|&index| &history.operations[index]) {
            let Some((_, seen)) = read.as_answered() else { continue };
            let shown = seen.ids().into_iter();
            happened.extend(shown.filter(|id| history.shows_for_good(read, committed.contains(id))));
        }
        held().for_each(|(_, record)| happened.extend(record.map(ids).into_iter().flatten()));
        let mut superseded: BTreeMap<WriteId, WriteId> = BTreeMap::new();
        for write in happened.iter().filter_map(|id| writes.get(*id)) {
            if let Basis::Shown(shown) = write.basis {
                superseded.extend(shown.iter().map(|id| (*id, write.id)));
            }
        }
        let found = held().find_map(|(node, record)| {
            let wrong = wrong_with(key, record, &writes, &superseded, history)?;
            Some((wrong.0, format!("at the end {node} holds {}; {}", list(record), wrong.1)))
        });
        if let Some((id, evidence)) = found {
            let begun = writes.get(id).map_or(last.invoked, |write| write.operation.invoked);
            let span = (begun, last.ended);
            violations.push(Violation::of_key(Invariant::ExactSiblings, key, span, evidence));
        }
    }
    violations
}

/// The first write that one owner holds wrongly, or wrongly not, and why.
fn wrong_with(
    key: &Bytes,
    record: Option<&Record>,
    writes: &Writes<'_>,
    superseded: &BTreeMap<WriteId, WriteId>,
    history: &History,
) -> Option<(WriteId, String)> {
    let visible: BTreeSet<WriteId> = record.map(ids).into_iter().flatten().collect();
    if let Some(twice) = record.and_then(unbound_twins) {
        let why = format!("{twice} is there twice, and no mark says that both are attempts of one operation");
        return Some((twice, why));
    }
    let mut remembered = visible.iter().filter(|id| writes.is_remembered(**id, Moment::NEVER));
    let false_sibling = remembered.find_map(|id| Some((*id, *superseded.get(id)?)));
    if let Some((id, by)) = false_sibling.filter(|_| history.retries_are_exact) {
        return Some((id, format!("but {by} happened, whose client had been shown {id}: a false sibling")));
    }
    writes.iter().filter(|write| write.is_committed()).find_map(|write| {
        let is_there = write.deletes || writes.is_explained(write.id, &visible, Moment::NEVER);
        let is_covered = match write.operation.ending {
            Ending::Committed(Some(dot)) => {
                record.is_some_and(|record| record.context().covers(dot)) || history.may_be_reaped(key, dot)
            }
            _ => true,
        };
        let why = match (is_there, is_covered) {
            (true, true) => return None,
            (false, _) => "nobody who had been shown it wrote anything that led there: a false overwrite",
            (true, false) => "the record has never seen its dot",
        };
        let (id, client, ended) = (write.id, write.operation.client, seconds(write.operation.ended));
        Some((id, format!("but {id} of c{client} was committed at {ended}, and {why}")))
    })
}

/// A write of which there are two siblings that are not known to be attempts of one operation. Marks that are beyond
/// the window are forgotten on purpose.
fn unbound_twins(record: &Record) -> Option<WriteId> {
    let mut met: BTreeMap<WriteId, OperationId> = BTreeMap::new();
    for sibling in record.siblings() {
        let id = sibling.value.as_ref().and_then(|value| WriteId::of_value(value));
        let (Some(id), Some(operation)) = (id, record.operations().of(sibling.dot)) else { continue };
        if met.insert(id, operation).is_some_and(|before| before != operation) {
            return Some(id);
        }
    }
    None
}

fn ids(record: &Record) -> Vec<WriteId> {
    record.siblings().iter().filter_map(|s| WriteId::of_value(s.value.as_ref()?)).collect()
}

fn list(record: Option<&Record>) -> String {
    match record {
        Some(record) => format!("{:?}", ids(record)),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Story, record, record_of};
    use super::*;
    use crate::protocol::id::NodeId;
    use crate::protocol::wire::client::Level;

    fn told(story: &Story) -> String {
        let violations = judge(&story.history);
        assert!(violations.len() <= 1);
        violations.first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn siblings_that_nobody_resolved_and_unknown_writes_are_in_order() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[], 0..10).unknown_put(3, &[1], 20..30).remains(&[1, 2]);
        story.held(&[&[1, 2], &[1, 2], &[1, 2]]);
        assert_eq!(told(&story), "");
        story.held(&[&[2, 3], &[2, 3], &[2, 3]]);
        assert_eq!(told(&story), "", "the unknown write may have come through");
    }

    #[test]
    fn what_a_write_that_happened_took_the_place_of_is_a_false_sibling() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[1], 20..30).remains(&[1, 2]).held(&[&[1, 2]]);
        assert!(told(&story).contains("a false sibling"), "{}", told(&story));
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 20..30).remains(&[1]).held(&[&[1, 2]]);
        assert!(told(&story).contains("v2 happened"), "it is held, so it happened: {}", told(&story));
        story.history.retries_are_exact = false;
        assert_eq!(told(&story), "");
    }

    #[test]
    fn what_was_shown_once_and_went_with_a_disk_took_the_place_of_nothing() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 20..30).read_of(Level::One, &[2], 40..50);
        story.remains(&[1]).held(&[&[1]]);
        assert!(told(&story).contains("a false sibling"), "{}", told(&story));
        for (lost_at, is_in_order) in [(35, false), (60, true)] {
            story.history.lost_disks = vec![(Moment(lost_at), 0)];
            assert_eq!(told(&story).is_empty(), is_in_order, "{lost_at}: {}", told(&story));
        }
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 20..30).atomic_read(&[2], 40..50).remains(&[1]);
        story.history.lost_disks = vec![(Moment(60), 0)];
        assert!(told(story.held(&[&[1]])).contains("a false sibling"), "a majority had it");
    }

    #[test]
    fn what_nobody_took_the_place_of_and_is_not_there_is_a_false_overwrite() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[], 20..30).remains(&[2]).held(&[&[1, 2], &[2], &[1, 2]]);
        assert!(told(&story).contains("a false overwrite"), "{}", told(&story));
        story.held(&[&[], &[1, 2], &[1, 2]]);
        assert!(told(&story).contains("holds nothing"), "{}", told(&story));
    }

    #[test]
    fn a_committed_dot_that_an_owner_has_never_seen_is_reported() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(5, &[1], 20..30).unknown_put(4, &[5], 40..50).remains(&[4]);
        story.held(&[&[4]]);
        assert!(told(&story).contains("never seen its dot"), "{}", told(&story));
    }

    #[test]
    fn two_siblings_of_one_write_are_reported_unless_they_are_attempts_of_one_operation() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).remains(&[1]).held(&[&[1]]);
        let mut hold = |record: Record| {
            for remains in story.history.remains.values_mut() {
                remains.owners = vec![(NodeId(1), Some(Some(record.clone())))];
            }
            told(&story)
        };
        assert!(hold(record(&[(1, 1), (2, 1)])).contains("v1 is there twice"));
        assert_eq!(hold(record_of(&[(1, 1, 7)]).merged(&record_of(&[(102, 1, 7)]))), "");
    }
}
