//! Invariant 8: strict quorums are regular (Lamport, *On Interprocess Communication*, 1986, carried over to values
//! with siblings): a read that meets every committed write's quorum in at least one owner shows each write that
//! ended before the read began, or something that took its place.
//!
//! The check is linear in the number of writes that are not superseded by a committed one: a write leaves the set of
//! those that a read must explain as soon as a committed write, ended before the read, came from a client that had
//! been shown it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Basis, History, WriteId};
use super::supersession::Writes;
use super::{Invariant, Violation, seconds};
use crate::protocol::wire::client::Level;

/// Judges every read that was answered, against the committed writes whose quorum it must meet.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, operations) in history.by_key() {
        let writes = Writes::of(history, &operations);
        let mut reads: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &index in &operations {
            if let Some((r, _)) = history.operations[index].as_answered() {
                reads.entry(r.of(history.owners)).or_default().push(index);
            }
        }
        let missed = reads.into_iter().find_map(|(r, mut reads)| {
            reads.sort_by_key(|&index| history.operations[index].invoked);
            sweep(history, &writes, r, &reads)
        });
        if let Some((write, read)) = missed {
            let (write, reader) = (&history.operations[write], &history.operations[read]);
            let Some((r, seen)) = reader.as_answered() else { continue };
            let evidence = format!(
                "{} of c{} was committed at {}; c{} read from {:?} between {} and {} and was shown {:?}, and nobody \
                 who had been shown that write wrote anything that led there",
                write.action,
                write.client,
                seconds(write.ended),
                reader.client,
                r,
                seconds(reader.invoked),
                seconds(reader.ended),
                seen.ids(),
            );
            let span = (write.invoked, reader.ended);
            violations.push(Violation::of_key(Invariant::RegularReads, key, span, evidence));
        }
    }
    violations
}

/// The first committed write that a read of `r` owners missed, and that read.
fn sweep(history: &History, writes: &Writes<'_>, r: usize, reads: &[usize]) -> Option<(usize, usize)> {
    let r_level = Level::Count(u8::try_from(r).unwrap_or(u8::MAX));
    let mut coming: Vec<_> =
        writes.iter().filter(|write| write.is_committed() && history.overlap(r_level, write.w)).collect();
    coming.sort_by_key(|write| write.operation.ended);
    let mut coming = coming.into_iter().peekable();
    let mut binding: BTreeSet<WriteId> = BTreeSet::new();
    let mut settled: BTreeSet<WriteId> = BTreeSet::new();
    for &index in reads {
        let read = &history.operations[index];
        let Some((_, seen)) = read.as_answered() else { continue };
        while let Some(write) = coming.next_if(|write| write.operation.ended < read.invoked) {
            if let Basis::Shown(shown) = write.basis {
                for id in shown {
                    binding.remove(id);
                    settled.insert(*id);
                }
            }
            if !write.deletes && !settled.contains(&write.id) {
                binding.insert(write.id);
            }
        }
        let visible = seen.ids();
        let missed = binding.iter().find(|id| !writes.is_explained(**id, &visible, read.ended));
        if let Some(write) = missed.and_then(|id| writes.get(*id)) {
            return Some((write.index, index));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Story;
    use super::*;

    #[test]
    fn a_read_after_a_committed_write_must_show_it() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read(&[], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read(&[1], 20..30);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn a_read_beside_a_write_may_show_it_or_not() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..25).read(&[], 20..30).read(&[1], 21..30);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn what_took_its_place_will_do_but_not_what_came_from_somebody_who_never_saw_it() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 12..15).read(&[2], 20..30);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[], 12..15).read(&[2], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[1], 40..50).read(&[2], 20..30);
        assert_eq!(judge(&story.history).len(), 1, "v2 had not begun when the read was over");
    }

    #[test]
    fn an_old_write_stays_binding_through_the_newer_one_that_settled_it() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[1], 12..15).read(&[1], 20..30);
        assert_eq!(judge(&story.history).len(), 1, "v2 is missing");
        let mut story = Story::new(3);
        story.put(1, &[], 0..50).put(2, &[1], 12..15).read(&[2], 60..70);
        assert_eq!(judge(&story.history), [], "v2 saw v1 before v1 was answered");
    }

    #[test]
    fn small_quorums_promise_nothing_unless_the_other_side_is_large() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read_of(Level::One, &[], 20..30);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.put_of(Level::One, 1, &[], 0..10).read(&[], 20..30);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.put_of(Level::One, 1, &[], 0..10).read_of(Level::All, &[], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put_of(Level::All, 1, &[], 0..10).read_of(Level::One, &[], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
    }
}
