//! What the client believes of the cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::clock::NodeTime;
use crate::protocol::id::NodeId;
use crate::protocol::ring::Ring;
use crate::protocol::ring::entry::{Name, Stage};
use crate::protocol::ring::member::RingMember;
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::WallTime;
use crate::protocol::wire::client::{Health, MemberView, Topology};

/// What the client believes of the cluster: one node's answer about its topology, and the ring that follows from it.
/// It is never changed, only replaced as a whole.
#[derive(Debug)]
pub(super) struct View {
    topology: Topology,
    /// What the ring was made of, sorted.
    ring_members: Vec<RingMember>,
    ring: Arc<Ring>,
    time: NodeTime,
    /// The node that told it reaches less than half of the ring.
    teller_is_cut_off: bool,
}

impl View {
    /// The view that follows from an answer that was asked for and came at these moments. The ring of `previous` is
    /// taken over if it is the same: to place the slots of a thousand nodes takes a quarter of a second.
    pub(super) fn new(
        topology: Topology,
        asked: Instant,
        answered: Instant,
        previous: Option<&View>,
    ) -> View {
        let time = NodeTime::learned(topology.time, asked, answered);
        let active = topology.members.iter().filter(|member| member.entry.phase.stage == Stage::Active);
        let mut ring_members: Vec<RingMember> = active.map(|member| ring_member(&member.entry)).collect();
        ring_members.sort();
        let same = previous.filter(|previous| {
            previous.ring_members == ring_members && previous.topology.replicas == topology.replicas
        });
        let ring = match same {
            Some(previous) => Arc::clone(&previous.ring),
            None => Arc::new(Ring::build(&ring_members, topology.replicas)),
        };
        let in_ring = || topology.members.iter().filter(|member| member.entry.phase.stage == Stage::Active);
        let reached = in_ring().filter(|member| member.entry.id == topology.node || is_well(member)).count();
        let teller_is_cut_off = 2 * reached < in_ring().count();
        View { ring_members, ring, time, teller_is_cut_off, topology }
    }

    /// The answer itself.
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The owners of a key, in the order of the ring; none while the cluster is not founded.
    pub(super) fn owners(&self, key: &[u8]) -> &[NodeId] {
        self.ring.owners(Slot::of_key(key))
    }

    /// Node time at `moment`.
    pub(super) fn time_at(&self, moment: Instant) -> WallTime {
        self.time.at(moment)
    }

    /// What is known of a node.
    pub(super) fn member(&self, node: NodeId) -> Option<&MemberView> {
        self.topology.members.iter().find(|member| member.entry.id == node)
    }

    /// The node of this name. Of two members with one name, as when a machine was set up anew, the one in better
    /// health and then the later one counts.
    pub(super) fn named(&self, name: &Name) -> Option<NodeId> {
        let named = self.topology.members.iter().filter(|member| member.entry.name == *name);
        let best = named.min_by_key(|member| {
            (member.health, !member.reachable, std::cmp::Reverse(member.entry.incarnation))
        });
        best.map(|member| member.entry.id)
    }

    /// The name of a node, or its id if it has none here.
    pub(super) fn name_of(&self, node: NodeId) -> String {
        self.member(node).map_or_else(|| node.to_string(), |member| member.entry.name.to_string())
    }

    /// Where a node can be reached, best first.
    pub(super) fn addresses(&self, node: NodeId) -> &[SocketAddr] {
        self.member(node).map_or(&[], |member| &member.entry.addresses)
    }

    /// Whether `node` seems to be within the reach of the others. A teller that cannot reach most members is cut off
    /// itself: then it is the one to avoid.
    pub(super) fn is_reachable(&self, node: NodeId) -> bool {
        let is_teller = node == self.topology.node;
        if self.teller_is_cut_off {
            return !is_teller;
        }
        is_teller || self.member(node).is_some_and(is_well)
    }
}

fn is_well(member: &MemberView) -> bool {
    member.reachable && member.health == Health::Alive
}

fn ring_member(entry: &crate::protocol::ring::entry::Entry) -> RingMember {
    RingMember { node: entry.id, place: entry.place, zone: entry.zone.clone(), weight: entry.weight }
}
