//! Invariant 10: after healing the number of hints reaches zero, and no hint is dropped before its owners hold its record.
//!
//! The first half is about the end: everything is healed, and within a bound no node keeps anything for another one. The
//! second half is judged at every removal of a record from the disk of a node that does not own it: at that moment every
//! owner has to have on disk what is given up, or has to have had it: a hint that comes after a round of reaping has
//! forgotten what it tells is of no use to anybody. What a full store of hints refuses is no dropped hint: nobody was told
//! that it is kept.

use super::honest_contexts::{Book, Holding};
use super::{Invariant, Violation};
use crate::sim::history::History;

/// Judges what was left of the hints when all was over.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let left = history.hints.iter().filter(|(_, count)| *count > 0);
    let left: Vec<String> = left.map(|(node, count)| format!("{node} keeps {count}")).collect();
    if left.is_empty() {
        return Vec::new();
    }
    let evidence = format!("hints are left long after everything healed: {}", left.join(", "));
    vec![Violation::general(Invariant::HintsDrain, evidence)]
}

/// Judges the removal of a hint, given what each owner has on disk. Gives back what is wrong with it.
#[must_use]
pub fn judge_removal<'a>(
    hint: &Holding,
    book: &Book,
    owners: impl IntoIterator<Item = (String, Option<&'a Holding>)>,
) -> Option<String> {
    let lacking = owners.into_iter().find(|(_, held)| book.lacks(*held, hint));
    lacking.map(|(owner, _)| format!("it drops a hint although {owner}, an owner, does not have it on disk"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{put, record};
    use super::super::honest_contexts::Birth;
    use super::*;

    #[test]
    fn hints_that_are_left_are_reported() {
        let hints = vec![("n1".to_owned(), 0), ("n2".to_owned(), 0)];
        let mut history = History { hints, ..History::default() };
        assert_eq!(judge(&history), []);
        history.hints[1].1 = 3;
        let violations = judge(&history);
        assert!(violations[0].evidence.contains("n2 keeps 3"), "{violations:?}");
        assert_eq!(violations.len(), 1);
    }

    #[test]
    fn a_hint_may_go_only_when_every_owner_has_it() {
        let holding = |siblings: &[(u64, u64)]| Holding::of(&record(siblings));
        let (hint, more, less) = (holding(&[(1, 1)]), holding(&[(1, 1), (101, 2)]), holding(&[(101, 2)]));
        let mut book = Book::default();
        book.born(Birth::from(&put(1, Some(1), 1, &[])));
        let removal_after = |book: &Book, held: [Option<&Holding>; 3]| {
            let held = held.into_iter().enumerate();
            judge_removal(&hint, book, held.map(|(at, held)| (format!("n{at}"), held)))
        };
        let removal = |held| removal_after(&book, held);
        assert_eq!(removal([Some(&hint), Some(&more), Some(&hint)]), None);
        assert!(
            removal([Some(&hint), Some(&more), Some(&less)]).is_some_and(|evidence| evidence.contains("n2"))
        );
        assert!(removal([None, Some(&hint), Some(&hint)]).is_some());
        let mut reaped = book.clone();
        reaped.compacted(&less);
        assert!(removal_after(&reaped, [None, Some(&hint), Some(&hint)]).is_some(), "another write went");
        assert!(reaped.reaped(Some(&holding(&[(1, 1)]))).is_some(), "it was no deletion");
        assert_eq!(removal_after(&reaped, [None, Some(&hint), Some(&less)]), None);
    }
}
