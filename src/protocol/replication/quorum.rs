//! Counting who has agreed.

use crate::protocol::id::NodeId;
use crate::protocol::ring::view::SlotView;
use crate::protocol::wire::client::Level;

/// Whether a quorum is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet.
    Pending,
    /// Enough have agreed, in every set.
    Reached,
    /// Too many have declined, in some set.
    Impossible,
}

/// A Majority Quorum (*Patterns of Distributed Systems*; Gifford, *Weighted Voting for Replicated Data*, 1979) over one
/// or several sets of owners at once: a ring change puts more than one in force, and an operation needs its quorum in
/// each of them.
#[derive(Clone, Debug)]
pub struct Quorum {
    sets: Vec<Set>,
    accepted: Vec<NodeId>,
    declined: Vec<NodeId>,
    covered: Vec<NodeId>,
}

#[derive(Clone, Debug)]
struct Set {
    members: Vec<NodeId>,
    need: usize,
}

impl Quorum {
    /// A write quorum for a slot.
    #[must_use]
    pub fn of_writes(slot: &SlotView<'_>, level: Level) -> Quorum {
        Quorum::over(slot.write_sets(), level)
    }

    /// A read quorum for a slot.
    #[must_use]
    pub fn of_reads(slot: &SlotView<'_>, level: Level) -> Quorum {
        Quorum::over([slot.read_set()], level)
    }

    /// A quorum of `level` in each of `sets`.
    pub fn over<'a>(sets: impl IntoIterator<Item = &'a [NodeId]>, level: Level) -> Quorum {
        let sets = sets
            .into_iter()
            .map(|members| Set { members: members.to_vec(), need: level.of(members.len()) })
            .collect();
        Quorum { sets, accepted: Vec::new(), declined: Vec::new(), covered: Vec::new() }
    }

    /// Counts an agreement; twice from one node is once, and from outside of all sets is nothing.
    pub fn accept(&mut self, node: NodeId) {
        if self.is_member(node) && !self.accepted.contains(&node) {
            self.accepted.push(node);
            self.declined.retain(|declined| *declined != node);
        }
    }

    /// Counts a refusal, unless the node has agreed before.
    pub fn decline(&mut self, node: NodeId) {
        if self.is_member(node) && !self.accepted.contains(&node) && !self.declined.contains(&node) {
            self.declined.push(node);
        }
    }

    /// Counts a hint that is kept for a member as its agreement: what a *sloppy* quorum is (the Dynamo paper, section
    /// 4.6). Such a quorum shares no replica with a read quorum until the hint has reached its owner.
    pub fn cover(&mut self, node: NodeId) {
        if self.is_member(node) && !self.covered.contains(&node) {
            self.covered.push(node);
        }
    }

    fn agrees(&self, node: NodeId) -> bool {
        self.accepted.contains(&node) || self.covered.contains(&node)
    }

    /// Where things stand.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.sets.iter().all(|set| set.count(|node| self.agrees(node)) >= set.need) {
            Verdict::Reached
        } else if self.could_be_reached(|_| true) {
            Verdict::Pending
        } else {
            Verdict::Impossible
        }
    }

    /// Whether the quorum would be there if all those agreed that `may` and have not declined.
    pub fn could_be_reached(&self, may: impl Fn(NodeId) -> bool) -> bool {
        let open = |node: NodeId| self.agrees(node) || (!self.declined.contains(&node) && may(node));
        self.sets.iter().all(|set| set.count(open) >= set.need)
    }

    /// Who has agreed, in the order of arrival.
    #[must_use]
    pub fn accepted(&self) -> &[NodeId] {
        &self.accepted
    }

    /// Who has declined and not agreed since.
    #[must_use]
    pub fn declined(&self) -> &[NodeId] {
        &self.declined
    }

    /// Members of any set that have neither agreed nor declined, each once.
    pub fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members().filter(|node| !self.accepted.contains(node) && !self.declined.contains(node))
    }

    /// The members of all sets, each once, in the order of preference.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.sets.iter().enumerate().flat_map(move |(at, set)| {
            set.members
                .iter()
                .copied()
                .filter(move |node| !self.sets[..at].iter().any(|s| s.members.contains(node)))
        })
    }

    /// How many are needed in the set that needs most.
    #[must_use]
    pub fn need(&self) -> usize {
        self.sets.iter().map(|set| set.need).max().unwrap_or(0)
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.sets.iter().any(|set| set.members.contains(&node))
    }
}

impl Set {
    fn count(&self, agrees: impl Fn(NodeId) -> bool) -> usize {
        self.members.iter().filter(|node| agrees(**node)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const D: NodeId = NodeId(4);

    #[test]
    fn a_majority_is_reached_by_two_of_three_and_impossible_after_two_refusals() {
        let mut quorum = Quorum::over([&[A, B, C][..]], Level::Majority);
        assert_eq!(quorum.verdict(), Verdict::Pending);
        quorum.accept(A);
        quorum.accept(A);
        quorum.accept(D);
        assert_eq!(quorum.verdict(), Verdict::Pending);
        quorum.decline(B);
        assert_eq!(quorum.verdict(), Verdict::Pending);
        let mut failed = quorum.clone();
        failed.decline(C);
        assert_eq!(failed.verdict(), Verdict::Impossible);
        quorum.accept(C);
        assert_eq!(quorum.verdict(), Verdict::Reached);
        assert_eq!(quorum.accepted(), [A, C]);
    }

    #[test]
    fn every_set_in_force_needs_its_own_quorum() {
        let mut quorum = Quorum::over([&[A, B, C][..], &[A, B, D][..]], Level::Majority);
        quorum.accept(A);
        quorum.accept(C);
        assert_eq!(quorum.verdict(), Verdict::Pending);
        quorum.accept(D);
        assert_eq!(quorum.verdict(), Verdict::Reached);
        assert_eq!(quorum.members().collect::<Vec<_>>(), [A, B, C, D]);
    }

    #[test]
    fn a_hint_counts_for_the_member_that_it_is_kept_for_and_once() {
        let mut quorum = Quorum::over([&[A, B, C][..]], Level::Majority);
        quorum.cover(B);
        quorum.cover(D);
        quorum.accept(B);
        assert_eq!((quorum.verdict(), quorum.accepted()), (Verdict::Pending, &[B][..]));
        quorum.accept(A);
        assert_eq!(quorum.verdict(), Verdict::Reached);
    }

    #[test]
    fn who_declined_for_now_may_still_agree() {
        let mut quorum = Quorum::over([&[A][..]], Level::All);
        quorum.decline(A);
        assert_eq!(quorum.verdict(), Verdict::Impossible);
        quorum.accept(A);
        assert_eq!(quorum.verdict(), Verdict::Reached);
    }

    #[test]
    fn levels_count_as_they_say() {
        assert_eq!([1, 2, 3, 4, 5].map(|n| Level::Majority.of(n)), [1, 2, 2, 3, 3]);
        assert_eq!(
            (Level::Count(9).of(3), Level::Count(0).of(3), Level::All.of(3), Level::One.of(3)),
            (3, 1, 3, 1)
        );
    }
}
