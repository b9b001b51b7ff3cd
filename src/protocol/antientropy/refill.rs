//! Getting back the contents of slots that this node has no vote for.
//!
//! ```text
//!  for each other owner, side by side:          for each slot:
//!  weigh many slots at a time ──▶ equal ───────────────────────▶ had from this owner ─┐
//!        ▲                  └───▶ differing ──▶ draw, page by page ──▶ all merged ────┤
//!        └── those that came to nothing, after a pause                                ▼
//!                                        had from enough of the others ──▶ it votes again
//! ```
//!
//! *Enough* is so many of the other owners that every quorum which ever acknowledged a write has one of them: of three
//! owners the two others, of five any three of the four. Each of them is *fenced* before its contents are looked at: it
//! answers under a digest that covers this node's raised amnesia generation, which it believes durably, so it will never
//! again acknowledge a write beside an acknowledgement from before the loss. Whatever it acknowledged so earlier is in
//! its store by then, and is found there.
//!
//! An owner that has no vote for a slot itself does not count, since it may lack what others have seen it hold. But if
//! *all* others were asked, then everything that is still to be had is here, whoever had it, and that has to do.
//!
//! A slot is had from an owner when all that the owner held at one moment behind the fence has been merged here.
//! Records that are written meanwhile come as to any owner.

use std::collections::BTreeMap;
use std::sync::Arc as Shared;

use bytes::Bytes;

use super::means::{Effect, Means, Token};
use super::source::{Context, Source, Step, Weighed};
use super::tree::SlotSums;
use crate::protocol::causality::Applied;
use crate::protocol::id::NodeId;
use crate::protocol::ring::common::Common;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::storage::op::Page;
use crate::protocol::storage::trust::Standing;
use crate::protocol::time::Moment;
use crate::protocol::wire::exchange::{Item, QuestionId, Salt};

/// What this node has no vote for, and how far it is with getting it back.
#[derive(Debug, Default)]
pub(super) struct Refill {
    /// All slots without a vote, those that must not be refilled yet included.
    voteless: SlotSet,
    /// Those that are to be refilled.
    wanted: SlotSet,
    sources: BTreeMap<NodeId, Source>,
    /// From how many others that vote for it a slot has to be had; zero as long as there is no ring.
    need: usize,
    /// How many others there are.
    others: usize,
    /// Those two are not what they were, perhaps, when it was last seen which slots are whole.
    is_aligned_anew: bool,
    /// Records that came since the start of the node.
    pub(super) records: u64,
}

impl Refill {
    /// What this node's contents of a slot are to another owner that refills.
    pub(super) fn standing(&self, slot: Slot) -> Standing {
        match (self.voteless.contains(slot), self.wanted.contains(slot)) {
            (false, _) => Standing::Votes,
            (true, true) => Standing::Refilling,
            (true, false) => Standing::Closed,
        }
    }

    /// How many slots are still to be refilled.
    pub(super) fn left(&self) -> usize {
        self.wanted.len()
    }

    /// Whether records are on their way here, so that no exchange should bring the same ones.
    pub(super) fn is_drawing(&self) -> bool {
        self.sources.values().any(|source| matches!(source.step, Step::Drawing(_)))
    }

    /// What this node has no vote for, and what of that may be refilled. A slot that was lost once more while it was
    /// being refilled begins anew.
    pub(super) fn want(&mut self, now: Moment, voteless: SlotSet, wanted: SlotSet) {
        for source in self.sources.values_mut() {
            source.had.intersect(&wanted);
            source.had_what_it_had.intersect(&wanted);
            let may_idle_no_more =
                matches!(source.step, Step::Idle { .. }) && wanted.len() > self.wanted.len();
            let draws_in_vain = source.drawing().is_some_and(|slot| !wanted.contains(slot));
            if may_idle_no_more || draws_in_vain {
                source.step = Step::Idle { until: now };
            }
        }
        self.wanted = wanted;
        self.voteless = voteless;
    }

    /// The ring is not what it was, or may not be.
    pub(super) fn align<'c>(
        &mut self,
        now: Moment,
        owners: usize,
        fellows: impl Iterator<Item = (NodeId, &'c Shared<Common>)>,
    ) {
        // Of n owners, at least a majority acknowledged a write, this node perhaps among them: so many others are one
        // more than can be without it.
        let majority = owners / 2 + 1;
        self.need = owners + 1 - majority;
        self.others = owners.saturating_sub(1);
        self.is_aligned_anew = true;
        let mut before = std::mem::take(&mut self.sources);
        for (node, common) in fellows {
            let source = match before.remove(&node) {
                Some(source) if source.common.digest() == common.digest() => source,
                // What was had behind an earlier fence was had.
                known => {
                    let had = known.map(|source| source.had).unwrap_or_default();
                    Source::new(Shared::clone(common), had, now)
                }
            };
            self.sources.insert(node, source);
        }
    }

    /// When to call [`tick`](Refill::tick).
    pub(super) fn due(&self, can_ask: impl Fn(NodeId) -> bool) -> Moment {
        if self.wanted.is_empty() {
            return Moment::NEVER;
        }
        let due =
            |(node, source): (&NodeId, &Source)| if can_ask(*node) { source.due() } else { Moment::NEVER };
        self.sources.iter().map(due).min().unwrap_or(Moment::NEVER)
    }

    /// The time of [`due`](Refill::due) may have come.
    pub(super) fn tick(&mut self, can_ask: impl Fn(NodeId) -> bool, means: &mut Means<'_>) {
        if self.wanted.is_empty() {
            return;
        }
        let nodes: Vec<NodeId> = self.sources.keys().copied().filter(|node| can_ask(*node)).collect();
        for node in nodes {
            self.with(node, means, |source, context, means| {
                if source.due() <= means.now {
                    source.on_deadline(context, means);
                }
            });
        }
    }

    /// Lets a source act, and sees what has come of it.
    fn with(
        &mut self,
        node: NodeId,
        means: &mut Means<'_>,
        act: impl FnOnce(&mut Source, &Context<'_>, &mut Means<'_>),
    ) {
        let Some(mut source) = self.sources.remove(&node) else { return };
        let taken = self.sources.values().filter_map(Source::drawing).collect();
        let context = Context { node, wanted: &self.wanted, taken };
        let was_fenced = source.is_fenced;
        act(&mut source, &context, means);
        let (fences, news) = (source.is_fenced && !was_fenced, std::mem::take(&mut source.news));
        self.sources.insert(node, source);
        let fenced = if fences { self.fenced() } else { Vec::new() };
        let refilled = self.refilled(news);
        for slot in &refilled {
            self.wanted.remove(*slot);
            self.sources.values_mut().for_each(|source| {
                source.had.remove(*slot);
                source.had_what_it_had.remove(*slot);
            });
        }
        if !fenced.is_empty() || !refilled.is_empty() {
            means.out.push(Effect::Refilled { fenced, refilled });
        }
    }

    /// The slots for which enough of the others have seen the raised generation.
    fn fenced(&self) -> Vec<Slot> {
        let is_fence = |slot| move |source: &&Source| source.is_fenced && source.common.has(slot);
        let count = |slot| self.sources.values().filter(is_fence(slot)).count();
        self.wanted.iter().filter(|slot| self.need > 0 && count(*slot) >= self.need).collect()
    }

    /// Those of the slots that are whole. After a change of the ring that may be any.
    fn refilled(&mut self, news: Vec<Slot>) -> Vec<Slot> {
        let news =
            if std::mem::take(&mut self.is_aligned_anew) { self.wanted.iter().collect() } else { news };
        let is_whole = |slot: &Slot| {
            let voting = self.sources.values().filter(|source| source.had.contains(*slot)).count();
            let asked = self.sources.values().filter(|source| source.was_had(*slot)).count();
            self.others > 0 && (voting >= self.need || asked >= self.others)
        };
        news.into_iter().filter(|slot| self.wanted.contains(*slot) && is_whole(slot)).collect()
    }

    /// The own sums have come.
    pub(super) fn on_sums(&mut self, token: Token, sums: &SlotSums, salt: Salt, means: &mut Means<'_>) {
        let awaits = |source: &Source| matches!(&source.step, Step::Summing { token: t, .. } if *t == token);
        if let Some(node) = self.whose(awaits) {
            self.with(node, means, |source, context, means| source.weigh(context, sums, salt, means));
        }
    }

    /// Whether it was this that asked for a page.
    pub(super) fn awaits(&self, token: Token) -> bool {
        self.whose(|source| source.is_listing(token)).is_some()
    }

    /// A page of an own slot has come.
    pub(super) fn on_page(&mut self, token: Token, page: Option<Page>, salt: Salt, means: &mut Means<'_>) {
        if let Some(node) = self.whose(|source| source.is_listing(token)) {
            self.with(node, means, |source, context, means| {
                source.on_page(context, token, page, salt, means)
            });
        }
    }

    /// An owner has weighed slots.
    pub(super) fn on_weighed(
        &mut self,
        from: NodeId,
        id: QuestionId,
        weighed: Weighed<'_>,
        means: &mut Means<'_>,
    ) {
        self.with(from, means, |source, context, means| source.on_weighed(context, id, weighed, means));
    }

    /// An owner has sent records. Gives back how many there are to be merged.
    pub(super) fn on_drawn(
        &mut self,
        from: NodeId,
        id: QuestionId,
        items: Vec<Item>,
        next: Option<Bytes>,
        is_whole: bool,
        means: &mut Means<'_>,
    ) -> usize {
        let mut merging = 0;
        self.with(from, means, |source, context, means| {
            merging = source.on_drawn(context, id, items, next, is_whole, means);
        });
        self.records += merging as u64;
        merging
    }

    /// A record was merged, or was not.
    pub(super) fn on_merged(&mut self, token: Token, applied: &Applied, means: &mut Means<'_>) {
        let awaits =
            |source: &Source| matches!(&source.step, Step::Drawing(draw) if draw.merges.contains(&token));
        if let Some(node) = self.whose(awaits) {
            self.with(node, means, |source, context, means| source.on_merged(context, token, applied, means));
        }
    }

    /// An owner believes in another ring. Gossip sees to that.
    pub(super) fn on_refused(&mut self, from: NodeId, id: QuestionId, now: Moment) {
        if let Some(source) = self.sources.get_mut(&from)
            && source.question().is_some_and(|question| question.id == id)
        {
            source.refused(now);
        }
    }

    fn whose(&self, is_it: impl Fn(&Source) -> bool) -> Option<NodeId> {
        self.sources.iter().find(|(_, source)| is_it(source)).map(|(node, _)| *node)
    }
}
