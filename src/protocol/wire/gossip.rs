//! What nodes tell each other about members.
//!
//! ```text
//! founding       candidate ──Candidate─▶ seed, candidate    I am here; so are these
//!                proposer  ──Propose───▶ candidate          these should found the cluster
//!                proposer  ◀──Confirm─── candidate          durably bound to exactly that
//!                proposer  ◀──Bound───── candidate          durably bound to another proposer
//!                proposer  ──Released──▶ candidate          no longer bound
//!                member    ──Founded───▶ candidate          the cluster exists; here it is
//!
//! heartbeats     observer  ──Ping──────▶ member             are you there? this is what I know of you
//!                observer  ◀──Ack─────── member             and this is my clock, and how far I have got
//!                observer  ──PingFor───▶ helper ──Ping──▶ member
//!                observer  ◀──Vouch───── helper ◀──Ack─── member
//!
//! lives          member    ──Claim─────▶ member             this is what I come from; do you know better?
//!                member    ◀──Known───── member             of you I remember nothing that contradicts this, or this
//!                member    ◀──Unknown─── member             after a milestone: show me where you come from
//!
//! dissemination  A ──Digest──▶ B    equal: silence
//!                A ◀─Buckets── B    only if the book is large
//!                A ◀─Listing── B    (A ──Listing──▶ B after Buckets)
//!                A ──Items───▶ B    what B has not, or has in another state
//!                A ◀Correction─ B   what B knows better; nothing answers it
//!                A ──Want────▶ B    what A has not; B answers with Items
//! ```
//!
//! Every message may be lost, repeated, delayed and reordered. None is larger than [`GOSSIP_BYTES_MAX`].

mod cluster;

use serde::{Deserialize, Serialize};

pub use self::cluster::{Cluster, Founders, TooManyFounders};
use super::client::Health;
use super::life::{Claim, Life, Milestone};
use crate::protocol::id::{ClusterId, Incarnation, NodeId};
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::time::WallTime;

/// The largest encoding of a membership message, as the peer message that carries it: what fits in one datagram of every network.
pub const GOSSIP_BYTES_MAX: usize = 1_200;

/// How many bytes of entries, listings or ids a sender packs into one message: the rest is left for the envelope.
pub const GOSSIP_LOAD_MAX: usize = 1_140;

/// How many addresses a member may have: its entry must fit in a packet, with others beside it.
pub const ADDRESSES_MAX: usize = 8;

/// The number of buckets that the ids are cut into, by their first six bits.
pub const BUCKETS: usize = 64;

/// A membership message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gossip {
    /// The sender's cluster, once founded: two clusters never merge, whoever's address is in whose configuration.
    pub cluster: Option<ClusterId>,
    /// What it says.
    pub body: Body,
}

/// What a membership message says; the chart above tells who says it to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The sender belongs to no cluster yet.
    Candidate {
        /// With how many it wants to found one; `None` waits to be let into one.
        found: Option<u16>,
        /// How many replicas that cluster should keep.
        replicas: Replicas,
        /// Its own entry, then those of other candidates that it heard lately.
        entries: Vec<Entry>,
    },
    /// Let these found a cluster.
    Propose {
        /// Counts the proposals of this proposer, durably. A later one releases the earlier.
        ballot: u64,
        /// Replicas of every key.
        replicas: Replicas,
        /// Exactly as many as the founding size, the proposer included.
        founders: Founders,
    },
    /// The sender is durably bound to this proposal. Repeated until the cluster is there or the proposer lets go.
    Confirm {
        /// Of the proposal.
        ballot: u64,
        /// Another proposer that asked for the sender too: the higher of the two yields.
        rival: Option<NodeId>,
    },
    /// The sender is durably bound to another proposer.
    Bound {
        /// Of the proposal that it cannot confirm.
        ballot: u64,
        /// Whom it is bound to.
        proposer: NodeId,
    },
    /// Whoever is bound to this proposal of the sender, or an earlier one, is free.
    Released {
        /// Of the proposal.
        ballot: u64,
    },
    /// The sender's cluster, to one that has none.
    Founded(Cluster),
    /// HeartBeat (*Patterns of Distributed Systems*).
    Ping {
        /// Comes back with the answer.
        number: u64,
        /// The age of the receiver's entry as the sender knows it.
        incarnation: Incarnation,
        /// The other half of that age.
        version: u32,
        /// What the sender believes of the receiver: whoever is suspected learns it from the one that probes it, and
        /// refutes.
        health: Health,
    },
    /// The answer to a ping.
    Ack {
        /// Of the ping.
        number: u64,
        /// The wall clock of the answering node.
        wall: WallTime,
        /// How far it has got.
        milestone: Milestone,
    },
    /// Ping a member for the sender, which got no answer itself.
    PingFor {
        /// Whom.
        target: NodeId,
    },
    /// A member answered the sender. It says that the member lives, not that the receiver could reach it.
    Vouch {
        /// Who answered.
        target: NodeId,
    },
    /// The sender has started, and has no vote before enough of the other members have answered.
    Claim(Claim),
    /// What the sender remembers of the receiver.
    Known {
        /// Of the life whose claim it answers.
        nonce: u64,
        /// The latest life, if what was shown does not come after that one.
        life: Option<Life>,
    },
    /// The sender was told of a life of the receiver whose claim it has not been shown.
    Unknown {
        /// Of the life.
        nonce: u64,
    },
    /// One hash over everything that the sender knows of all members.
    Digest {
        /// Equal hashes end the round.
        hash: u64,
    },
    /// One hash for each of the [`BUCKETS`].
    Buckets {
        /// In the order of the ids.
        hashes: Vec<u64>,
    },
    /// All members that the sender knows in a range of ids.
    Listing {
        /// The range begins with this id
        low: NodeId,
        /// and ends with this one, both included.
        high: NodeId,
        /// Members and the hashes of what is known of them.
        members: Vec<(NodeId, u64)>,
    },
    /// Tell me of these.
    Want {
        /// The members.
        members: Vec<NodeId>,
    },
    /// What the sender knows of some members.
    Items {
        /// In no order.
        news: Vec<News>,
    },
    /// Of members of which the receiver sent items the sender knows better. It is not corrected in turn: on a network
    /// that delays and repeats, a correction may be out of date when it arrives, and if each copy begot another one, the
    /// cluster would talk of nothing else. What the receiver knows better still goes about as a rumour, or with the next digest.
    Correction {
        /// In no order.
        news: Vec<News>,
    },
}

/// What is known of one member: what it says of itself, and what others believe of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What the member says of itself.
    pub entry: Entry,
    /// What gossip believes of it *as of the age of this entry*: a newer entry is a refutation.
    pub health: Health,
}
