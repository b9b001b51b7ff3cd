//! What a replica stores for a key, and the one pure function that changes it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use super::{Age, Dot, OperationId, OperationMark, Operations, VersionVector};
use crate::protocol::codec;
use crate::protocol::config::Limits;
use crate::protocol::id::{Actor, ReapEpoch};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::time::{Timestamp, WallTime};

/// One of several concurrent values of a key: a Versioned Value (*Patterns of Distributed Systems*). A deletion is a
/// sibling without a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sibling {
    /// The write that made it.
    pub dot: Dot,
    /// Its bytes; `None` for a deletion.
    pub value: Option<Bytes>,
}

/// What a replica stores for a key: siblings and context, and the operations that made them.
///
/// # Laws
/// [`merge`](Record::merge) is the join of a semilattice: commutative, associative, idempotent, and monotone (neither
/// side's knowledge shrinks, and what either side saw die stays dead). Equal records have equal bytes. `laws.rs`
/// proves it for small scopes and attacks it at random, against a naive second implementation.
///
/// Associativity alone has a limit. A record that is merged may forget operations ([`Operations`]) in favour of newer
/// ones, *after* they did their work; so when a key sees more operations than the window holds, the order of merges may
/// decide whether a second attempt of a forgotten operation is still recognised and buried. Beyond the window there
/// remain: the join is commutative, idempotent and absorbing (`b ⊔ (a ⊔ b) = a ⊔ b`), its context and marks stay
/// associative, every order buries at least what plain version vectors bury, and replicas that exchange until nothing
/// changes end equal.
///
/// A client's context carries no marks. A replica that executes a context from beyond what it has merged knows that one
/// attempt is dead before it knows that another dot is an attempt of the same operation; until their marks meet, a merge
/// of a few replicas may show a superseded value of a retried operation once more beside the new one. So such a put is
/// refused as [`Behind`](Refusal::Behind) until its coordinator has asked a majority.
///
/// # Invariants
/// * Every sibling's dot is covered by the context, and so is the dot of every remembered operation.
/// * Siblings are sorted by dot, no dot twice.
/// * A dot that is covered and not among the siblings is *dead*: its value was superseded, and stays so.
/// * The remembered attempts of one operation are all dead or all alive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Record {
    parts: Parts,
}

/// The canonical byte layout of a record: epoch, context, siblings, operations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    epoch: ReapEpoch,
    context: VersionVector,
    siblings: Vec<Sibling>,
    operations: Operations,
}

/// 128 bits over a key and the canonical bytes of its record. Sums of them make up the hash tree of a slot.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordHash(pub u128);

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordHash({:032x})", self.0)
    }
}

/// A change to the record of one key, shipped to the disk as data and executed there by [`Record::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A client's write, executed by its coordinator.
    Put(Put),
    /// Another replica's record: a write's fan-out, a repair. Exempt from all limits.
    Merge {
        /// The other replica's record.
        record: Record,
        /// The receiving node's own actor: a record that has seen more of it than this node has applied proves that
        /// the node forgot something.
        own: Actor,
        /// How old the record is, in deletions forgotten.
        age: Age,
    },
    /// What a certified round of reaping decided about a record: executed where the record still is what was certified.
    Compact(Compact),
}

/// The certified shortening of one record: it goes on without the context entries of actors that will never write
/// again, and without the marks of operations that no attempt can come of any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compact {
    /// The record as all owners held it. Anything else is left alone.
    pub certified: RecordHash,
    /// The round. Messages that are older than this must not meet the shortened record.
    pub epoch: ReapEpoch,
    /// The actors that may still write. Their entries stay.
    pub writing: Vec<Actor>,
    /// Marks of operations that started before this, in node time, are forgotten.
    pub marks_before: WallTime,
}

/// A client's write. Its dot was issued by the coordinator for this attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// What the client had seen.
    pub context: VersionVector,
    /// The dot of this attempt. Puts of one key must reach the disk in the order in which their dots were issued: a
    /// record that holds a later dot of this actor claims to have seen this one.
    pub dot: Dot,
    /// The bytes; `None` deletes.
    pub value: Option<Bytes>,
    /// The operation that this is an attempt of.
    pub operation: OperationId,
    /// What a majority holds: merged before the put looks for its operation. `None` if nobody was asked; then a context
    /// from beyond what the replica has merged is refused as [`Behind`](Refusal::Behind).
    pub base: Option<Record>,
    /// How old the base is.
    pub age: Age,
    /// What the coordinator refuses to exceed.
    pub limits: Limits,
}

/// What became of a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The record is now this.
    Changed {
        /// The new record.
        record: Record,
        /// See [`Change::Merge`]: the node's own actor was ahead of the node.
        amnesia: bool,
    },
    /// The record was like that before.
    Unchanged {
        /// The record as it is.
        record: Record,
    },
    /// An earlier attempt of the same operation is already in the record. It may have been superseded since.
    Adopted {
        /// The record, which may have grown by the put's base.
        record: Record,
        /// The dot of the earlier attempt.
        dot: Dot,
        /// Whether the record changed (by the base).
        changed: bool,
        /// See [`Change::Merge`]: the base had seen more of the put's actor than the node has applied.
        amnesia: bool,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a coordinator's own replica refused a put. Nothing was changed or logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The key has too many concurrent values.
    #[error(
        "the key has {0} concurrent values already; read it and write back one value with the context of that read"
    )]
    TooManySiblings(u32),
    /// The record would become too large.
    #[error(
        "the record of the key would take {0} bytes; read it and write back one value with the context of that read"
    )]
    RecordTooLarge(u64),
    /// The context would become too long.
    #[error("the context of the key would have {0} entries")]
    ContextTooLong(u32),
    /// The disk is nearly full.
    #[error("the disk of the coordinator is nearly full; free some space or write through another node")]
    DiskFull,
    /// The log runs too far ahead of the store.
    #[error("the node has too many writes waiting for its disk; try again in a moment")]
    Overloaded,
    /// The stored record is damaged and was not refilled yet.
    #[error("the coordinator's copy of the key is damaged; try again through another node")]
    Lost,
    /// Another replica has seen writes of the coordinator's own actor that the coordinator does not hold, or even the
    /// very dot of this put. A write under that actor would bury what was forgotten, so the node takes a new actor
    /// before it tries again.
    #[error("the coordinator has forgotten writes of its own and goes on under a new identity; try again")]
    Amnesia,
    /// The context names writes that this replica has not merged. It knows neither their values nor of which operations
    /// they are attempts, so it has to ask a majority first.
    #[error("the coordinator has not seen all that the client was shown; try again")]
    Behind,
    /// The record was read before a round of reaping that this replica has completed since: what it has to tell of a
    /// key that was reaped here may be a value whose deletion everybody has forgotten. It has to be read again.
    #[error("the record was read before the key was reaped; read it again")]
    Reaped,
}

impl Record {
    /// What it has seen of the key.
    #[must_use]
    pub fn context(&self) -> &VersionVector {
        &self.parts.context
    }

    /// The concurrent values and deletions, sorted by dot.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        &self.parts.siblings
    }

    /// The recent operations.
    #[must_use]
    pub fn operations(&self) -> &Operations {
        &self.parts.operations
    }

    /// The round of reaping that this record began after, or was compacted in. A message from before it may hold what
    /// that round has forgotten, so it is never merged into the record.
    #[must_use]
    pub fn epoch(&self) -> ReapEpoch {
        self.parts.epoch
    }

    /// The distinct values, oldest dot first. Siblings with equal bytes read as one.
    #[must_use]
    pub fn values(&self) -> Vec<Bytes> {
        let mut values: Vec<Bytes> = Vec::new();
        for value in self.parts.siblings.iter().filter_map(|sibling| sibling.value.as_ref()) {
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        values
    }

    /// Whether every sibling is a deletion, and there is at least one.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        !self.parts.siblings.is_empty() && self.parts.siblings.iter().all(|sibling| sibling.value.is_none())
    }

    /// Whether `dot` was seen and superseded.
    #[must_use]
    pub fn is_dead(&self, dot: Dot) -> bool {
        self.parts.context.covers(dot) && self.find(dot).is_err()
    }

    /// The size of the canonical bytes.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        let Parts { context, siblings, operations, .. } = &self.parts;
        let values = siblings.iter().filter_map(|sibling| sibling.value.as_ref());
        let (values, bytes) =
            values.fold((0, 0), |(count, sum), value| (count + 1, sum + value.len() as u64));
        let deletions = siblings.len() as u64 - values;
        Record::size_of(context.len() as u64, values, operations.len() as u64) + bytes + 17 * deletions
    }

    /// The size of a record with so many actors in its context, so many empty values and so many marks of operations.
    pub(in crate::protocol) fn size_of(actors: u64, values: u64, marks: u64) -> u64 {
        // Must agree with `Parts` under the codec: fixed-width integers, 64-bit lengths, one byte for an option.
        8 + (8 + 16 * actors) + (8 + (16 + 1 + 8) * values) + (8 + 32 * marks)
    }

    /// The hash of the canonical bytes together with the key.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> RecordHash {
        Record::hash_of(key, &codec::encode(self))
    }

    /// The same hash, for a record whose canonical bytes are at hand.
    #[must_use]
    pub fn hash_of(key: &[u8], canonical: &[u8]) -> RecordHash {
        let mut hasher = Xxh3::new();
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(canonical);
        RecordHash(hasher.digest128())
    }

    /// Executes a change on what is stored (`None`: the key is absent, which is the empty record).
    ///
    /// The one place where records change, run by the real disk and the simulated one.
    #[must_use]
    pub fn apply(change: &Change, stored: Option<&Record>) -> Applied {
        let empty = Record::default();
        let current = stored.unwrap_or(&empty);
        match change {
            Change::Put(put) => Record::apply_put(put, stored),
            Change::Merge { record, own, age } => {
                if age.is_late(stored) {
                    return Applied::Refused(Refusal::Reaped);
                }
                let amnesia = current.has_forgotten(*own, record);
                let mut merged = current.clone();
                if merged.merge(record) {
                    Applied::Changed { record: merged, amnesia }
                } else {
                    Applied::Unchanged { record: merged }
                }
            }
            Change::Compact(round) => {
                let mut compacted = current.clone();
                if compacted.compact(round) {
                    Applied::Changed { record: compacted, amnesia: false }
                } else {
                    Applied::Unchanged { record: compacted }
                }
            }
        }
    }

    fn apply_put(put: &Put, stored: Option<&Record>) -> Applied {
        let is_late = put.base.as_ref().is_some_and(|base| !base.is_empty()) && put.age.is_late(stored);
        if is_late {
            return Applied::Refused(Refusal::Reaped);
        }
        let begun = Record::begun_after(put.age.committed);
        let stored = stored.unwrap_or(&begun);
        let mut record = stored.clone();
        let changed = put.base.as_ref().is_some_and(|base| record.merge(base));
        let amnesia = put.base.as_ref().is_some_and(|base| stored.has_forgotten(put.dot.actor, base));
        // An earlier attempt may have come by way of another coordinator; making a second dot of it would bring a
        // superseded value back to life. This comes before any refusal: what was done cannot be refused any more.
        if let Some(dot) = record.operations().find(put.operation) {
            return Applied::Adopted { record, dot, changed, amnesia };
        }
        // The client's context is no witness of amnesia: it may rightly name writes that a certified reap has removed
        // here. It can never name a dot that was not issued yet, though.
        #[cfg(test)]
        let amnesia = amnesia && !planted::is(Planted::EqualDotsDropped);
        let is_used = record.context().covers(put.dot) || put.context.covers(put.dot);
        #[cfg(test)]
        let is_used = is_used && !planted::is(Planted::EqualDotsDropped);
        if amnesia || is_used {
            return Applied::Refused(Refusal::Amnesia);
        }
        if put.base.is_none() && !record.context().dominates(&put.context) {
            return Applied::Refused(Refusal::Behind);
        }
        let before = Size::of(&record);
        record.put(put);
        match Size::of(&record).refusal(before, &put.limits) {
            Some(refusal) => Applied::Refused(refusal),
            None => Applied::Changed { record, amnesia: false },
        }
    }

    /// The record of a key that is absent: what is written to it now must not meet messages from before the round in
    /// which it may have been reaped.
    fn begun_after(epoch: ReapEpoch) -> Record {
        Record { parts: Parts { epoch, ..Parts::default() } }
    }

    /// Whether it says nothing of any write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.context.is_empty()
    }

    /// What [`compact`](Record::compact) would take away: how many entries of the context.
    #[must_use]
    pub fn compactable(&self, writing: &[Actor], marks_before: WallTime) -> usize {
        let Parts { context, siblings, operations, .. } = &self.parts;
        let is_needed = |actor: Actor| {
            writing.contains(&actor)
                || siblings.iter().any(|sibling| sibling.dot.actor == actor)
                || operations
                    .iter()
                    .any(|mark| mark.dot.actor == actor && mark.operation.started >= marks_before)
        };
        context.iter().filter(|entry| !is_needed(entry.actor)).count()
    }

    /// Forgets what a certified round of reaping says can never matter again. Says whether that changed anything.
    ///
    /// All owners execute this on equal records, so they end with equal ones. A dead dot whose entry goes cannot come
    /// back: its actor writes no more, all owners had seen it die, and whoever read it before they had is refused by
    /// the [epoch](Record::epoch).
    fn compact(&mut self, round: &Compact) -> bool {
        let Parts { epoch, context, siblings, operations } = &mut self.parts;
        let before = (*epoch, context.len(), operations.len());
        operations.forget_before(round.marks_before);
        let is_needed = |actor: Actor| {
            round.writing.contains(&actor)
                || siblings.iter().any(|sibling| sibling.dot.actor == actor)
                || operations.iter().any(|mark| mark.dot.actor == actor)
        };
        context.retain(is_needed);
        *epoch = round.epoch.max(*epoch);
        before != (*epoch, context.len(), operations.len())
    }

    /// Whether `witness` has seen more of `actor`, which only this record's node writes for, than this record has.
    fn has_forgotten(&self, actor: Actor, witness: &Record) -> bool {
        witness.context().get(actor) > self.context().get(actor)
    }

    /// Siblings that the client had seen go, the new one stays, the rest are kept.
    fn put(&mut self, put: &Put) {
        let parts = &mut self.parts;
        parts.siblings.retain(|sibling| !put.context.covers(sibling.dot));
        parts.context.join(&put.context);
        parts.context.note(put.dot);
        let sibling = Sibling { dot: put.dot, value: put.value.clone() };
        if let Err(at) = parts.siblings.binary_search_by_key(&put.dot, |s| s.dot) {
            parts.siblings.insert(at, sibling);
        }
        parts.operations.note(OperationMark { operation: put.operation, dot: put.dot });
        self.bury_dead_operations();
        self.parts.operations.prune();
    }

    /// Makes this record hold what either holds: the join of the semilattice. Says whether that changed anything.
    pub fn merge(&mut self, other: &Record) -> bool {
        if self.includes_plainly(other) {
            return false;
        }
        // Marks that are beyond the window are no change, so what remains of them in the end is compared.
        let marks = self.parts.operations.clone();
        let mut changed = false;
        let (mine, theirs) = (&mut self.parts, &other.parts);
        let held = mine.siblings.len();
        #[cfg(test)]
        if planted::is(Planted::EqualDotsDropped) {
            mine.siblings
                .retain(|s| other.find(s.dot).map_or(true, |at| theirs.siblings[at].value == s.value));
        }
        // A sibling survives if the other side holds it too or has never seen it.
        mine.siblings.retain(|s| !theirs.context.covers(s.dot) || other.find(s.dot).is_ok());
        changed |= mine.siblings.len() < held;
        for sibling in &theirs.siblings {
            match mine.siblings.binary_search_by_key(&sibling.dot, |s| s.dot) {
                // One dot names one value. Should that ever be broken, both sides must at least end up with the same
                // bytes; the simulator asserts that it is not.
                Ok(at) if mine.siblings[at].value < sibling.value => {
                    mine.siblings[at] = sibling.clone();
                    changed = true;
                }
                Ok(_) => {}
                // Not covered: the context changes as well, below.
                Err(at) if !mine.context.covers(sibling.dot) => mine.siblings.insert(at, sibling.clone()),
                Err(_) => {}
            }
        }
        if !mine.context.dominates(&theirs.context) {
            mine.context.join(&theirs.context);
            changed = true;
        }
        if mine.epoch < theirs.epoch {
            mine.epoch = theirs.epoch;
            changed = true;
        }
        mine.operations.absorb(&theirs.operations);
        changed |= self.bury_dead_operations();
        self.parts.operations.prune();
        #[cfg(test)]
        if planted::is(Planted::LaterClockWins) {
            let newest = self.parts.siblings.iter().map(|s| s.dot.at).max();
            self.parts.siblings.retain(|s| Some(s.dot.at) == newest);
        }
        changed | (self.parts.operations != marks)
    }

    /// [`merge`](Record::merge), leaving both sides as they are.
    #[must_use]
    pub fn merged(&self, other: &Record) -> Record {
        let mut merged = self.clone();
        merged.merge(other);
        merged
    }

    /// Whether merging `other` would change nothing.
    #[must_use]
    pub fn includes(&self, other: &Record) -> bool {
        // A context never shrinks back, so one that is not dominated settles it without a copy.
        self.context().dominates(other.context())
            && (self.includes_plainly(other) || !self.clone().merge(other))
    }

    /// Whether it can be seen without merging that `other` adds nothing. May say no where the truth is yes: when
    /// `other` remembers operations that are forgotten here.
    fn includes_plainly(&self, other: &Record) -> bool {
        let (mine, theirs) = (&self.parts, &other.parts);
        mine.epoch >= theirs.epoch
            && mine.context.dominates(&theirs.context)
            && mine.siblings.iter().all(|s| !theirs.context.covers(s.dot) || other.find(s.dot).is_ok())
            && theirs
                .siblings
                .iter()
                .all(|s| self.find(s.dot).map_or(true, |at| mine.siblings[at].value >= s.value))
            && mine.operations.contains_all(&theirs.operations)
    }

    /// An operation with one superseded attempt is superseded in all its attempts: otherwise a retry that went through
    /// another coordinator would surface after its value was overwritten or deleted, and bring it back. Says whether
    /// anything was buried.
    ///
    /// One pass is enough, since a dot belongs to one operation. Hardly any operation has a second attempt, and those
    /// that do are all alive or all dead but at the moment when a record learns of it; nothing is allocated.
    fn bury_dead_operations(&mut self) -> bool {
        let Parts { context, siblings, operations, .. } = &mut self.parts;
        let held = siblings.len();
        for attempts in operations.by_operation().filter(|attempts| attempts.len() > 1) {
            let lives = |mark: &OperationMark| siblings.binary_search_by_key(&mark.dot, |s| s.dot).is_ok();
            let is_dead = |mark: &OperationMark| context.covers(mark.dot) && !lives(mark);
            if attempts.iter().any(is_dead) && attempts.iter().any(lives) {
                siblings.retain(|sibling| attempts.iter().all(|mark| mark.dot != sibling.dot));
            }
        }
        siblings.len() < held
    }

    fn find(&self, dot: Dot) -> Result<usize, usize> {
        self.parts.siblings.binary_search_by_key(&dot, |sibling| sibling.dot)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.parts.serialize(serializer)
    }
}

impl TryFrom<Parts> for Record {
    type Error = &'static str;

    fn try_from(parts: Parts) -> Result<Record, Self::Error> {
        let sorted = parts.siblings.windows(2).all(|pair| pair[0].dot < pair[1].dot);
        // Timestamp zero is before every write: all contexts would cover it, the empty one too.
        let issued = parts.siblings.iter().all(|sibling| sibling.dot.at > Timestamp::default());
        let covered = parts.siblings.iter().all(|sibling| parts.context.covers(sibling.dot))
            && parts.operations.iter().all(|mark| parts.context.covers(mark.dot));
        if sorted && issued && covered {
            Ok(Record { parts })
        } else {
            Err("a record is not in canonical form")
        }
    }
}

/// What the limits of a coordinator are about.
#[derive(Clone, Copy)]
struct Size {
    siblings: usize,
    bytes: u64,
    actors: usize,
}

impl Size {
    fn of(record: &Record) -> Size {
        Size {
            siblings: record.siblings().len(),
            bytes: record.encoded_len(),
            actors: record.context().len(),
        }
    }

    /// Why a put that turns a record of the size `before` into one of this size is refused. Merges are exempt from the
    /// limits; so a record may be beyond one already, and then a put that makes it no larger is the way back.
    fn refusal(self, before: Size, limits: &Limits) -> Option<Refusal> {
        if self.siblings > limits.siblings_max.max(before.siblings) {
            return Some(Refusal::TooManySiblings(clamped(self.siblings - 1)));
        }
        if self.bytes > limits.record_bytes_max.max(before.bytes) {
            return Some(Refusal::RecordTooLarge(self.bytes));
        }
        if self.actors > limits.context_entries_max.max(before.actors) {
            return Some(Refusal::ContextTooLong(clamped(self.actors)));
        }
        None
    }
}

/// For messages to people.
fn clamped(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
