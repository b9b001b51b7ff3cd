//! A stand-in's side of hints: what it keeps for owners that cannot be reached from where they were written.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::desk::{Errand, Vigil};
use super::recount::Recount;
use super::scope::{Scope, Stamped};
use crate::protocol::causality::{Applied, RecordHash, Refusal};
use crate::protocol::codec;
use crate::protocol::config::HintConfig;
use crate::protocol::id::{NodeId, ReapEpoch, RequestId};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::storage::op::{DiskRequest, Lsn, MetaKey};
use crate::protocol::time::Moment;
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

/// What one hint costs in memory beside its key and record, about.
const OVERHEAD: u64 = 400;

/// The hints that this node keeps: records of slots that it does not own.
///
/// A hint lies on the disk under its own slot and key, as the owners' records do on theirs, and several hints of a key are
/// one merged record. It is addressed to the *slot*: it is sent to all owners that can be reached **from here** and dropped
/// only when every one of them has said that it has it on disk ([`replay`](super::replay)). Nothing but the records has to
/// be remembered for that, so after a start the hints are found by looking what lies in slots of others
/// ([`recount`](super::recount)).
#[derive(Debug, Default)]
pub struct Hints {
    pub(super) held: BTreeMap<Place, Held>,
    /// Replays that owners are to answer.
    pub(super) replays: BTreeMap<RequestId, Place>,
    /// Hints that the own disk has been given and has not told of yet, and their bytes: for each slot.
    arriving: BTreeMap<Slot, usize>,
    bytes: u64,
    bytes_of: BTreeMap<NodeId, u64>,
    epochs: BTreeMap<Slot, ReapEpoch>,
    pub(super) recount: Recount,
    /// Where the last look ended.
    pub(super) cursor: Option<Place>,
    pub(super) next_look: Moment,
    /// Set while the clock is to wake the node for that.
    pub(super) is_awaited: bool,
    pub(super) next_replay: u64,
    pub(super) counts: Counts,
}

/// A slot and a key of it.
pub(super) type Place = (Slot, Bytes);

/// What a node has done with hints since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hints that were brought to all of their owners.
    pub delivered: u64,
    /// Hints that it refused to keep, for lack of room.
    pub refused: u64,
}

/// One hint.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: u64,
    /// The owners that it was said to be for; none is known of those that were found at the start.
    targets: BTreeSet<NodeId>,
    /// The owners that have the record, as it is now, on disk.
    pub(super) acked: BTreeSet<NodeId>,
    /// Under which digest of the slot they said so: an owner that has lost its disk since has it no longer.
    pub(super) digest: Option<SlotDigest>,
    pub(super) stage: Stage,
    pub(super) again_at: Moment,
    /// How often it was sent in vain.
    pub(super) attempts: u32,
}

/// How far the delivery of a hint has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is under way.
    #[default]
    Resting,
    /// The own disk looks it up.
    Reading,
    /// Owners have been sent it.
    Sent { request: RequestId, hash: RecordHash },
    /// The own disk removes it.
    Dropping,
}

impl Hints {
    /// What is known at a start: nothing but the epochs. The hints themselves have yet to be found.
    pub fn parse(meta: &BTreeMap<MetaKey, Bytes>) -> Result<Hints, codec::DecodeError> {
        let mut hints = Hints { recount: Recount::due(), ..Hints::default() };
        for (key, bytes) in meta {
            let MetaKey::HintEpoch(slot) = key else { continue };
            hints.epochs.insert(*slot, codec::decode(bytes)?);
        }
        Ok(hints)
    }

    /// Replays are numbered from here on. From anywhere: answers to a former life of this node must not be taken for
    /// answers to this one.
    pub fn number_from(&mut self, number: u64) {
        // The number of a replay has a bit more.
        self.next_replay = number >> 2;
    }

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

    /// Whether all that was kept before the start is known again.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.recount.is_over()
    }

    /// Bytes of keys, records and what each costs in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of keys and records alone: what will have to be moved.
    #[must_use]
    pub fn bytes_to_move(&self) -> u64 {
        let count = self.held.len() + self.arriving.values().sum::<usize>();
        self.bytes - OVERHEAD * count as u64
    }

    /// What was done with hints since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// When [`tick`](super::replay::tick) or [`tick`](super::recount::tick) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        let replays = if self.is_empty() { Moment::NEVER } else { self.next_look };
        replays.min(self.recount.next_deadline())
    }

    /// The reap epoch under which the hints of a slot were read from owners' stores: it is one for all of them.
    #[must_use]
    pub fn epoch(&self, slot: Slot) -> ReapEpoch {
        self.epochs.get(&slot).copied().unwrap_or_default()
    }

    /// Whether there is room for a hint, together with what is kept already.
    fn has_room(&self, place: &Place, target: NodeId, bytes: u64, config: &HintConfig) -> bool {
        // What is kept of the key for others will then be kept for this owner too.
        let known = self.held.get(place).filter(|held| !held.targets.contains(&target));
        let of_target = self.bytes_of.get(&target).copied().unwrap_or_default();
        let added_to_target = bytes + known.map_or(0, |held| held.bytes);
        self.bytes + bytes <= config.bytes_max && of_target + added_to_target <= config.bytes_per_target_max
    }

    /// Keeps room for a hint that is on its way to the own disk.
    fn reserve(&mut self, slot: Slot, target: NodeId, bytes: u64) {
        *self.arriving.entry(slot).or_default() += 1;
        self.bytes += bytes;
        *self.bytes_of.entry(target).or_default() += bytes;
    }

    /// It has arrived, or was refused.
    fn release(&mut self, slot: Slot, target: NodeId, bytes: u64) {
        if let Some(count) = self.arriving.get_mut(&slot) {
            *count -= 1;
        }
        self.arriving.retain(|_, count| *count > 0);
        self.uncount(bytes, [target]);
    }

    fn uncount(&mut self, bytes: u64, targets: impl IntoIterator<Item = NodeId>) {
        self.bytes -= bytes;
        for target in targets {
            if let Some(of_target) = self.bytes_of.get_mut(&target) {
                *of_target -= bytes;
                if *of_target == 0 {
                    self.bytes_of.remove(&target);
                }
            }
        }
    }

    /// The own disk holds a record of a slot of others now, which it has just been given for `target`, or has found.
    pub(super) fn keep(&mut self, place: Place, target: Option<NodeId>, record_bytes: u64) {
        let mut held = self.forget(&place).unwrap_or_default();
        held.bytes = place.1.len() as u64 + record_bytes + OVERHEAD;
        // What the owners have acknowledged was an earlier record.
        held.acked.clear();
        held.stage = Stage::Resting;
        held.again_at = Moment::default();
        held.targets.extend(target);
        self.bytes += held.bytes;
        for target in &held.targets {
            *self.bytes_of.entry(*target).or_default() += held.bytes;
        }
        self.held.insert(place, held);
    }

    /// The own disk does not hold it any more, or the own node has become an owner of it.
    pub(super) fn forget(&mut self, place: &Place) -> Option<Held> {
        let held = self.held.remove(place)?;
        self.uncount(held.bytes, held.targets.iter().copied());
        if let Stage::Sent { request, .. } = held.stage {
            self.replays.remove(&request);
        }
        self.is_awaited &= !self.held.is_empty();
        Some(held)
    }

    /// Whether a record of the slot lies here, or will lie here in a moment, or may.
    fn may_hold_of(&self, slot: Slot) -> bool {
        !self.is_counted()
            || self.arriving.contains_key(&slot)
            || self.held.range((slot, Bytes::new())..).next().is_some_and(|((of, _), _)| *of == slot)
    }

    /// Whether a hint of this epoch can be kept beside what is kept of the slot. With the smaller of two epochs the newer hint
    /// would be refused as reaped by every owner, which have never seen it; with the larger one the older hint might bring
    /// back what was reaped.
    fn is_of_one_epoch(&self, slot: Slot, epoch: ReapEpoch) -> bool {
        self.epoch(slot) == epoch || !self.may_hold_of(slot)
    }

    /// Takes note of the epoch of a hint that is about to be kept. Gives back what is to be written down *before* the hint
    /// is: the log keeps the order.
    fn note_epoch(&mut self, slot: Slot, epoch: ReapEpoch) -> Option<(MetaKey, Option<Bytes>)> {
        if self.epoch(slot) == epoch {
            return None;
        }
        let is_written = epoch != ReapEpoch::default();
        if is_written {
            self.epochs.insert(slot, epoch);
        } else {
            self.epochs.remove(&slot);
        }
        Some((MetaKey::HintEpoch(slot), is_written.then(|| codec::encode(&epoch).into())))
    }
}

/// A record that somebody wants kept.
pub struct Kept {
    /// The digest of its slot.
    pub digest: SlotDigest,
    /// The owner that it is kept for.
    pub target: NodeId,
    /// The key.
    pub key: Bytes,
    /// The record, and the epoch under which it was read.
    pub stamped: Stamped,
}

/// A coordinator asks for a record to be kept for an owner that it cannot reach.
pub fn on_hint(from: NodeId, request: RequestId, hint: Kept, scope: &mut Scope<'_>) {
    let Kept { digest, target, key, stamped } = hint;
    let slot = scope.slot_of(&key);
    let bytes = key.len() as u64 + stamped.record.encoded_len() + OVERHEAD;
    let place = (slot.slot, key.clone());
    let reason = if slot.digest != digest || slot.is_owner(scope.own) {
        let entries = slot.read_set().iter().filter_map(|node| scope.peers.entry(*node)).collect();
        PeerRefusal::OtherRing(entries)
    } else if scope.is_disk_behind() || !scope.hints.is_of_one_epoch(place.0, stamped.epoch) {
        PeerRefusal::Overloaded
    } else if scope.hints.has_room(&place, target, bytes, scope.hint_config) {
        if let Some(entry) = scope.hints.note_epoch(place.0, stamped.epoch) {
            let entries = vec![entry];
            scope.desk.ask(Errand::HintEpoch, |ticket| DiskRequest::Meta { ticket, entries }, scope.out);
        }
        scope.hints.reserve(place.0, target, bytes);
        let change = scope.merge(&key, stamped);
        let errand = Errand::Hint { from, request, target, key: key.clone(), bytes };
        return scope.update(errand, &key, change);
    } else {
        scope.hints.counts.refused += 1;
        PeerRefusal::Overloaded
    };
    scope.send(from, PeerMessage::Refused { request, reason });
}

/// The own disk has merged the record; the coordinator hears of it once it is durable.
pub fn on_kept(errand: Errand, lsn: Lsn, applied: Applied, scope: &mut Scope<'_>) {
    let Errand::Hint { from, request, target, key, bytes } = errand else { return };
    let place = (Slot::of_key(&key), key);
    scope.hints.release(place.0, target, bytes);
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
    scope.hints.keep(place, Some(target), record.encoded_len());
    if let Some(vigil) = scope.desk.wait(lsn, Vigil::Hinted { to: from, request }) {
        on_durable(vigil, scope);
    }
}

/// The log is synced far enough for something that was waited for here.
pub fn on_durable(vigil: Vigil, scope: &mut Scope<'_>) {
    match vigil {
        Vigil::Hinted { to, request } => {
            let milestone = scope.milestone;
            scope.send(to, PeerMessage::Hinted { request, milestone });
        }
        Vigil::DropHint(key) => {
            let place = (Slot::of_key(&key), key);
            // A new hint may have come while the removal of the old one was on its way to the log.
            if scope.hints.held.get(&place).is_some_and(|held| held.stage == Stage::Dropping) {
                scope.hints.forget(&place);
                scope.hints.counts.delivered += 1;
            }
        }
        _ => {}
    }
}

/// An owner asks whether it may strike this node off its register.
pub fn on_ask(from: NodeId, request: RequestId, slots: Vec<Slot>, scope: &mut Scope<'_>) {
    let none: Vec<Slot> = slots.into_iter().filter(|slot| !scope.hints.may_hold_of(*slot)).collect();
    if !none.is_empty() {
        scope.send(from, PeerMessage::NoHints { request, slots: none });
    }
}

#[cfg(test)]
mod tests;
