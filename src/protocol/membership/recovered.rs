//! What a node remembers of its cluster when it starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::founding::Pledge;
use super::lives::OwnLife;
use crate::protocol::codec::{self, DecodeError};
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::ring::entry::Entry;
use crate::protocol::storage::op::MetaKey;
use crate::protocol::wire::client::Health;
use crate::protocol::wire::gossip::{Cluster, News};
use crate::protocol::wire::life::Life;

/// The version of the durable formats of membership; the first byte of each.
const VERSION: u8 = 1;

/// The durable state of a node's membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The cluster that it belongs to.
    pub cluster: Option<Cluster>,
    /// What it promised while the cluster was being founded.
    pub pledge: Pledge,
    /// The address book, the node's own line included.
    pub members: Vec<News>,
    /// The seeds that it was told at its last start that named any.
    pub seeds: Vec<SocketAddr>,
    /// What it showed of itself at its last start; none if that was before nodes did so.
    pub own_life: Option<OwnLife>,
    /// How far the others had got when they were last heard of.
    pub lives: BTreeMap<NodeId, Life>,
}

/// The durable state cannot be read. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecoverError {
    /// It is of a later version of the software.
    #[error("the durable {what} is of format {found}, this version reads {VERSION}")]
    Version {
        /// Which part.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// It is damaged.
    #[error("the durable {what} is damaged: {error}")]
    Damaged {
        /// Which part.
        what: &'static str,
        /// How.
        error: DecodeError,
    },
    /// It is empty.
    #[error("the durable {what} is empty")]
    Empty {
        /// Which part.
        what: &'static str,
    },
}

impl Recovered {
    /// Reads what concerns membership; other keys are ignored.
    pub fn parse(meta: &BTreeMap<MetaKey, Bytes>) -> Result<Recovered, RecoverError> {
        let mut recovered = Recovered::default();
        for (key, bytes) in meta {
            match key {
                MetaKey::Cluster => recovered.cluster = Some(read("cluster", bytes)?),
                MetaKey::Founding => recovered.pledge = read("promise of the founding", bytes)?,
                MetaKey::Member(_) => recovered.members.push(read("address book", bytes)?),
                MetaKey::Seed(address) => recovered.seeds.push(*address),
                MetaKey::OwnLife => recovered.own_life = Some(read("life of this node", bytes)?),
                MetaKey::Life(member) => {
                    recovered.lives.insert(*member, read("lives of other members", bytes)?);
                }
                MetaKey::Identity
                | MetaKey::Start
                | MetaKey::Trust
                | MetaKey::HintHolders(_)
                | MetaKey::HintEpoch(_)
                | MetaKey::HintSuspects
                | MetaKey::Reaping(_) => {}
            }
        }
        Ok(recovered)
    }

    /// A line of the address book as the disk keeps it.
    #[must_use]
    pub fn remember(entry: &Entry) -> (MetaKey, Option<Bytes>) {
        let news = News { entry: entry.clone(), health: Health::Alive };
        (MetaKey::Member(entry.id), Some(write(&news)))
    }

    /// The highest incarnation of a node that the book remembers. A node that starts raises its own above this, too: the book may
    /// know of a life that outbid a clone.
    #[must_use]
    pub fn incarnation_of(&self, id: NodeId) -> Option<Incarnation> {
        let line = self.members.iter().find(|news| news.entry.id == id);
        line.map(|news| news.entry.incarnation)
    }
}

/// The durable form of a part.
pub(super) fn write<T: Serialize>(part: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    codec::encode_into(part, &mut bytes);
    bytes.into()
}

fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, RecoverError> {
    match bytes.split_first() {
        None => Err(RecoverError::Empty { what }),
        Some((&VERSION, rest)) => codec::decode(rest).map_err(|error| RecoverError::Damaged { what, error }),
        Some((&found, _)) => Err(RecoverError::Version { what, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::news;
    use super::*;
    use crate::protocol::wire::client::Health;

    #[test]
    fn what_was_written_is_read() {
        let line = news(3, Health::Down);
        let meta = BTreeMap::from([
            (MetaKey::Member(NodeId(3)), write(&line)),
            (MetaKey::Founding, write(&Pledge { ballot: 4, bound: None })),
            (MetaKey::Seed("127.0.0.1:9".parse().unwrap()), Bytes::new()),
            (MetaKey::Identity, Bytes::from_static(b"something else")),
        ]);
        let recovered = Recovered::parse(&meta).unwrap();
        assert_eq!(recovered.members, [line]);
        assert_eq!(recovered.pledge.ballot, 4);
        assert_eq!(recovered.seeds.len(), 1);
        assert_eq!(recovered.incarnation_of(NodeId(3)), Some(Incarnation(1)));
    }

    #[test]
    fn damage_is_told_apart_from_another_version() {
        let damaged = BTreeMap::from([(MetaKey::Cluster, Bytes::from_static(&[1, 2, 3]))]);
        assert!(matches!(Recovered::parse(&damaged), Err(RecoverError::Damaged { what: "cluster", .. })));
        let later = BTreeMap::from([(MetaKey::Cluster, Bytes::from_static(&[9]))]);
        assert_eq!(Recovered::parse(&later), Err(RecoverError::Version { what: "cluster", found: 9 }));
        let empty = BTreeMap::from([(MetaKey::Founding, Bytes::new())]);
        assert!(matches!(Recovered::parse(&empty), Err(RecoverError::Empty { .. })));
    }
}
