//! What becomes of the replies of the own disk.

use super::{Life, Node};
use crate::protocol::antientropy::Token;
use crate::protocol::causality::{Applied, Refusal};
use crate::protocol::id::RequestId;
use crate::protocol::output::Output;
use crate::protocol::replication::coordinator::Event;
use crate::protocol::replication::desk::{Errand, Vigil};
use crate::protocol::replication::replica;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskReply, Lsn, Stored};
use crate::protocol::time::Now;
use crate::protocol::wire::peer::PeerRefusal;

impl Node {
    pub(super) fn on_disk(&mut self, now: Now, reply: DiskReply, out: &mut Vec<Output>) {
        if self.life == Life::Stopped {
            return;
        }
        match reply {
            DiskReply::Applied { ticket, slot, lsn, applied } => {
                self.membership.wrote(lsn);
                if let Applied::Changed { record, .. } = &applied {
                    self.note_for_reaping(now, slot, record, out);
                }
                let errand = self.desk.fetch_errand(ticket);
                if let Some(Errand::Reap(token)) = errand {
                    let reply = DiskReply::Applied { ticket, slot, lsn, applied };
                    return self.on_reap_reply(now, token, reply, out);
                }
                self.on_applied(now, errand, lsn, applied, out);
            }
            DiskReply::Read { ticket, lsn, stored } => match self.desk.fetch_errand(ticket) {
                Some(Errand::OwnRead(request, slot)) => {
                    self.on_own_read(now, request, slot, lsn, stored, out)
                }
                Some(Errand::Fetch { from, request, slot }) => {
                    if let Some((_, mut scope)) = self.any_scope(now, out) {
                        replica::on_read(from, request, slot, lsn, stored, &mut scope);
                    }
                }
                Some(Errand::Replay(key)) => self.on_hint_read(now, key, stored, out),
                Some(_) | None => {}
            },
            DiskReply::Removed { ticket, lsn, is_gone } => {
                self.membership.wrote(lsn);
                match self.desk.fetch_errand(ticket) {
                    Some(Errand::DropHint(key)) => self.on_hint_removed(now, key, lsn, is_gone, out),
                    Some(Errand::Reap(token)) => self.on_reap_reply(now, token, reply, out),
                    Some(_) | None => {}
                }
            }
            DiskReply::MetaApplied { ticket, lsn } => {
                let errand = self.desk.fetch_errand(ticket);
                self.on_meta(now, errand, lsn, out);
            }
            DiskReply::Sums { ticket, .. }
            | DiskReply::Listed { ticket, .. }
            | DiskReply::ReadMany { ticket, .. } => match self.desk.fetch_errand(ticket) {
                Some(Errand::Exchange(token)) => self.on_exchange_reply(now, Token(token), reply, out),
                Some(Errand::Recount) => self.on_recounted(now, reply, out),
                Some(Errand::Reap(token)) => self.on_reap_reply(now, token, reply, out),
                Some(_) | None => {}
            },
            DiskReply::Mended { ticket, lsn, dropped } => {
                self.membership.wrote(lsn);
                self.on_mended(now, ticket, lsn, dropped, out);
            }
            DiskReply::Doubted { slots, why } => self.on_doubted(now, &slots, why, out),
            DiskReply::Durable { through } => {
                self.membership.is_durable(through);
                for vigil in self.desk.synced(through) {
                    self.on_durable(now, vigil, out);
                }
            }
        }
    }

    /// State that is not per key was replaced.
    fn on_meta(&mut self, now: Now, errand: Option<Errand>, lsn: Lsn, out: &mut Vec<Output>) {
        if !matches!(errand, Some(Errand::Belief(_))) {
            self.membership.wrote(lsn);
        }
        match errand {
            Some(Errand::Start(actor)) => self.wait(now, lsn, Vigil::Start(actor), out),
            Some(Errand::Belief(token)) => self.wait(now, lsn, Vigil::Belief(token), out),
            Some(Errand::Register(slot, holder, request)) => {
                self.wait(now, lsn, Vigil::Register(slot, holder, request), out);
            }
            Some(Errand::Trust) => self.on_trust_kept(now, lsn, out),
            Some(Errand::Reap(token)) => self.wait(now, lsn, Vigil::Reap(token), out),
            Some(_) | None => {}
        }
    }

    /// The own disk found what an operation of this node asked for.
    fn on_own_read(
        &mut self,
        now: Now,
        request: RequestId,
        slot: Slot,
        lsn: Lsn,
        stored: Stored,
        out: &mut Vec<Output>,
    ) {
        let record = match stored {
            Stored::Absent => None,
            Stored::Present(record) => Some(record),
            Stored::Lost => {
                let event = Event::Refused { from: self.id(), reason: PeerRefusal::Lost };
                return self.tell(now, request, event, out);
            }
        };
        if let Some((_, scope)) = self.any_scope(now, out) {
            let vigil = Vigil::OwnRead(request, scope.reply(slot, record));
            self.wait(now, lsn, vigil, out);
        }
    }

    /// The own disk executed a change.
    fn on_applied(
        &mut self,
        now: Now,
        errand: Option<Errand>,
        lsn: Lsn,
        applied: Applied,
        out: &mut Vec<Output>,
    ) {
        let is_amnesia = matches!(
            applied,
            Applied::Refused(Refusal::Amnesia)
                | Applied::Adopted { amnesia: true, .. }
                | Applied::Changed { amnesia: true, .. }
        );
        if is_amnesia {
            self.author.doubt();
        }
        match errand {
            Some(Errand::Operation(request)) => {
                let is_logged = !matches!(applied, Applied::Refused(_));
                self.tell(now, request, Event::Applied(applied), out);
                if is_logged {
                    self.wait(now, lsn, Vigil::OwnWrite(request), out);
                }
            }
            Some(Errand::Replicate { from, request, actor }) => {
                if let Some((_, mut scope)) = self.any_scope(now, out) {
                    replica::on_replicated(from, request, actor, lsn, applied, &mut scope);
                }
            }
            Some(Errand::Exchange(token)) => self.on_merged(now, Token(token), applied, out),
            Some(errand @ Errand::Hint { .. }) => self.on_hint_kept(now, errand, lsn, applied, out),
            Some(_) | None => {}
        }
    }
}
