//! How a node hands hints, and what becomes of them, to the parts that know what to do.

use bytes::Bytes;

use super::{Life, Node};
use crate::protocol::causality::Applied;
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::output::Output;
use crate::protocol::replication::coordinator::Event;
use crate::protocol::replication::desk::{Errand, Vigil};
use crate::protocol::replication::hints::{self, Hints, Kept};
use crate::protocol::replication::scope::Stamped;
use crate::protocol::replication::{recount, register, replay};
use crate::protocol::storage::op::{DiskReply, Lsn, Stored};
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::peer::PeerMessage;

impl Node {
    /// When [`tick_hints`](Node::tick_hints) has something to do.
    pub(super) fn next_hinting(&self) -> Moment {
        if self.view.is_none() || self.life != Life::Running || !self.keeps_hints() {
            return Moment::NEVER;
        }
        self.hints.next_deadline().min(self.register.next_deadline())
    }

    /// Whether it has to do with hints at all: not before others have been asked, since an old copy of a directory does not
    /// know what it keeps.
    fn keeps_hints(&self) -> bool {
        self.losses.trust.unasked().is_empty() || self.inquiry.has_waited()
    }

    /// What it keeps for owners that cannot be reached.
    #[must_use]
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    pub(super) fn tick_hints(&mut self, now: Now, out: &mut Vec<Output>) {
        if let Some((_, mut scope)) = self.any_scope(now, out) {
            recount::tick(&mut scope);
            replay::tick(&mut scope);
            register::tick(&mut scope);
        }
    }

    /// A message about hints.
    pub(super) fn on_hinting(&mut self, now: Now, from: NodeId, message: PeerMessage, out: &mut Vec<Output>) {
        match message {
            PeerMessage::Hint { request, digest, epoch, target, key, record } => {
                let hint = Kept { digest, target, key, stamped: Stamped { record, epoch } };
                let keeps = self.keeps_hints();
                match self.scope(now, out).filter(|_| keeps) {
                    Some((_, mut scope)) => {
                        hints::on_hint(from, request, hint, &mut scope);
                    }
                    None => self.decline(from, request, out),
                }
            }
            PeerMessage::Hinted { request, .. } => self.tell(now, request, Event::Hinted(from), out),
            PeerMessage::AskHints { request, slots } => {
                let keeps = self.keeps_hints();
                if let Some((_, mut scope)) = self.scope(now, out).filter(|_| keeps) {
                    hints::on_ask(from, request, slots, &mut scope);
                }
            }
            PeerMessage::NoHints { request, slots } => {
                if let Some((_, mut scope)) = self.scope(now, out) {
                    register::on_no_hints(from, request, &slots, &mut scope);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_hint_stored(
        &mut self,
        now: Now,
        from: NodeId,
        request: RequestId,
        out: &mut Vec<Output>,
    ) {
        if let Some((_, mut scope)) = self.any_scope(now, out) {
            replay::on_stored(from, request, &mut scope);
        }
    }

    pub(super) fn on_hint_kept(
        &mut self,
        now: Now,
        errand: Errand,
        lsn: Lsn,
        applied: Applied,
        out: &mut Vec<Output>,
    ) {
        if let Some((_, mut scope)) = self.any_scope(now, out) {
            hints::on_kept(errand, lsn, applied, &mut scope);
        }
    }

    pub(super) fn on_hint_read(&mut self, now: Now, key: Bytes, stored: Stored, out: &mut Vec<Output>) {
        if let Some((_, mut scope)) = self.any_scope(now, out) {
            replay::on_read(key, stored, &mut scope);
        }
    }

    pub(super) fn on_hint_removed(
        &mut self,
        now: Now,
        key: Bytes,
        lsn: Lsn,
        is_gone: bool,
        out: &mut Vec<Output>,
    ) {
        if let Some((_, mut scope)) = self.any_scope(now, out) {
            replay::on_removed(key, lsn, is_gone, &mut scope);
        }
    }

    pub(super) fn on_recounted(&mut self, now: Now, reply: DiskReply, out: &mut Vec<Output>) {
        if let Some((_, mut scope)) = self.scope(now, out) {
            recount::on_reply(reply, &mut scope);
        }
    }

    pub(super) fn on_hint_durable(&mut self, now: Now, vigil: Vigil, out: &mut Vec<Output>) {
        match vigil {
            Vigil::Register(slot, holder, request) => {
                self.register.confirm(slot, holder);
                self.tell(now, request, Event::Registered(holder), out);
            }
            vigil => {
                if let Some((_, mut scope)) = self.any_scope(now, out) {
                    hints::on_durable(vigil, &mut scope);
                }
            }
        }
    }
}
