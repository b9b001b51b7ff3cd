//! How a cluster is as a whole: put together from what its nodes say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Answers, count, span};
use crate::cli::output;
use crate::protocol::id::NodeId;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::RingView;
use crate::protocol::wire::client::{Status, Topology};

/// How a cluster is as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(super) slots: Slots,
    pub(super) repair: Repair,
    /// How many nodes answered, and how many there are.
    pub(super) answered: (usize, usize),
}

/// How the slots are. Nodes that do not answer are asked for in vain, so what only they know is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) all: usize,
    /// A majority of the owners serves, and one of them reaches the others: reads and writes of its keys go through.
    pub(super) with_quorum: usize,
    /// All owners serve, and none has reason to think that they do not hold the same.
    pub(super) fully_replicated: usize,
    /// Some owner has such a reason: it was away, missed a write, differed at the last comparison or does not trust its contents.
    pub(super) dirty: usize,
}

/// What repair has still to do: hints that are kept, and what exchanges under way can tell. Of other slots nobody knows how many
/// records there are to move, or to forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Repair {
    pub(super) debt_keys: u64,
    pub(super) debt_bytes: u64,
    /// Slots that their nodes have no vote for and get back from the other owners.
    pub(super) to_refill: u64,
    /// Slots that hold deletions which wait to be forgotten.
    pub(super) to_reap: u64,
    /// What the nodes at work allow themselves in a second, all together.
    pub(super) keys_per_second: u64,
    pub(super) bytes_per_second: u64,
    /// What is kept for owners that are away, in memory; it is moved when they are back, and counted in the debt as well.
    pub(super) hints: u64,
    pub(super) hint_bytes: u64,
}

impl Repair {
    fn of(statuses: &[&Status]) -> Repair {
        let mut all = Repair::default();
        let at = |status: &Status, name: &str| count(status, name).unwrap_or(0);
        for status in statuses {
            all.hints += at(status, "hints");
            all.hint_bytes += at(status, "hint_bytes");
            all.to_refill += at(status, "slots_refilling");
            all.to_reap += at(status, "slots_to_reap");
        }
        for status in statuses.iter().filter(|status| at(status, "repair_debt_keys") > 0) {
            all.debt_keys += at(status, "repair_debt_keys");
            all.debt_bytes += at(status, "repair_debt_bytes");
            all.keys_per_second += at(status, "repair_keys_per_second");
            all.bytes_per_second += at(status, "repair_bytes_per_second");
        }
        all
    }

    /// What only slots are known of, for people.
    fn slots(&self) -> Option<String> {
        let plural = |count: u64| if count == 1 { "slot" } else { "slots" };
        match (self.to_refill, self.to_reap) {
            (0, 0) => None,
            (refill, 0) => Some(format!("{refill} {} to refill", plural(refill))),
            (0, reap) => Some(format!("{reap} {} to reap", plural(reap))),
            (refill, reap) => Some(format!("{refill} {} to refill, {reap} to reap", plural(refill))),
        }
    }

    /// How long that takes at these rates at least, in milliseconds.
    fn millis_left(&self) -> u64 {
        let at_rate = |debt: u64, rate: u64| debt.saturating_mul(1_000).div_ceil(rate.max(1));
        at_rate(self.debt_keys, self.keys_per_second).max(at_rate(self.debt_bytes, self.bytes_per_second))
    }
}

impl Health {
    /// How the cluster is that these nodes make; `None` before there is a ring.
    pub(crate) fn of(topology: &Topology, answers: &Answers) -> Option<Health> {
        let entries = topology.members.iter().map(|member| &member.entry);
        let view = RingView::build(topology.cluster?, topology.replicas, entries)?;
        let statuses: Vec<&Status> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
        let serving = statuses.iter().filter(|status| status.waiting_for.is_none());
        let serving: BTreeMap<NodeId, BTreeSet<NodeId>> =
            serving.map(|status| (status.node, status.unreachable.iter().copied().collect())).collect();
        let dirty: BTreeSet<Slot> = statuses.iter().flat_map(|status| status.dirty_slots()).collect();
        // A node that this program cannot ask may be well and reached by the others.
        let asked: BTreeSet<NodeId> = statuses.iter().map(|status| status.node).collect();
        let may_serve = |node: &NodeId| serving.contains_key(node) || !asked.contains(node);
        let reaches = |from: &NodeId, to: &NodeId| {
            from == to || serving.get(from).is_some_and(|out| !out.contains(to)) && may_serve(to)
        };
        let mut slots = Slots { all: Slot::all().len(), ..Slots::default() };
        for slot in Slot::all() {
            let owners = view.ring().owners(slot);
            let reached = |from: &&NodeId| owners.iter().filter(|to| reaches(from, to)).count();
            let best =
                owners.iter().filter(|owner| serving.contains_key(owner)).map(|owner| reached(&owner)).max();
            slots.with_quorum += usize::from(best.is_some_and(|best| best > owners.len() / 2));
            let is_dirty = dirty.contains(&slot);
            slots.dirty += usize::from(is_dirty);
            let all_serve = owners.iter().all(|owner| serving.contains_key(owner));
            slots.fully_replicated += usize::from(all_serve && !is_dirty);
        }
        Some(Health { slots, repair: Repair::of(&statuses), answered: (statuses.len(), answers.len()) })
    }

    /// For people: two lines, and how far repair has come since somebody began to watch when there were `most` records to
    /// move.
    pub(crate) fn lines(&self, most: u64) -> String {
        let Slots { all, with_quorum, fully_replicated, dirty } = self.slots;
        let kept = match self.repair {
            Repair { hints: 0, .. } => String::new(),
            Repair { hints, hint_bytes, .. } => {
                format!("\nhints: {hints} ({:.1} MiB) kept for owners that are away", mebibytes(hint_bytes))
            }
        };
        let slots = format!(
            "slots: {with_quorum} of {all} with quorum, {fully_replicated} fully replicated, {dirty} dirty{kept}"
        );
        let Repair { debt_keys, debt_bytes, .. } = self.repair;
        if debt_keys == 0 {
            let what = match (dirty, fully_replicated == all, self.repair.slots()) {
                (0, true, None) => "nothing to do".to_owned(),
                (0, true, Some(slots)) => slots,
                (0, false, None) => "nothing to do before all owners are back".to_owned(),
                (0, false, Some(slots)) => format!("{slots}; nothing else before all owners are back"),
                (_, _, None) => "the next exchanges will show what differs".to_owned(),
                (_, _, Some(slots)) => format!("{slots}; the next exchanges will show what differs"),
            };
            return format!("{slots}\nrepair: {what}");
        }
        let done = match most {
            0 => String::new(),
            most => format!(
                "{} {} % done, ",
                output::gauge(most - debt_keys.min(most), most),
                100 * (most - debt_keys.min(most)) / most
            ),
        };
        format!(
            "{slots}\nrepair: {done}about {debt_keys} records ({:.1} MiB) to move at {}/s, {} left at least{}",
            mebibytes(debt_bytes),
            self.repair.keys_per_second,
            span(self.repair.millis_left()),
            self.repair.slots().map_or_else(String::new, |slots| format!("; {slots}")),
        )
    }

    /// How many records are still to be moved, about.
    pub(crate) fn debt_keys(&self) -> u64 {
        self.repair.debt_keys
    }

    /// For programs.
    pub(crate) fn json(&self) -> impl Serialize {
        HealthJson {
            node: None,
            nodes: self.answered.1,
            nodes_answering: self.answered.0,
            slots: self.slots.all,
            slots_with_quorum: self.slots.with_quorum,
            slots_fully_replicated: self.slots.fully_replicated,
            slots_dirty: self.slots.dirty,
            repair_debt_keys: self.repair.debt_keys,
            repair_debt_bytes: self.repair.debt_bytes,
            repair_debt_slots: self.repair.to_refill + self.repair.to_reap,
            repair_keys_per_second: self.repair.keys_per_second,
            repair_bytes_per_second: self.repair.bytes_per_second,
            repair_left_ms: self.repair.millis_left(),
            hints: self.repair.hints,
            hint_bytes: self.repair.hint_bytes,
        }
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The cluster as a whole is the object whose `node` is null.
#[derive(Serialize)]
struct HealthJson {
    node: Option<&'static str>,
    nodes: usize,
    nodes_answering: usize,
    slots: usize,
    slots_with_quorum: usize,
    slots_fully_replicated: usize,
    slots_dirty: usize,
    repair_debt_keys: u64,
    repair_debt_bytes: u64,
    repair_debt_slots: u64,
    repair_keys_per_second: u64,
    repair_bytes_per_second: u64,
    repair_left_ms: u64,
    hints: u64,
    hint_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{ClusterId, Incarnation, Place};
    use crate::protocol::ring::entry::{Entry, Name, Phase, Stage};
    use crate::protocol::ring::member::{Weight, Zone};
    use crate::protocol::ring::replicas::Replicas;
    use crate::protocol::time::WallTime;
    use crate::protocol::wire::client::{Code, Health as Believed, MemberView, Problem};

    fn name(id: u64) -> Name {
        Name::new(format!("n{id}")).unwrap()
    }

    fn member(id: u64) -> MemberView {
        let entry = Entry {
            id: NodeId(id),
            place: Place(id),
            name: name(id),
            addresses: Vec::new(),
            zone: Zone::default(),
            weight: Weight::default(),
            incarnation: Incarnation(1),
            version: 0,
            amnesia: 0,
            phase: Phase { generation: 0, stage: Stage::Active },
        };
        MemberView { entry, health: Believed::Alive, reachable: true }
    }

    fn topology() -> Topology {
        Topology {
            node: NodeId(1),
            cluster: Some(ClusterId(7)),
            replicas: Replicas::default(),
            members: (1..=5).map(member).collect(),
            time: WallTime(1),
            version: 1,
        }
    }

    fn status(id: u64, unreachable: &[u64]) -> Status {
        Status {
            node: NodeId(id),
            name: name(id),
            address: None,
            cluster: Some(ClusterId(7)),
            waiting_for: None,
            incarnation: Incarnation(1),
            uptime_ms: 1,
            slots_owned: 1,
            requests: 0,
            clock_offset_ms: 0,
            counts: Vec::new(),
            dirty: Vec::new(),
            unreachable: unreachable.iter().copied().map(NodeId).collect(),
        }
    }

    fn answers(statuses: Vec<Status>) -> Answers {
        let silent = || Err(Problem::new(Code::Timeout, "no answer"));
        let answer =
            |id| statuses.iter().find(|status| status.node == NodeId(id)).cloned().map_or_else(silent, Ok);
        (1..=5).map(|id| (name(id), answer(id))).collect()
    }

    fn slots(statuses: Vec<Status>) -> Slots {
        Health::of(&topology(), &answers(statuses)).unwrap().slots
    }

    /// How many slots have so many of these nodes among their owners.
    fn owned(nodes: &[u64], many: std::ops::RangeInclusive<usize>) -> usize {
        let topology = topology();
        let entries = topology.members.iter().map(|member| &member.entry);
        let view = RingView::build(ClusterId(7), topology.replicas, entries).unwrap();
        let count = |slot| view.ring().owners(slot).iter().filter(|owner| nodes.contains(&owner.0)).count();
        Slot::all().filter(|slot| many.contains(&count(*slot))).count()
    }

    #[test]
    fn a_cluster_that_is_well_has_everything() {
        let well = Slots { all: 16_384, with_quorum: 16_384, fully_replicated: 16_384, dirty: 0 };
        let all: Vec<Status> = (1..=5).map(|id| status(id, &[])).collect();
        assert_eq!(slots(all.clone()), well);
        let text = Health::of(&topology(), &answers(all)).unwrap().lines(0);
        assert!(text.contains("16384 of 16384 with quorum") && text.ends_with("nothing to do"), "{text}");
    }

    #[test]
    fn one_that_is_down_takes_copies_and_two_take_quorums() {
        let up = |ids: &[u64], gone: &[u64]| ids.iter().map(|id| status(*id, gone)).collect::<Vec<_>>();
        let one = slots(up(&[1, 2, 3, 4], &[5]));
        assert_eq!((one.with_quorum, one.fully_replicated), (16_384, owned(&[5], 0..=0)));
        let two = slots(up(&[1, 2, 3], &[4, 5]));
        assert_eq!((two.with_quorum, two.fully_replicated), (owned(&[4, 5], 0..=1), owned(&[4, 5], 0..=0)));
        assert!(two.with_quorum < 16_384 && two.fully_replicated > 0);
    }

    #[test]
    fn a_cut_takes_the_quorums_of_slots_that_no_side_has_a_majority_of() {
        // n1 | n2 | n3,n4,n5, all of which answer to whoever asks.
        let cut =
            [(1, vec![2, 3, 4, 5]), (2, vec![1, 3, 4, 5]), (3, vec![1, 2]), (4, vec![1, 2]), (5, vec![1, 2])];
        let cut = slots(cut.iter().map(|(id, gone)| status(*id, gone)).collect());
        assert_eq!(cut.with_quorum, owned(&[3, 4, 5], 2..=3));
        assert!(cut.with_quorum < 16_384);
        // Nobody has missed anything yet.
        assert_eq!((cut.fully_replicated, cut.dirty), (16_384, 0));
    }

    #[test]
    fn who_cannot_be_asked_from_here_may_be_reached_by_the_others() {
        let unasked = slots((1..=3).map(|id| status(id, &[])).collect());
        assert_eq!(unasked.with_quorum, owned(&[1, 2, 3], 1..=3));
        let starting = Status { waiting_for: Some("its disk".to_owned()), ..status(4, &[]) };
        let mut all: Vec<Status> = [1, 2, 3, 5].map(|id| status(id, &[])).into();
        all.push(starting);
        assert_eq!(slots(all).fully_replicated, owned(&[4], 0..=0));
    }

    #[test]
    fn dirty_slots_are_counted_once_whoever_tells_of_them() {
        let mut all: Vec<Status> = (1..=5).map(|id| status(id, &[])).collect();
        all[0].add_dirty([5, 6, 7, 100].map(|slot| Slot::new(slot).unwrap()));
        all[1].add_dirty([7, 8].map(|slot| Slot::new(slot).unwrap()));
        assert_eq!(
            (all[0].dirty.as_slice(), all[1].dirty.as_slice()),
            (&[(5, 7), (100, 100)][..], &[(7, 8)][..])
        );
        all[1].add_dirty([6, 9].map(|slot| Slot::new(slot).unwrap()));
        assert_eq!(all[1].dirty, [(6, 9)]);
        let slots = slots(all);
        assert_eq!((slots.dirty, slots.fully_replicated, slots.with_quorum), (6, 16_378, 16_384));
    }

    #[test]
    fn repair_tells_debt_rate_and_time() {
        let mut all: Vec<Status> = (1..=5).map(|id| status(id, &[])).collect();
        let counts = |debt: u64, rate: u64| {
            [
                ("repair_bytes_per_second", 1 << 20),
                ("repair_debt_bytes", debt * 100),
                ("repair_debt_keys", debt),
                ("repair_keys_per_second", rate),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .to_vec()
        };
        all[0].counts = counts(20_000, 1_000);
        all[1].counts = vec![("hint_bytes".to_owned(), 3 << 20), ("hints".to_owned(), 70)];
        all[3].counts = counts(10_000, 500);
        all[2].counts = vec![("slots_refilling".to_owned(), 5), ("slots_to_reap".to_owned(), 2)];
        // Its rate helps nobody, for it has nothing to do.
        all[4].counts = counts(0, 1_000);
        let health = Health::of(&topology(), &answers(all)).unwrap();
        assert_eq!(health.repair.millis_left(), 20_000);
        let text = health.lines(40_000);
        assert!(text.contains("[#####...............] 25 % done, about 30000 records (2.9 MiB)"), "{text}");
        assert!(text.contains("hints: 70 (3.0 MiB) kept for owners that are away"), "{text}");
        assert!(text.ends_with("at 1500/s, 20.0s left at least; 5 slots to refill, 2 to reap"), "{text}");
        let json = serde_json::to_value(health.json()).unwrap();
        assert_eq!(json["node"], serde_json::Value::Null);
        assert_eq!((&json["slots_with_quorum"], &json["repair_debt_keys"]), (&16_384.into(), &30_000.into()));
        assert_eq!((&json["nodes_answering"], &json["repair_left_ms"]), (&5.into(), &20_000.into()));
        assert_eq!(json["repair_debt_slots"], 7);
        let mut quiet: Vec<Status> = (1..=5).map(|id| status(id, &[])).collect();
        quiet[2].counts = vec![("slots_to_reap".to_owned(), 1)];
        let text = Health::of(&topology(), &answers(quiet)).unwrap().lines(0);
        assert!(text.ends_with("repair: 1 slot to reap"), "{text}");
    }

    #[test]
    fn before_the_founding_there_is_nothing_to_say() {
        let unfounded = Topology { cluster: None, ..topology() };
        assert_eq!(Health::of(&unfounded, &answers(vec![])), None);
    }
}
