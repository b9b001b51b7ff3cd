//! What a read found.

use bytes::Bytes;
use thiserror::Error;

use super::context::Context;
use crate::protocol::causality::Sibling;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::ReadAnswer;

/// What a read found: every value of the key that no other one has replaced, and what it takes to replace them.
///
/// There is more than one value when writers did not know of each other, above all on both sides of a partition. The
/// store keeps them all until somebody writes one value *with the context of a reading that showed them*; which value
/// is right only the application knows. [`latest`](Reading::latest) is there for those to whom it does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    context: Context,
    siblings: Vec<Sibling>,
    values: Vec<Bytes>,
    deleted: bool,
    replies: Vec<NodeId>,
    coordinator: NodeId,
}

/// A key has more than one value where one was expected. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the key has {0} concurrent values; merge them with `update`, or choose with `latest`")]
pub struct Conflict(pub usize);

impl Reading {
    pub(super) fn new(key: Bytes, answer: ReadAnswer, coordinator: NodeId) -> Reading {
        let values = answer.values.iter().filter_map(|sibling| sibling.value.clone()).collect();
        Reading {
            context: Context::new(key, answer.context),
            siblings: answer.values,
            values,
            deleted: answer.deleted,
            replies: answer.replies,
            coordinator,
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        self.context.key()
    }

    /// The concurrent values, oldest write first. None if the key is absent.
    #[must_use]
    pub fn values(&self) -> &[Bytes] {
        &self.values
    }

    /// The value, `None` for an absent key, an error if there are several.
    pub fn single(&self) -> Result<Option<&Bytes>, Conflict> {
        match self.values.as_slice() {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            several => Err(Conflict(several.len())),
        }
    }

    /// The outcome of the write with the newest timestamp: its value, or `None` if it was a deletion or the key is
    /// absent.
    ///
    /// "Newest" is by the clocks of the nodes that took the writes, which may differ by half a second; of two writes
    /// that did not know of each other this picks one as good as any, and the same for every reader.
    #[must_use]
    pub fn latest(&self) -> Option<&Bytes> {
        let newest = self.siblings.iter().max_by_key(|sibling| (sibling.dot.at, sibling.dot.actor))?;
        newest.value.as_ref()
    }

    /// The values with the dots of their writes, deletions that are concurrent to a value included.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Whether the key has no value.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether the key has no value because it was deleted. The memory of deletions fades, so `false` does not mean
    /// that there never was one.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// What this reading has seen, for the write that answers it.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The same, without a copy.
    #[must_use]
    pub fn into_context(self) -> Context {
        self.context
    }

    /// The owners whose replies were merged.
    #[must_use]
    pub fn replies(&self) -> &[NodeId] {
        &self.replies
    }

    /// The node that ran the read.
    #[must_use]
    pub fn coordinator(&self) -> NodeId {
        self.coordinator
    }
}

impl From<Reading> for ReadAnswer {
    /// As the node answered it, for those who pass answers on.
    fn from(reading: Reading) -> ReadAnswer {
        ReadAnswer {
            available: true,
            deleted: reading.deleted,
            context: reading.context.token().cloned(),
            values: reading.siblings,
            replies: reading.replies,
            problem: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::Dot;
    use crate::protocol::id::Actor;
    use crate::protocol::time::Timestamp;

    fn sibling(actor: u64, at: u64, value: Option<&'static str>) -> Sibling {
        Sibling { dot: Dot { actor: Actor(actor), at: Timestamp(at) }, value: value.map(Bytes::from) }
    }

    fn reading(siblings: Vec<Sibling>) -> Reading {
        let answer = ReadAnswer {
            available: true,
            deleted: false,
            values: siblings,
            context: None,
            replies: vec![],
            problem: None,
        };
        Reading::new(Bytes::from("k"), answer, NodeId(1))
    }

    #[test]
    fn the_latest_write_decides_even_if_it_deleted() {
        assert_eq!(reading(vec![]).latest(), None);
        let two = reading(vec![sibling(1, 5, Some("old")), sibling(2, 9, Some("new"))]);
        assert_eq!(two.latest(), Some(&Bytes::from("new")));
        assert_eq!(two.single(), Err(Conflict(2)));
        let deleted = reading(vec![sibling(1, 5, Some("old")), sibling(2, 9, None)]);
        assert_eq!(deleted.latest(), None);
        assert_eq!(deleted.single(), Ok(Some(&Bytes::from("old"))));
    }

    #[test]
    fn a_reading_becomes_the_answer_that_it_came_from() {
        let answer = ReadAnswer {
            available: true,
            deleted: false,
            values: vec![sibling(1, 5, Some("v")), sibling(2, 9, None)],
            context: Some(Bytes::from("token").into()),
            replies: vec![NodeId(1), NodeId(3)],
            problem: None,
        };
        let reading = Reading::new(Bytes::from("k"), answer.clone(), NodeId(1));
        assert_eq!(ReadAnswer::from(reading), answer);
    }

    #[test]
    fn equal_timestamps_are_decided_by_the_actor_for_every_reader_alike() {
        let (a, b) = (sibling(1, 5, Some("a")), sibling(2, 5, Some("b")));
        assert_eq!(reading(vec![a.clone(), b.clone()]).latest(), reading(vec![b, a]).latest());
    }
}
