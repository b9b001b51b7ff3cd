//! What an owner does for a coordinator.

use bytes::Bytes;

use super::desk::{Errand, Reply, Vigil};
use super::scope::{Scope, Stamped};
use crate::protocol::causality::{Applied, Refusal};
use crate::protocol::id::{Actor, NodeId, RequestId};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::storage::op::{Lsn, Stored};
use crate::protocol::storage::trust::Standing;
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

/// A coordinator sent a record: merge it, whatever its timestamps say. No rule compares the clocks of two actors, so a
/// record is never refused for being ahead of this node's clock.
pub fn on_replicate(
    from: NodeId,
    request: RequestId,
    digest: SlotDigest,
    actor: Actor,
    key: &Bytes,
    stamped: Stamped,
    scope: &mut Scope<'_>,
) {
    if let Err(reason) = agree(digest, key, scope) {
        return scope.send(from, PeerMessage::Refused { request, reason });
    }
    if scope.standing_of(key) == Standing::Closed {
        return scope.send(from, PeerMessage::Refused { request, reason: PeerRefusal::Refilling });
    }
    if let Some(newest) = stamped.record.siblings().iter().map(|sibling| sibling.dot.at).max() {
        scope.author.observe(newest, scope.now.wall);
    }
    let change = scope.merge(key, stamped);
    scope.update(Errand::Replicate { from, request, actor }, key, change);
}

/// The own disk executed the merge; the coordinator hears of it once it is durable.
pub fn on_replicated(
    from: NodeId,
    request: RequestId,
    actor: Actor,
    lsn: Lsn,
    applied: Applied,
    scope: &mut Scope<'_>,
) {
    let record = match applied {
        Applied::Changed { record, .. } | Applied::Adopted { record, .. } | Applied::Unchanged { record } => {
            record
        }
        Applied::Refused(refusal) => {
            let reason = match refusal {
                Refusal::DiskFull => PeerRefusal::DiskFull,
                Refusal::Overloaded => PeerRefusal::Overloaded,
                Refusal::Reaped => PeerRefusal::Reaped,
                _ => PeerRefusal::Lost,
            };
            return scope.send(from, PeerMessage::Refused { request, reason });
        }
    };
    // Nobody waits for the acknowledgement of a repair.
    if request != RequestId::default() {
        let vigil = Vigil::Stored { to: from, request, entry: record.context().get(actor) };
        if let Some(vigil) = scope.desk.wait(lsn, vigil) {
            on_durable(vigil, scope);
        }
    }
}

/// A coordinator asked for a record.
pub fn on_fetch(from: NodeId, request: RequestId, digest: SlotDigest, key: &Bytes, scope: &mut Scope<'_>) {
    let may_answer = agree(digest, key, scope)
        .and_then(|()| if scope.votes_for(key) { Ok(()) } else { Err(PeerRefusal::Refilling) });
    match may_answer {
        Ok(()) => scope.read(Errand::Fetch { from, request, slot: Slot::of_key(key) }, key),
        Err(reason) => scope.send(from, PeerMessage::Refused { request, reason }),
    }
}

/// The own disk found the record: it is answered as it stood, once that is durable. What was read never un-happens.
pub fn on_read(
    from: NodeId,
    request: RequestId,
    slot: Slot,
    lsn: Lsn,
    stored: Stored,
    scope: &mut Scope<'_>,
) {
    let record = match stored {
        Stored::Absent => None,
        Stored::Present(record) => Some(record),
        // A lost record is no reply, never *absent*.
        Stored::Lost => return scope.send(from, PeerMessage::Refused { request, reason: PeerRefusal::Lost }),
    };
    let reply = scope.reply(slot, record);
    if let Some(vigil) = scope.desk.wait(lsn, Vigil::Fetched { to: from, request, reply }) {
        on_durable(vigil, scope);
    }
}

/// The log is synced far enough for one of the answers above.
pub fn on_durable(vigil: Vigil, scope: &mut Scope<'_>) {
    match vigil {
        Vigil::Stored { to, request, entry } => {
            let milestone = scope.milestone;
            scope.send(to, PeerMessage::Stored { request, entry, milestone });
        }
        Vigil::Fetched { to, request, reply: Reply { record, raised, committed } } => {
            let milestone = scope.milestone;
            scope.send(to, PeerMessage::Fetched { request, raised, committed, milestone, record });
        }
        _ => {}
    }
}

/// Both sides must believe in the same owners; the one that does not says what it believes instead.
fn agree(digest: SlotDigest, key: &Bytes, scope: &Scope<'_>) -> Result<(), PeerRefusal> {
    let slot = scope.slot_of(key);
    let is_owner = slot.is_owner(scope.own);
    #[cfg(test)]
    let is_owner = is_owner || planted::is(Planted::StrangersAnswer);
    if slot.digest == digest && is_owner {
        // What waits here for the disk holds whole records, and each coordinator would go on sending for all it knows.
        return if scope.is_disk_behind() { Err(PeerRefusal::Overloaded) } else { Ok(()) };
    }
    let entries: Vec<Entry> = slot.read_set().iter().filter_map(|node| scope.peers.entry(*node)).collect();
    Err(PeerRefusal::OtherRing(entries))
}

#[cfg(test)]
mod tests;
