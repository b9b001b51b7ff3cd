//! Invariant 1: no acknowledged write is lost.
//!
//! When all is over, each committed write is among the siblings, or a write that may have happened came from a client
//! that had been *shown* its value and sent the context it got with it; and so on along the chain. "The context covers
//! its dot" would be no proof: reused dots and over-reaching contexts pass that, and they are what loses writes.

use super::super::history::History;
use super::supersession::Writes;
use super::{Invariant, Violation, seconds};
use crate::protocol::time::Moment;

/// Judges every key that was read from all owners at the end.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, operations) in history.by_key() {
        let Some(remains) = history.remains.get(key) else { continue };
        let last = &history.operations[remains.read];
        let Some((_, seen)) = last.as_answered() else { continue };
        let visible = seen.ids();
        let writes = Writes::of(history, &operations);
        let lost = writes
            .iter()
            .find(|w| w.is_committed() && !w.deletes && !writes.is_explained(w.id, &visible, Moment::NEVER));
        if let Some(write) = lost {
            let (invoked, ended) = (write.operation.invoked, write.operation.ended);
            let evidence = format!(
                "{} of c{} was committed at {} with w={:?}; at the end all owners together hold {:?}, and nobody who \
                 had been shown {} wrote anything that led there",
                write.id,
                write.operation.client,
                seconds(ended),
                write.w,
                visible,
                write.id,
            );
            let span = (invoked, last.ended);
            violations.push(Violation::of_key(Invariant::NoLostWrite, key, span, evidence));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Story;
    use super::*;

    #[test]
    fn a_value_that_remains_or_was_overwritten_by_who_saw_it_is_not_lost() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[1], 20..30).put(3, &[2], 40..50).remains(&[3]);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn a_value_that_vanished_is_lost() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[], 20..30).remains(&[2]);
        let violations = judge(&story.history);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].evidence.contains("v1 of c"), "{}", violations[0]);
    }

    #[test]
    fn a_chain_with_a_hole_explains_nothing() {
        // v2 saw v1, and v3 is what remains, but its client was never shown v2: then v2 is lost, and v1 with it.
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(2, &[1], 20..30).put(3, &[1], 40..50).remains(&[3]);
        let violations = judge(&story.history);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].evidence.contains("v2 of c"), "{}", violations[0]);
    }

    #[test]
    fn an_unknown_write_explains_only_if_something_came_of_it() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 20..30).remains(&[2]);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[1], 20..30).put(3, &[], 40..50).remains(&[3]);
        assert_eq!(judge(&story.history).len(), 1, "v2 never happened, so what took the place of v1?");
    }

    #[test]
    fn a_write_that_was_not_applied_explains_nothing() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).failed_put(2, &[1], 20..30).remains(&[]);
        assert_eq!(judge(&story.history).len(), 1);
    }

    #[test]
    fn deletes_explain_what_they_were_shown_or_may_have_found() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).delete(2, &[1], 20..30).remains(&[]);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).put(3, &[], 0..10).delete(2, &[1], 20..30).remains(&[]);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).sweep(2, 20..30).remains(&[]);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.sweep(2, 20..30).put(1, &[], 40..50).remains(&[]);
        assert_eq!(judge(&story.history).len(), 1, "the delete was over when the value was written");
        // A second attempt of it may come so late that 64 others have made the key forget the first.
        story.history.operations[0].attempts = 2;
        assert_eq!(judge(&story.history).len(), 1);
        (100..200).for_each(|id| {
            story.unknown_put(id, &[], 33..34);
        });
        assert_eq!(judge(&story.history), []);
    }
}
