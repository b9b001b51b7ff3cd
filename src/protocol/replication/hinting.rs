//! A coordinator's side of hints: who stands in for owners that cannot be reached.

use super::quorum::Quorum;
use super::register;
use super::scope::Scope;
use crate::protocol::causality::Record;
use crate::protocol::id::{NodeId, ReapEpoch, RequestId};
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::trust::Standing;
use crate::protocol::wire::peer::PeerMessage;

/// How many nodes are asked for one owner before it is left to the exchange of hash trees.
const TRIES_MAX: usize = 2;

/// The hints of one write: for each owner that cannot be reached, the next node of the preference list is asked to keep
/// the record (Hinted Handoff; the Dynamo paper, section 4.6).
///
/// ```text
/// Registering ──▶ Asked ──▶ Held
///   the register    the       it is in the
///   is durable      record    stand-in's log
///   first           is sent
/// ```
#[derive(Debug, Default)]
pub(super) struct Hinting {
    places: Vec<Place>,
}

/// One owner and the node that stands in for it.
#[derive(Debug)]
struct Place {
    target: NodeId,
    holder: NodeId,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Registering,
    Asked,
    Held,
    Failed,
}

/// What a hint is made of.
pub(super) struct Hint<'a> {
    pub(super) request: RequestId,
    pub(super) key: &'a bytes::Bytes,
    pub(super) record: &'a Record,
    /// Under which it was read from a store.
    pub(super) epoch: ReapEpoch,
}

impl Hint<'_> {
    /// Whether the owners would take it from whoever keeps it. If not, does what is to be done instead.
    pub(super) fn may_be_asked_for(&self, holders: &Quorum, scope: &mut Scope<'_>) -> bool {
        if scope.standing_of(self.key) != Standing::Votes {
            // Without a vote it may not know yet which rounds of reaping the others have gone through: they would refuse the
            // hint as reaped, although they never had it. An exchange sees to them.
            let gone: Vec<NodeId> = holders.silent().filter(|node| !scope.can_reach(*node)).collect();
            gone.into_iter().for_each(|node| scope.miss(node, self.key));
            return false;
        }
        if self.epoch < scope.stamp(Slot::of_key(self.key)) {
            // The node has agreed to a round of reaping since it read the record. A hint of what was read before would be
            // refused as reaped; the own store is not older than the round.
            scope.read_own(self.request, self.key);
            return false;
        }
        true
    }
}

impl Hinting {
    /// How many nodes could stand in for owners of the slot.
    pub(super) fn spare(slot: Slot, scope: &Scope<'_>) -> usize {
        scope.view.ring().preference(slot).iter().filter(|p| !p.owner && scope.can_reach(p.node)).count()
    }

    /// Has the record kept for every owner that has not agreed and cannot be reached.
    pub(super) fn cover(&mut self, holders: &Quorum, hint: &Hint<'_>, scope: &mut Scope<'_>) {
        let gone: Vec<NodeId> = holders.silent().filter(|node| !scope.can_reach(*node)).collect();
        for target in gone {
            let of_target = || self.places.iter().filter(|place| place.target == target);
            if of_target().any(|place| place.stage != Stage::Failed) {
                continue;
            }
            if of_target().count() >= TRIES_MAX || !self.ask_somebody(target, hint, scope) {
                // Nobody has room for it, or nobody is there: the range is dirty, and an exchange sees to it.
                scope.miss(target, hint.key);
            }
        }
    }

    /// It is durable that `holder` may keep hints of the key.
    pub(super) fn on_registered(&mut self, holder: NodeId, hint: &Hint<'_>, scope: &mut Scope<'_>) {
        for place in &mut self.places {
            if place.holder == holder && place.stage == Stage::Registering {
                place.stage = Stage::Asked;
                send(place, hint, scope);
            }
        }
    }

    /// `holder` has the record on disk. Gives back the owner that it is kept for.
    pub(super) fn on_hinted(&mut self, holder: NodeId) -> Option<NodeId> {
        let place = self.places.iter_mut().find(|place| place.holder == holder)?;
        place.stage = Stage::Held;
        Some(place.target)
    }

    /// A node refused. If it was to keep a hint, somebody else is asked.
    pub(super) fn on_refused(
        &mut self,
        from: NodeId,
        holders: &Quorum,
        hint: &Hint<'_>,
        scope: &mut Scope<'_>,
    ) {
        let refused =
            self.places.iter_mut().find(|place| place.holder == from && place.stage == Stage::Asked);
        if let Some(place) = refused {
            place.stage = Stage::Failed;
            self.cover(holders, hint, scope);
        }
    }

    /// Asks again who has not answered, and somebody else where that node has gone too.
    pub(super) fn repeat(&mut self, holders: &Quorum, hint: &Hint<'_>, scope: &mut Scope<'_>) {
        let slot = Slot::of_key(hint.key);
        let is_open = |place: &&mut Place| matches!(place.stage, Stage::Registering | Stage::Asked);
        for place in self.places.iter_mut().filter(is_open) {
            if !scope.can_reach(place.holder) {
                place.stage = Stage::Failed;
            } else if register::enter(slot, place.holder, hint.request, scope) {
                place.stage = Stage::Asked;
                send(place, hint, scope);
            } else {
                // It is not durable yet, or it was struck off since.
                place.stage = Stage::Registering;
            }
        }
        self.cover(holders, hint, scope);
    }

    /// The time of the write is over: what is not known to be kept is left to an exchange.
    pub(super) fn abandon(&self, key: &[u8], scope: &mut Scope<'_>) {
        let is_open = |place: &&Place| matches!(place.stage, Stage::Registering | Stage::Asked);
        for place in self.places.iter().filter(is_open) {
            scope.miss(place.target, key);
        }
    }

    /// Whether nothing is waited for.
    pub(super) fn is_settled(&self) -> bool {
        self.places.iter().all(|place| matches!(place.stage, Stage::Held | Stage::Failed))
    }

    /// The nodes that keep the record.
    pub(super) fn held(&self) -> Vec<NodeId> {
        let held = self.places.iter().filter(|place| place.stage == Stage::Held);
        held.map(|place| place.holder).collect()
    }

    /// Asks the first node of the preference list that owns nothing of it, can be reached and was not asked yet: each
    /// stands in for one owner only, so that as many nodes have the record as the answer says. Tells whether there is one.
    fn ask_somebody(&mut self, target: NodeId, hint: &Hint<'_>, scope: &mut Scope<'_>) -> bool {
        let slot = Slot::of_key(hint.key);
        let is_new = |node: NodeId| self.places.iter().all(|place| place.holder != node);
        let list = scope.view.ring().preference(slot);
        let next = list.iter().find(|p| !p.owner && is_new(p.node) && scope.can_reach(p.node));
        let Some(holder) = next.map(|preference| preference.node) else { return false };
        let mut place = Place { target, holder, stage: Stage::Registering };
        if register::enter(slot, holder, hint.request, scope) {
            place.stage = Stage::Asked;
            send(&place, hint, scope);
        }
        self.places.push(place);
        true
    }
}

fn send(place: &Place, hint: &Hint<'_>, scope: &mut Scope<'_>) {
    let message = PeerMessage::Hint {
        request: hint.request,
        digest: scope.slot_of(hint.key).digest,
        epoch: hint.epoch,
        target: place.target,
        key: hint.key.clone(),
        record: hint.record.clone(),
    };
    scope.send(place.holder, message);
}
