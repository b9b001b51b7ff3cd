//! What nodes say to each other.
//!
//! ```text
//! either      ──Hello──────▶ the other      first on every connection
//! coordinator ──Replicate──▶ owner          a write's fan-out, a repair
//! coordinator ◀──Stored───── owner          once it is in the owner's synced log
//! coordinator ──Fetch──────▶ owner
//! coordinator ◀──Fetched──── owner          as it stood when the request came, once that is durable
//! coordinator ◀──Refused──── owner          to either; nothing was changed
//! node        ──Forward────▶ owner          an operation for an owner to coordinate
//! node        ◀──Forwarded── owner
//! node        ──Gossip─────▶ node           membership, see wire::gossip
//! coordinator ──Hint───────▶ stand-in       a write's fan-out to an owner that cannot be reached
//! coordinator ◀──Hinted───── stand-in       once it is in the stand-in's synced log
//! owner       ──AskHints───▶ stand-in       whether the owner may strike it off its register
//! owner       ◀──NoHints──── stand-in       an answer to that question, and to no later one
//! owner       ──Exchange───▶ owner          comparing and repairing, see wire::exchange
//! owner       ──Reap───────▶ owner          forgetting deletions, see wire::reap
//! ```
//!
//! Every message may be lost, repeated, delayed and reordered; requests are answered as often as they arrive.
//!
//! Whatever lets a client see success says how far the log of its sender has got, a [`Milestone`]: whoever counts on what
//! a node has on its disk can tell when it has not any more.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::client::{Answer, Request};
use super::exchange::Exchange;
use super::gossip::Gossip;
use super::life::Milestone;
use super::reap::Reap;
use crate::protocol::causality::Record;
use crate::protocol::id::{Actor, ClusterId, Incarnation, NodeId, ReapEpoch, RequestId};
use crate::protocol::ring::entry::{Entry, Name};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::time::Timestamp;

/// A message between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Who is there. The shell reads it; the protocol only ever sees messages of a node that has said it.
    Hello(Hello),
    /// Merge a record and tell when it is durable.
    Replicate {
        /// Comes back with the answer.
        request: RequestId,
        /// The sender's belief about the slot; an owner that believes otherwise refuses.
        digest: SlotDigest,
        /// The reap epoch under which the record was read from a store.
        epoch: ReapEpoch,
        /// Whose entry the replica is to state in `Stored`: that of the actor of the write that it is to have.
        actor: Actor,
        /// The key.
        key: Bytes,
        /// The whole merged record, never a bare change: so a replica's context never covers a write that it has not
        /// merged.
        record: Record,
    },
    /// The record is merged and in the synced log.
    Stored {
        /// Of the `Replicate`.
        request: RequestId,
        /// The replica's entry for the actor of the `Replicate`. Below the write it proves that nothing was merged. If it is the
        /// coordinator's own actor and the entry is above what the coordinator ever issued, the
        /// acknowledgement does not count.
        entry: Timestamp,
        /// How far the replica has got, this record included.
        milestone: Milestone,
    },
    /// Tell what you hold.
    Fetch {
        /// Comes back with the answer.
        request: RequestId,
        /// As in `Replicate`.
        digest: SlotDigest,
        /// The key.
        key: Bytes,
    },
    /// What a replica holds.
    Fetched {
        /// Of the `Fetch`.
        request: RequestId,
        /// The replica's reap epoch: raised.
        raised: ReapEpoch,
        /// The replica's reap epoch: committed.
        committed: ReapEpoch,
        /// How far it has got, this record included.
        milestone: Milestone,
        /// Its record; `None` if the key is absent.
        record: Option<Record>,
    },
    /// Neither stored nor answered; nothing was changed.
    Refused {
        /// Of the request.
        request: RequestId,
        /// Why.
        reason: PeerRefusal,
    },
    /// Coordinate this for a client of mine. It is executed, never forwarded again.
    Forward {
        /// Comes back with the answer.
        request: RequestId,
        /// How long the client still waits, in milliseconds.
        deadline_ms: u32,
        /// What the client asked.
        ask: Request,
    },
    /// What became of it.
    Forwarded {
        /// Of the `Forward`.
        request: RequestId,
        /// How far the owner has got that has executed it.
        milestone: Milestone,
        /// For the client.
        answer: Answer,
    },
    /// Membership.
    Gossip(Gossip),
    /// Two owners that compare what they hold.
    Exchange(Exchange),
    /// The owners of a slot that forget deletions together.
    Reap(Reap),
    /// Keep a record for an owner that cannot be reached (Hinted Handoff, the Dynamo paper, section 4.6).
    Hint {
        /// Comes back with the answer.
        request: RequestId,
        /// As in `Replicate`.
        digest: SlotDigest,
        /// As in `Replicate`.
        epoch: ReapEpoch,
        /// The owner that it is kept for.
        target: NodeId,
        /// The key.
        key: Bytes,
        /// The whole merged record.
        record: Record,
    },
    /// The hint is in the synced log.
    Hinted {
        /// Of the `Hint`.
        request: RequestId,
        /// How far the stand-in has got, this hint included.
        milestone: Milestone,
    },
    /// Does the receiver still keep hints of these slots?
    AskHints {
        /// Comes back with the answer.
        request: RequestId,
        /// The slots.
        slots: Vec<Slot>,
    },
    /// It keeps none of these, and that is durable.
    NoHints {
        /// Of the `AskHints`: what it keeps now of a slot it may not have kept when it was asked.
        request: RequestId,
        /// The slots.
        slots: Vec<Slot>,
    },
}

impl PeerMessage {
    /// How far the sender has got, if the receiver may count on that.
    #[must_use]
    pub fn milestone(&self) -> Option<Milestone> {
        match self {
            PeerMessage::Stored { milestone, .. }
            | PeerMessage::Fetched { milestone, .. }
            | PeerMessage::Forwarded { milestone, .. }
            | PeerMessage::Hinted { milestone, .. } => Some(*milestone),
            _ => None,
        }
    }

    /// Whether it is bulk: records of an exchange or a refill, many at a time. It travels apart from requests, so that
    /// none of them waits behind it.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self, PeerMessage::Exchange(Exchange::Records { .. } | Exchange::Drawn { .. }))
    }
}

/// The first message on every connection between nodes, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender.
    pub node: NodeId,
    /// Its name, which its certificate must carry too.
    pub name: Name,
    /// Its cluster, once founded.
    pub cluster: Option<ClusterId>,
    /// Its generation clock.
    pub incarnation: Incarnation,
}

/// Why an owner refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRefusal {
    /// It believes in another ring; these are its entries of the members that decide the slot.
    OtherRing(Vec<Entry>),
    /// It is not serving (starting, stopping, or without a ring).
    NotReady,
    /// Too much work is waiting.
    Overloaded,
    /// Its disk is nearly full.
    DiskFull,
    /// Its record is damaged: no reply rather than a wrong one.
    Lost,
    /// The record was read from a store before a round of reaping that this owner has completed since. The sender reads
    /// it again, or drops it.
    Reaped,
    /// It has lost something of the slot and gets it back from the other owners: it has no vote until then, or takes no
    /// part at all yet.
    Refilling,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;
    use crate::protocol::storage::op::Lsn;
    use crate::protocol::wire::client::{Code, Problem};

    fn hex(message: &PeerMessage) -> String {
        assert_eq!(codec::decode::<PeerMessage>(&codec::encode(message)).as_ref(), Ok(message));
        codec::encode(message).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is counted on is pinned: number of the kind, request, what it says, nonce and position of the milestone. Nodes of
    /// two versions that read these differently would forget what they acknowledged to each other.
    #[test]
    fn the_bytes_of_acknowledgements_are_the_pinned_ones() {
        let (request, entry) = (RequestId(0x11), Timestamp(0x22));
        let milestone = Milestone { nonce: 0x33, position: Lsn(0x44) };
        let said = "33000000000000004400000000000000";
        let stored = PeerMessage::Stored { request, entry, milestone };
        assert_eq!(hex(&stored), format!("0200000011000000000000002200000000000000{said}"));
        let (raised, committed) = (ReapEpoch(0x55), ReapEpoch(0x66));
        let fetched = PeerMessage::Fetched { request, raised, committed, milestone, record: None };
        let epochs = "55000000000000006600000000000000";
        assert_eq!(hex(&fetched), format!("040000001100000000000000{epochs}{said}00"));
        let hinted = PeerMessage::Hinted { request, milestone };
        assert_eq!(hex(&hinted), format!("0c0000001100000000000000{said}"));
        let answer = Answer::Refused(Problem::new(Code::Timeout, ""));
        let forwarded = PeerMessage::Forwarded { request, milestone, answer: answer.clone() };
        let answer: String = codec::encode(&answer).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex(&forwarded), format!("070000001100000000000000{said}{answer}"));
        let all = [stored, fetched, hinted, forwarded];
        assert!(all.iter().all(|message| message.milestone() == Some(milestone)));
    }
}
