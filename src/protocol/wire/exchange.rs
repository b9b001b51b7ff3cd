//! What two owners say to each other to become equal.
//!
//! ```text
//! leader ──Compare──▶ fellow    these are my marks of these arcs; the first is one mark for everything
//! leader ◀─Compared── fellow    nothing, if all are equal; else the marks of the parts of those that differ
//! leader ──Offer────▶ fellow    a short mark of each record that I hold in these arcs
//! leader ◀─Records─── fellow    those that you lack, any number of messages
//! leader ◀─Answered── fellow    and these marks I lack
//! leader ──Records──▶ fellow    here they are
//! leader ◀─Refused─── fellow    to Compare and Offer; nothing was changed
//! fellow ──Nudge────▶ leader    I know of something that you or I have missed
//!
//! whoever  ──Weigh───▶ owner    I have lost my vote for these slots; which of them do you hold otherwise than I do?
//! refills  ◀─Weighed── owner
//!          ──Draw────▶ owner    what do you hold in this slot behind this key, apart from these?
//!          ◀─Drawn──── owner    the records themselves, and where to go on
//! ```
//!
//! Of two owners the one with the lower id leads; the other keeps no state that matters and answers every question as
//! often as it comes. Records are merged by whoever gets them, so that a message that is lost, late or repeated costs
//! time or bytes and nothing else. A mark is a hash under a salt that is drawn for each exchange: two contents that
//! happen to have the same short mark are told apart the next time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::causality::Record;
use crate::protocol::id::ReapEpoch;
use crate::protocol::ring::arc::Arc;
use crate::protocol::ring::common::PairDigest;
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::epochs::Standing as ReapStanding;

/// No message of an exchange is longer than this, except for a single record that is longer by itself.
pub const EXCHANGE_BYTES_MAX: usize = 256 << 10;

/// Names one question of a leader; an answer to another one is no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuestionId(pub u64);

/// Drawn anew for each exchange; goes into every mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salt(pub u64);

/// What one side holds in an arc, in 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark(pub u64);

/// Half of a mark: enough to find out where two sides differ, since a coincidence is found out the next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShortMark(pub u32);

impl Mark {
    /// Its half.
    #[must_use]
    pub fn short(self) -> ShortMark {
        ShortMark(self.0 as u32)
    }
}

/// A message between two owners; the chart above tells who says it to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exchange {
    /// Are these equal?
    Compare {
        /// Comes back with the answer.
        id: QuestionId,
        /// The leader's belief about the slots that both own.
        digest: PairDigest,
        /// For all marks of this question.
        salt: Salt,
        /// Arcs, and what the leader holds in each.
        arcs: Vec<(Arc, Mark)>,
    },
    /// What differs.
    Compared {
        /// Of the question.
        id: QuestionId,
        /// The arcs that differ; about the others there is nothing to say, or nothing that could be trusted.
        differing: Vec<Parts>,
        /// Arcs that were not looked at, since the others were work enough. Never all of them.
        left: Vec<Arc>,
    },
    /// Tell me what I lack and what you lack.
    Offer {
        /// Comes back with the answer.
        id: QuestionId,
        /// As in `Compare`.
        digest: PairDigest,
        /// As in `Compare`.
        salt: Salt,
        /// Arcs, none larger than a slot, with the short mark of each record that the leader holds there.
        arcs: Vec<(Arc, Vec<ShortMark>)>,
    },
    /// Merge these. Nobody waits for an acknowledgement: the next comparison shows what has arrived.
    Records {
        /// The sender's belief about the slots that both own.
        digest: PairDigest,
        /// The records.
        items: Vec<Item>,
    },
    /// All that an offer brought to light was told.
    Answered {
        /// Of the question.
        id: QuestionId,
        /// Offered, and not held by the fellow.
        lacking: Vec<ShortMark>,
        /// Arcs that were not looked at to their end: ask again.
        left: Vec<Arc>,
    },
    /// No answer.
    Refused {
        /// Of the question.
        id: QuestionId,
        /// Why.
        reason: ExchangeRefusal,
    },
    /// Please compare these slots soon; none named means any.
    Nudge {
        /// The slots.
        slots: Vec<Slot>,
    },
    /// Which of these slots do you hold otherwise than I do? Asked by an owner that has no vote for them. An answer
    /// also says that the fellow believes, durably, in the asker's raised amnesia generation.
    Weigh {
        /// Comes back with the answer.
        id: QuestionId,
        /// As in `Compare`.
        digest: PairDigest,
        /// As in `Compare`.
        salt: Salt,
        /// Slots, and what the asker holds in each.
        slots: Vec<(Slot, Mark)>,
    },
    /// All of the slots are equal but for these.
    Weighed {
        /// Of the question.
        id: QuestionId,
        /// Held otherwise.
        differing: Vec<Slot>,
        /// The fellow has no vote for these either: what it holds is not all that it should.
        voteless: Vec<Slot>,
        /// About these it can say nothing.
        closed: Vec<Slot>,
        /// Which rounds of reaping the others have gone through, of those that ever did: the asker must forget what they
        /// have forgotten.
        epochs: Vec<(Slot, ReapStanding)>,
    },
    /// What do you hold in this slot?
    Draw {
        /// Comes back with the answer.
        id: QuestionId,
        /// As in `Compare`.
        digest: PairDigest,
        /// As in `Compare`.
        salt: Salt,
        /// The slot.
        slot: Slot,
        /// Only what lies behind this key.
        after: Option<Bytes>,
        /// Records that the asker holds there already.
        held: Vec<Mark>,
    },
    /// Everything between the key that the question named and `next`, apart from what the asker held.
    Drawn {
        /// Of the question.
        id: QuestionId,
        /// The records.
        items: Vec<Item>,
        /// Ask again from here; `None` at the end of the slot.
        next: Option<Bytes>,
        /// Whether the fellow could read all of that. If not, the answer proves nothing.
        is_whole: bool,
    },
}

/// An arc that differs, and the marks of its parts: 2^n of them, in the order of the circle. A single part is the arc
/// itself, in which there is so little that it should be offered whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The arc.
    pub arc: Arc,
    /// What the fellow holds in each part.
    pub marks: Vec<ShortMark>,
}

/// One record on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// The reap epoch under which the record was read from a store.
    pub epoch: ReapEpoch,
    /// The whole record.
    pub record: Record,
}

/// Why there is no answer. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeRefusal {
    /// The fellow believes in another ring; these are its entries of the two nodes. Gossip does the rest.
    OtherRing(Vec<Entry>),
    /// It is at work with another node: one at a time, so that nothing is sent to it twice.
    Busy,
}

/// Length of a list, or of bytes, in bytes.
const LENGTH: u64 = 8;

impl Item {
    /// Its length on the wire, in bytes.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        LENGTH + self.key.len() as u64 + 8 + self.record.encoded_len()
    }
}

impl Exchange {
    /// Its length on the wire, in bytes, without encoding it. Entries in a refusal are not counted.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        let list = |bytes: u64, count: usize| LENGTH + bytes * count as u64;
        let optional = |key: Option<&Bytes>| 1 + key.map_or(0, |key| LENGTH + key.len() as u64);
        // The message's number and the exchange's own.
        8 + match self {
            Exchange::Compare { arcs, .. } => 24 + list(12, arcs.len()),
            Exchange::Compared { differing, left, .. } => {
                let parts = differing.iter().map(|parts| 4 + list(4, parts.marks.len())).sum::<u64>();
                8 + LENGTH + parts + list(4, left.len())
            }
            Exchange::Offer { arcs, .. } => {
                24 + LENGTH + arcs.iter().map(|(_, marks)| 4 + list(4, marks.len())).sum::<u64>()
            }
            Exchange::Records { items, .. } => 8 + LENGTH + items.iter().map(Item::wire_bytes).sum::<u64>(),
            Exchange::Answered { lacking, left, .. } => 8 + list(4, lacking.len()) + list(4, left.len()),
            Exchange::Refused { .. } => 12,
            Exchange::Nudge { slots } => list(2, slots.len()),
            Exchange::Weigh { slots, .. } => 24 + list(10, slots.len()),
            Exchange::Weighed { differing, voteless, closed, epochs, .. } => {
                let slots = list(2, differing.len()) + list(2, voteless.len()) + list(2, closed.len());
                8 + slots + list(26, epochs.len())
            }
            Exchange::Draw { after, held, .. } => 26 + optional(after.as_ref()) + list(8, held.len()),
            Exchange::Drawn { items, next, .. } => {
                8 + LENGTH + items.iter().map(Item::wire_bytes).sum::<u64>() + optional(next.as_ref()) + 1
            }
        }
    }
}

#[cfg(test)]
mod tests;
