//! A stand-in's side of hints, second half: how it brings them to their owners and drops them.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::desk::{Errand, Vigil};
use super::hints::{self, Place, Stage};
use super::scope::Scope;
use crate::protocol::causality::{Record, RecordHash};
use crate::protocol::id::{NodeId, RequestId};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskRequest, Lsn, Stored};
use crate::protocol::wire::peer::PeerMessage;

/// After how long an owner that has not answered is sent a hint again; doubles each time.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// After so many attempts the pause does not grow any more: at 32 s.
const DOUBLED_MAX: u32 = 5;

/// So many hints are passed over for each that is replayed: those of owners that are still away.
const PASSED_OVER: usize = 8;

/// Replays are numbered apart from the operations of the coordinator, whose numbers leave this bit clear.
pub(super) const REPLAY: u64 = 1 << 63;

/// Whether a request is a replay of a hint.
#[must_use]
pub fn is_replay(request: RequestId) -> bool {
    request.0 & REPLAY != 0
}

/// Looks for hints whose owners can be reached, as many at a time as the node's account of repairs allows.
pub fn tick(scope: &mut Scope<'_>) {
    let now = scope.now.monotonic;
    if now < scope.hints.next_look || scope.hints.is_empty() {
        return;
    }
    if std::mem::replace(&mut scope.hints.is_awaited, true) {
        // So the account sees how busy the node is: a look that comes late slows all repair down.
        scope.ledger.woken(now, scope.hints.next_look);
    }
    let after = scope.hints.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
    let most = scope.hint_config.replay_batch * PASSED_OVER;
    let range = scope.hints.held.range((after, Bound::Unbounded)).take(most);
    let places: Vec<Place> = range.map(|(place, _)| place.clone()).collect();
    let (mut replayed, mut looked_at) = (0, 0);
    for place in &places {
        if replayed >= scope.hint_config.replay_batch || scope.ledger.opens_at(now) > now {
            break;
        }
        looked_at += 1;
        replayed += usize::from(look_at(place, scope));
    }
    let is_through = looked_at == places.len() && places.len() < most;
    if !is_through {
        scope.hints.cursor = match looked_at.checked_sub(1) {
            Some(last) => places.get(last).cloned(),
            None => None,
        };
    }
    let pause = now + scope.hint_config.replay_every;
    scope.hints.next_look = if is_through { pause } else { pause.max(scope.ledger.opens_at(now)) };
}

/// Has a hint read if an owner can be reached that is not known to have it. Tells whether it has.
fn look_at(place: &Place, scope: &mut Scope<'_>) -> bool {
    let now = scope.now.monotonic;
    let slot = scope.view.slot(place.0);
    if slot.is_owner(scope.own) {
        // It is no hint any more but one of this node's own records.
        scope.hints.forget(place);
        return false;
    }
    let Some(held) = scope.hints.held.get_mut(place) else { return false };
    if held.digest != Some(slot.digest) {
        // Whoever has acknowledged it may have lost it since, and what is still under way was said under the old digest.
        held.digest = Some(slot.digest);
        held.acked.clear();
        if let Stage::Sent { request, .. } = held.stage {
            held.stage = Stage::Resting;
            held.again_at = now;
            scope.hints.replays.remove(&request);
        }
    }
    let Some(held) = scope.hints.held.get_mut(place) else { return false };
    if held.again_at > now || matches!(held.stage, Stage::Reading | Stage::Dropping) {
        return false;
    }
    let may_be_told = |node: &&NodeId| !held.acked.contains(node) && scope.peers.is_reachable(**node);
    let behind = slot.read_set().iter().filter(may_be_told).count() as u64;
    if behind == 0 {
        return false;
    }
    if let Stage::Sent { request, .. } = held.stage {
        scope.hints.replays.remove(&request);
    }
    held.stage = Stage::Reading;
    scope.ledger.charge(now, behind, behind * held.bytes);
    let key = place.1.clone();
    scope.read(Errand::Replay(key.clone()), &key);
    true
}

/// The own disk has looked up a hint: it goes to every owner that can be reached and is not known to have it.
pub fn on_read(key: Bytes, stored: Stored, scope: &mut Scope<'_>) {
    let place = (Slot::of_key(&key), key);
    let record = match stored {
        Stored::Present(record) => record,
        Stored::Absent => {
            scope.hints.forget(&place);
            return;
        }
        // The own disk doubts the whole slot. When it has dropped what it cannot read, this one is there again or absent.
        Stored::Lost => {
            let again_at = scope.now.monotonic + RESEND_AFTER * (1 << DOUBLED_MAX);
            if let Some(held) = scope.hints.held.get_mut(&place).filter(|held| held.stage == Stage::Reading) {
                held.stage = Stage::Resting;
                held.again_at = again_at;
            }
            return;
        }
    };
    let slot = scope.view.slot(place.0);
    let now = scope.now.monotonic;
    let hints = &mut *scope.hints;
    hints.next_replay += 1;
    let request = RequestId(REPLAY | hints.next_replay);
    let Some(held) = hints.held.get_mut(&place) else { return };
    if held.stage != Stage::Reading {
        // It has grown meanwhile.
        return;
    }
    let hash = record.hash(&place.1);
    held.stage = Stage::Sent { request, hash };
    held.again_at = now + RESEND_AFTER * (1 << held.attempts.min(DOUBLED_MAX));
    held.attempts += 1;
    hints.replays.insert(request, place.clone());
    let behind = slot.read_set().iter().filter(|node| !held.acked.contains(node));
    let behind: Vec<NodeId> = behind.copied().filter(|node| scope.peers.is_reachable(*node)).collect();
    for node in behind {
        send(node, request, &place, &record, scope);
    }
    #[cfg(test)]
    if planted::is(Planted::HintTriedOnce) {
        drop_it(&place, hash, scope);
    }
}

fn send(node: NodeId, request: RequestId, place: &Place, record: &Record, scope: &mut Scope<'_>) {
    let message = PeerMessage::Replicate {
        request,
        digest: scope.view.slot(place.0).digest,
        epoch: scope.hints.epoch(place.0),
        actor: scope.author.actor(),
        key: place.1.clone(),
        record: record.clone(),
    };
    scope.send(node, message);
}

/// An owner has the record of a replay on disk, or has had it and forgot it in a round of reaping.
pub fn on_stored(from: NodeId, request: RequestId, scope: &mut Scope<'_>) {
    let Some(place) = scope.hints.replays.get(&request).cloned() else { return };
    let Some(held) = scope.hints.held.get_mut(&place) else { return };
    let slot = scope.view.slot(place.0);
    if held.digest != Some(slot.digest) {
        return;
    }
    held.acked.insert(from);
    let owners = slot.read_set();
    let Stage::Sent { hash, .. } = held.stage else { return };
    if owners.iter().all(|owner| held.acked.contains(owner)) {
        scope.hints.replays.remove(&request);
        drop_it(&place, hash, scope);
    }
}

/// Removes a hint from the own disk, unless it has changed since it had this hash.
fn drop_it(place: &Place, hash: RecordHash, scope: &mut Scope<'_>) {
    if let Some(held) = scope.hints.held.get_mut(place) {
        held.stage = Stage::Dropping;
    }
    let (slot, key) = place.clone();
    let errand = Errand::DropHint(key.clone());
    scope.desk.ask(errand, |ticket| DiskRequest::Remove { ticket, slot, key, certified: hash }, scope.out);
}

/// The own disk has removed a hint, or has found that it has grown since it was sent.
pub fn on_removed(key: Bytes, lsn: Lsn, is_gone: bool, scope: &mut Scope<'_>) {
    if is_gone {
        if let Some(vigil) = scope.desk.wait(lsn, Vigil::DropHint(key)) {
            hints::on_durable(vigil, scope);
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
