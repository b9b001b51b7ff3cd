//! How a node carries out its part in the rounds of reaping.

use super::{Life, Node};
use crate::protocol::antientropy::reaper::{Ask, Effect, Ground, Reaper};
use crate::protocol::causality::{Change, Record};
use crate::protocol::id::NodeId;
use crate::protocol::output::{Destination, Output};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::replication::coordinator::Event;
use crate::protocol::replication::desk::Errand;
use crate::protocol::replication::scope::{Rounds, node_time};
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::epochs::Standing;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Stored};
use crate::protocol::storage::trust::Standing as Trusted;
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::peer::PeerMessage;
use crate::protocol::wire::reap::{Obstacle, Reap, ReapWait};

/// So many keys of a slot are listed at once.
const PAGE_KEYS: usize = 256;

/// So many of the nodes that may keep hints are named.
const HOLDERS_TOLD: usize = 8;

/// So many bytes of records are read at once.
const READ_BYTES: u64 = 1 << 20;

impl Rounds for Reaper {
    fn wait(&self, slot: Slot, now: Moment) -> ReapWait {
        Reaper::wait(self, slot, now)
    }
}

impl Node {
    /// When [`tick_reaper`](Node::tick_reaper) has something to do.
    pub(super) fn next_reaping(&self) -> Moment {
        if self.view.is_some() && self.life == Life::Running {
            self.reaper.next_deadline()
        } else {
            Moment::NEVER
        }
    }

    pub(super) fn tick_reaper(&mut self, now: Now, out: &mut Vec<Output>) {
        self.with_reaper(now, out, Reaper::tick);
    }

    pub(super) fn on_reap(&mut self, now: Now, from: NodeId, message: Reap, out: &mut Vec<Output>) {
        if self.life != Life::Running {
            return;
        }
        if let Reap::Declined { why: Obstacle::OtherRing(entries), .. } = &message {
            let mut effects = Vec::new();
            self.membership.absorb(now, entries.clone(), &mut effects);
            self.carry_out(now, effects, out);
        }
        match message {
            Reap::Ask { request, slot } => {
                let wait = self.reaper.wait(slot, now.monotonic);
                let to = Destination::Node { id: from, address: self.membership.address(from) };
                out.push(Output::Send { to, message: PeerMessage::Reap(Reap::Told { request, wait }) });
            }
            Reap::Told { request, wait } => self.tell(now, request, Event::ReapTold { from, wait }, out),
            message => self.with_reaper(now, out, |reaper, ground| reaper.handle(from, message, ground)),
        }
    }

    pub(super) fn on_reap_reply(&mut self, now: Now, token: u64, reply: DiskReply, out: &mut Vec<Output>) {
        // What it costs to look through a slot; the messages are small beside it.
        let ledger = self.antientropy.ledger();
        match &reply {
            DiskReply::Listed { page: Some(page), .. } => {
                ledger.charge_listing(now.monotonic, page.entries.len() as u64);
            }
            DiskReply::ReadMany { found, .. } => {
                let length = |stored: &Stored| match stored {
                    Stored::Present(record) => record.encoded_len(),
                    Stored::Absent | Stored::Lost => 0,
                };
                let bytes = found.iter().map(|(key, stored)| key.len() as u64 + length(stored)).sum();
                ledger.charge(now.monotonic, found.len() as u64, bytes);
            }
            _ => {}
        }
        self.with_reaper(now, out, |reaper, ground| reaper.on_disk(token, reply, ground));
    }

    pub(super) fn on_reap_durable(&mut self, now: Now, token: u64, out: &mut Vec<Output>) {
        self.with_reaper(now, out, |reaper, ground| reaper.on_durable(token, ground));
    }

    /// A record of this node has become this.
    pub(super) fn note_for_reaping(&mut self, now: Now, slot: Slot, record: &Record, out: &mut Vec<Output>) {
        self.with_reaper(now, out, |reaper, ground| reaper.note(slot, record, ground));
    }

    /// Another owner has told how slots stand that this node has no vote for.
    pub(super) fn adopt_epochs(&mut self, now: Now, standings: &[(Slot, Standing)], out: &mut Vec<Output>) {
        let trust = &self.losses.trust;
        let voteless: Vec<_> =
            standings.iter().filter(|(slot, _)| trust.voteless().contains(*slot)).copied().collect();
        self.with_reaper(now, out, |reaper, ground| reaper.adopt(&voteless, ground));
    }

    fn with_reaper(
        &mut self,
        now: Now,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Reaper, &mut Ground<'_>),
    ) {
        let Some(view) = &self.view else { return };
        let mut effects = Vec::new();
        let opens_at = self.antientropy.ledger().opens_at(now.monotonic);
        let (register, trust) = (&self.register, &self.losses.trust);
        let obstacle = |slot: Slot| {
            if trust.standing(slot) != Trusted::Votes {
                return Some(Obstacle::Untrusted);
            }
            #[cfg(test)]
            if planted::is(Planted::HintsAreNoObstacle) {
                return None;
            }
            let holders: Vec<NodeId> = register.holders(slot).take(HOLDERS_TOLD).collect();
            (!holders.is_empty()).then_some(Obstacle::Hints(holders))
        };
        let mut ground = Ground {
            now: now.monotonic,
            node_time: node_time(now.wall, self.membership.clock_offset()),
            view,
            epochs: &mut self.epochs,
            fellows: &self.membership,
            writing: self.author.actor(),
            opens_at,
            obstacle: &obstacle,
            out: &mut effects,
        };
        act(&mut self.reaper, &mut ground);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    let to = Destination::Node { id: to, address: self.membership.address(to) };
                    out.push(Output::Send { to, message: PeerMessage::Reap(message) });
                }
                Effect::Disk { token, ask } => {
                    self.desk.ask(
                        Errand::Reap(token),
                        |ticket| match ask {
                            Ask::Sums(first, last) => DiskRequest::Sums { ticket, first, last },
                            Ask::List(slot, after) => {
                                DiskRequest::List { ticket, slot, after, keys_max: PAGE_KEYS }
                            }
                            Ask::Read(keys) => DiskRequest::ReadMany { ticket, keys, bytes_max: READ_BYTES },
                            Ask::Stand(entries) => DiskRequest::Meta { ticket, entries },
                            Ask::Remove(slot, key, certified) => {
                                DiskRequest::Remove { ticket, slot, key, certified }
                            }
                            Ask::Compact(slot, key, round) => {
                                let change = Change::Compact(round);
                                DiskRequest::Update { ticket, slot, key, change }
                            }
                        },
                        out,
                    );
                }
            }
        }
    }
}
