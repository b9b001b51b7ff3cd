//! Invariant 7, and the half of invariant 2 that clients can see: what was deleted or overwritten stays so.
//!
//! Once a write is committed whose client had been shown a value and sent the context it got with it, no read of all
//! owners shows that value again. A value that comes back is a resurrected delete, or a false
//! sibling.
//!
//! Reads of fewer owners are not judged: an attempt of the value's own write that surfaces late is recognised by the mark
//! of the one that was superseded, and that mark may be with a single owner as yet.
//!
//! Not judged either while the clocks of the nodes disagree by more than the lifetime of an operation id: then records forget
//! operations too early, and a second attempt (a node makes some of its own, when it passes a request on) can bring a
//! value back. That limit is documented, and so is the other one: a record knows the newest 64 operations of its key, and a
//! value that was written before them may come back with an attempt that is still under way.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Basis, History, WriteId};
use super::supersession::Writes;
use super::{Invariant, Violation, seconds};
use crate::protocol::time::Moment;

/// Judges every read that was answered, of all owners, against the committed writes.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !history.retries_are_exact {
        return violations;
    }
    for (key, operations) in history.by_key() {
        let writes = Writes::of(history, &operations);
        // What is dead since when, and by which write.
        let mut dead: BTreeMap<WriteId, (Moment, WriteId)> = BTreeMap::new();
        for write in writes.iter().filter(|write| write.is_committed()) {
            let Basis::Shown(shown) = write.basis else { continue };
            for id in shown {
                let by = (write.operation.ended, write.id);
                let since = dead.entry(*id).or_insert(by);
                *since = by.min(*since);
            }
        }
        let back = operations.iter().find_map(|&index| {
            let read = &history.operations[index];
            let (_, seen) = read.as_answered().filter(|(r, _)| r.of(history.owners) == history.owners)?;
            let visible: BTreeSet<WriteId> = seen.ids();
            let mut back = visible.iter().filter_map(|id| dead.get(id).map(|by| (*id, *by)));
            back.find(|(id, (since, _))| *since < read.invoked && writes.is_remembered(*id, read.ended))
                .map(|(id, by)| (read, id, by))
        });
        if let Some((read, id, (since, by))) = back {
            let evidence = format!(
                "c{} was shown {id} between {} and {}, but {by}, whose client had been shown {id}, was committed at {}",
                read.client,
                seconds(read.invoked),
                seconds(read.ended),
                seconds(since),
            );
            let begun = writes.get(id).map_or(since, |write| write.operation.invoked);
            violations.push(Violation::of_key(Invariant::NoResurrection, key, (begun, read.ended), evidence));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Story;
    use super::*;
    use crate::protocol::wire::client::Level;

    #[test]
    fn a_deleted_value_that_is_read_again_is_reported() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).delete(2, &[1], 20..30).read_of(Level::All, &[], 40..50);
        story.read_of(Level::All, &[1], 60..70);
        let violations = judge(&story.history);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].evidence.contains("shown v1"), "{}", violations[0]);
    }

    #[test]
    fn an_overwritten_value_that_comes_back_beside_the_new_one_is_reported() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[1], 20..30).remains(&[1, 2]);
        assert_eq!(judge(&story.history).len(), 1);
    }

    #[test]
    fn what_is_not_settled_may_be_shown() {
        let mut story = Story::new(3);
        // Beside the write, after one of unknown outcome, from too few owners, and a true sibling.
        story.put(1, &[], 0..10).put(2, &[1], 20..30).read_of(Level::All, &[1], 25..35);
        story.put(3, &[], 40..50).unknown_put(4, &[3], 52..55).read_of(Level::All, &[2, 3], 60..70);
        story.read(&[1], 80..90).remains(&[2, 4]);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn a_late_attempt_of_an_operation_that_records_forgot_may_bring_a_value_back() {
        for (others, violations) in [(62, 1), (70, 0)] {
            let mut story = Story::new(3);
            story.put(1, &[], 0..10).delete(2, &[1], 20..30);
            for id in 3..3 + others {
                story.put(id, &[], 40..50);
            }
            story.read_of(Level::All, &[1], 60..70);
            assert_eq!(judge(&story.history).len(), violations, "{others}");
        }
    }

    #[test]
    fn while_clocks_disagree_a_retry_may_bring_a_value_back() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).delete(2, &[1], 20..30).read_of(Level::All, &[1], 60..70);
        assert_eq!(judge(&story.history).len(), 1);
        story.history.retries_are_exact = false;
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn a_value_may_come_back_with_an_attempt_that_a_newer_operation_has_made_records_forget() {
        let second = 1_000_000;
        for (overwritten_at, expected) in [(20, 1), (61, 0)] {
            let mut story = Story::new(3);
            let begun = overwritten_at * second;
            story.put(1, &[], 0..10).put(2, &[1], begun..begun + 10);
            story.read_of(Level::All, &[1, 2], 70 * second..71 * second);
            assert_eq!(judge(&story.history).len(), expected, "overwritten at {overwritten_at} s");
        }
    }
}
