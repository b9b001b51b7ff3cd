//! Invariant 12: views agree. Within a bound after healing all nodes tell the same of all members; and nodes that tell
//! the same have the same ring, at any time.

use super::{Invariant, Violation};

use crate::protocol::node::Node;
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::wire::client::Health;

/// What one node believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its name, for people.
    pub name: String,
    /// The entries that its ring follows from, by id.
    pub ring_members: Vec<Entry>,
    /// A hash of the digests of all slots, and so of their owners; `None` while it has no ring.
    pub ring: Option<u64>,
    /// Everybody that it knows of, and what gossip has it believe of them.
    pub members: Vec<(Entry, Health)>,
}

impl View {
    /// What `node` believes.
    #[must_use]
    pub fn of(name: String, node: &Node) -> View {
        let membership = node.membership();
        // Each slot's digest is a hash of its owners already; there are many slots, so they are folded cheaply.
        let fold = |sum: u64, digest: u64| (sum ^ digest).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        let ring = node.ring_view().map(|view| {
            let digests = Slot::all().map(|slot| view.slot(slot).digest.0);
            digests.fold(0, fold)
        });
        View {
            name,
            ring_members: membership.ring_members().cloned().collect(),
            ring,
            members: membership.members().into_iter().map(|member| (member.entry, member.health)).collect(),
        }
    }

    /// What placement reads, and what the slot digests cover: incarnations, versions and addresses are no part of it.
    fn standing(&self) -> Vec<Entry> {
        let bare = |entry: &Entry| Entry {
            incarnation: Default::default(),
            version: 0,
            addresses: Vec::new(),
            ..entry.clone()
        };
        self.ring_members.iter().map(bare).collect()
    }
}

/// At any time: nodes with equal views of the ring's members have equal rings. The nodes without a ring owe nothing.
#[must_use]
pub fn judge(views: &[View]) -> Option<Violation> {
    let pairs =
        views.iter().enumerate().flat_map(|(at, one)| views[at + 1..].iter().map(move |other| (one, other)));
    let mut served = pairs.filter(|(one, other)| one.ring.is_some() && other.ring.is_some());
    let (one, other) =
        served.find(|(one, other)| one.ring != other.ring && one.standing() == other.standing())?;
    let evidence = format!(
        "{} and {} have equal entries of {} members, but their rings differ ({:016x?} and {:016x?})",
        one.name,
        other.name,
        one.ring_members.len(),
        one.ring,
        other.ring
    );
    Some(Violation::general(Invariant::ViewsAgree, evidence))
}

/// When all is healed: all views are equal, all members alive in them, and all rings equal. Gives back what is not.
#[must_use]
pub fn judge_healed(views: &[View]) -> Option<Violation> {
    let first = views.first()?;
    let evidence = views.iter().find_map(|view| {
        if let Some((entry, health)) = view.members.iter().find(|(_, health)| *health != Health::Alive) {
            return Some(format!("{} believes that {} is {health:?}", view.name, entry.name));
        }
        if view.members != first.members {
            let differing = view.members.iter().zip(&first.members).find(|(one, other)| one != other);
            let told = match differing {
                Some(((one, _), (other, _))) => format!(
                    "of {} the entries (incarnation, version) {:?} and {:?}",
                    one.name,
                    one.age(),
                    other.age()
                ),
                None => format!("{} and {} members", view.members.len(), first.members.len()),
            };
            return Some(format!("{} and {} do not tell the same: {told}", view.name, first.name));
        }
        (view.ring.is_none() || view.ring != first.ring)
            .then(|| format!("{} and {} have different rings, or none", view.name, first.name))
    })?;
    Some(Violation::general(Invariant::ViewsAgree, evidence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::NodeId;
    use crate::protocol::id::{Incarnation, Place};
    use crate::protocol::ring::entry::{Name, Phase, Stage};
    use crate::protocol::ring::member::{Weight, Zone};

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
            phase: Phase { generation: 1, stage: Stage::Active },
        }
    }

    fn views() -> [View; 2] {
        ["n1", "n2"].map(|name| View {
            name: name.to_owned(),
            ring_members: vec![entry(1), entry(2)],
            ring: Some(7),
            members: vec![(entry(1), Health::Alive), (entry(2), Health::Alive)],
        })
    }

    #[test]
    fn equal_entries_with_different_rings_are_reported_at_any_time() {
        let mut views = views();
        assert_eq!(judge(&views), None);
        views[1].ring = Some(8);
        assert!(judge(&views).is_some());
        views[1].ring_members[0].incarnation = Incarnation(9);
        assert!(judge(&views).is_some(), "a restart changes no ring");
        views[1].ring_members[0].phase.generation = 2;
        assert_eq!(judge(&views), None, "other entries, another ring");
        let mut views = self::views();
        views[1].ring = None;
        assert_eq!(judge(&views), None);
    }

    #[test]
    fn views_that_differ_after_healing_are_reported() {
        let spoilt = |spoil: &dyn Fn(&mut View)| {
            let mut views = views();
            spoil(&mut views[1]);
            judge_healed(&views).map(|violation| violation.evidence).unwrap_or_default()
        };
        assert_eq!(spoilt(&|_| {}), "");
        assert!(spoilt(&|view| view.members[0].1 = Health::Suspect).contains("n1 is Suspect"));
        assert!(spoilt(&|view| view.members[0].0.version = 3).contains("do not tell the same"));
        assert!(spoilt(&|view| drop(view.members.pop())).contains("1 and 2 members"));
        assert!(spoilt(&|view| view.ring = None).contains("different rings"));
    }
}
