//! What a cluster is, fixed at its founding.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::causality::ClusterSecret;
use crate::protocol::codec;
use crate::protocol::id::{ClusterId, NodeId, Place};
use crate::protocol::ring::entry::{Entry, Phase, Stage};
use crate::protocol::ring::member::{RingMember, Weight, Zone};
use crate::protocol::ring::replicas::Replicas;

/// A cluster's identity: drawn by the proposer once every founder has confirmed, durable at each founder before it
/// serves, given to whoever joins later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Tells it from every other cluster.
    pub id: ClusterId,
    /// What it seals contexts with. Only holders of a node certificate ever see this message.
    pub secret: ClusterSecret,
    /// Replicas of every key, for ever.
    pub replicas: Replicas,
    /// Who founded it.
    pub founders: Founders,
}

/// The nodes that found a cluster, with what the ring must know of them.
///
/// All founders are in the ring from the first moment, at every node: if each had to hear of the others first, the first one
/// would own all slots alone and commit writes with itself. So the ring's facts are part of what is confirmed.
/// They are packed (zone names once, no places: a founder's place is its id) so that they fit in one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Founders(Packed);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Packed {
    zones: Vec<Zone>,
    /// Rising by id; the last number is an index of `zones`.
    members: Vec<(NodeId, Weight, u8)>,
}

/// The founders do not fit in one message. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "so many founders with so many different zones do not fit in one message: found the cluster with fewer nodes, the others join it later"
)]
pub struct TooManyFounders;

/// The phase of every founder, as a fact of the founding itself.
const FOUNDED: Phase = Phase { generation: 1, stage: Stage::Active };

impl Founders {
    /// The most bytes that founders may take up in a message.
    pub const BYTES_MAX: usize = 1_080;

    /// These members, in the order of their ids.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Founders, TooManyFounders> {
        let mut entries: Vec<&Entry> = entries.into_iter().collect();
        entries.sort_by_key(|entry| entry.id);
        entries.dedup_by_key(|entry| entry.id);
        let mut zones: Vec<Zone> = Vec::new();
        let mut members = Vec::with_capacity(entries.len());
        for entry in entries {
            let known = zones.iter().position(|zone| *zone == entry.zone);
            let index = known.unwrap_or_else(|| {
                zones.push(entry.zone.clone());
                zones.len() - 1
            });
            members.push((entry.id, entry.weight, u8::try_from(index).map_err(|_| TooManyFounders)?));
        }
        let packed = Packed { zones, members };
        if codec::encode(&packed).len() > Self::BYTES_MAX {
            Err(TooManyFounders)
        } else {
            Ok(Founders(packed))
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.members.is_empty()
    }

    /// Their ids, rising.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.0.members.iter().map(|&(id, _, _)| id)
    }

    /// Whether this node is one of them.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.members.binary_search_by_key(&id, |&(member, _, _)| member).is_ok()
    }

    /// What the ring knows of one of them.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<RingMember> {
        let at = self.0.members.binary_search_by_key(&id, |&(member, _, _)| member).ok()?;
        let (node, weight, zone) = self.0.members[at];
        let zone = self.0.zones[usize::from(zone)].clone();
        Some(RingMember { node, place: Place(node.0), zone, weight })
    }

    /// Makes a founder's entry agree with the founding: it is in the ring, at the place, in the zone and of the weight that all
    /// confirmed. Such facts change by transitions of the ring only, never by a restart with another configuration.
    pub fn pin(&self, entry: &mut Entry) {
        if let Some(member) = self.get(entry.id) {
            entry.place = member.place;
            entry.zone = member.zone;
            entry.weight = member.weight;
            entry.phase = entry.phase.max(FOUNDED);
        }
    }
}

impl TryFrom<Packed> for Founders {
    type Error = String;

    fn try_from(packed: Packed) -> Result<Founders, String> {
        let rising = packed.members.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let named = packed.members.iter().all(|&(_, _, zone)| usize::from(zone) < packed.zones.len());
        if rising && named { Ok(Founders(packed)) } else { Err("these are no founders".to_owned()) }
    }
}

impl From<Founders> for Packed {
    fn from(founders: Founders) -> Packed {
        founders.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::Incarnation;
    use crate::protocol::ring::entry::Name;

    fn entry(id: u64, zone: &str) -> Entry {
        Entry {
            id: NodeId(id),
            place: Place(id),
            name: Name::new(format!("n{id}")).unwrap(),
            addresses: Vec::new(),
            zone: Zone::new(zone).unwrap(),
            weight: Weight::new(2).unwrap(),
            incarnation: Incarnation(1),
            version: 0,
            amnesia: 0,
            phase: Phase::default(),
        }
    }

    #[test]
    fn founders_keep_what_the_ring_needs_and_survive_the_codec() {
        let founders = Founders::new(&[entry(3, "b"), entry(1, "a"), entry(2, "a")]).unwrap();
        assert_eq!(founders.ids().collect::<Vec<_>>(), [NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(founders.get(NodeId(3)).unwrap().zone.as_str(), "b");
        assert!(founders.get(NodeId(4)).is_none());
        assert_eq!(codec::decode::<Founders>(&codec::encode(&founders)), Ok(founders));
    }

    #[test]
    fn a_founder_that_comes_back_in_another_zone_stays_where_it_was_founded() {
        let founders = Founders::new(&[entry(1, "a")]).unwrap();
        let mut moved = entry(1, "b");
        founders.pin(&mut moved);
        assert_eq!((moved.zone.as_str(), moved.phase.stage), ("a", Stage::Active));
        let mut other = entry(2, "b");
        founders.pin(&mut other);
        assert_eq!(other, entry(2, "b"));
    }

    #[test]
    fn founders_that_would_not_fit_in_a_message_are_refused() {
        let many: Vec<Entry> = (0..90).map(|id| entry(id, "default")).collect();
        assert!(Founders::new(&many).is_ok());
        let zones: Vec<Entry> = (0..20).map(|id| entry(id, &format!("{id:064}"))).collect();
        assert_eq!(Founders::new(&zones), Err(TooManyFounders));
    }

    #[test]
    fn a_zone_that_is_not_there_is_damage() {
        let bytes =
            codec::encode(&Packed { zones: Vec::new(), members: vec![(NodeId(1), Weight::default(), 0)] });
        assert!(codec::decode::<Founders>(&bytes).is_err());
    }
}
