//! Invariant 5, the half that a run can show: equal records have equal bytes, and what arrives is what was sent.
//!
//! The laws of the merge are proved by the property tests of [`causality`](crate::protocol::causality).

use super::super::history::History;
use super::{Invariant, Violation};
use crate::protocol::codec;
use crate::protocol::wire::peer::PeerMessage;

/// Judges the bytes of a message: they decode to it again, and that has the same bytes.
#[must_use]
pub fn judge_message(message: &PeerMessage, bytes: &[u8]) -> Option<Violation> {
    let evidence = match codec::decode::<PeerMessage>(bytes) {
        Err(error) => format!("a node cannot read what another one says ({error}): {message:?}"),
        Ok(other) if other != *message => format!("{message:?} was sent and {other:?} arrives"),
        Ok(other) if codec::encode(&other) != bytes => format!("{message:?} has two forms in bytes"),
        Ok(_) => return None,
    };
    Some(Violation::general(Invariant::Canonical, evidence))
}

/// Judges what the owners hold at the end: records that are equal have equal bytes and one hash, and others have not.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, remains) in &history.remains {
        let mut records = remains.owners.iter().filter_map(|(_, record)| record.as_ref()?.as_ref());
        let Some(first) = records.next() else { continue };
        let bytes = codec::encode(first);
        let differing = records.find(|other| {
            (*other == first) != (codec::encode(other) == bytes)
                || (*other == first) != (other.hash(key) == first.hash(key))
        });
        if let Some(other) = differing {
            let read = &history.operations[remains.read];
            let evidence =
                format!("records and their bytes do not agree about being equal: {first:?} and {other:?}");
            violations.push(Violation::of_key(
                Invariant::Canonical,
                key,
                (read.invoked, read.ended),
                evidence,
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Story, record};
    use super::*;
    use crate::protocol::id::RequestId;

    #[test]
    fn a_message_that_arrives_otherwise_or_not_at_all_is_reported() {
        let said = |value| PeerMessage::Fetched {
            request: RequestId(1),
            raised: Default::default(),
            committed: Default::default(),
            milestone: Default::default(),
            record: Some(record(&[(1, value)])),
        };
        let bytes = codec::encode(&said(1));
        assert_eq!(judge_message(&said(1), &bytes), None);
        assert!(
            judge_message(&said(2), &bytes).is_some_and(|violation| violation.evidence.contains("arrives"))
        );
        assert!(judge_message(&said(1), &bytes[1..]).is_some());
    }

    #[test]
    fn owners_with_equal_or_different_records_agree_with_their_bytes() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).remains(&[1]).held(&[&[1], &[1], &[]]);
        assert_eq!(judge(&story.history), []);
    }
}
