//! The driver's side of a round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{Ask, Ground, SPARE_ENTRIES, held, ripe_in};
use crate::protocol::id::{Actor, NodeId, ReapEpoch};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::storage::op::{Page, Stored};
use crate::protocol::time::{Moment, WallTime};
use crate::protocol::wire::reap::{Certified, Obstacle, Reap, ReapCause};

/// So many keys are proposed in one round.
const KEYS_MAX: usize = 256;

/// How long owners have to agree, and the own disk to be looked through.
const PATIENCE: Duration = Duration::from_secs(3);

/// So often an epoch is proposed anew when an owner turns out to be beyond it.
const PROPOSALS_MAX: u32 = 3;

/// After how long a commit is sent again to who has not said that it is done; doubles each time.
const RESEND: Duration = Duration::from_millis(300);

/// How often.
const RESENDS: u32 = 4;

/// One round of one slot, from the look into the own store to the last word of the last owner.
#[derive(Debug)]
pub(super) struct Round {
    slot: Slot,
    owners: Vec<NodeId>,
    digest: SlotDigest,
    /// How old operations have to be.
    rest: Duration,
    /// Those that started before this may be forgotten.
    marks_before: WallTime,
    keys: Vec<(Certified, Kind)>,
    /// When the first of the tombstones that are too young will be old enough.
    ripe: Option<Duration>,
    /// Whether the slot may hold more than fits into this round.
    is_more: bool,
    /// Whether the owners held some of them otherwise.
    is_unequal: bool,
    /// How often it was proposed.
    proposals: u32,
    /// The newest epoch that an owner is known to have raised to.
    seen: ReapEpoch,
    stage: Stage,
    due: Moment,
}

#[derive(Debug)]
enum Stage {
    Looking { unread: VecDeque<Bytes>, next: Option<Bytes> },
    Proposed { message: Reap, is_sent: bool, agreed: BTreeMap<NodeId, Actor>, certified: Vec<bool> },
    Committing { epoch: ReapEpoch, message: Reap, waiting: BTreeSet<NodeId>, sent: u32 },
}

/// Why a key is in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tombstone,
    LongContext,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// The own disk is to answer this.
    Look(Ask),
    /// All candidates are known.
    Propose,
    /// Everybody has agreed.
    Commit(Reap),
    /// Who has not said that it is done hears it again.
    Repeat(Reap),
    /// It is over; there is more to do after this time.
    Over(Option<Duration>),
    /// It came to nothing.
    Failed(ReapCause),
}

impl Round {
    pub(super) fn new(
        slot: Slot,
        owners: Vec<NodeId>,
        digest: SlotDigest,
        rest: Duration,
        ground: &Ground<'_>,
    ) -> Round {
        Round {
            slot,
            owners,
            digest,
            rest,
            marks_before: ground.node_time.minus(rest),
            keys: Vec::new(),
            ripe: None,
            is_more: false,
            is_unequal: false,
            proposals: 0,
            seen: ReapEpoch::default(),
            stage: Stage::Looking { unread: VecDeque::new(), next: None },
            due: ground.now + PATIENCE,
        }
    }

    /// When it wants to be woken.
    pub(super) fn due(&self) -> Moment {
        self.due
    }

    /// The newest epoch that it has heard of.
    pub(super) fn seen(&self) -> ReapEpoch {
        self.seen
    }

    pub(super) fn others(&self, own: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.owners.iter().copied().filter(move |node| *node != own)
    }

    /// Who has not said yet that the commit is in its log.
    pub(super) fn waiting_for(&self) -> impl Iterator<Item = NodeId> + '_ {
        let waiting = match &self.stage {
            Stage::Committing { waiting, .. } => Some(waiting),
            _ => None,
        };
        waiting.into_iter().flatten().copied()
    }

    /// A page of the slot.
    pub(super) fn on_page(&mut self, page: Option<Page>) -> Step {
        let Stage::Looking { unread, next } = &mut self.stage else { return Step::Wait };
        let Some(page) = page else {
            let own = self.owners.first().copied().unwrap_or(NodeId(0));
            return Step::Failed(ReapCause::Declined(own, Obstacle::Untrusted));
        };
        *next = page.next;
        unread.extend(page.entries.into_iter().map(|(key, _)| key));
        self.look_on()
    }

    /// Some records of the page.
    pub(super) fn on_read(&mut self, found: Vec<(Bytes, Stored)>, node_time: WallTime) -> Step {
        let Stage::Looking { unread, .. } = &mut self.stage else { return Step::Wait };
        unread.drain(..found.len().min(unread.len()));
        for (key, stored) in found {
            self.weigh(key, &stored, node_time);
        }
        if self.keys.len() >= KEYS_MAX {
            self.is_more = true;
            return Step::Propose;
        }
        self.look_on()
    }

    fn weigh(&mut self, key: Bytes, stored: &Stored, node_time: WallTime) {
        let (Stored::Present(record), Some(hash)) = (stored, held(stored, &key)) else { return };
        // Actors of other owners may still write; this many of them.
        let spared = SPARE_ENTRIES + self.owners.len();
        let kind = if record.is_tombstone() {
            let wait = ripe_in(record, self.rest, node_time);
            if !wait.is_zero() {
                self.ripe = Some(self.ripe.map_or(wait, |ripe| ripe.min(wait)));
                return;
            }
            Kind::Tombstone
        } else if record.compactable(&[], self.marks_before) > spared {
            Kind::LongContext
        } else {
            return;
        };
        self.keys.push(((key, hash), kind));
    }

    fn look_on(&mut self) -> Step {
        let Stage::Looking { unread, next } = &mut self.stage else { return Step::Wait };
        if !unread.is_empty() {
            return Step::Look(Ask::Read(unread.iter().cloned().collect()));
        }
        match next.take() {
            Some(next) => Step::Look(Ask::List(self.slot, Some(next))),
            None if self.keys.is_empty() => Step::Over(self.ripe),
            None => Step::Propose,
        }
    }

    /// What everybody is asked: the driver itself first.
    pub(super) fn propose(&mut self, epoch: ReapEpoch, proposal: u64, now: Moment) -> Reap {
        self.proposals += 1;
        let certified = vec![true; self.keys.len()];
        let keys = self.keys.iter().map(|(certified, _)| certified.clone()).collect();
        let message = Reap::Propose { slot: self.slot, digest: self.digest, epoch, proposal, keys };
        self.stage =
            Stage::Proposed { message: message.clone(), is_sent: false, agreed: BTreeMap::new(), certified };
        self.due = now + PATIENCE;
        message
    }

    /// What is to be asked of the others, once: the driver's own agreement is durable, so that no crash makes it use the
    /// number of this round for another one.
    pub(super) fn take_proposal(&mut self, (round, proposal): (ReapEpoch, u64)) -> Option<Reap> {
        let is_asked = self.is_asked(round, proposal);
        let Stage::Proposed { message, is_sent, .. } = &mut self.stage else { return None };
        let is_due = is_asked && !std::mem::replace(is_sent, true);
        is_due.then(|| message.clone())
    }

    /// Whether an answer is to what is proposed now.
    fn is_asked(&self, round: ReapEpoch, named: u64) -> bool {
        matches!(
            &self.stage,
            Stage::Proposed { message: Reap::Propose { epoch, proposal, .. }, .. }
                if (*epoch, *proposal) == (round, named)
        )
    }

    /// An owner agreed, and held these.
    pub(super) fn on_agreed(
        &mut self,
        from: NodeId,
        (round, proposal): (ReapEpoch, u64),
        equal: &[bool],
        writing: Actor,
        now: Moment,
    ) -> Step {
        let is_asked = self.is_asked(round, proposal) && self.owners.contains(&from);
        let Stage::Proposed { agreed, certified, .. } = &mut self.stage else { return Step::Wait };
        if !is_asked || agreed.contains_key(&from) {
            return Step::Wait;
        }
        agreed.insert(from, writing);
        for (at, certified) in certified.iter_mut().enumerate() {
            *certified &= equal.get(at).copied().unwrap_or(false);
        }
        let needed = self.owners.len();
        #[cfg(test)]
        let needed = if planted::is(Planted::ReapWithoutAll) { needed / 2 + 1 } else { needed };
        if agreed.len() < needed {
            return Step::Wait;
        }
        let mut writing: Vec<Actor> = agreed.values().copied().collect();
        writing.sort_unstable();
        let of_kind = |wanted: Kind| -> Vec<Certified> {
            let all = self.keys.iter().zip(certified.iter());
            all.filter(|((_, kind), is)| *kind == wanted && **is).map(|((key, _), _)| key.clone()).collect()
        };
        let (removed, compacted) = (of_kind(Kind::Tombstone), of_kind(Kind::LongContext));
        if removed.is_empty() && compacted.is_empty() {
            return Step::Failed(ReapCause::Unequal);
        }
        self.is_unequal = removed.len() + compacted.len() < self.keys.len();
        let message = Reap::Commit {
            slot: self.slot,
            digest: self.digest,
            epoch: round,
            removed,
            compacted,
            writing,
            marks_before: self.marks_before,
        };
        let waiting = self.owners.iter().copied().collect();
        self.stage = Stage::Committing { epoch: round, message: message.clone(), waiting, sent: 0 };
        self.due = now + RESEND;
        Step::Commit(message)
    }

    /// An owner declined.
    pub(super) fn on_declined(
        &mut self,
        from: NodeId,
        (round, proposal): (ReapEpoch, u64),
        why: Obstacle,
    ) -> Step {
        if !self.is_asked(round, proposal) {
            return Step::Wait;
        }
        if let Obstacle::Raised(raised) = why {
            // A copy of the proposal meets the agreement that the first one brought about.
            if raised == round {
                return Step::Wait;
            }
            self.seen = self.seen.max(raised);
            if self.proposals < PROPOSALS_MAX {
                return Step::Propose;
            }
        }
        Step::Failed(ReapCause::Declined(from, why))
    }

    /// An owner has the commit in its log.
    pub(super) fn on_done(&mut self, from: NodeId, round: ReapEpoch) -> Step {
        let Stage::Committing { epoch, waiting, .. } = &mut self.stage else { return Step::Wait };
        if *epoch == round {
            waiting.remove(&from);
        }
        if waiting.is_empty() { self.over() } else { Step::Wait }
    }

    fn over(&self) -> Step {
        match self.ripe {
            _ if self.is_more => Step::Over(Some(Duration::ZERO)),
            _ if self.is_unequal => Step::Failed(ReapCause::Unequal),
            ripe => Step::Over(ripe),
        }
    }

    /// Its time has come.
    pub(super) fn on_deadline(&mut self, now: Moment) -> Step {
        match &mut self.stage {
            Stage::Looking { .. } => Step::Failed(ReapCause::Silent(self.owners[0])),
            Stage::Proposed { agreed, .. } => {
                let silent = self.owners.iter().find(|node| !agreed.contains_key(node));
                Step::Failed(silent.map_or(ReapCause::Unequal, |node| ReapCause::Silent(*node)))
            }
            Stage::Committing { message, sent, .. } => {
                if *sent >= RESENDS {
                    return self.over();
                }
                *sent += 1;
                self.due = now + RESEND * 2_u32.pow(*sent);
                Step::Repeat(message.clone())
            }
        }
    }
}
