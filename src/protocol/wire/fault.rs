//! Faults of the network, as the lab asks a node to inject them under QUIC.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Which way a datagram travels, seen from the node that holds the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the other side to this node. Only a cut and loss are possible.
    Inbound,
    /// From this node to the other side.
    Outbound,
}

/// One rule. The default does nothing. Probabilities are per mille and independent for each datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// Nothing passes.
    pub cut: bool,
    /// Mean delay in milliseconds. Outbound only.
    pub delay_ms: u32,
    /// Each delay is drawn evenly from mean minus jitter to mean plus jitter, in milliseconds, and not below zero. As
    /// each datagram draws its own, jitter reorders. Outbound only.
    pub jitter_ms: u32,
    /// Lost datagrams.
    pub loss_per_mille: u16,
    /// Datagrams that arrive twice. Outbound only.
    pub duplicate_per_mille: u16,
    /// Datagrams that are held back until later ones have overtaken them. Outbound only.
    pub reorder_per_mille: u16,
}

impl Fault {
    /// Whether it does nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Fault::default()
    }
}

/// How many datagrams met which fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Injected {
    /// Dropped by a cut.
    pub cut: u64,
    /// Dropped by loss.
    pub lost: u64,
    /// Delivered later than they were sent (those held back for reordering included).
    pub delayed: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back so that later ones overtake.
    pub reordered: u64,
    /// Dropped because too many were already waiting; always zero in the counters of a single rule.
    pub overflowed: u64,
}

/// A rule in force, and what it has done since it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRule {
    /// The other side.
    pub peer: SocketAddr,
    /// Which way.
    pub direction: Direction,
    /// What happens.
    pub fault: Fault,
    /// What has happened.
    pub injected: Injected,
}
