//! The Idempotent Receiver: how a record remembers which operations made it what it is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Dot;
use crate::protocol::time::WallTime;

/// How long an operation id means anything. A later attempt of the same operation is refused as *unknown*.
pub const OPERATION_LIFETIME: Duration = Duration::from_secs(60);

/// How many operations a record remembers. The promise of exactly one effect holds for the newest this many.
pub const OPERATIONS_MAX: usize = 64;

/// Names one operation of a client over all of its attempts.
///
/// The start is node time, which clients learn in the handshake, so that a client with a broken clock is no worse off
/// than others. A coordinator should not let one in from further ahead than the allowed skew: until real time has
/// caught up with it, its key would forget all other operations at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId {
    /// When the client started the operation. Comes first, so that operations order by age.
    pub started: WallTime,
    /// 64 random bits.
    pub nonce: u64,
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({}-{:016x})", self.started.0, self.nonce)
    }
}

/// One attempt of an operation that some coordinator turned into a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationMark {
    /// The operation.
    pub operation: OperationId,
    /// The dot of this attempt.
    pub dot: Dot,
}

/// The marks of the recent operations of one key: a set that merges by union and forgets by a rule that depends on
/// nothing but the set itself, so that equal histories give equal bytes.
///
/// Kept: whole operations that started within [`OPERATION_LIFETIME`] of the newest start in the set, at most the
/// newest [`OPERATIONS_MAX`]: the *window*. Taking the newest of a union commutes with taking unions, so the marks of a
/// merged record do not depend on the order of the merges; what those marks did before they were forgotten can (see the
/// laws of [`Record`](super::Record)). The window is part of the byte format: decoding refuses marks beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<OperationMark>")]
pub struct Operations(Vec<OperationMark>);

impl Operations {
    /// Adds one mark *without* forgetting; the caller prunes when it has used the marks.
    pub(super) fn note(&mut self, mark: OperationMark) {
        if let Err(at) = self.0.binary_search(&mark) {
            self.0.insert(at, mark);
        }
    }

    /// Adds all marks of `other` *without* forgetting; the caller prunes when it has used them.
    pub(super) fn absorb(&mut self, other: &Operations) {
        if self.0 != other.0 {
            other.0.iter().for_each(|mark| self.note(*mark));
        }
    }

    /// Whether all marks of `other` are here.
    pub(super) fn contains_all(&self, other: &Operations) -> bool {
        self.0 == other.0 || other.0.iter().all(|mark| self.0.binary_search(mark).is_ok())
    }

    /// The marks by operation, oldest operation first; each group is the known attempts of one.
    pub(super) fn by_operation(&self) -> impl Iterator<Item = &[OperationMark]> {
        self.0.chunk_by(|a, b| a.operation == b.operation)
    }

    /// Forgets the operations that started before `moment`, for good: the caller must know that no attempt of theirs
    /// can come any more.
    pub(super) fn forget_before(&mut self, moment: WallTime) {
        self.0.retain(|mark| mark.operation.started >= moment);
    }

    /// When the youngest of them started.
    #[must_use]
    pub fn newest(&self) -> Option<WallTime> {
        self.0.last().map(|mark| mark.operation.started)
    }

    /// Forgets what lies beyond the window.
    pub(super) fn prune(&mut self) {
        let beyond = self.beyond_window();
        self.0.drain(..beyond);
    }

    /// How many of the oldest marks the window excludes.
    fn beyond_window(&self) -> usize {
        let Some(newest) = self.0.last() else { return 0 };
        let floor = newest.operation.started.0.saturating_sub(OPERATION_LIFETIME.as_millis() as u64);
        let mut keep_from = self.0.len();
        let mut distinct = 0;
        while keep_from > 0 {
            let mark = &self.0[keep_from - 1];
            let starts_operation = self.0.get(keep_from).is_none_or(|next| next.operation != mark.operation);
            if starts_operation {
                if mark.operation.started.0 < floor || distinct == OPERATIONS_MAX {
                    break;
                }
                distinct += 1;
            }
            keep_from -= 1;
        }
        keep_from
    }

    /// The dot of a remembered attempt of `operation`: of the one with the lowest dot, since all attempts of an
    /// operation live and die together.
    #[must_use]
    pub fn find(&self, operation: OperationId) -> Option<Dot> {
        let at = self.0.partition_point(|mark| mark.operation < operation);
        self.0.get(at).filter(|mark| mark.operation == operation).map(|mark| mark.dot)
    }

    /// The operation that made `dot`, if it is remembered.
    #[must_use]
    pub fn of(&self, dot: Dot) -> Option<OperationId> {
        self.0.iter().find(|mark| mark.dot == dot).map(|mark| mark.operation)
    }

    /// All marks, oldest operation first.
    pub fn iter(&self) -> impl Iterator<Item = &OperationMark> {
        self.0.iter()
    }

    /// How many marks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<OperationMark>> for Operations {
    type Error = &'static str;

    fn try_from(marks: Vec<OperationMark>) -> Result<Self, Self::Error> {
        let sorted = marks.windows(2).all(|pair| pair[0] < pair[1]);
        let operations = Operations(marks);
        if sorted && operations.beyond_window() == 0 {
            Ok(operations)
        } else {
            Err("operation marks are not in canonical form")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;
    use crate::protocol::id::Actor;
    use crate::protocol::time::Timestamp;

    fn mark(started: u64, attempt: u64) -> OperationMark {
        OperationMark {
            operation: OperationId { started: WallTime(started), nonce: started },
            dot: Dot { actor: Actor(attempt), at: Timestamp(started + 1) },
        }
    }

    #[test]
    fn operations_older_than_the_lifetime_of_the_newest_are_forgotten_whole() {
        let mut operations = Operations::default();
        operations.note(mark(1_000, 1));
        operations.note(mark(1_000, 2));
        operations.note(mark(2_000, 1));
        operations.note(mark(61_500, 1));
        operations.prune();
        assert_eq!(operations.iter().map(|m| m.operation.started.0).collect::<Vec<_>>(), [2_000, 61_500]);
    }

    #[test]
    fn at_most_the_newest_sixty_four_operations_are_kept_with_all_their_attempts() {
        let mut operations = Operations::default();
        for started in 0..70 {
            operations.note(mark(started, 1));
            operations.note(mark(started, 2));
            operations.prune();
        }
        assert_eq!(operations.len(), 2 * OPERATIONS_MAX);
        assert_eq!(operations.find(mark(5, 1).operation), None);
        assert_eq!(operations.find(mark(6, 1).operation), Some(mark(6, 1).dot));
    }

    #[test]
    fn what_is_not_canonical_does_not_decode() {
        let decodes = |marks: &[OperationMark]| codec::decode::<Operations>(&codec::encode(marks)).is_ok();
        assert!(decodes(&[]) && decodes(&[mark(1_000, 1), mark(1_000, 2), mark(61_000, 1)]));
        assert!(!decodes(&[mark(1_000, 2), mark(1_000, 1)]), "unsorted");
        assert!(!decodes(&[mark(1_000, 1), mark(1_000, 1)]), "twice the same");
        assert!(!decodes(&[mark(1_000, 1), mark(61_001, 1)]), "beyond the lifetime");
        let many: Vec<_> = (0..=OPERATIONS_MAX as u64).map(|started| mark(started, 1)).collect();
        assert!(decodes(&many[1..]) && !decodes(&many), "one operation too many");
    }
}
