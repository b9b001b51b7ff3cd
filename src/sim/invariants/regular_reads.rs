//! Invariant 8: strict quorums are regular (Lamport, *On Interprocess Communication*, 1986, carried over to values
//! with siblings): a read that meets every committed write's quorum in at least one owner shows each write that
//! ended before the read began, or something that took its place; and it shows no value whose place was taken by such a
//! write or by a value that it shows as well.
//!
//! The second half is about values that everybody saw under one dot: of a write that took two attempts a client may be
//! shown, and supersede, the dot of one while an owner that has only met the other still shows that.
//!
//! The check is linear in the number of writes that are not superseded by a committed one: a write leaves the set of
//! those that a read must explain as soon as a committed write, ended before the read, came from a client that had
//! been shown it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Basis, Ending, History, WriteId, WriteOf};
use super::supersession::{Superseded, Writes};
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
        if let Some((write, read, fault)) = missed {
            let (write, reader) = (&history.operations[write], &history.operations[read]);
            let Some((r, seen)) = reader.as_answered() else { continue };
            let evidence = format!(
                "{} of c{} ended at {} ({}); c{} read from {:?} between {} and {} and was shown {:?}, {}",
                write.action,
                write.client,
                seconds(write.ended),
                if matches!(write.ending, Ending::Committed(_)) { "committed" } else { "unknown" },
                reader.client,
                r,
                seconds(reader.invoked),
                seconds(reader.ended),
                seen.ids(),
                match fault {
                    Fault::Missing =>
                        "and nobody who had been shown that write wrote anything that led there",
                    Fault::Back => "but something that came of it had taken its place",
                },
            );
            let span = (write.invoked, reader.ended);
            violations.push(Violation::of_key(Invariant::RegularReads, key, span, evidence));
        }
    }
    violations
}

enum Fault {
    /// The write is not shown.
    Missing,
    /// It is shown, but should not be any more.
    Back,
}

/// The first write that a read of `r` owners got wrong, and that read.
fn sweep(history: &History, writes: &Writes<'_>, r: usize, reads: &[usize]) -> Option<(usize, usize, Fault)> {
    let r_level = Level::Count(u8::try_from(r).unwrap_or(u8::MAX));
    let mut coming: Vec<_> =
        writes.iter().filter(|write| write.is_committed() && binds(history, r_level, write)).collect();
    coming.sort_by_key(|write| write.operation.ended);
    let mut coming = coming.into_iter().peekable();
    let mut binding: BTreeSet<WriteId> = BTreeSet::new();
    let mut settled: BTreeSet<WriteId> = BTreeSet::new();
    let mut superseded = Superseded::default();
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
            superseded.by(writes, write.id);
            if !write.deletes && !settled.contains(&write.id) {
                binding.insert(write.id);
            }
        }
        let visible = seen.ids();
        // What is shown bears witness that nothing which supersedes it was met.
        let standing: BTreeSet<WriteId> =
            visible.iter().filter(|id| writes.has_one_dot(**id)).copied().collect();
        let may_know = |id| standing.is_empty() || superseded.beside(writes, [id]).is_disjoint(&standing);
        let missed = binding.iter().find(|id| !writes.is_explained_by(**id, &visible, read.ended, may_know));
        if let Some(write) = missed.and_then(|id| writes.get(*id)) {
            return Some((write.index, index, Fault::Missing));
        }
        let beside = superseded.beside(writes, visible.iter().copied());
        let back = standing.iter().find(|id| superseded.contains(**id) || beside.contains(id));
        if let Some(write) = back.and_then(|id| writes.get(*id)) {
            return Some((write.index, index, Fault::Back));
        }
    }
    None
}

/// Whether any read of `r` owners meets the quorum of the write. That of a sloppy write may be hints for the most part,
/// which no reader asks.
fn binds(history: &History, r: Level, write: &WriteOf<'_>) -> bool {
    !write.sloppy && history.overlap(r, write.w)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Story, dot};
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
    fn what_a_committed_write_or_a_value_beside_it_superseded_is_not_shown() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).delete(2, &[1], 12..15).read(&[1], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[1], 12..15).put(3, &[2], 16..18).read(&[1, 3], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 12..15).read(&[1], 20..30).read(&[2], 40..50);
        assert_eq!(judge(&story.history), []);
        story.read(&[1, 2], 60..70);
        assert_eq!(judge(&story.history).len(), 1);
        // The other attempt of a write that took two.
        if let Some(Ending::Answered(seen)) = story.history.operations.last_mut().map(|read| &mut read.ending)
        {
            seen.values[0].1 = dot(9);
        }
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn what_one_delete_took_away_does_not_come_apart() {
        let story = |shown: &[u64]| {
            let mut story = Story::new(3);
            story.put(1, &[], 0..10).put(2, &[], 0..10).unknown_put(3, &[1, 2], 20..30).read(shown, 40..50);
            judge(&story.history).len()
        };
        assert_eq!([story(&[1, 2]), story(&[3]), story(&[1]), story(&[1, 3])], [0, 0, 1, 1]);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[], 0..10).delete(3, &[1, 2], 20..45).read(&[], 40..50);
        assert_eq!(judge(&story.history), []);
        story.read(&[1], 41..51);
        assert_eq!(judge(&story.history).len(), 1);
    }

    #[test]
    fn a_sloppy_write_binds_readers_only_if_enough_owners_have_it() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).sloppy().read(&[], 20..30);
        assert_eq!(judge(&story.history), []);
        story.history.acknowledged(0, 1);
        assert_eq!(judge(&story.history), []);
        story.history.acknowledged(0, 2);
        assert_eq!(judge(&story.history).len(), 1);
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
