//! Invariant 3: one dot names one value of one key, for all time.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::history::{Ending, History, WriteId};
use super::{Invariant, Record, Violation, seconds};
use crate::protocol::causality::Dot;

/// All dots of a run: who issued them and what they name. Fed with every issue and every record that passes.
#[derive(Clone, Debug, Default)]
pub struct Dots {
    issued: BTreeMap<Dot, usize>,
    names: BTreeMap<Dot, (Bytes, Option<Bytes>)>,
}

impl Dots {
    /// The node on `host` issued a dot.
    pub fn issued(&mut self, host: usize, dot: Dot) -> Option<Violation> {
        let before = self.issued.insert(dot, host)?;
        let evidence = format!(
            "{dot} was issued by the node on host {} and again by that on host {}",
            before + 1,
            host + 1
        );
        Some(Violation::general(Invariant::OneDotOneValue, evidence))
    }

    /// The key that a dot is of, if a record with it has passed.
    #[must_use]
    pub fn key_of(&self, dot: Dot) -> Option<&Bytes> {
        self.names.get(&dot).map(|(key, _)| key)
    }

    /// A record of `key` passed, in a message or a reply of a disk.
    pub fn passed(&mut self, key: &Bytes, record: &Record) -> Option<Violation> {
        for sibling in record.siblings() {
            let evidence = match self.names.get(&sibling.dot) {
                Some((named, value)) if named == key && *value == sibling.value => continue,
                Some((named, value)) => {
                    format!(
                        "{} names {value:?} of key {named:?} and {:?} of key {key:?}",
                        sibling.dot, sibling.value
                    )
                }
                None if !self.issued.contains_key(&sibling.dot) => {
                    format!("{} names {:?}, but nobody issued it", sibling.dot, sibling.value)
                }
                None => {
                    self.names.insert(sibling.dot, (key.clone(), sibling.value.clone()));
                    continue;
                }
            };
            return Some(Violation {
                key: Some(key.clone()),
                ..Violation::general(Invariant::OneDotOneValue, evidence)
            });
        }
        None
    }
}

/// Judges what clients saw: values that somebody wrote, on that key, under one value per dot.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut names: BTreeMap<Dot, (WriteId, &Bytes)> = BTreeMap::new();
    for (key, operations) in history.by_key() {
        let written: BTreeMap<WriteId, usize> = operations
            .iter()
            .filter_map(|&index| history.operations[index].as_write(index))
            .filter(|write| !write.deletes)
            .map(|write| (write.id, write.index))
            .collect();
        let found = operations.iter().find_map(|&index| {
            let operation = &history.operations[index];
            if let (Some(write), Ending::Committed(Some(dot))) =
                (operation.as_write(index), &operation.ending)
            {
                let (id, named) = *names.entry(*dot).or_insert((write.id, key));
                return (id != write.id || named != key).then(|| {
                    (operation, format!("{dot} names {id} of {named:?} and {} of {key:?}", write.id))
                });
            }
            let (_, seen) = operation.as_answered()?;
            if let Some(foreign) = seen.foreign.first() {
                return Some((operation, format!("the value {foreign:?} was read, but nobody wrote it")));
            }
            for (id, dot) in &seen.values {
                let invoked = written.get(id).map(|&index| history.operations[index].invoked);
                if invoked.is_none_or(|invoked| invoked > operation.ended) {
                    let when = seconds(operation.ended);
                    return Some((
                        operation,
                        format!("{id} was read at {when}, before anybody wrote it to this key"),
                    ));
                }
                let (named, of) = *names.entry(*dot).or_insert((*id, key));
                if named != *id || of != key {
                    return Some((operation, format!("{dot} names {named} of {of:?} and {id} of {key:?}")));
                }
            }
            None
        });
        if let Some((operation, evidence)) = found {
            let span = (operation.invoked, operation.ended);
            violations.push(Violation::of_key(Invariant::OneDotOneValue, key, span, evidence));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Story, dot, record};
    use super::*;

    #[test]
    fn a_dot_that_is_issued_twice_is_reported() {
        let mut dots = Dots::default();
        assert_eq!(dots.issued(0, dot(1)), None);
        assert_eq!(dots.issued(1, dot(2)), None);
        assert!(dots.issued(1, dot(1)).is_some());
        assert!(dots.issued(1, dot(2)).is_some(), "also by the same node");
    }

    #[test]
    fn a_dot_with_two_values_or_two_keys_or_of_nobody_is_reported() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let mut dots = Dots::default();
        assert!(dots.passed(&a, &record(&[(1, 1)])).is_some(), "nobody issued it");
        assert_eq!(dots.issued(0, dot(1)), None);
        assert_eq!(dots.passed(&a, &record(&[(1, 1)])), None);
        assert_eq!(dots.passed(&a, &record(&[(1, 1)])), None);
        assert!(dots.passed(&a, &record(&[(1, 2)])).is_some());
        assert!(dots.passed(&b, &record(&[(1, 1)])).is_some());
    }

    #[test]
    fn a_value_that_nobody_wrote_or_wrote_later_or_elsewhere_is_reported() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read(&[1], 20..30);
        assert_eq!(judge(&story.history), []);
        story.read(&[2], 40..50);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.delete(1, &[], 0..10).read(&[1], 20..30);
        assert_eq!(judge(&story.history).len(), 1, "a delete has no value");
        let mut story = Story::new(3);
        story.read(&[1], 0..10).put(1, &[], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).on("another").read(&[1], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
    }

    #[test]
    fn a_dot_that_clients_see_under_two_values_is_reported() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[], 0..10).read(&[1], 20..30).read(&[2], 40..50);
        if let Ending::Answered(seen) = &mut story.history.operations[3].ending {
            seen.values[0].1 = dot(1);
        }
        assert_eq!(judge(&story.history).len(), 1);
    }
}
