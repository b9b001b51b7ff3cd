//! Invariant 8, the other half: after an *atomic* read nobody sees less.
//!
//! An atomic read shows only what a majority holds (the write-back of Attiya, Bar-Noy and Dolev, *Sharing Memory
//! Robustly in Message-Passing Systems*, 1995). A read that begins after it has ended, and that meets every majority
//! in at least one owner, may therefore not fall behind it, in two ways:
//!
//! 1. Each value that it showed is shown again, or something took its place.
//! 2. What it no longer showed stays out of sight: a value that was at a majority before the atomic read began, and
//!    that the atomic read did not show, had been superseded by what it wrote back. And since an atomic read brings what
//!    it shows to a majority, whatever that took the place of is superseded for everybody who comes later.
//!
//! How many owners the atomic read itself asked does not matter, but for the first half of the second rule, which needs
//! one that met every majority itself. The second rule is about values that everybody saw under one dot, as in
//! [`regular_reads`](super::regular_reads).
//!
//! The check is linear in the reads and in the values that live at one time. A value leaves the set of those that a
//! read must explain when a committed write took its place, since [`regular_reads`](super::regular_reads) asks for that
//! one, or when a later atomic read showed what took its place.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Basis, History, Operation, Seen, WriteId};
use super::supersession::{Superseded, Writes};
use super::{Invariant, Violation, seconds};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::Level;

/// Judges every read of a majority or more against the atomic reads that had ended when it began.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, operations) in history.by_key() {
        if !operations.iter().any(|&index| history.operations[index].as_atomic().is_some()) {
            continue;
        }
        let Some(fall) = Sweep::of(history, &operations).find() else { continue };
        let (early, late) = (fall.early, fall.late);
        let (Some(before), Some((_, after))) = (early.as_atomic(), late.as_answered()) else { continue };
        let fault = match fall.kind {
            Kind::Missing => "nobody who had been shown it wrote anything that led there",
            Kind::Back => "a majority had held it before the first of the two, which no longer showed it",
            Kind::Superseded => "the first of the two showed what had taken its place",
        };
        let evidence = format!(
            "the atomic read of c{} showed {:?} between {} and {}; c{} read between {} and {} and was shown {:?}; as \
             for {}, {fault}",
            early.client,
            before.ids(),
            seconds(early.invoked),
            seconds(early.ended),
            late.client,
            seconds(late.invoked),
            seconds(late.ended),
            after.ids(),
            fall.id,
        );
        let span = (early.invoked, late.ended);
        violations.push(Violation::of_key(Invariant::AtomicReads, key, span, evidence));
    }
    violations
}

/// A read that fell behind an atomic one.
struct Fall<'a> {
    kind: Kind,
    id: WriteId,
    early: &'a Operation,
    late: &'a Operation,
}

enum Kind {
    /// A value is gone.
    Missing,
    /// A value is there again.
    Back,
    /// A value is there still.
    Superseded,
}

/// What is known of one key at the moment at which a read begins; the reads are taken in that order.
struct Sweep<'a> {
    writes: Writes<'a>,
    history: &'a History,
    /// The reads to judge, the last one first.
    reads: Vec<&'a Operation>,
    /// The atomic reads that were answered, in the order in which they ended.
    atomic: Vec<(&'a Operation, &'a Seen)>,
    /// How many of them had ended.
    ended: usize,
    /// The committed writes that meet every majority, the last one to end first.
    coming: Vec<(Moment, WriteId)>,
    /// The values that have to be explained, with the atomic read that showed each first.
    binding: BTreeMap<WriteId, &'a Operation>,
    /// Values that need no explanation any more.
    settled: BTreeSet<WriteId>,
    /// Since when a majority holds, or held, a value.
    held_since: BTreeMap<WriteId, Moment>,
    /// What the values that atomic reads showed took the place of.
    superseded: Superseded,
    /// The first atomic read that showed what took the place of a value.
    superseded_by: BTreeMap<WriteId, &'a Operation>,
    /// How many of the atomic reads are known not to have hidden a value.
    checked: BTreeMap<WriteId, usize>,
}

impl<'a> Sweep<'a> {
    fn of(history: &'a History, operations: &[usize]) -> Sweep<'a> {
        let writes = Writes::of(history, operations);
        let of_key = || operations.iter().map(|&index| &history.operations[index]);
        let mut reads: Vec<_> = of_key().filter(|read| meets_majorities(history, read)).collect();
        reads.sort_by_key(|read| std::cmp::Reverse(read.invoked));
        let mut atomic: Vec<_> = of_key().filter_map(|read| Some((read, read.as_atomic()?))).collect();
        atomic.sort_by_key(|(read, _)| read.ended);
        let mut coming: Vec<_> = writes
            .iter()
            .filter(|write| {
                write.is_committed() && !write.sloppy && history.overlap(Level::Majority, write.w)
            })
            .map(|write| (write.operation.ended, write.id))
            .collect();
        coming.sort_by_key(|&coming| std::cmp::Reverse(coming));
        Sweep {
            writes,
            history,
            reads,
            atomic,
            ended: 0,
            coming,
            binding: BTreeMap::new(),
            settled: BTreeSet::new(),
            held_since: BTreeMap::new(),
            superseded: Superseded::default(),
            superseded_by: BTreeMap::new(),
            checked: BTreeMap::new(),
        }
    }

    fn find(mut self) -> Option<Fall<'a>> {
        while let Some(read) = self.reads.pop() {
            let Some((_, seen)) = read.as_answered() else { continue };
            self.go_on_to(read.invoked);
            let visible = seen.ids();
            let fall = self.missing(read, &visible).or_else(|| self.back(read, &visible));
            if fall.is_some() {
                return fall;
            }
        }
        None
    }

    /// Takes in what had ended before `now`.
    fn go_on_to(&mut self, now: Moment) {
        while let Some((ended, id)) = self.coming.pop_if(|(ended, _)| *ended < now) {
            self.hold(id, ended);
            if let Some(Basis::Shown(shown)) = self.writes.get(id).map(|write| write.basis) {
                for id in shown {
                    self.settle(*id);
                }
            }
        }
        while let Some(&(read, seen)) = self.atomic.get(self.ended).filter(|(read, _)| read.ended < now) {
            self.ended += 1;
            for id in seen.ids() {
                self.hold(id, read.ended);
                if !self.settled.contains(&id) {
                    self.binding.entry(id).or_insert(read);
                }
                for before in self.superseded.by(&self.writes, id) {
                    self.superseded_by.insert(before, read);
                }
                self.settle_before(id, read.ended);
            }
        }
    }

    fn hold(&mut self, id: WriteId, since: Moment) {
        let held = self.held_since.entry(id).or_insert(since);
        *held = since.min(*held);
    }

    fn settle(&mut self, id: WriteId) -> bool {
        self.binding.remove(&id);
        self.settled.insert(id)
    }

    /// Whoever explains this value explains what it took the place of.
    fn settle_before(&mut self, id: WriteId, until: Moment) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let Some(write) = self.writes.get(id) else { continue };
            let Basis::Shown(shown) = write.basis else { continue };
            if !write.is_possible() || write.operation.invoked >= until {
                continue;
            }
            waiting.extend(shown.iter().filter(|id| self.settle(**id)));
        }
    }

    /// A value that an atomic read showed and that is gone.
    fn missing(&self, late: &'a Operation, visible: &BTreeSet<WriteId>) -> Option<Fall<'a>> {
        // What is shown bears witness that nothing which supersedes it was met.
        let standing: BTreeSet<WriteId> =
            visible.iter().filter(|id| self.writes.has_one_dot(**id)).copied().collect();
        let may_know =
            |id| standing.is_empty() || self.superseded.beside(&self.writes, [id]).is_disjoint(&standing);
        let mut binding = self.binding.iter();
        let (id, early) =
            binding.find(|(id, _)| !self.writes.is_explained_by(**id, visible, late.ended, may_know))?;
        Some(Fall { kind: Kind::Missing, id: *id, early, late })
    }

    /// A value that an atomic read no longer showed, or had shown something in the place of, and that is there again.
    fn back(&mut self, late: &'a Operation, visible: &BTreeSet<WriteId>) -> Option<Fall<'a>> {
        for id in visible.iter().filter(|id| self.writes.has_one_dot(**id)) {
            if let Some(early) = self.superseded_by.get(id) {
                return Some(Fall { kind: Kind::Superseded, id: *id, early, late });
            }
            let Some(&held) = self.held_since.get(id) else { continue };
            let checked = self.checked.entry(*id).or_default();
            for &(early, seen) in &self.atomic[*checked..self.ended] {
                let must_know = held < early.invoked && meets_majorities(self.history, early);
                if must_know && !seen.ids().contains(id) {
                    return Some(Fall { kind: Kind::Back, id: *id, early, late });
                }
            }
            *checked = self.ended;
        }
        None
    }
}

/// Whether it is a read that was answered, and that meets every majority in at least one owner.
fn meets_majorities(history: &History, read: &Operation) -> bool {
    read.as_answered().is_some_and(|(r, _)| history.overlap(r, Level::Majority))
}

#[cfg(test)]
mod tests {
    use super::super::super::history::Ending;
    use super::super::fixture::{Story, dot};
    use super::super::{no_resurrection, regular_reads};
    use super::*;

    #[test]
    fn nobody_sees_less_after_an_atomic_read() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..100).atomic_read(&[1], 10..20).read(&[], 30..40);
        let violations = judge(&story.history);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].evidence.contains("as for v1"), "{}", violations[0]);
        assert_eq!(regular_reads::judge(&story.history), [], "a regular read owes nothing to another read");
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..100).atomic_read(&[1], 10..20).read(&[1], 30..40);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn a_plain_read_a_read_beside_it_and_one_of_too_few_owners_promise_nothing() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..100).read(&[1], 10..20).read(&[], 30..40);
        story.atomic_read(&[1], 50..60).read(&[], 59..70).read_of(Level::One, &[], 80..90);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn an_atomic_read_of_one_owner_binds_like_any_other() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..100).atomic_read_of(Level::One, &[1], 10..20).read(&[], 30..40);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..100).atomic_read(&[1], 10..20).atomic_read_of(Level::One, &[], 30..40);
        assert_eq!(judge(&story.history), [], "but it may itself miss what a majority holds");
    }

    #[test]
    fn what_took_its_place_will_do_but_not_what_came_from_somebody_who_never_saw_it() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..100).atomic_read(&[1], 10..20).unknown_put(2, &[1], 22..100);
        story.unknown_put(3, &[2], 30..100).read(&[3], 40..50).read(&[1], 60..70);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story
            .unknown_put(1, &[], 0..100)
            .atomic_read(&[1], 10..20)
            .unknown_put(2, &[], 22..100)
            .read(&[2], 40..50);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story
            .unknown_put(1, &[], 0..100)
            .atomic_read(&[1], 10..20)
            .unknown_put(2, &[1], 60..100)
            .read(&[2], 40..50);
        assert_eq!(judge(&story.history).len(), 1, "v2 had not begun when the read was over");
    }

    #[test]
    fn an_old_value_may_not_follow_a_new_one() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 20..100).atomic_read(&[2], 30..40).read(&[1], 50..60);
        assert_eq!(judge(&story.history).len(), 1);
        assert_eq!(regular_reads::judge(&story.history), []);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 20..100).atomic_read(&[1], 30..40).read(&[2], 50..60);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn the_newest_of_a_chain_stays_binding_when_the_older_ones_are_settled() {
        let chain = |shown: &[u64]| {
            let mut story = Story::new(3);
            story.unknown_put(1, &[], 0..100).atomic_read(&[1], 1..2).unknown_put(2, &[1], 3..100);
            story.unknown_put(3, &[2], 5..100).atomic_read(&[3], 6..7).read(shown, 8..9);
            judge(&story.history).len()
        };
        assert_eq!([chain(&[3]), chain(&[2]), chain(&[1]), chain(&[])], [0, 1, 1, 1]);
    }

    #[test]
    fn a_committed_write_that_takes_its_place_is_left_to_the_regular_judge() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).atomic_read(&[1], 12..15).put(2, &[1], 20..30).read(&[], 40..50);
        assert_eq!(judge(&story.history), []);
        assert_eq!(regular_reads::judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story
            .put(1, &[], 0..10)
            .atomic_read(&[1], 12..15)
            .put_of(Level::One, 2, &[1], 20..30)
            .read(&[], 40..50);
        assert_eq!(judge(&story.history).len(), 1, "a single owner has it, so nobody else asks for it");
    }

    #[test]
    fn deletes_explain_and_what_an_atomic_read_no_longer_showed_stays_hidden() {
        let story = |shown: &[u64], last: &[u64]| {
            let mut story = Story::new(3);
            story.put(1, &[], 0..10).delete(2, &[1], 20..100).atomic_read(shown, 30..40).read(last, 50..60);
            (judge(&story.history).len(), no_resurrection::judge(&story.history).len())
        };
        assert_eq!([story(&[1], &[]), story(&[1], &[1]), story(&[], &[])], [(0, 0); 3]);
        assert_eq!(story(&[], &[1]), (1, 0));
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).atomic_read_of(Level::One, &[], 30..40).read(&[1], 50..60);
        assert_eq!(judge(&story.history), [], "a single owner need not know of it");
        // Not when the first read began before the value was at a majority, nor the other attempt of a write.
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).delete(2, &[1], 20..100).atomic_read(&[], 5..40).read(&[1], 50..60);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).delete(2, &[1], 20..100).atomic_read(&[], 30..40).read(&[1], 50..60);
        if let Some(Ending::Answered(seen)) = story.history.operations.last_mut().map(|read| &mut read.ending)
        {
            seen.values[0].1 = dot(9);
        }
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn what_the_values_of_an_atomic_read_superseded_is_not_shown_again() {
        let story = |last: &[u64]| {
            let mut story = Story::new(3);
            story.unknown_put(1, &[], 0..100).read(&[1], 10..20).unknown_put(2, &[1], 22..100);
            story.unknown_put(3, &[2], 24..100).unknown_put(4, &[3], 26..100).atomic_read(&[3], 30..40);
            story.read(last, 50..60);
            judge(&story.history).len()
        };
        assert_eq!([story(&[3]), story(&[4]), story(&[1, 3]), story(&[1, 4])], [0, 0, 1, 1]);
    }

    #[test]
    fn siblings_are_judged_each() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[], 0..100).atomic_read(&[1, 2], 20..30);
        story.unknown_put(3, &[1], 32..100).read(&[3], 40..50);
        assert_eq!(judge(&story.history).len(), 1, "v2 is gone");
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[], 0..100).atomic_read(&[1, 2], 20..30);
        story.unknown_put(3, &[1], 32..100).read(&[2, 3], 40..50);
        assert_eq!(judge(&story.history), []);
    }
}
