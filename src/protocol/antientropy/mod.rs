//! Owners that become equal by themselves: anti-entropy with hash trees, as in section 4.7 of the Dynamo paper.
//!
//! ```text
//!            pace ── whose turn is it? ──▶ walk (leader) ◀──Exchange──▶ answering (fellow, on another node)
//!   missed writes, returns                  │    tree: marks of arcs      │
//!                                           ▼                             ▼
//!                             ledger ◀── means ── Sums, List, Read, Merge ──▶ own disk
//! ```
//!
//! Every pair of nodes that own slots together compares these in turn; the node with the lower id leads. Equal pairs
//! exchange one mark per cycle. Where they differ, each side sends what the other lacks, and both merge: *absent* is
//! never an argument, so that a slot or a record that one side has lost takes nothing from the other.

mod answering;
mod listing;
pub mod means;
mod pace;
pub mod reaper;
mod refill;
mod source;
mod supply;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc as Shared;
use std::time::Duration;

use bytes::Bytes;

use self::answering::{Answering, Glance};
use self::means::{Ask, Means};
pub use self::means::{Counts, Effect, Token};
use self::pace::Pace;
use self::refill::Refill;
use self::source::Weighed;
use self::supply::Supplies;
use self::tree::SlotSums;
use self::walk::{End, Walk};
use crate::protocol::causality::Applied;
use crate::protocol::config::ExchangeConfig;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::ledger::Ledger;
use crate::protocol::ring::common::{Common, PairDigest};
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::ring::view::RingView;
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::{DiskReply, Page, Stored};
use crate::protocol::storage::trust::Standing;
use crate::protocol::time::Moment;
use crate::protocol::wire::exchange::{Exchange, ExchangeRefusal, Item, QuestionId, Salt};

/// How often to look who can be reached.
const LOOK: Duration = Duration::from_secs(1);

/// So many records of others may be on their way into the own store. Further ones are dropped, as messages may be: the
/// next comparison shows that they are missing.
const MERGES_MAX: usize = 512;

/// What exchanges need to know of the other members.
pub trait Fellows {
    /// In which life this node can reach it now, if it can.
    fn reach(&self, node: NodeId) -> Option<Incarnation>;
    /// What it says of itself.
    fn entry(&self, node: NodeId) -> Option<Entry>;
}

/// The exchanges of one node: those that it leads, one at a time, and that which it answers.
///
/// Like the membership it appends effects and is told of replies; it knows neither clock nor disk.
#[derive(Debug)]
pub struct AntiEntropy {
    own: NodeId,
    pace: Pace,
    ledger: Ledger,
    counts: Counts,
    walk: Option<Walk>,
    answering: Option<Answering>,
    glances: BTreeMap<Token, Glance>,
    refill: Refill,
    supplies: Supplies,
    /// How many records are on their way into the own store.
    merging: usize,
    next: u64,
    look_at: Moment,
    rng: Rng,
}

impl AntiEntropy {
    /// No exchanges yet; they begin with the first ring.
    #[must_use]
    pub fn new(own: NodeId, config: &ExchangeConfig, mut rng: Rng) -> AntiEntropy {
        AntiEntropy {
            own,
            pace: Pace::new(config.cycle),
            ledger: Ledger::new(config),
            counts: Counts::default(),
            walk: None,
            answering: None,
            glances: BTreeMap::new(),
            refill: Refill::default(),
            supplies: Supplies::default(),
            merging: 0,
            // Questions are numbered from anywhere: answers to a former life must not be taken for answers to this one.
            next: rng.bits(),
            look_at: Moment::NEVER,
            rng,
        }
    }

    /// The ring is not what it was, or may not be: exchanges about slots whose owners changed end here.
    pub fn on_ring_change(&mut self, now: Moment, view: &RingView) {
        let changed = self.pace.align(self.own, view.commons(self.own), now);
        self.walk.take_if(|walk| changed.contains(&walk.fellow()));
        self.answering.take_if(|answering| changed.contains(&answering.leader()));
        self.glances.retain(|_, glance| !changed.contains(&glance.leader));
        let owners = view.ring().slots_of(self.own).next().map_or(0, |slot| view.slot(slot).read_set().len());
        self.refill.align(now, owners, self.pace.commons());
        self.look_at = self.look_at.min(now);
    }

    /// The other owners of this node's slots, and the slots that it shares with each.
    pub fn shared(&self) -> impl Iterator<Item = (NodeId, &SlotSet)> {
        self.pace.commons().map(|(node, common)| (node, common.slots()))
    }

    /// A write to a slot could not be delivered to an owner: the two are compared soon, this slot first.
    pub fn missed(&mut self, node: NodeId, slot: Slot) {
        self.pace.missed(node, slot);
    }

    /// This node has no vote for the slots of `voteless`; those of them that are `wanted` are to be refilled from the other
    /// owners.
    pub fn refill(&mut self, now: Moment, voteless: SlotSet, wanted: SlotSet) {
        self.refill.want(now, voteless, wanted);
    }

    /// How many slots are being refilled, and how many records have come for that since the start of the node.
    #[must_use]
    pub fn refilling(&self) -> (usize, u64) {
        (self.refill.left(), self.refill.records)
    }

    /// Begins nothing any more, and answers nothing.
    pub fn halt(&mut self) {
        self.supplies.clear();
        self.walk = None;
        self.answering = None;
        self.glances.clear();
        self.look_at = Moment::NEVER;
    }

    /// When to call [`tick`](AntiEntropy::tick) at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        if self.look_at == Moment::NEVER {
            return Moment::NEVER;
        }
        let walk = match (&self.walk, &self.answering) {
            (Some(walk), _) => walk.due(),
            (None, None) if !self.refill.is_drawing() => self.pace.due(),
            (None, _) => Moment::NEVER,
        };
        let answering = self.answering.as_ref().map_or(Moment::NEVER, Answering::due);
        let refill = self.refill.due(|node| self.pace.is_seen(node));
        self.look_at.min(walk).min(answering).min(refill)
    }

    /// The time of [`next_deadline`](AntiEntropy::next_deadline) may have come.
    pub fn tick(&mut self, now: Moment, fellows: &dyn Fellows, out: &mut Vec<Effect>) {
        if self.look_at == Moment::NEVER {
            return;
        }
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.pace.look(now, &|node| fellows.reach(node), &mut self.rng);
            for (node, slots) in self.pace.nudges() {
                self.means(now, out).send(node, Exchange::Nudge { slots });
            }
        }
        self.with_answering(now, out, |answering, means| answering.on_deadline(means));
        self.answering.take_if(|answering| answering.is_over(now));
        if let Some(walk) = &self.walk {
            if !self.pace.is_seen(walk.fellow()) {
                self.end(now, End::Failed);
            } else if walk.begins_to_mend(now) && self.answering.is_some() {
                // Somebody else came first while this exchange let pass what was under way.
                self.end(now, End::Busy);
            }
        }
        self.with_walk(now, out, |walk, means| walk.on_deadline(means));
        self.with_refill(now, out, |refill, pace, _, means| refill.tick(|node| pace.is_seen(node), means));
        self.begin(now, out);
    }

    /// Begins the next exchange if it is somebody's turn.
    fn begin(&mut self, now: Moment, out: &mut Vec<Effect>) {
        // What has no vote comes first.
        if self.walk.is_some() || self.answering.is_some() || self.refill.is_drawing() {
            return;
        }
        let Some(fellow) = self.pace.next(now) else { return };
        let Some((common, missed)) = self.pace.begin(fellow) else { return };
        let salt = Salt(self.rng.bits());
        let (walk, end) = Walk::begin(fellow, common, salt, missed, &mut self.means(now, out));
        self.walk = Some(walk);
        if let Some(end) = end {
            self.end(now, end);
        }
    }

    fn end(&mut self, now: Moment, end: End) {
        let Some(walk) = self.walk.take() else { return };
        if !matches!(end, End::Busy | End::Failed) {
            self.counts.rounds += 1;
            self.counts.rounds_equal += u64::from(end == End::Equal);
        }
        let unequal = walk.dirty().collect();
        self.pace.end(now, walk.fellow(), end, walk.tally.differing, unequal, &mut self.rng);
    }

    fn means<'a>(&'a mut self, now: Moment, out: &'a mut Vec<Effect>) -> Means<'a> {
        let AntiEntropy { ledger, counts, next, .. } = self;
        Means { now, ledger, counts, next, out }
    }

    fn with_walk(
        &mut self,
        now: Moment,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Walk, &mut Means<'_>) -> Option<End>,
    ) {
        let Some(mut walk) = self.walk.take() else { return };
        let end = act(&mut walk, &mut self.means(now, out));
        self.walk = Some(walk);
        if let Some(end) = end {
            self.end(now, end);
        }
    }

    fn with_answering(
        &mut self,
        now: Moment,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Answering, &mut Means<'_>),
    ) {
        let Some(mut answering) = self.answering.take() else { return };
        act(&mut answering, &mut self.means(now, out));
        self.answering = Some(answering);
    }

    fn with_refill(
        &mut self,
        now: Moment,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Refill, &Pace, Salt, &mut Means<'_>),
    ) {
        let salt = if self.refill.left() > 0 { Salt(self.rng.bits()) } else { Salt::default() };
        let AntiEntropy { refill, pace, ledger, counts, next, .. } = self;
        act(refill, pace, salt, &mut Means { now, ledger, counts, next, out });
    }

    /// Another owner said something.
    pub fn handle(
        &mut self,
        now: Moment,
        from: NodeId,
        message: Exchange,
        fellows: &dyn Fellows,
        out: &mut Vec<Effect>,
    ) {
        if self.look_at == Moment::NEVER {
            return;
        }
        self.counts.bytes_received += message.wire_bytes();
        match message {
            Exchange::Compare { id, digest, salt, arcs } => {
                let Some(common) = self.agree(now, from, id, digest, fellows, out) else { return };
                self.on_compare(now, Glance { leader: from, id, salt, common, arcs }, out);
            }
            Exchange::Offer { id, digest, salt, arcs } => {
                let Some(common) = self.agree(now, from, id, digest, fellows, out) else { return };
                if self.answering.as_ref().is_some_and(|answering| answering.is_at(from, id)) {
                    return;
                }
                if self.is_busy_for(now, from) {
                    return self.refuse(now, from, id, ExchangeRefusal::Busy, out);
                }
                let means = &mut self.means(now, out);
                self.answering = Some(Answering::match_offer(from, id, salt, common, arcs, means));
            }
            Exchange::Records { digest, items } => self.on_records(now, from, digest, items, out),
            Exchange::Compared { id, differing, left } => {
                self.with_walk_of(now, from, out, |walk, means| walk.on_compared(id, differing, left, means));
            }
            Exchange::Answered { id, lacking, left } => {
                self.with_walk_of(now, from, out, |walk, means| walk.on_answered(id, lacking, left, means));
            }
            Exchange::Weigh { id, digest, salt, slots } => {
                let Some(common) = self.agree(now, from, id, digest, fellows, out) else { return };
                let AntiEntropy { supplies, ledger, counts, next, .. } = self;
                supplies.weigh(from, id, salt, common, slots, &mut Means { now, ledger, counts, next, out });
            }
            Exchange::Draw { id, digest, salt, slot, after, held } => {
                let Some(common) = self.agree(now, from, id, digest, fellows, out) else { return };
                let AntiEntropy { refill, supplies, ledger, counts, next, .. } = self;
                let mut means = Means { now, ledger, counts, next, out };
                if refill.standing(slot) == Standing::Closed || !common.has(slot) {
                    Supplies::decline(from, id, &mut means);
                } else {
                    supplies.draw(from, id, salt, slot, after, held, &mut means);
                }
            }
            Exchange::Weighed { id, differing, voteless, closed, epochs: _ } => {
                self.with_refill(now, out, |refill, _, _, means| {
                    let weighed = Weighed { differing: &differing, voteless: &voteless, closed: &closed };
                    refill.on_weighed(from, id, weighed, means);
                });
            }
            Exchange::Drawn { id, items, next, is_whole } => {
                let mut merging = 0;
                self.with_refill(now, out, |refill, _, _, means| {
                    merging = refill.on_drawn(from, id, items, next, is_whole, means);
                });
                self.merging += merging;
            }
            Exchange::Refused { id, reason } => {
                self.refill.on_refused(from, id, now);
                self.with_walk_of(now, from, out, |walk, _| walk.on_refused(id, &reason));
            }
            Exchange::Nudge { slots } => self.pace.nudged(now, from, slots),
        }
        self.begin(now, out);
    }

    fn with_walk_of(
        &mut self,
        now: Moment,
        fellow: NodeId,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Walk, &mut Means<'_>) -> Option<End>,
    ) {
        if self.walk.as_ref().is_some_and(|walk| walk.fellow() == fellow) {
            self.with_walk(now, out, act);
        }
    }

    /// Both sides must believe in the same owners of what they compare; the one that does not says so.
    fn agree(
        &mut self,
        now: Moment,
        from: NodeId,
        id: QuestionId,
        digest: PairDigest,
        fellows: &dyn Fellows,
        out: &mut Vec<Effect>,
    ) -> Option<Shared<Common>> {
        let common = self.pace.common(from).filter(|common| common.digest() == digest).cloned();
        if common.is_none() {
            let entries = [self.own, from].into_iter().filter_map(|node| fellows.entry(node)).collect();
            self.refuse(now, from, id, ExchangeRefusal::OtherRing(entries), out);
        }
        common
    }

    fn refuse(
        &mut self,
        now: Moment,
        to: NodeId,
        id: QuestionId,
        reason: ExchangeRefusal,
        out: &mut Vec<Effect>,
    ) {
        self.means(now, out).send(to, Exchange::Refused { id, reason });
    }

    /// Whether this node is at work with another node, so that it would get the same records twice.
    fn is_busy_for(&self, now: Moment, leader: NodeId) -> bool {
        let answers =
            self.answering.as_ref().is_some_and(|other| other.leader() != leader && !other.is_over(now));
        answers || self.refill.is_drawing() || self.walk.as_ref().is_some_and(Walk::is_mending)
    }

    fn on_compare(&mut self, now: Moment, question: Glance, out: &mut Vec<Effect>) {
        let is_glance = question.arcs.iter().all(|(arc, _)| arc.spans_slots());
        let means = &mut self.means(now, out);
        if is_glance {
            if let Some(token) = question.ask(means) {
                self.glances.retain(|_, glance| glance.leader != question.leader);
                self.glances.insert(token, question);
            }
            return;
        }
        if self.answering.as_ref().is_some_and(|answering| answering.is_at(question.leader, question.id)) {
            return;
        }
        if self.is_busy_for(now, question.leader) {
            return self.refuse(now, question.leader, question.id, ExchangeRefusal::Busy, out);
        }
        self.answering = Answering::compare(question, &mut self.means(now, out));
    }

    /// Records of another owner: merged, whoever asked for them. Those of slots that are not shared are not wanted.
    fn on_records(
        &mut self,
        now: Moment,
        from: NodeId,
        digest: PairDigest,
        items: Vec<Item>,
        out: &mut Vec<Effect>,
    ) {
        let Some(common) = self.pace.common(from).filter(|common| common.digest() == digest).cloned() else {
            return;
        };
        if let Some(answering) = self.answering.as_mut().filter(|answering| answering.leader() == from) {
            answering.heard(now);
        }
        for Item { key, epoch, record } in items {
            if !common.has(Slot::of_key(&key)) || self.merging >= MERGES_MAX {
                continue;
            }
            self.counts.keys_received += 1;
            self.merging += 1;
            let ask = Ask::Merge { key: key.clone(), record: record.clone(), epoch };
            let token = self.means(now, out).ask(ask);
            if let Some(walk) = self.walk.as_mut().filter(|walk| walk.fellow() == from) {
                walk.note_received(token, key, record, now);
            }
        }
    }

    /// The own disk answered something other than a merge. What nobody waits for any more is dropped.
    pub fn on_disk(&mut self, now: Moment, token: Token, reply: DiskReply, out: &mut Vec<Effect>) {
        match reply {
            DiskReply::Sums { first, last, sums, .. } => {
                self.on_sums(now, token, SlotSums::new(first, last, sums), out);
            }
            DiskReply::Listed { page, .. } => self.on_page(now, token, page, out),
            DiskReply::ReadMany { found, .. } => self.on_read(now, token, found, out),
            _ => {}
        }
        self.begin(now, out);
    }

    fn on_sums(&mut self, now: Moment, token: Token, sums: SlotSums, out: &mut Vec<Effect>) {
        if self.supplies.awaits(token) {
            let AntiEntropy { refill, supplies, ledger, counts, next, .. } = self;
            let means = &mut Means { now, ledger, counts, next, out };
            return supplies.on_sums(token, &sums, |slot| refill.standing(slot), means);
        }
        self.with_refill(now, out, |refill, _, salt, means| refill.on_sums(token, &sums, salt, means));
        if let Some(glance) = self.glances.remove(&token) {
            let differing = glance.look(&sums);
            let (leader, id) = (glance.leader, glance.id);
            // There is no use in finding out where the two differ if nothing can be done about it now.
            if !differing.is_empty() && self.is_busy_for(now, leader) {
                return self.refuse(now, leader, id, ExchangeRefusal::Busy, out);
            }
            return self.means(now, out).send(leader, Exchange::Compared { id, differing, left: Vec::new() });
        }
        self.with_answering(now, out, |answering, means| answering.on_sums(token, &sums, means));
        self.with_walk(now, out, |walk, means| walk.on_sums(token, sums, means));
    }

    fn on_page(&mut self, now: Moment, token: Token, page: Option<Page>, out: &mut Vec<Effect>) {
        if self.supplies.awaits(token) {
            let AntiEntropy { supplies, ledger, counts, next, .. } = self;
            supplies.on_page(token, page, &mut Means { now, ledger, counts, next, out });
        } else if self.refill.awaits(token) {
            self.with_refill(now, out, |refill, _, salt, means| refill.on_page(token, page, salt, means));
        } else if self.answering.as_ref().is_some_and(|answering| answering.awaits(token)) {
            self.with_answering(now, out, |answering, means| answering.on_page(token, page, means));
        } else {
            self.with_walk(now, out, |walk, means| walk.on_page(token, page, means));
        }
    }

    fn on_read(&mut self, now: Moment, token: Token, found: Vec<(Bytes, Stored)>, out: &mut Vec<Effect>) {
        if self.supplies.awaits(token) {
            let AntiEntropy { refill, supplies, ledger, counts, next, .. } = self;
            let means = &mut Means { now, ledger, counts, next, out };
            supplies.on_read(token, found, |slot| refill.standing(slot), means);
        } else if self.answering.as_ref().is_some_and(|answering| answering.awaits(token)) {
            self.with_answering(now, out, |answering, means| answering.on_read(token, found, means));
        } else {
            self.with_walk(now, out, |walk, means| walk.on_read(token, found, means));
        }
    }

    /// The own disk merged another owner's record, or refused to.
    pub fn on_merged(&mut self, now: Moment, token: Token, applied: Applied, out: &mut Vec<Effect>) {
        self.merging = self.merging.saturating_sub(1);
        self.with_refill(now, out, |refill, _, _, means| refill.on_merged(token, &applied, means));
        self.with_walk(now, out, |walk, means| walk.on_merged(token, applied, means));
        self.begin(now, out);
    }

    /// The node's one account of repairs, for those that are no exchanges.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// What exchanges have done since the start of the node.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Slots that differed in the last exchange with each fellow that this node leads.
    #[must_use]
    pub fn slots_differing(&self) -> u64 {
        let current = self
            .walk
            .as_ref()
            .map_or(0, |walk| walk.tally.differing - walk.tally.mended.min(walk.tally.differing));
        current.max(self.pace.differing())
    }

    /// Slots of which this node has reason to think that it and a fellow owner do not hold the same: a write could not be
    /// delivered, or they differed when they were last compared. A fellow that is led by the other one does not count the
    /// latter, so the whole is the union over all nodes.
    #[must_use]
    pub fn dirty(&self) -> BTreeSet<Slot> {
        self.pace.dirty().chain(self.walk.iter().flat_map(Walk::dirty)).collect()
    }

    /// How many records the exchange under way will still have to move, about.
    #[must_use]
    pub fn debt_keys(&self) -> u64 {
        self.walk.as_ref().map_or(0, Walk::debt_keys)
    }

    /// The bytes of those, about; 0 until the first of them has been moved.
    #[must_use]
    pub fn debt_bytes(&self) -> u64 {
        self.walk.as_ref().map_or(0, Walk::debt_bytes)
    }

    /// What repair of all kinds costs, and may cost.
    #[must_use]
    pub fn account(&self) -> &Ledger {
        &self.ledger
    }

    /// At how many thousandths of its rate repair goes on: less than 1,000 while it yields to clients.
    #[must_use]
    pub fn ease_per_mille(&self) -> u64 {
        self.ledger.ease_per_mille()
    }
}
