//! A stand-in's side of hints: what it keeps for owners, and how it brings it to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::desk::{Errand, Vigil};
use super::scope::{Scope, Stamped};
use crate::protocol::causality::{Applied, RecordHash, Refusal};
use crate::protocol::config::HintConfig;
use crate::protocol::id::{NodeId, ReapEpoch, RequestId};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::storage::op::{DiskRequest, Lsn, Stored};
use crate::protocol::time::Moment;
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

/// After how long an owner that has not answered is sent a hint again; doubles each time.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// The longest pause between two attempts.
const RESEND_MAX: Duration = Duration::from_secs(30);

/// What one hint costs in memory beside its key and record, about.
const OVERHEAD: u64 = 400;

/// Replays are numbered apart from the operations of the coordinator, whose numbers leave this bit clear.
const REPLAY: u64 = 1 << 63;

/// The hints that this node keeps: records of slots that it does not own.
///
/// A hint lies on the disk under its own slot and key, as the owners' records do on theirs, and several hints of a key are
/// one merged record. It is addressed to the *slot*: it is sent to all owners that can be reached **from here** and dropped
/// only when every one of them has said that it has it on disk. Until then it is sent again and again, with pauses.
#[derive(Debug, Default)]
pub struct Hints {
    held: BTreeMap<Place, Held>,
    /// Replays that owners are to answer.
    replays: BTreeMap<RequestId, Place>,
    bytes: u64,
    bytes_of: BTreeMap<NodeId, u64>,
    /// Where the last look ended.
    cursor: Option<Place>,
    next_look: Moment,
    next_replay: u64,
    delivered: u64,
}

type Place = (Slot, Bytes);

#[derive(Debug)]
struct Held {
    bytes: u64,
    targets: BTreeSet<NodeId>,
    /// The owners that have the record, as it is now, on disk.
    acked: BTreeSet<NodeId>,
    stage: Stage,
    again_at: Moment,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is under way.
    Resting,
    /// The own disk looks it up.
    Reading,
    /// Owners have been sent it.
    Sent { request: RequestId, hash: RecordHash },
    /// The own disk removes it.
    Dropping,
}

impl Hints {
    /// How many hints are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of keys, records and what each costs in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many were brought to all of their owners since the start.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// When to call [`tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        if self.is_empty() { Moment::NEVER } else { self.next_look }
    }

    /// Whether the request is a replay of ours.
    #[must_use]
    pub fn is_replay(request: RequestId) -> bool {
        request.0 & REPLAY != 0
    }

    fn has_room(&self, target: NodeId, bytes: u64, config: &HintConfig) -> bool {
        let of_target = self.bytes_of.get(&target).copied().unwrap_or_default();
        self.bytes + bytes <= config.bytes_max && of_target + bytes <= config.bytes_per_target_max
    }

    /// A record was found on the disk, or has just been put there, that is of a slot of others.
    pub fn keep(&mut self, slot: Slot, key: Bytes, target: Option<NodeId>, record_bytes: u64) {
        let place = (slot, key);
        let bytes = place.1.len() as u64 + record_bytes + OVERHEAD;
        let mut held = self.forget(&place).unwrap_or(Held {
            bytes,
            targets: BTreeSet::new(),
            acked: BTreeSet::new(),
            stage: Stage::Resting,
            again_at: Moment::default(),
            pause: RESEND_AFTER,
        });
        // What the owners have acknowledged was an earlier record.
        held.acked.clear();
        held.stage = Stage::Resting;
        held.again_at = Moment::default();
        held.bytes = bytes;
        held.targets.extend(target);
        self.bytes += bytes;
        for target in &held.targets {
            *self.bytes_of.entry(*target).or_default() += bytes;
        }
        self.held.insert(place, held);
    }

    fn forget(&mut self, place: &Place) -> Option<Held> {
        let held = self.held.remove(place)?;
        self.bytes -= held.bytes;
        for target in &held.targets {
            if let Some(bytes) = self.bytes_of.get_mut(target) {
                *bytes -= held.bytes;
            }
        }
        self.bytes_of.retain(|_, bytes| *bytes > 0);
        if let Stage::Sent { request, .. } = held.stage {
            self.replays.remove(&request);
        }
        Some(held)
    }

    fn holds_of(&self, slot: Slot) -> bool {
        self.held.range((slot, Bytes::new())..).next().is_some_and(|((of, _), _)| *of == slot)
    }
}

/// A coordinator asks for a record to be kept for an owner that it cannot reach.
pub fn on_hint(
    from: NodeId,
    request: RequestId,
    digest: SlotDigest,
    target: NodeId,
    key: &Bytes,
    stamped: Stamped,
    scope: &mut Scope<'_>,
) {
    let slot = scope.slot_of(key);
    let bytes = key.len() as u64 + stamped.record.encoded_len() + OVERHEAD;
    let reason = if slot.digest != digest || slot.is_owner(scope.own) {
        let entries = slot.read_set().iter().filter_map(|node| scope.peers.entry(*node)).collect();
        PeerRefusal::OtherRing(entries)
    } else if scope.hints.has_room(target, bytes, scope.hint_config) {
        let change = scope.merge(key, stamped);
        return scope.update(Errand::Hint { from, request, target, key: key.clone() }, key, change);
    } else {
        PeerRefusal::Overloaded
    };
    scope.send(from, PeerMessage::Refused { request, reason });
}

/// The own disk has merged the record; the coordinator hears of it once it is durable.
pub fn on_kept(errand: Errand, lsn: Lsn, applied: Applied, scope: &mut Scope<'_>) {
    let Errand::Hint { from, request, target, key } = errand else { return };
    let record = match applied {
        Applied::Changed { record, .. } | Applied::Adopted { record, .. } | Applied::Unchanged { record } => {
            record
        }
        Applied::Refused(refusal) => {
            let reason = match refusal {
                Refusal::DiskFull => PeerRefusal::DiskFull,
                Refusal::Overloaded => PeerRefusal::Overloaded,
                _ => PeerRefusal::Lost,
            };
            return scope.send(from, PeerMessage::Refused { request, reason });
        }
    };
    scope.hints.keep(Slot::of_key(&key), key, Some(target), record.encoded_len());
    if let Some(vigil) = scope.desk.wait(lsn, Vigil::Hinted { to: from, request }) {
        on_durable(vigil, scope);
    }
}

/// The log is synced far enough for something that was waited for here.
pub fn on_durable(vigil: Vigil, scope: &mut Scope<'_>) {
    match vigil {
        Vigil::Hinted { to, request } => scope.send(to, PeerMessage::Hinted { request }),
        Vigil::DropHint(key) => {
            let place = (Slot::of_key(&key), key);
            // A new hint may have come while the removal of the old one was on its way to the log.
            if scope.hints.held.get(&place).is_some_and(|held| held.stage == Stage::Dropping) {
                scope.hints.forget(&place);
                scope.hints.delivered += 1;
            }
        }
        _ => {}
    }
}

/// Looks for hints whose owners can be reached, a few at a time.
pub fn tick(scope: &mut Scope<'_>) {
    let now = scope.now.monotonic;
    if now < scope.hints.next_deadline() || scope.hints.is_empty() {
        return;
    }
    scope.hints.next_look = now + scope.hint_config.replay_every;
    let after = scope.hints.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
    let batch: Vec<Place> = scope
        .hints
        .held
        .range((after, Bound::Unbounded))
        .take(scope.hint_config.replay_batch)
        .map(|(place, _)| place.clone())
        .collect();
    if batch.len() == scope.hint_config.replay_batch {
        scope.hints.cursor = batch.last().cloned();
    }
    for place in batch {
        look_at(place, scope);
    }
}

fn look_at(place: Place, scope: &mut Scope<'_>) {
    let now = scope.now.monotonic;
    let slot = scope.view.slot(place.0);
    if slot.is_owner(scope.own) {
        // It is no hint any more but one of this node's own records.
        scope.hints.forget(&place);
        return;
    }
    let Some(held) = scope.hints.held.get_mut(&place) else { return };
    let may_be_told = |node: &NodeId| !held.acked.contains(node) && scope.peers.is_reachable(*node);
    if held.again_at > now
        || matches!(held.stage, Stage::Reading | Stage::Dropping)
        || !slot.read_set().iter().any(may_be_told)
    {
        return;
    }
    if let Stage::Sent { request, .. } = held.stage {
        scope.hints.replays.remove(&request);
    }
    held.stage = Stage::Reading;
    let key = place.1;
    scope.read(Errand::Replay(key.clone()), &key);
}

/// The own disk has looked up a hint: it goes to every owner that can be reached and is not known to have it.
pub fn on_read(key: Bytes, stored: Stored, scope: &mut Scope<'_>) {
    let place = (Slot::of_key(&key), key);
    let record = match stored {
        Stored::Present(record) => record,
        // A damaged hint cannot be brought to anybody; the owners repair each other.
        Stored::Absent | Stored::Lost => {
            scope.hints.forget(&place);
            return;
        }
    };
    let slot = scope.view.slot(place.0);
    let (digest, now) = (slot.digest, scope.now.monotonic);
    let hints = &mut *scope.hints;
    hints.next_replay += 1;
    let request = RequestId(REPLAY | hints.next_replay);
    let Some(held) = hints.held.get_mut(&place) else { return };
    if held.stage != Stage::Reading {
        // It has grown meanwhile.
        return;
    }
    held.stage = Stage::Sent { request, hash: record.hash(&place.1) };
    held.again_at = now + held.pause;
    held.pause = (held.pause * 2).min(RESEND_MAX);
    hints.replays.insert(request, place.clone());
    let behind = slot.read_set().iter().filter(|node| !held.acked.contains(node));
    let behind: Vec<NodeId> = behind.copied().filter(|node| scope.peers.is_reachable(*node)).collect();
    let (key, actor) = (place.1, scope.author.actor());
    for node in behind {
        let (key, record) = (key.clone(), record.clone());
        let epoch = ReapEpoch::default();
        scope.send(node, PeerMessage::Replicate { request, digest, epoch, actor, key, record });
    }
}

/// An owner has the record of a replay on disk.
pub fn on_stored(from: NodeId, request: RequestId, scope: &mut Scope<'_>) {
    let Some(place) = scope.hints.replays.get(&request).cloned() else { return };
    let Some(held) = scope.hints.held.get_mut(&place) else { return };
    held.acked.insert(from);
    let owners = scope.view.slot(place.0).read_set();
    let Stage::Sent { hash, .. } = held.stage else { return };
    if !owners.iter().all(|owner| held.acked.contains(owner)) {
        return;
    }
    held.stage = Stage::Dropping;
    scope.hints.replays.remove(&request);
    let (slot, key) = place;
    let errand = Errand::DropHint(key.clone());
    scope.desk.ask(errand, |ticket| DiskRequest::Remove { ticket, slot, key, certified: hash }, scope.out);
}

/// The own disk has removed a hint, or has found that it has grown since it was sent.
pub fn on_removed(key: Bytes, lsn: Lsn, is_gone: bool, scope: &mut Scope<'_>) {
    if is_gone {
        if let Some(vigil) = scope.desk.wait(lsn, Vigil::DropHint(key)) {
            on_durable(vigil, scope);
        }
        return;
    }
    let place = (Slot::of_key(&key), key);
    if let Some(held) = scope.hints.held.get_mut(&place)
        && held.stage == Stage::Dropping
    {
        held.stage = Stage::Resting;
        held.acked.clear();
    }
}

/// An owner asks whether it may strike this node off its register.
pub fn on_ask(from: NodeId, slots: Vec<Slot>, scope: &mut Scope<'_>) {
    let none: Vec<Slot> = slots.into_iter().filter(|slot| !scope.hints.holds_of(*slot)).collect();
    if !none.is_empty() {
        scope.send(from, PeerMessage::NoHints { slots: none });
    }
}

#[cfg(test)]
mod tests;
