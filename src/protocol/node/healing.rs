//! How a node carries out what its exchanges want.

use super::{Life, Node};
use crate::protocol::antientropy::means::Ask;
use crate::protocol::antientropy::{Effect, Fellows, Token};
use crate::protocol::causality::{Applied, Change};
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::membership::Membership;
use crate::protocol::output::{Destination, Output};
use crate::protocol::replication::desk::Errand;
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskReply, DiskRequest};
use crate::protocol::time::Now;
use crate::protocol::wire::exchange::{Exchange, ExchangeRefusal};
use crate::protocol::wire::peer::PeerMessage;

impl Node {
    pub(super) fn on_exchange(&mut self, now: Now, from: NodeId, message: Exchange, out: &mut Vec<Output>) {
        if self.life != Life::Running {
            return;
        }
        if let Exchange::Refused { reason: ExchangeRefusal::OtherRing(entries), .. } = &message {
            let mut effects = Vec::new();
            self.membership.absorb(now, entries.clone(), &mut effects);
            self.carry_out(now, effects, out);
        }
        let mut effects = Vec::new();
        self.antientropy.handle(now.monotonic, from, message, &self.membership, &mut effects);
        self.carry_out_exchange(now, effects, out);
    }

    pub(super) fn tick_exchanges(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut effects = Vec::new();
        self.antientropy.tick(now.monotonic, &self.membership, &mut effects);
        self.carry_out_exchange(now, effects, out);
    }

    pub(super) fn on_exchange_reply(
        &mut self,
        now: Now,
        token: Token,
        reply: DiskReply,
        out: &mut Vec<Output>,
    ) {
        let mut effects = Vec::new();
        self.antientropy.on_disk(now.monotonic, token, reply, &mut effects);
        self.carry_out_exchange(now, effects, out);
    }

    pub(super) fn on_merged(&mut self, now: Now, token: Token, applied: Applied, out: &mut Vec<Output>) {
        let mut effects = Vec::new();
        self.antientropy.on_merged(now.monotonic, token, applied, &mut effects);
        self.carry_out_exchange(now, effects, out);
    }

    fn carry_out_exchange(&mut self, now: Now, effects: Vec<Effect>, out: &mut Vec<Output>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    let to = Destination::Node { id: to, address: self.membership.address(to) };
                    out.push(Output::Send { to, message: PeerMessage::Exchange(message) });
                }
                Effect::Refilled { fenced, refilled } => self.on_refilled(now, fenced, refilled, out),
                Effect::Disk { token, ask } => {
                    // As for every record of another node: its timestamps pull this node's clock along.
                    if let Ask::Merge { record, .. } = &ask
                        && let Some(newest) = record.siblings().iter().map(|sibling| sibling.dot.at).max()
                    {
                        self.author.observe(newest, now.wall);
                    }
                    let own = self.author.actor();
                    self.desk.ask(
                        Errand::Exchange(token.0),
                        |ticket| match ask {
                            Ask::Sums(first, last) => DiskRequest::Sums { ticket, first, last },
                            Ask::List { slot, after, keys_max } => {
                                DiskRequest::List { ticket, slot, after, keys_max }
                            }
                            Ask::Read { keys, bytes_max } => {
                                DiskRequest::ReadMany { ticket, keys, bytes_max }
                            }
                            Ask::Merge { key, record } => DiskRequest::Update {
                                ticket,
                                slot: Slot::of_key(&key),
                                key,
                                change: Change::Merge { record, own },
                            },
                        },
                        out,
                    );
                }
            }
        }
    }
}

impl Fellows for Membership {
    fn reach(&self, node: NodeId) -> Option<Incarnation> {
        if !self.is_reachable(node) {
            return None;
        }
        Membership::entry(self, node).map(|entry| entry.incarnation)
    }

    fn entry(&self, node: NodeId) -> Option<Entry> {
        Membership::entry(self, node).cloned()
    }
}
