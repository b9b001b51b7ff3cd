//! What an operator may set for a node, parsed once into values that cannot be wrong.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::causality::{OPERATIONS_MAX, Record};
use crate::protocol::ring::entry::Name;
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::ring::replicas::Replicas;

/// Everything that one node is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// What people call it; unique in the cluster.
    pub name: Name,
    /// Where others reach it, best first.
    pub addresses: Vec<SocketAddr>,
    /// Addresses to gossip with before anybody is known, and now and then afterwards.
    pub seeds: Vec<SocketAddr>,
    /// With how many nodes to found a cluster, if there is none. A node without data, seeds and this founds a cluster of one; a node
    /// with seeds and without this never founds.
    pub found: Option<u16>,
    /// How many replicas a cluster that it helps to found keeps of every key.
    pub replicas: Replicas,
    /// Whether slots that no other node owns are served again after a loss, with what is left of them. Default no.
    pub accept_loss: bool,
    /// What may fail together with it.
    pub zone: Zone,
    /// Its share of the ring.
    pub weight: Weight,
    /// What it refuses to exceed as a coordinator.
    pub limits: Limits,
    /// How it watches the others.
    pub membership: MembershipConfig,
    /// How it runs requests.
    pub replication: ReplicationConfig,
    /// What it keeps for owners that cannot be reached.
    pub hints: HintConfig,
    /// How it compares itself with other owners.
    pub exchange: ExchangeConfig,
}

impl NodeConfig {
    /// A node of this name at this address, all else as by default.
    #[must_use]
    pub fn new(name: Name, address: SocketAddr) -> NodeConfig {
        NodeConfig {
            name,
            addresses: vec![address],
            seeds: Vec::new(),
            found: None,
            replicas: Replicas::default(),
            accept_loss: false,
            zone: Zone::default(),
            weight: Weight::default(),
            limits: Limits::default(),
            membership: MembershipConfig::default(),
            replication: ReplicationConfig::default(),
            exchange: ExchangeConfig::default(),
            hints: HintConfig::default(),
        }
    }
}

/// What a node keeps for owners that cannot be reached: Hinted Handoff. Over a bound nothing more is kept, and the owner
/// is brought up to date by exchange instead; a write is never refused for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintConfig {
    /// Bytes of hints in all, with what each costs in memory. Default 256 MiB.
    pub bytes_max: u64,
    /// Bytes of hints for any one owner. Default 128 MiB.
    pub bytes_per_target_max: u64,
    /// How often hints are looked at that may be replayed. Default 100 ms.
    pub replay_every: Duration,
    /// How many are replayed after each look: with the default of 256 at most 2,560 hints a second. The node's account of
    /// repairs, which they share with exchanges, slows them down further.
    pub replay_batch: usize,
}

impl Default for HintConfig {
    fn default() -> Self {
        HintConfig {
            bytes_max: 256 << 20,
            bytes_per_target_max: 128 << 20,
            replay_every: Duration::from_millis(100),
            replay_batch: 256,
        }
    }
}

/// How a node watches the others. The defaults suit 3 to 1,000 nodes on one continent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipConfig {
    /// How often a node gossips and sends heartbeats. Default 1 s.
    pub period: Duration,
    /// How many others watch each node. Default 5.
    pub observers: usize,
    /// How long a watched node may be silent before it is asked for by way of others. Default 2 s.
    pub silence_max: Duration,
    /// How long a suspicion stands before it counts, if it is not refuted. Default 3 s.
    pub suspicion: Duration,
    /// How many members that left or died the address book keeps. Default 4,096.
    pub book_max: usize,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        MembershipConfig {
            period: Duration::from_secs(1),
            observers: 5,
            silence_max: Duration::from_secs(2),
            suspicion: Duration::from_secs(3),
            book_max: 4_096,
        }
    }
}

/// How a node runs requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationConfig {
    /// Client requests under way at once; more are answered *overloaded*. Default 4,096.
    pub requests_max: usize,
    /// After how long a message to an owner that has not answered is sent again; doubles each time. Default 250 ms.
    pub resend_after: Duration,
    /// The least time before a slow replica is hedged by asking another one. Default 5 ms.
    pub hedge_min: Duration,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        ReplicationConfig {
            requests_max: 4_096,
            resend_after: Duration::from_millis(250),
            hedge_min: Duration::from_millis(5),
        }
    }
}

/// How a node compares itself with the other owners of its slots, and at which rate it repairs what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeConfig {
    /// How long after one comparison with an equal owner the next one follows. Default 30 s. One that has come back, or
    /// that is known to have missed a write, is not kept waiting for it.
    pub cycle: Duration,
    /// Records that are sent in a second at most; 32 keys that are only listed count as one. Default 10,000.
    pub keys_per_second: u64,
    /// Bytes that are sent in a second at most. Default 16 MiB.
    pub bytes_per_second: u64,
}

impl Default for ExchangeConfig {
    fn default() -> Self {
        ExchangeConfig { cycle: Duration::from_secs(30), keys_per_second: 10_000, bytes_per_second: 16 << 20 }
    }
}

/// What a coordinator refuses to exceed. Repairs, handoffs and hints are exempt: what was accepted once must be able
/// to spread, so a record can reach three times these sizes when three separated coordinators each filled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a key. Default 4 KiB.
    pub key_bytes_max: usize,
    /// Bytes of a value. Default 1 MiB.
    pub value_bytes_max: usize,
    /// Canonical bytes of a record. Default 4 MiB.
    pub record_bytes_max: u64,
    /// Concurrent values of a key, deletions included. Default 64.
    pub siblings_max: usize,
    /// Actors in a context. Default 1,024.
    pub context_entries_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes_max: 4 << 10,
            value_bytes_max: 1 << 20,
            record_bytes_max: 4 << 20,
            siblings_max: 64,
            context_entries_max: 1_024,
        }
    }
}

impl Limits {
    /// Under less than so many actors a key would refuse its own owners before long: every start of a node adds one.
    pub const CONTEXT_ENTRIES_LEAST: usize = 16;

    /// The least bytes of a record under which no key is locked: one value of the largest size has to fit beside the marks
    /// of as many operations as a record remembers, and a full context. What fits no more than the marks would refuse every
    /// further write for as long as those live, whatever its size, and one of which the context alone is too long for ever.
    #[must_use]
    pub fn record_bytes_least(&self) -> u64 {
        let entries = self.context_entries_max as u64;
        Record::size_of(entries, 1, OPERATIONS_MAX as u64).saturating_add(self.value_bytes_max as u64)
    }

    /// What is wrong with these limits, if they would lock keys that are used as they should be.
    pub fn check(&self) -> Result<(), String> {
        if self.key_bytes_max == 0 || self.siblings_max == 0 {
            return Err("key_bytes_max and siblings_max are at least 1".to_owned());
        }
        if self.context_entries_max < Limits::CONTEXT_ENTRIES_LEAST {
            return Err(format!(
                "context_entries_max is at least {}: every start of a node that writes a key adds an entry to its context",
                Limits::CONTEXT_ENTRIES_LEAST
            ));
        }
        let least = self.record_bytes_least();
        if self.record_bytes_max < least {
            return Err(format!(
                "record_bytes_max is {} and has to be at least {least}: one value of value_bytes_max = {} has to fit beside \
                 the marks of {OPERATIONS_MAX} operations and context_entries_max = {} actors, or the key refuses every \
                 further write; raise it, or lower one of those",
                self.record_bytes_max, self.value_bytes_max, self.context_entries_max
            ));
        }
        Ok(())
    }
}

/// How far a wall clock may be off before it is distrusted: 500 ms.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_millis(500);
