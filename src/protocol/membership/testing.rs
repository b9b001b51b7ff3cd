//! What the tests of membership share.

use crate::protocol::id::{Incarnation, NodeId, Place};
use crate::protocol::ring::entry::{Entry, Name, Phase};
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::wire::client::Health;
use crate::protocol::wire::gossip::News;

/// The address of a node in tests, and the way back.
pub(super) fn address_of(id: NodeId) -> std::net::SocketAddr {
    let [.., b, c, d] = id.0.to_be_bytes();
    std::net::SocketAddr::from(([127, b, c, d], 7_000))
}

pub(super) fn entry_at(id: NodeId) -> Entry {
    Entry {
        id,
        place: Place(id.0),
        name: Name::new(format!("n{}", id.0)).unwrap(),
        addresses: vec![address_of(id)],
        zone: Zone::default(),
        weight: Weight::default(),
        incarnation: Incarnation(1),
        version: 0,
        amnesia: 0,
        phase: Phase::default(),
    }
}

pub(super) fn entry(id: u64) -> Entry {
    entry_at(NodeId(id))
}

pub(super) fn news_at(id: NodeId, health: Health) -> News {
    News { entry: entry_at(id), health }
}

pub(super) fn news(id: u64, health: Health) -> News {
    news_at(NodeId(id), health)
}
