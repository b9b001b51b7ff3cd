//! Invariant 4: a replica's context covers only what the replica holds or has seen superseded, and never shrinks.
//!
//! Covering a dot that is not held says that its value is dead, and everybody who merges the record believes that. So
//! each dot that a replica newly covers without holding it, and each that it ceases to hold, must have a reason: a write
//! that the replica has seen and whose *sent* context covered the dot, or another attempt of the same operation that
//! has such a reason. What shipped bare changes, claimed contexts or reused dots would destroy shows here at the first
//! replica that is told of it, long before a client misses anything.
//!
//! A certified round of reaping is the one way to forget; what it forgets must have been deleted.
//!
//! Judged on what is *applied* within one start of a node, and across a crash against what had been durable before.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Record;
use crate::protocol::causality::{Dot, OperationId, Put, VersionVector};
use crate::protocol::time::Timestamp;

/// Every write of one key that some disk executed: what its client had seen, and which operation it is an attempt of.
#[derive(Clone, Debug, Default)]
pub struct Book {
    births: BTreeMap<Dot, Birth>,
    /// In the order in which the writes were executed.
    order: Vec<Dot>,
    attempts: BTreeMap<OperationId, Vec<Dot>>,
    /// The dead that a certified round of reaping has allowed everybody to forget.
    forgotten: BTreeSet<Dot>,
    /// Those of them of which that is certain.
    certified: BTreeSet<Dot>,
}

/// One write that was executed.
#[derive(Clone, Debug)]
pub struct Birth {
    /// Its dot.
    pub dot: Dot,
    /// The context that its client sent.
    pub sent: VersionVector,
    operation: OperationId,
    value: Option<Bytes>,
}

impl From<&Put> for Birth {
    fn from(put: &Put) -> Birth {
        Birth { dot: put.dot, sent: put.context.clone(), operation: put.operation, value: put.value.clone() }
    }
}

/// What a replica holds of one key, values apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// What it has seen.
    pub context: VersionVector,
    /// The dots of its siblings, in order.
    pub dots: Vec<Dot>,
}

impl Holding {
    /// What this record holds.
    #[must_use]
    pub fn of(record: &Record) -> Holding {
        let dots = record.siblings().iter().map(|sibling| sibling.dot).collect();
        Holding { context: record.context().clone(), dots }
    }

    /// Whether the record holds just that.
    #[must_use]
    pub fn is_of(&self, record: &Record) -> bool {
        self.context == *record.context()
            && self.dots.len() == record.siblings().len()
            && self.dots.iter().zip(record.siblings()).all(|(dot, sibling)| *dot == sibling.dot)
    }

    /// Whether this dot is among the siblings.
    #[must_use]
    pub fn holds(&self, dot: Dot) -> bool {
        self.dots.binary_search(&dot).is_ok()
    }
}

impl Book {
    /// A disk executed a write of the key.
    pub fn born(&mut self, birth: Birth) {
        self.order.push(birth.dot);
        self.attempts.entry(birth.operation).or_default().push(birth.dot);
        self.births.insert(birth.dot, birth);
    }

    /// A round of reaping has certified that every owner held this tombstone, and one of them forgets it: of `None`
    /// nothing is known, since nobody has looked at it since a crash. Gives back what is wrong with that.
    #[must_use]
    pub fn reaped(&mut self, holding: Option<&Holding>) -> Option<String> {
        let Some(holding) = holding else {
            self.forgotten.extend(self.births.keys());
            return None;
        };
        let dead: Vec<Dot> =
            self.births.keys().filter(|dot| holding.context.covers(**dot)).copied().collect();
        self.certified.extend(&dead);
        self.forgotten.extend(dead);
        let is_value = |dot: &&Dot| self.births.get(dot).is_some_and(|birth| birth.value.is_some());
        let value = holding.dots.iter().find(is_value)?;
        Some(format!("a round of reaping removed {}, which was never deleted", self.name(*value)))
    }

    /// The same for a round that shortens a context: only the dead are forgotten.
    pub fn compacted(&mut self, holding: &Holding) {
        let is_dead = |dot: &&Dot| holding.context.covers(**dot) && !holding.holds(**dot);
        let dead: Vec<Dot> = self.births.keys().filter(is_dead).copied().collect();
        self.certified.extend(&dead);
        self.forgotten.extend(dead);
    }

    /// What rounds of reaping have forgotten.
    #[must_use]
    pub fn forgotten(&self) -> &BTreeSet<Dot> {
        &self.forgotten
    }

    /// Judges an owner that has gone through the rounds of its slot and now holds `after`: what all owners have forgotten
    /// together must not come back to any of them, from nowhere. Gives back what is wrong with it.
    #[must_use]
    pub fn judge_return(&self, before: &Holding, after: &Holding) -> Option<String> {
        let is_back = |dot: &&Dot| {
            let is_value = self.births.get(*dot).is_some_and(|birth| birth.value.is_some());
            is_value && !before.holds(**dot) && self.certified.contains(dot)
        };
        let back = after.dots.iter().find(is_back)?;
        Some(format!("it holds {}, which a round of reaping has made everybody forget", self.name(*back)))
    }

    /// Whether somebody who holds `held` lacks anything of `wanted` that rounds of reaping have not forgotten.
    #[must_use]
    pub fn lacks(&self, held: Option<&Holding>, wanted: &Holding) -> bool {
        let mut news =
            wanted.context.iter().filter(|newest| held.is_none_or(|held| !held.context.covers(*newest)));
        news.any(|newest| {
            let known = held.map_or(Timestamp::default(), |held| held.context.get(newest.actor));
            let first = Dot { actor: newest.actor, at: Timestamp(known.0 + 1) };
            let mut missing = self.births.range(first..=newest).map(|(dot, _)| dot).chain([&newest]);
            missing.any(|dot| !self.forgotten.contains(dot))
        })
    }

    /// Judges a replica that held `before` and now holds `after`. Gives back what is wrong with that.
    #[must_use]
    pub fn judge(&self, before: &Holding, after: &Holding) -> Option<String> {
        if !after.context.dominates(&before.context) {
            let lost = before.context.iter().find(|dot| !after.context.covers(*dot))?;
            return Some(format!("it had seen {} and does not know of it any more", self.name(lost)));
        }
        let is_back = |dot: &&Dot| !before.holds(**dot) && before.context.covers(**dot);
        if let Some(back) = after.dots.iter().find(is_back) {
            return Some(format!("it holds {} again, which it had seen superseded", self.name(*back)));
        }
        let unexplained = |dot: Dot| !after.holds(dot) && !self.is_explained(dot, after);
        if let Some(dropped) = before.dots.iter().find(|dot| unexplained(**dot)) {
            return Some(self.without_reason("ceased to hold", *dropped));
        }
        for newest in after.context.iter() {
            let known = before.context.get(newest.actor);
            if known == newest.at {
                continue;
            }
            if !self.births.contains_key(&newest) {
                return Some(format!("its context names {newest}, which is no write of this key"));
            }
            let first = Dot { actor: newest.actor, at: Timestamp(known.0 + 1) };
            let mut claimed = self.births.range(first..=newest).map(|(dot, _)| *dot);
            if let Some(claimed) = claimed.find(|dot| unexplained(*dot)) {
                return Some(self.without_reason("covers but never held", claimed));
            }
        }
        None
    }

    /// Whether whoever holds `after` has seen this write superseded, or another attempt of its operation.
    fn is_explained(&self, dot: Dot, after: &Holding) -> bool {
        if self.forgotten.contains(&dot) || self.is_superseded(dot, after) {
            return true;
        }
        let attempts = self.births.get(&dot).and_then(|birth| self.attempts.get(&birth.operation));
        attempts.into_iter().flatten().any(|other| {
            *other != dot
                && after.context.covers(*other)
                && !after.holds(*other)
                && self.is_superseded(*other, after)
        })
    }

    fn is_superseded(&self, dot: Dot, after: &Holding) -> bool {
        // The newest first: contexts grow, so it usually is one of those.
        let births = self.order.iter().rev().filter_map(|dot| self.births.get(dot));
        births.into_iter().any(|birth| birth.sent.covers(dot) && after.context.covers(birth.dot))
    }

    fn without_reason(&self, what: &str, dot: Dot) -> String {
        format!(
            "it {what} {}, and no write that it has seen came from a client whose context covered that",
            self.name(dot)
        )
    }

    /// A dot for people, with the value that it names.
    #[must_use]
    pub fn name(&self, dot: Dot) -> String {
        match self.births.get(&dot).map(|birth| &birth.value) {
            Some(Some(value)) => format!("{} ({dot})", String::from_utf8_lossy(value)),
            Some(None) => format!("a deletion ({dot})"),
            None => dot.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{dot, put, record, record_of, written};
    use super::*;

    /// Puts by number, value and operation alike, and what their contexts covered.
    fn book(puts: &[(u64, &[u64])]) -> Book {
        let mut book = Book::default();
        puts.iter().for_each(|(number, covered)| {
            book.born(Birth::from(&put(*number, Some(*number), *number, covered)));
        });
        book
    }

    fn told(book: &Book, before: &Record, after: &Record) -> String {
        book.judge(&Holding::of(before), &Holding::of(after)).unwrap_or_default()
    }

    #[test]
    fn what_is_held_and_what_was_superseded_by_who_saw_it_is_in_order() {
        let book = book(&[(1, &[]), (102, &[1]), (3, &[])]);
        let none = Record::default();
        let first = record(&[(1, 1)]);
        let second = written(&first, &put(102, Some(102), 102, &[1]));
        let third = written(&second, &put(3, Some(3), 3, &[]));
        for (before, after) in [(&none, &first), (&first, &second), (&none, &second), (&first, &third)] {
            assert_eq!(told(&book, before, after), "");
        }
    }

    #[test]
    fn a_context_that_covers_what_was_never_held_is_reported() {
        let book = book(&[(1, &[]), (2, &[])]);
        // The bare second write of one actor: its context covers the first one.
        let bare = record(&[(2, 2)]);
        assert!(told(&book, &Record::default(), &bare).contains("covers but never held v1"));
        assert!(told(&book, &record(&[(1, 1)]), &bare).contains("ceased to hold v1"));
    }

    #[test]
    fn a_reason_that_the_replica_has_not_seen_is_none() {
        let book = book(&[(1, &[]), (2, &[]), (102, &[1])]);
        let bare = record(&[(2, 2)]);
        assert!(told(&book, &Record::default(), &bare).contains("covers but never held v1"));
        let all = written(&bare, &put(102, Some(102), 102, &[1]));
        assert_eq!(told(&book, &Record::default(), &all), "");
    }

    #[test]
    fn another_attempt_of_the_operation_is_a_reason_if_it_has_one() {
        let mut book = book(&[(1, &[]), (202, &[1])]);
        book.born(Birth::from(&put(103, Some(1), 1, &[])));
        let buried = written(&record(&[(1, 1)]), &put(202, Some(202), 202, &[1]));
        let buried = buried.merged(&record_of(&[(103, 1, 1)]));
        assert_eq!(buried.siblings().len(), 1);
        assert_eq!(told(&book, &Record::default(), &buried), "");
        // Both gone, each because of the other.
        let mut hollow = Holding::of(&record(&[(1, 1), (103, 1)]));
        hollow.dots.clear();
        assert!(book.judge(&Holding::default(), &hollow).is_some());
    }

    #[test]
    fn a_context_that_shrinks_a_dead_value_that_is_back_and_an_entry_of_nobody_are_reported() {
        let book = book(&[(1, &[]), (2, &[1])]);
        let (first, second) = (record(&[(1, 1)]), written(&record(&[(1, 1)]), &put(2, Some(2), 2, &[1])));
        assert!(told(&book, &second, &first).contains("does not know of it any more"));
        let both = record(&[(1, 1), (2, 2)]);
        assert!(told(&book, &second, &both).contains("holds v1 ("), "{}", told(&book, &second, &both));
        assert!(told(&book, &first, &record(&[(1, 1), (300, 3)])).contains("is no write of this key"));
        assert_eq!(book.name(dot(9)), dot(9).to_string());
    }
}
