//! Invariant 6: after healing and without new writes, all owners of a key hold equal records.
//!
//! Under half of the seeds every key is read from all owners first, and the repair behind that read converges them. Under
//! the other half nobody reads it before its records are compared: there the exchanges of the owners have to do it, and
//! once all are equal a further exchange has to move nothing.

use super::super::history::History;
use super::{Invariant, Violation};

/// Compares what the owners hold at the end.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, remains) in &history.remains {
        let read = &history.operations[remains.read];
        let silent = remains.owners.iter().find(|(_, record)| record.is_none());
        let mut records = remains.owners.iter().filter_map(|(node, record)| Some((node, record.as_ref()?)));
        let differing = records.next().and_then(|(first, held)| {
            records.find(|(_, other)| *other != held).map(|(node, other)| (first, held, node, other))
        });
        let evidence = if let Some((node, _)) = silent {
            format!("node {node} does not tell what it holds")
        } else if remains.owners.len() != history.owners {
            format!("the key has {} owners instead of {}", remains.owners.len(), history.owners)
        } else if let Some((first, held, node, other)) = differing {
            let bytes =
                |record: &Option<_>| record.as_ref().map_or(0, |r: &super::Record| r.siblings().len());
            format!(
                "nodes {first} and {node} hold different records, of {} and {} siblings: {held:?} and {other:?}",
                bytes(held),
                bytes(other),
            )
        } else {
            continue;
        };
        let span = (read.invoked, read.ended);
        violations.push(Violation::of_key(Invariant::Convergence, key, span, evidence));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Story;
    use super::*;

    #[test]
    fn owners_that_differ_are_silent_or_missing_are_reported() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).remains(&[1]);
        story.held(&[&[1], &[1], &[1]]);
        assert_eq!(judge(&story.history), []);
        story.held(&[&[1], &[1], &[]]);
        assert_eq!(judge(&story.history).len(), 1);
        story.held(&[&[1], &[1]]);
        assert_eq!(judge(&story.history).len(), 1);
        story.held(&[&[1], &[1], &[1]]);
        for remains in story.history.remains.values_mut() {
            remains.owners[2].1 = None;
        }
        assert_eq!(judge(&story.history).len(), 1);
    }
}
