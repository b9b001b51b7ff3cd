//! What a node believes about the owners of every slot.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::common::Common;
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

/// The ring that follows from a set of entries, with the digest of every slot at hand. Clones share it.
#[derive(Clone, Debug)]
pub struct RingView(Arc<Belief>);

#[derive(Debug)]
struct Belief {
    cluster: ClusterId,
    /// Shared with the views of which it is the ring, too: a raised generation changes digests and no owners.
    ring: Arc<Ring>,
    /// What goes into a digest for each member.
    standing: BTreeMap<NodeId, Standing>,
    digests: Vec<SlotDigest>,
    /// For each member what it owns together with each other, once somebody has asked for that.
    commons: BTreeMap<NodeId, OnceLock<Commons>>,
}

/// What an owner adds to the digests of its slots: id, phase and amnesia generation, as they are hashed.
type Standing = Vec<u8>;

/// What a node owns together with each other owner.
type Commons = Vec<(NodeId, Arc<Common>)>;

thread_local! {
    /// The views that somebody on this thread still uses. A view is a pure function of what it is built from; in a
    /// simulation nodes that believe the same start all the time, and need not compute it each for itself.
    static IN_USE: RefCell<Vec<Weak<Belief>>> = const { RefCell::new(Vec::new()) };
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
        let (members, standing) = in_the_ring(entries)?;
        let in_use: Vec<Arc<Belief>> = IN_USE.with_borrow_mut(|views| {
            views.retain(|view| view.strong_count() > 0);
            views.iter().filter_map(Weak::upgrade).collect()
        });
        let of_these = |view: &&Arc<Belief>| view.ring.replicas() == replicas && view.ring.is_of(&members);
        let of_these: Vec<&Arc<Belief>> = in_use.iter().filter(of_these).collect();
        let is_it = |view: &&&Arc<Belief>| view.cluster == cluster && view.standing == standing;
        if let Some(view) = of_these.iter().find(is_it) {
            return Some(RingView(Arc::clone(view)));
        }
        let ring = of_these
            .first()
            .map_or_else(|| Arc::new(Ring::build(&members, replicas)), |view| Arc::clone(&view.ring));
        let digests = digests(cluster, &ring, &standing);
        let commons = standing.keys().map(|node| (*node, OnceLock::new())).collect();
        let view = Arc::new(Belief { cluster, ring, standing, digests, commons });
        IN_USE.with_borrow_mut(|views| views.push(Arc::downgrade(&view)));
        Some(RingView(view))
    }

    /// The ring itself.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.0.ring
    }

    /// What requests for a slot need to know.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> SlotView<'_> {
        SlotView { slot, digest: self.0.digests[slot.index()], owners: self.0.ring.owners(slot) }
    }

    /// What `own` owns together with each other owner; nothing if it is not in the ring.
    #[must_use]
    pub fn commons(&self, own: NodeId) -> &[(NodeId, Arc<Common>)] {
        let Some(commons) = self.0.commons.get(&own) else { return &[] };
        commons.get_or_init(|| {
            let slots = self.0.ring.slots_of(own).map(|slot| self.slot(slot));
            Common::of(own, slots).map(|(node, common)| (node, Arc::new(common))).collect()
        })
    }
}

impl PartialEq for RingView {
    /// Whether both believe in the same owners under the same digests.
    fn eq(&self, other: &RingView) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        Arc::ptr_eq(&self.0, &other.0)
            || (a.cluster == b.cluster && a.standing == b.standing && a.ring == b.ring)
    }
}

impl Eq for RingView {}

impl From<&Entry> for RingMember {
    fn from(entry: &Entry) -> RingMember {
        RingMember { node: entry.id, place: entry.place, zone: entry.zone.clone(), weight: entry.weight }
    }
}

/// The digest of every slot.
fn digests(cluster: ClusterId, ring: &Ring, standing: &BTreeMap<NodeId, Standing>) -> Vec<SlotDigest> {
    let mut bytes = cluster.0.to_le_bytes().to_vec();
    bytes.push(u8::from(ring.replicas()));
    let common = bytes.len();
    let digest = |slot: Slot| {
        bytes.truncate(common);
        ring.owners(slot).iter().filter_map(|owner| standing.get(owner)).for_each(|of| bytes.extend(of));
        SlotDigest(xxh3_64(&bytes))
    };
    Slot::all().map(digest).collect()
}

/// Those of the entries that are in the ring: as members, and as what they add to the digests.
fn in_the_ring<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Option<(Vec<RingMember>, BTreeMap<NodeId, Standing>)> {
    let active = |entry: &&Entry| entry.phase.stage == Stage::Active;
    let standing: BTreeMap<NodeId, &Entry> =
        entries.into_iter().filter(active).map(|entry| (entry.id, entry)).collect();
    let members: Vec<RingMember> = standing.values().map(|entry| RingMember::from(*entry)).collect();
    let standing = standing.into_iter().map(|(node, entry)| (node, hashed(entry))).collect();
    (!members.is_empty()).then_some((members, standing))
}

fn hashed(entry: &Entry) -> Standing {
    let (id, phase, amnesia) = (entry.id.0.to_le_bytes(), entry.phase, entry.amnesia.to_le_bytes());
    [&id[..], &phase.generation.to_le_bytes(), &[phase.stage as u8], &amnesia].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{Incarnation, Place};
    use crate::protocol::ring::entry::{Name, Phase};
    use crate::protocol::ring::{Weight, Zone};

    fn entry(id: u64) -> Entry {
        Entry {
            id: NodeId(id),
            place: Place(id),
            name: Name::new(format!("n{id}")).unwrap(),
            addresses: Vec::new(),
            zone: Zone::default(),
            weight: Weight::default(),
            incarnation: Incarnation(1),
            version: 0,
            amnesia: 0,
            phase: Phase { generation: 0, stage: Stage::Active },
        }
    }

    fn build(cluster: u64, replicas: Replicas, entries: &[Entry]) -> RingView {
        RingView::build(ClusterId(cluster), replicas, entries).unwrap()
    }

    /// Where nothing is in use.
    fn built_elsewhere(cluster: u64, replicas: Replicas, entries: &[Entry]) -> RingView {
        std::thread::scope(|scope| scope.spawn(|| build(cluster, replicas, entries)).join()).unwrap()
    }

    fn digests(view: &RingView) -> Vec<SlotDigest> {
        Slot::all().map(|slot| view.slot(slot).digest).collect()
    }

    #[test]
    fn a_view_that_is_shared_is_the_one_that_would_have_been_built() {
        let plain: Vec<Entry> = (1..=5).map(entry).collect();
        let changed = |change: fn(&mut Entry)| {
            let mut entries = plain.clone();
            change(&mut entries[1]);
            entries
        };
        let beliefs = [
            (7, Replicas::THREE, plain.clone()),
            (8, Replicas::THREE, plain.clone()),
            (7, Replicas::new(5).unwrap(), plain.clone()),
            (7, Replicas::THREE, plain[..4].to_vec()),
            (7, Replicas::THREE, changed(|entry| entry.amnesia = 1)),
            (7, Replicas::THREE, changed(|entry| entry.phase.generation = 1)),
            (7, Replicas::THREE, changed(|entry| entry.place = Place(77))),
        ];
        let views: Vec<RingView> =
            beliefs.iter().map(|(cluster, replicas, entries)| build(*cluster, *replicas, entries)).collect();
        for (at, (cluster, replicas, entries)) in beliefs.iter().enumerate() {
            let alone = built_elsewhere(*cluster, *replicas, entries);
            assert_eq!(digests(&views[at]), digests(&alone), "{at}");
            assert!(views[at] == alone && views[at].ring() == alone.ring(), "{at}");
            assert!(Arc::ptr_eq(&views[at].0, &build(*cluster, *replicas, entries).0), "{at}");
            assert!(views[at + 1..].iter().all(|other| *other != views[at]), "{at}");
        }
        let again = changed(|entry| (entry.incarnation, entry.version) = (Incarnation(2), 9));
        assert!(build(7, Replicas::THREE, &again) == views[0], "that is for requests of no concern");
        assert!(Arc::ptr_eq(&views[0].0.ring, &views[4].0.ring), "nobody owns anything else");
    }

    #[test]
    fn what_two_own_together_is_the_same_for_both_and_is_computed_once() {
        let entries: Vec<Entry> = (1..=5).map(entry).collect();
        let view = build(7, Replicas::THREE, &entries);
        let node = |id| NodeId(id);
        for own in (1..=5).map(node) {
            let mut others: Vec<NodeId> = view.commons(own).iter().map(|(other, _)| *other).collect();
            others.sort_unstable();
            assert!(others.iter().copied().eq((1..=5).map(node).filter(|id| *id != own)));
            for (other, common) in view.commons(own) {
                let both = |slot: &Slot| [own, *other].iter().all(|node| view.slot(*slot).is_owner(*node));
                assert!(common.slots().iter().eq(Slot::all().filter(both)), "{own} {other}");
                let theirs = view.commons(*other).iter().find(|(node, _)| *node == own).unwrap();
                assert_eq!(theirs.1, *common);
            }
        }
        let again = build(7, Replicas::THREE, &entries);
        assert!(Arc::ptr_eq(&view.commons(NodeId(1))[0].1, &again.commons(NodeId(1))[0].1));
        assert!(view.commons(NodeId(9)).is_empty(), "who is not in the ring owns nothing");
        let mut raised = entries.clone();
        raised[4].amnesia = 1;
        let other = build(7, Replicas::THREE, &raised);
        let digest = |view: &RingView, of: u64| {
            let of_pair =
                |(node, common): &(NodeId, Arc<Common>)| (*node == NodeId(of)).then(|| common.digest());
            view.commons(NodeId(1)).iter().find_map(of_pair).unwrap()
        };
        assert_ne!(digest(&view, 5), digest(&other, 5), "both have to know of a loss");
    }

    #[test]
    fn a_view_that_nobody_uses_any_more_is_forgotten() {
        let entries: Vec<Entry> = (1..=3).map(entry).collect();
        let view = build(7, Replicas::THREE, &entries);
        let left = Arc::downgrade(&view.0);
        drop(view);
        assert!(left.upgrade().is_none());
        build(8, Replicas::THREE, &entries);
        assert_eq!(IN_USE.with_borrow(Vec::len), 1);
    }
}
