//! The disk as an addressee: what a node asks of it and what comes back.
//!
//! ```text
//! node ──Update──▶ disk ──Applied──▶ node    the merged record is known: fan out now
//!                       ──Durable──▶ node    the log is synced that far: acknowledge now
//! ```

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sums::SlotSum;
use crate::protocol::causality::{Applied, Change, Record, RecordHash};
use crate::protocol::id::NodeId;
use crate::protocol::ring::slot::Slot;

/// The position of an entry in a node's log; zero is before the first one. Rises for ever, across restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(pub u64);

/// Names one request to the disk; given out by the node, unique within one start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names one piece of durable state that is not per key. The log carries it; a checkpoint rewrites it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MetaKey {
    /// Who the node is.
    Identity,
    /// Its incarnation and actor, new at every start.
    Start,
    /// The cluster that it belongs to: identity, replicas, secret.
    Cluster,
    /// What it has promised while the cluster is being founded.
    Founding,
    /// The address book: what it knows of one member.
    Member(NodeId),
    /// An address that it was told to gossip with.
    Seed(SocketAddr),
    /// Which rounds of reaping a slot has gone through.
    Reaping(Slot),
    /// Which of its slots it does not vote for: see [`Trust`](super::trust::Trust).
    Trust,
    /// Who may keep hints of one of its slots.
    HintHolders(Slot),
    /// The smallest reap epoch under which the hints that it keeps of a slot of others were read.
    HintEpoch(Slot),
    /// Who may keep hints of its slots although no register says so: it was lost.
    HintSuspects,
    /// What the node can show of its own lives, new at every start.
    OwnLife,
    /// How far another member had got when it was last heard of.
    Life(NodeId),
}

/// What a node asks of its disk.
#[expect(clippy::large_enum_variant, reason = "the large variant is the one that most requests are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskRequest {
    /// Read, change by [`Record::apply`], log.
    Update {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The slot of the key.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// The change.
        change: Change,
    },
    /// Read one key.
    Read {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The slot of the key.
        slot: Slot,
        /// The key.
        key: Bytes,
    },
    /// Count and sum of each slot from `first` to `last`, both included.
    Sums {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The first slot.
        first: Slot,
        /// The last slot.
        last: Slot,
    },
    /// A page of the keys of one slot with the hashes of their records, in the order of the keys.
    List {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The slot.
        slot: Slot,
        /// The page begins behind this key; `None` is the beginning of the slot.
        after: Option<Bytes>,
        /// About how many keys a page has; at least one.
        keys_max: usize,
    },
    /// Read several keys, in the order in which they are asked for.
    ReadMany {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The keys.
        keys: Vec<Bytes>,
        /// No further record is read after so many bytes of records.
        bytes_max: u64,
    },
    /// Replace pieces of the state that is not per key, all at once; `None` removes one.
    Meta {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The pieces.
        entries: Vec<(MetaKey, Option<Bytes>)>,
    },
    /// Drop what cannot be read in one slot, and make its count and sum true again. Asked for a slot that was
    /// [doubted](DiskReply::Doubted), after the node has given up its vote for it; doing it again changes nothing.
    Mend {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The slot.
        slot: Slot,
    },
    /// Remove one key, if its record still has this hash.
    Remove {
        /// Comes back with the reply.
        ticket: Ticket,
        /// The slot of the key.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// Of the record that may go.
        certified: RecordHash,
    },
}

impl DiskRequest {
    /// The slots on whose contents the reply rests; those that nothing is read from are not among them.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let (one, many) = match self {
            DiskRequest::Update { slot, .. }
            | DiskRequest::Read { slot, .. }
            | DiskRequest::List { slot, .. }
            | DiskRequest::Remove { slot, .. } => (Some(*slot), &[][..]),
            DiskRequest::ReadMany { keys, .. } => (None, &keys[..]),
            DiskRequest::Sums { .. } | DiskRequest::Meta { .. } | DiskRequest::Mend { .. } => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().map(|key| Slot::of_key(key)))
    }
}

/// Why a slot's contents are doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DoubtReason {
    /// A record in it cannot be read.
    Damaged,
    /// Its contents are not what its count and sum say.
    Mismatch,
}

/// What a store holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing, and nothing was lost either.
    Absent,
    /// This.
    Present(Record),
    /// Something that can no longer be read. Never answered as *absent*: a lost record is no reply.
    Lost,
}

/// Some of the keys of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in order, each with the hash that its record claims to have. A damaged record is listed like any other: it
    /// is there, although it cannot be read.
    pub entries: Vec<(Bytes, RecordHash)>,
    /// Where the next page begins; `None` if this was the last one.
    pub next: Option<Bytes>,
}

/// What the disk answers. Replies to one request come in the order of the requests, and `Durable` only ever rises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskReply {
    /// An update was executed, in memory and in the log's next group.
    Applied {
        /// Of the request.
        ticket: Ticket,
        /// The slot of the key.
        slot: Slot,
        /// What must be durable before the result may be acknowledged: the position of the newest entry that the
        /// record rests on, whether this update wrote it or an earlier one.
        lsn: Lsn,
        /// The result.
        applied: Applied,
    },
    /// What the store holds.
    Read {
        /// Of the request.
        ticket: Ticket,
        /// As in `Applied`: once this is durable, what was read can never un-happen.
        lsn: Lsn,
        /// What was found.
        stored: Stored,
    },
    /// The key was removed, in memory and in the log's next group, or it was not.
    Removed {
        /// Of the request.
        ticket: Ticket,
        /// What must be durable before it may be acted on.
        lsn: Lsn,
        /// Whether the key is gone; false if its record was not the certified one.
        is_gone: bool,
    },
    /// Count and sum of slots.
    Sums {
        /// Of the request.
        ticket: Ticket,
        /// The first slot of the request.
        first: Slot,
        /// The last one.
        last: Slot,
        /// Those that hold anything, in order; `None` for a slot whose contents are not trusted.
        sums: Vec<(Slot, Option<SlotSum>)>,
    },
    /// A page of a slot.
    Listed {
        /// Of the request.
        ticket: Ticket,
        /// The page; `None` if the slot's contents are not trusted.
        page: Option<Page>,
    },
    /// What the store holds of several keys.
    ReadMany {
        /// Of the request.
        ticket: Ticket,
        /// For the first keys that were asked for, at least one; fewer than all if the bytes were used up.
        found: Vec<(Bytes, Stored)>,
    },
    /// The state that is not per key was replaced, in memory and in the log's next group.
    MetaApplied {
        /// Of the request.
        ticket: Ticket,
        /// What must be durable before it may be acted on.
        lsn: Lsn,
    },
    /// What could not be read in a slot is dropped, in memory and in the log's next group. What is left is whole, and
    /// some of what was there is missing.
    Mended {
        /// Of the request.
        ticket: Ticket,
        /// What must be durable before the slot is refilled.
        lsn: Lsn,
        /// How many records were dropped.
        dropped: u64,
    },
    /// Nobody asked: the contents of these slots cannot be trusted any more. Found by a read, at the start or by the
    /// scrub; may be said again for a slot that was not mended since.
    Doubted {
        /// The slots.
        slots: Vec<Slot>,
        /// What is wrong with them.
        why: DoubtReason,
    },
    /// Everything up to here is in the synced log.
    Durable {
        /// The position of the last synced entry.
        through: Lsn,
    },
}
