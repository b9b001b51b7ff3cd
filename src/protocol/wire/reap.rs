//! What the owners of a slot say to each other to forget deletions together.
//!
//! ```text
//! driver ──Propose──▶ every owner     raise the epoch of the slot; do you hold these tombstones, byte for byte? To the
//!                                     others only when the driver has raised its own durably: no number is used twice
//! driver ◀──Agreed─── owner           raised, durably; I held these of them
//! driver ◀──Declined─ owner           nothing was changed
//! driver ──Commit───▶ every owner     all of us held these: forget them
//! driver ◀──Done───── owner           durably
//! driver ◀──Ask────── any node        why are the deletions of this slot still there?
//! driver ──Told─────▶ that node
//! ```
//!
//! Every message may be lost, repeated, delayed and reordered. A round is never proposed twice: if it does not come to an
//! end, the next one has a higher epoch.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::causality::RecordHash;
use crate::protocol::id::{Actor, NodeId, ReapEpoch, RequestId};
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::time::WallTime;

/// A key and what its record was.
pub type Certified = (Bytes, RecordHash);

/// A message of a round of reaping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reap {
    /// Agree to the round.
    Propose {
        /// The slot.
        slot: Slot,
        /// The driver's belief about the slot; an owner that believes otherwise declines.
        digest: SlotDigest,
        /// The round.
        epoch: ReapEpoch,
        /// Names this proposal, at random: what was said to one that the driver has forgotten in a crash proves nothing.
        proposal: u64,
        /// What the driver holds and would forget.
        keys: Vec<Certified>,
    },
    /// The sender has raised its epoch, and this is what it held *before* it did. Both are durable.
    Agreed {
        /// The slot.
        slot: Slot,
        /// The round.
        epoch: ReapEpoch,
        /// As in `Propose`.
        proposal: u64,
        /// Key by key, whether the sender's record has the same hash.
        equal: Vec<bool>,
        /// The sender's actor: one that may still write.
        writing: Actor,
    },
    /// The sender has not agreed, and nothing was changed.
    Declined {
        /// The slot.
        slot: Slot,
        /// The round.
        epoch: ReapEpoch,
        /// As in `Propose`.
        proposal: u64,
        /// Why.
        why: Obstacle,
    },
    /// All owners held these when they raised their epoch.
    Commit {
        /// The slot.
        slot: Slot,
        /// As in `Propose`.
        digest: SlotDigest,
        /// The round.
        epoch: ReapEpoch,
        /// Tombstones to remove.
        removed: Vec<Certified>,
        /// Records whose contexts are to be compacted.
        compacted: Vec<Certified>,
        /// The actors of all owners.
        writing: Vec<Actor>,
        /// Operations that started before this are forgotten, in node time.
        marks_before: WallTime,
    },
    /// The commit is in the sender's log, or has been before.
    Done {
        /// The slot.
        slot: Slot,
        /// The round.
        epoch: ReapEpoch,
    },
    /// What keeps the deletions of a slot from being forgotten? Somebody wants to know.
    Ask {
        /// Comes back with the answer.
        request: RequestId,
        /// The slot.
        slot: Slot,
    },
    /// This.
    Told {
        /// Of the `Ask`.
        request: RequestId,
        /// What the driver of the slot waits for.
        wait: ReapWait,
    },
}

/// What the driver of a slot waits for before it forgets deletions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReapWait {
    /// Why nothing has come of it so far.
    pub cause: ReapCause,
    /// When the driver looks again, in milliseconds from now.
    pub again_in_ms: u64,
}

/// Why the deletions of a slot are not forgotten yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReapCause {
    /// A round is under way.
    UnderWay,
    /// Nothing is known to stand in the way: the next round is due.
    Due,
    /// A retry of an operation on the key may still come, which could not be recognised without the record.
    Young,
    /// The driver has not heard of a deletion in the slot since its start: it finds those of before by looking through all
    /// slots.
    Unnoticed,
    /// An owner cannot be reached from the driver.
    Unreachable(NodeId),
    /// An owner did not answer in time.
    Silent(NodeId),
    /// An owner declined.
    Declined(NodeId, Obstacle),
    /// The owners did not hold equal records.
    Unequal,
}

/// What stands in the way of a round of reaping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// The owner believes in another ring; these are its entries of the owners.
    OtherRing(Vec<Entry>),
    /// It has agreed to this round already.
    Raised(ReapEpoch),
    /// Other nodes may keep hints of the slot: these, or at least these.
    Hints(Vec<NodeId>),
    /// It does not trust what it holds of the slot.
    Untrusted,
    /// It is starting, stopping, without a ring, or too busy.
    Busy,
}
