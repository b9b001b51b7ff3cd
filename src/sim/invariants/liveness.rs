//! Invariant 16: once the owners of a key are healthy and connected, every operation ends well within its deadline.

use super::super::history::{Action, Ending, History};
use super::{Invariant, Violation, seconds};

/// Judges the operations that the cluster owed success.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations: Vec<Violation> = Vec::new();
    for operation in &history.operations {
        let Some(owed_by) = operation.owed_by else { continue };
        let went_well =
            matches!(operation.ending, Ending::Committed(_) | Ending::Answered(_) | Ending::Equal);
        // Owners that differ although all of them answer are the business of the convergence judge.
        let is_told = operation.action == Action::Compare && history.remains.contains_key(&operation.key);
        let is_reported = violations.iter().any(|violation| violation.key.as_ref() == Some(&operation.key));
        if went_well && operation.ended <= owed_by || is_told || is_reported {
            continue;
        }
        let evidence = format!(
            "{} of c{}, begun at {}, was owed success by {}, and ended as {:?} after {} attempts",
            operation.action,
            operation.client,
            seconds(operation.invoked),
            seconds(owed_by),
            operation.ending,
            operation.attempts,
        );
        let span = (operation.invoked, operation.ended.min(owed_by));
        violations.push(Violation::of_key(Invariant::Liveness, &operation.key, span, evidence));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Story;
    use super::*;
    use crate::protocol::time::Moment;

    #[test]
    fn what_was_owed_and_did_not_come_is_reported() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).unknown_put(2, &[], 0..10);
        assert_eq!(judge(&story.history), []);
        story.history.operations[0].owed_by = Some(Moment(10));
        assert_eq!(judge(&story.history), []);
        story.history.operations[0].owed_by = Some(Moment(9));
        assert_eq!(judge(&story.history).len(), 1);
        story.history.operations[0].owed_by = None;
        story.history.operations[1].owed_by = Some(Moment(100));
        assert_eq!(judge(&story.history).len(), 1);
    }
}
