//! Invariant 9: unknown is not failed; what was *not applied* is nowhere, ever.
//!
//! A write with a context of another key, or with a damaged one, has to be refused: it is never committed, and it is
//! nowhere even if its client never heard the refusal.

use std::collections::BTreeMap;

use super::super::history::{Basis, History, WriteId, WriteOf};
use super::{Invariant, Violation, seconds};

/// Looks for the values of writes that were answered *not applied*, or had to be, in everything that was read, and in
/// what the owners hold at the end.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, operations) in history.by_key() {
        let writes = operations.iter().filter_map(|&index| history.operations[index].as_write(index));
        let failed: BTreeMap<WriteId, WriteOf<'_>> =
            writes.filter(|write| !write.is_possible()).map(|write| (write.id, write)).collect();
        if failed.is_empty() {
            continue;
        }
        let is_failed = |id: WriteId| failed.get(&id).copied();
        let accepted = operations.iter().find_map(|&index| {
            let write = history.operations[index].as_write(index)?;
            let is_wrong = write.is_committed() && *write.basis == Basis::Nothing;
            is_wrong.then(|| (write, "it was committed".to_owned(), write.operation.ended))
        });
        let shown = operations.iter().find_map(|&index| {
            let read = &history.operations[index];
            let (_, seen) = read.as_answered()?;
            let write = seen.ids().into_iter().find_map(is_failed)?;
            Some((write, format!("c{} was shown it at {}", read.client, seconds(read.ended)), read.ended))
        });
        let held = || {
            let owners = &history.remains.get(key)?.owners;
            owners.iter().find_map(|(node, record)| {
                let values = record.as_ref()?.as_ref()?.values();
                let write = values.iter().filter_map(|value| WriteId::of_value(value)).find_map(is_failed)?;
                Some((write, format!("node {node} holds it at the end"), write.operation.ended))
            })
        };
        if let Some((write, where_to, until)) = accepted.or(shown).or_else(held) {
            let why = match write.basis {
                Basis::Nothing => "sent a context that is no context of this key",
                _ => "was answered not applied",
            };
            let evidence = format!(
                "{} of c{} {why} (it ended at {} as {:?}), but {where_to}",
                write.id,
                write.operation.client,
                seconds(write.operation.ended),
                write.operation.ending,
            );
            let span = (write.operation.invoked, until);
            violations.push(Violation::of_key(Invariant::Outcomes, key, span, evidence));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::super::history::Ending;
    use super::super::fixture::Story;
    use super::*;

    #[test]
    fn a_failed_write_that_is_shown_or_held_is_reported() {
        let mut story = Story::new(3);
        story.failed_put(1, &[], 0..10).read(&[1], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.read(&[1], 5..8).failed_put(1, &[], 0..10);
        assert_eq!(judge(&story.history).len(), 1, "ever means ever");
        let mut story = Story::new(3);
        story.failed_put(1, &[], 0..10).remains(&[]).held(&[&[], &[1], &[]]);
        assert_eq!(judge(&story.history).len(), 1);
    }

    #[test]
    fn a_write_with_a_wrong_context_that_is_committed_or_shown_or_held_is_reported() {
        let mut story = Story::new(3);
        story.wrong_put(1, 0..10, Ending::NotApplied).wrong_put(2, 0..10, Ending::Unknown).read(&[], 20..30);
        assert_eq!(judge(&story.history), [], "its client need not hear the refusal");
        story.wrong_put(3, 40..50, Ending::Committed(None));
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.wrong_put(1, 0..10, Ending::Unknown).read(&[1], 20..30);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.wrong_put(1, 0..10, Ending::Unknown).remains(&[]).held(&[&[1], &[], &[]]);
        assert_eq!(judge(&story.history).len(), 1);
    }

    #[test]
    fn an_unknown_write_may_be_anywhere_and_a_failed_one_nowhere() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..10).failed_put(2, &[], 0..10).read(&[1], 20..30).remains(&[]);
        assert_eq!(judge(&story.history), []);
    }
}
