//! What the members have shown of their lives, and what this node can show of its own.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::recovered::write;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::storage::op::{Lsn, MetaKey};
use crate::protocol::wire::life::{Claim, Life, Milestone};
use crate::protocol::wire::lineage::Lineage;

/// What one start of a node can show for itself; durable with its incarnation, before it says a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLife {
    claim: Claim,
    /// Whether the others have been asked.
    has_asked: bool,
}

impl OwnLife {
    /// Of a node that begins with an empty directory. Nobody can know better than it.
    #[must_use]
    pub fn first(incarnation: Incarnation, nonce: u64) -> OwnLife {
        let position = Lsn::default();
        let now = Life { directory: incarnation, incarnation, nonce, chain: nonce, position };
        let claim = Claim { now, began: Lsn::default(), last: None, lineage: Lineage::default() };
        OwnLife { claim, has_asked: true }
    }

    /// Of a node that starts from a directory whose log ends at `end` and that holds what it showed `before`.
    #[must_use]
    pub fn next(before: Option<&OwnLife>, incarnation: Incarnation, end: Lsn, nonce: u64) -> OwnLife {
        let none = Lineage::default();
        let (directory, chain, last, lineage) = match before {
            // As long as it had asked nobody, any of those starts may be the one that somebody heard of.
            Some(OwnLife { claim, has_asked: false }) => {
                let lineage = claim.lineage.clone().ended(&claim.now, end);
                (claim.now.directory, claim.now.chain, claim.last, lineage)
            }
            Some(OwnLife { claim, has_asked: true }) => {
                (claim.now.directory, nonce, Some(Life { position: end, ..claim.now }), none)
            }
            // Written before nodes remembered each other's lives: below all that will be remembered.
            None => (Incarnation::default(), nonce, None, none),
        };
        let now = Life { directory, incarnation, nonce, chain, position: end };
        OwnLife { claim: Claim { now, began: end, last, lineage }, has_asked: false }
    }

    /// What it shows to others, as it was when the life began.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// As the disk keeps it.
    #[must_use]
    pub fn entry(&self) -> (MetaKey, Option<Bytes>) {
        (MetaKey::OwnLife, Some(write(self)))
    }
}

/// The latest life of every member that this node has heard of, and its own. A position is heard with every heartbeat and
/// every acknowledgement, and written down now and then, however many there are: what a crash forgets of it are the last few
/// seconds.
#[derive(Debug)]
pub(super) struct Lives {
    own: OwnLife,
    /// The position of the last entry of the own log that counts, durable or not.
    wrote: Lsn,
    others: BTreeMap<NodeId, Life>,
    unsaved: BTreeSet<NodeId>,
    /// Which life of whom was asked about outside of the heartbeats, so that a burst of acknowledgements asks once.
    asked: BTreeMap<NodeId, u64>,
}

impl Lives {
    pub(super) fn new(own: OwnLife, others: BTreeMap<NodeId, Life>) -> Lives {
        Lives { wrote: own.claim.began, own, others, unsaved: BTreeSet::new(), asked: BTreeMap::new() }
    }

    /// See [`Membership::claim`](super::Membership::claim).
    pub(super) fn claim(&self) -> &Claim {
        &self.own.claim
    }

    /// Enough of the others have been asked.
    pub(super) fn confirm(&mut self) -> (MetaKey, Option<Bytes>) {
        self.own.has_asked = true;
        self.own.entry()
    }

    pub(super) fn wrote(&mut self, position: Lsn) {
        self.wrote = self.wrote.max(position);
    }

    /// What this node knows of others does not count: else two idle nodes would write down each other's progress in
    /// writing it down, for ever.
    pub(super) fn is_durable(&mut self, through: Lsn) {
        let position = &mut self.own.claim.now.position;
        *position = (*position).max(through.min(self.wrote));
    }

    /// A member has shown where it comes from. Gives back what is remembered of it if that is not it.
    pub(super) fn shown(&mut self, from: NodeId, claim: &Claim) -> Option<Life> {
        match self.others.get(&from) {
            Some(known) if !claim.comes_after(known) => Some(*known),
            known => {
                let before = known.filter(|known| known.nonce == claim.now.nonce);
                let position = claim.now.position.max(before.map_or(Lsn::default(), |known| known.position));
                self.remember(from, Life { position, ..claim.now });
                None
            }
        }
    }

    /// A member has told how far it is. Tells whether it has been shown where that life comes from.
    pub(super) fn heard(&mut self, from: NodeId, milestone: Milestone) -> bool {
        let Milestone { nonce, position } = milestone;
        match self.others.get(&from) {
            Some(known) if known.nonce == nonce => {
                let life = Life { position: known.position.max(position), ..*known };
                self.remember(from, life);
                true
            }
            _ => false,
        }
    }

    /// Whether a life that nobody has shown here is to be asked about now. Heartbeats ask again if this is lost.
    pub(super) fn asks_about(&mut self, from: NodeId, nonce: u64) -> bool {
        self.asked.insert(from, nonce) != Some(nonce)
    }

    /// What is remembered of a member.
    pub(super) fn of(&self, member: NodeId) -> Option<&Life> {
        self.others.get(&member)
    }

    fn remember(&mut self, member: NodeId, life: Life) {
        if self.others.insert(member, life) != Some(life) {
            self.unsaved.insert(member);
        }
    }

    /// The member has gone from the book.
    pub(super) fn forget(&mut self, member: NodeId) -> Option<(MetaKey, Option<Bytes>)> {
        self.unsaved.remove(&member);
        self.asked.remove(&member);
        self.others.remove(&member).map(|_| (MetaKey::Life(member), None))
    }

    pub(super) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// What the disk is to keep now, at most so much of it.
    pub(super) fn take_unsaved(&mut self, most: usize) -> Vec<(MetaKey, Option<Bytes>)> {
        let mut entries = Vec::new();
        while entries.len() < most
            && let Some(member) = self.unsaved.pop_first()
        {
            entries.push((MetaKey::Life(member), self.others.get(&member).map(write)));
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: NodeId = NodeId(7);

    fn lives() -> Lives {
        Lives::new(OwnLife::first(Incarnation(1), 1), BTreeMap::new())
    }

    #[test]
    fn every_start_comes_after_the_ones_before_and_no_copy_comes_after_what_followed_it() {
        let first = OwnLife::first(Incarnation(1), 11);
        let second = OwnLife::next(Some(&first), Incarnation(2), Lsn(50), 22);
        assert!(second.claim.comes_after(&Life { position: Lsn(50), ..first.claim.now }));
        let mut lives = Lives::new(second.clone(), BTreeMap::new());
        // It crashes before anybody has answered, and comes back.
        let third = OwnLife::next(Some(&second), Incarnation(3), Lsn(51), 33);
        assert!(third.claim.comes_after(&lives.claim().now));
        lives.confirm();
        let after = OwnLife::next(Some(&lives.own), Incarnation(3), Lsn(90), 33);
        lives.wrote(Lsn(80));
        lives.is_durable(Lsn(90));
        assert_eq!(lives.claim().now.position, Lsn(80));
        assert!(after.claim.comes_after(&lives.claim().now));
        // A copy of the directory from before.
        assert!(!third.claim.comes_after(&lives.claim().now), "at 51, and 80 was heard");
        let copied = OwnLife::next(Some(&first), Incarnation(2), Lsn(40), 44);
        assert!(!copied.claim.comes_after(&lives.claim().now));
    }

    #[test]
    fn a_copy_that_crashes_in_a_loop_does_not_climb_above_the_life_in_which_it_was_made() {
        let first = OwnLife::first(Incarnation(1), 11);
        // Copied before it had asked anybody; then it asked, and acknowledged what lies at 55.
        let original = OwnLife::next(Some(&first), Incarnation(2), Lsn(50), 22);
        let heard = Life { position: Lsn(55), ..original.claim.now };
        let starts = (0..20).scan(original.clone(), |before, start| {
            *before = OwnLife::next(Some(before), Incarnation(3 + start), Lsn(51 + 2 * start), 33 + start);
            Some(before.clone())
        });
        for copy in starts.take(8) {
            assert!(!copy.claim.comes_after(&heard), "{copy:?}");
        }
        let after_a_crash = OwnLife::next(Some(&original), Incarnation(3), Lsn(55), 99);
        assert!(after_a_crash.claim.comes_after(&heard));
    }

    #[test]
    fn a_directory_from_before_there_were_lives_is_below_all_that_are_remembered() {
        let old = OwnLife::next(None, Incarnation(9), Lsn(500), 1);
        let next =
            OwnLife::next(Some(&OwnLife { has_asked: true, ..old.clone() }), Incarnation(10), Lsn(600), 2);
        assert!(next.claim.comes_after(&Life { position: Lsn(600), ..old.claim.now }));
        let again = OwnLife::next(None, Incarnation(9), Lsn(500), 3);
        assert!(!again.claim.comes_after(&old.claim.now), "the same directory once more, from a backup");
    }

    #[test]
    fn the_furthest_is_remembered_and_another_life_is_asked_for_its_claim() {
        let mut lives = lives();
        let first = OwnLife::first(Incarnation(1), 11);
        let at = |position| Life { position: Lsn(position), ..first.claim.now };
        let said = |nonce, position| Milestone { nonce, position: Lsn(position) };
        assert!(!lives.heard(MEMBER, said(11, 5)));
        assert!(lives.asks_about(MEMBER, 11) && !lives.asks_about(MEMBER, 11), "once");
        assert_eq!(lives.shown(MEMBER, &first.claim), None);
        assert!(lives.heard(MEMBER, said(11, 5)) && lives.heard(MEMBER, said(11, 3)));
        assert_eq!(lives.take_unsaved(9), [(MetaKey::Life(MEMBER), Some(write(&at(5))))]);
        assert!(lives.heard(MEMBER, said(11, 5)) && !lives.has_unsaved());
        let second = OwnLife::next(Some(&first), Incarnation(2), Lsn(5), 22).claim;
        assert!(!lives.heard(MEMBER, said(22, 6)));
        assert_eq!(lives.shown(MEMBER, &second), None);
        assert!(!lives.heard(MEMBER, said(11, 5)), "of the life before");
        let copy = OwnLife::next(Some(&first), Incarnation(2), Lsn(5), 23).claim;
        assert_eq!(lives.shown(MEMBER, &copy), Some(second.now));
        assert_eq!(lives.forget(MEMBER), Some((MetaKey::Life(MEMBER), None)));
        assert!(!lives.has_unsaved());
    }

    /// The durable forms are pinned.
    #[test]
    fn the_bytes_are_the_pinned_ones() {
        let first = OwnLife::first(Incarnation(1), 0x11);
        let next = OwnLife::next(Some(&first), Incarnation(2), Lsn(5), 0x22);
        let hex = |bytes: Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let life = "0100000000000000020000000000000022000000000000002200000000000000\
                    0500000000000000";
        assert_eq!(hex(write(&next.claim.now)), format!("01{life}"));
        let last = "0100000000000000010000000000000011000000000000001100000000000000\
                    0500000000000000";
        let no_starts = "000000000000000000";
        assert_eq!(hex(write(&next)), format!("01{life}050000000000000001{last}{no_starts}00"));
    }
}
