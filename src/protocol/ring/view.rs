//! What a node believes about the owners of every slot.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::entry::{Entry, Stage};
use super::member::RingMember;
use super::placement::Ring;
use super::replicas::Replicas;
use super::slot::Slot;
use crate::protocol::id::{ClusterId, NodeId};

/// A hash over the owner sets of a slot in force, the phases and amnesia generations of the members that decide it, and
/// the cluster. It rides on every request between nodes: whoever believes otherwise refuses.
///
/// The standing of the members is part of it and not only their ids, since equal owners before a join and after the
/// leave that undoes it are not the same owners: one of them may have dropped its data in between.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotDigest(pub u64);

impl fmt::Debug for SlotDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotDigest({:016x})", self.0)
    }
}

/// The ring that follows from a set of entries, with the digest of every slot at hand.
#[derive(Clone, Debug)]
pub struct RingView {
    ring: Ring,
    digests: Vec<SlotDigest>,
}

/// The owners of one slot as far as requests are concerned.
#[derive(Clone, Copy, Debug)]
pub struct SlotView<'a> {
    /// The slot.
    pub slot: Slot,
    /// See [`SlotDigest`].
    pub digest: SlotDigest,
    owners: &'a [NodeId],
}

impl<'a> SlotView<'a> {
    /// The owners that reads ask, in the order of preference.
    #[must_use]
    pub fn read_set(&self) -> &'a [NodeId] {
        self.owners
    }

    /// The sets in each of which a write needs its quorum. While the ring stands still there is one; a ring change puts
    /// several in force at once.
    #[must_use]
    pub fn write_sets(&self) -> [&'a [NodeId]; 1] {
        [self.owners]
    }

    /// Whether `node` is an owner.
    #[must_use]
    pub fn is_owner(&self, node: NodeId) -> bool {
        self.owners.contains(&node)
    }
}

impl RingView {
    /// The view that follows from these entries; `None` if nobody is in the ring.
    #[must_use]
    pub fn build<'a>(
        cluster: ClusterId,
        replicas: Replicas,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Option<RingView> {
        let standing: BTreeMap<NodeId, &Entry> = entries
            .into_iter()
            .filter(|entry| entry.phase.stage == Stage::Active)
            .map(|entry| (entry.id, entry))
            .collect();
        if standing.is_empty() {
            return None;
        }
        let members: Vec<RingMember> = standing.values().map(|entry| RingMember::from(*entry)).collect();
        let ring = Ring::build(&members, replicas);
        let digests =
            Slot::all().map(|slot| digest(cluster, replicas, ring.owners(slot), &standing)).collect();
        Some(RingView { ring, digests })
    }

    /// The ring itself.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// What requests for a slot need to know.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> SlotView<'_> {
        SlotView { slot, digest: self.digests[slot.index()], owners: self.ring.owners(slot) }
    }
}

impl From<&Entry> for RingMember {
    fn from(entry: &Entry) -> RingMember {
        RingMember { node: entry.id, place: entry.place, zone: entry.zone.clone(), weight: entry.weight }
    }
}

fn digest(
    cluster: ClusterId,
    replicas: Replicas,
    owners: &[NodeId],
    standing: &BTreeMap<NodeId, &Entry>,
) -> SlotDigest {
    let mut hasher = Xxh3::new();
    hasher.update(&cluster.0.to_le_bytes());
    hasher.update(&[u8::from(replicas)]);
    for owner in owners {
        hasher.update(&owner.0.to_le_bytes());
        if let Some(entry) = standing.get(owner) {
            hasher.update(&entry.phase.generation.to_le_bytes());
            hasher.update(&[entry.phase.stage as u8]);
            hasher.update(&entry.amnesia.to_le_bytes());
        }
    }
    SlotDigest(hasher.digest())
}
