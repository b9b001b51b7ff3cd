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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc as Shared;
use std::time::Duration;

use bytes::Bytes;

use super::listing::{Gathered, Listing};
use super::means::{Ask, Effect, Means, Token};
use super::tree::{Common, SlotSums, whole_mark};
use crate::protocol::causality::Applied;
use crate::protocol::id::NodeId;
use crate::protocol::ring::arc::Arc;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::storage::op::Page;
use crate::protocol::storage::trust::Standing;
use crate::protocol::time::Moment;
use crate::protocol::wire::exchange::{Exchange, Item, Mark, QuestionId, Salt};

/// So many slots are weighed at once: a message of ten kilobytes.
const WEIGHED_AT_ONCE: usize = 1_024;

/// So many records are named at once that need not be sent. More of them cost bytes, and nothing else.
const HELD_MAX: usize = 8_192;

/// After how long an unanswered question is asked again; doubles each time.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a question is asked before it is given up.
const TRIES_MAX: u32 = 5;

/// The pause before an owner is asked again for what it could not give, or did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The pause if all that an owner could give is just being drawn from another one.
const ASIDE: Duration = Duration::from_millis(20);

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
    /// Records that came since the start of the node.
    pub(super) records: u64,
}

/// Another owner.
#[derive(Debug)]
struct Source {
    common: Shared<Common>,
    /// It has answered under the present digest.
    is_fenced: bool,
    /// Slots that were had from it while it had a vote for them.
    had: SlotSet,
    /// And while it had none.
    had_what_it_had: SlotSet,
    /// Slots that it has no vote for, by its last word.
    voteless: SlotSet,
    /// To be weighed in this round.
    unweighed: VecDeque<Slot>,
    /// To be drawn in this round.
    differing: VecDeque<Slot>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Nothing to do before this moment.
    Idle { until: Moment },
    /// The ledger is in debt.
    Resting { until: Moment },
    /// Waits for the own sums.
    Summing { token: Token, slots: Vec<Slot> },
    /// Waits for an answer.
    Weighing { question: Question, slots: Vec<Slot> },
    /// Lists what this node holds in a slot.
    Listing { listing: Listing },
    /// Gets the contents of a slot.
    Drawing(Drawing),
}

#[derive(Debug)]
struct Drawing {
    slot: Slot,
    salt: Salt,
    held: Vec<(Bytes, Mark)>,
    /// The page that is asked for, unless its records are being merged.
    question: Option<Question>,
    merges: BTreeSet<Token>,
    /// Where the next page begins.
    next: Option<Bytes>,
    /// Until when the ledger is closed.
    rests_until: Moment,
    has_failed: bool,
}

/// What an owner has found.
pub(super) struct Weighed<'a> {
    pub(super) differing: &'a [Slot],
    pub(super) voteless: &'a [Slot],
    pub(super) closed: &'a [Slot],
}

/// A question that may have to be repeated.
#[derive(Debug)]
struct Question {
    id: QuestionId,
    message: Exchange,
    again_at: Moment,
    pause: Duration,
    tries: u32,
}

impl Question {
    fn ask(to: NodeId, message: impl FnOnce(QuestionId) -> Exchange, means: &mut Means<'_>) -> Question {
        let id = QuestionId(means.number());
        let message = message(id);
        means.send(to, message.clone());
        Question { id, message, again_at: means.now + PATIENCE, pause: PATIENCE, tries: 1 }
    }
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
    pub(super) fn want(&mut self, now: Moment, voteless: &SlotSet, may_begin: impl Fn(Slot) -> bool) {
        let wanted: SlotSet = voteless.iter().filter(|slot| may_begin(*slot)).collect();
        for source in self.sources.values_mut() {
            source.had.retain(|slot| wanted.contains(slot));
            source.had_what_it_had.retain(|slot| wanted.contains(slot));
            if matches!(source.step, Step::Idle { .. }) && wanted.len() > self.wanted.len() {
                source.step = Step::Idle { until: now };
            } else if source.drawing().is_some_and(|slot| !wanted.contains(slot)) {
                source.step = Step::Idle { until: now };
            }
        }
        self.wanted = wanted;
        self.voteless = voteless.clone();
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
        let mut before = std::mem::take(&mut self.sources);
        for (node, common) in fellows {
            let source = match before.remove(&node) {
                Some(source) if source.common.digest() == common.digest() => source,
                known => Source {
                    common: Shared::clone(common),
                    is_fenced: false,
                    // What was had behind an earlier fence was had.
                    had: known.map(|source| source.had).unwrap_or_default(),
                    had_what_it_had: SlotSet::new(),
                    voteless: SlotSet::new(),
                    unweighed: VecDeque::new(),
                    differing: VecDeque::new(),
                    step: Step::Idle { until: now },
                },
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
        let had = |source: &Source| source.had.len() + source.had_what_it_had.len();
        let before = (source.is_fenced, had(&source));
        act(&mut source, &context, means);
        let (fences, has) = (source.is_fenced && !before.0, had(&source) != before.1);
        self.sources.insert(node, source);
        let fenced = if fences { self.fenced() } else { Vec::new() };
        let refilled = if has { self.refilled() } else { Vec::new() };
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

    /// The slots that are whole.
    fn refilled(&self) -> Vec<Slot> {
        let is_whole = |slot: &Slot| {
            let voting = self.sources.values().filter(|source| source.had.contains(*slot)).count();
            let asked = self.sources.values().filter(|source| source.was_had(*slot)).count();
            self.others > 0 && (voting >= self.need || asked >= self.others)
        };
        self.wanted.iter().filter(is_whole).collect()
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
            source.step = Step::Idle { until: now + PAUSE / 4 };
        }
    }

    fn whose(&self, is_it: impl Fn(&Source) -> bool) -> Option<NodeId> {
        self.sources.iter().find(|(_, source)| is_it(source)).map(|(node, _)| *node)
    }
}

/// What a source has to know of the rest.
struct Context<'a> {
    node: NodeId,
    wanted: &'a SlotSet,
    /// Slots that are being drawn from others.
    taken: Vec<Slot>,
}

impl Source {
    fn question(&self) -> Option<&Question> {
        match &self.step {
            Step::Weighing { question, .. } => Some(question),
            Step::Drawing(drawing) => drawing.question.as_ref(),
            _ => None,
        }
    }

    fn question_mut(&mut self) -> Option<&mut Question> {
        match &mut self.step {
            Step::Weighing { question, .. } => Some(question),
            Step::Drawing(drawing) => drawing.question.as_mut(),
            _ => None,
        }
    }

    fn is_listing(&self, token: Token) -> bool {
        matches!(&self.step, Step::Listing { listing } if listing.awaits(token))
    }

    /// The slot that is being drawn.
    fn drawing(&self) -> Option<Slot> {
        match &self.step {
            Step::Listing { listing } => Some(listing.slot()),
            Step::Drawing(drawing) => Some(drawing.slot),
            _ => None,
        }
    }

    fn due(&self) -> Moment {
        match &self.step {
            Step::Idle { until } | Step::Resting { until } => *until,
            Step::Drawing(Drawing { question: None, merges, rests_until, .. }) if merges.is_empty() => {
                *rests_until
            }
            _ => self.question().map_or(Moment::NEVER, |question| question.again_at),
        }
    }

    fn on_deadline(&mut self, context: &Context<'_>, means: &mut Means<'_>) {
        match &mut self.step {
            Step::Idle { .. } => return self.advance(context, means),
            Step::Resting { until } => {
                means.ledger.woken(means.now, *until);
                return self.advance(context, means);
            }
            Step::Drawing(drawing) if drawing.question.is_none() => {
                means.ledger.woken(means.now, drawing.rests_until);
                return drawing.ask(context.node, &self.common, means);
            }
            _ => {}
        }
        let Some(question) = self.question_mut() else { return };
        if question.tries >= TRIES_MAX {
            // What was to be drawn or weighed is so in the next round.
            self.step = Step::Idle { until: means.now + PAUSE };
            return;
        }
        question.tries += 1;
        question.pause *= 2;
        question.again_at = means.now + question.pause;
        let message = question.message.clone();
        means.send(context.node, message);
    }

    /// Begins what is next.
    fn advance(&mut self, context: &Context<'_>, means: &mut Means<'_>) {
        let open = means.ledger.opens_at(means.now);
        if open > means.now {
            self.step = Step::Resting { until: open };
            return;
        }
        let is_open = |slot: &Slot| context.wanted.contains(*slot) && !self.had.contains(*slot);
        self.differing.retain(is_open);
        self.unweighed.retain(is_open);
        if let Some(at) = self.differing.iter().position(|slot| !context.taken.contains(slot)) {
            let Some(slot) = self.differing.remove(at) else { return };
            let mut listing = Listing::new(slot);
            listing.ask(means);
            self.step = Step::Listing { listing };
        } else if !self.differing.is_empty() {
            self.step = Step::Idle { until: means.now + ASIDE };
        } else if !self.unweighed.is_empty() || self.begin_round(context) {
            let count = self.unweighed.len().min(WEIGHED_AT_ONCE);
            let slots: Vec<Slot> = self.unweighed.drain(..count).collect();
            // They are in the order of the circle.
            let (Some(first), Some(last)) = (slots.first(), slots.last()) else { return };
            let token = means.ask(Ask::Sums(*first, *last));
            self.step = Step::Summing { token, slots };
        } else {
            self.step = Step::Idle { until: Moment::NEVER };
        }
    }

    /// Takes up all that was not had from this owner; tells whether there is anything.
    fn begin_round(&mut self, context: &Context<'_>) -> bool {
        let is_left = |slot: &Slot| self.common.has(*slot) && !self.had.contains(*slot);
        self.unweighed = context.wanted.iter().filter(is_left).collect();
        !self.unweighed.is_empty()
    }

    fn weigh(&mut self, context: &Context<'_>, sums: &SlotSums, salt: Salt, means: &mut Means<'_>) {
        let Step::Summing { slots, .. } = &mut self.step else { return };
        let mut slots = std::mem::take(slots);
        // Of what the own disk does not trust yet nothing can be said.
        slots.retain(|slot| sums.get(*slot).is_some());
        if slots.is_empty() {
            self.step = Step::Idle { until: means.now + PAUSE };
            return;
        }
        let mark = |slot: &Slot| (*slot, sums.mark(Arc::of_slot(*slot), &self.common, salt));
        let marks = slots.iter().map(mark).collect();
        let digest = self.common.digest();
        let message = |id| Exchange::Weigh { id, digest, salt, slots: marks };
        let question = Question::ask(context.node, message, means);
        self.step = Step::Weighing { question, slots };
    }

    fn on_weighed(
        &mut self,
        context: &Context<'_>,
        id: QuestionId,
        weighed: Weighed<'_>,
        means: &mut Means<'_>,
    ) {
        let slots = match &mut self.step {
            Step::Weighing { question, slots } if question.id == id => std::mem::take(slots),
            _ => return,
        };
        self.is_fenced = true;
        let set = |slots: &[Slot]| slots.iter().copied().collect::<SlotSet>();
        let (differing, voteless, closed) =
            (set(weighed.differing), set(weighed.voteless), set(weighed.closed));
        let mut has_got_on = false;
        for slot in slots.into_iter().filter(|slot| !closed.contains(*slot)) {
            if voteless.contains(slot) {
                self.voteless.insert(slot);
            } else {
                self.voteless.remove(slot);
            }
            if differing.contains(slot) {
                self.differing.push_back(slot);
                has_got_on = true;
            } else if context.wanted.contains(slot) {
                has_got_on |= self.has(slot);
            }
        }
        let pause = if has_got_on { Duration::ZERO } else { PAUSE };
        self.step = Step::Idle { until: means.now + pause };
    }

    /// All that this owner holds in a slot is here. Tells whether that is news.
    fn has(&mut self, slot: Slot) -> bool {
        if self.voteless.contains(slot) { self.had_what_it_had.insert(slot) } else { self.had.insert(slot) }
    }

    fn was_had(&self, slot: Slot) -> bool {
        self.had.contains(slot) || self.had_what_it_had.contains(slot)
    }

    fn on_page(
        &mut self,
        context: &Context<'_>,
        token: Token,
        page: Option<Page>,
        salt: Salt,
        means: &mut Means<'_>,
    ) {
        let Step::Listing { listing } = &mut self.step else { return };
        match listing.on_page(token, page, means) {
            Gathered::Foreign => {}
            Gathered::More => listing.ask(means),
            Gathered::All(None) => self.step = Step::Idle { until: means.now + PAUSE },
            Gathered::All(Some(entries)) => {
                let held = entries.into_iter().map(|(key, hash)| (key, whole_mark(hash, salt))).collect();
                let mut drawing = Drawing {
                    slot: listing.slot(),
                    salt,
                    held,
                    question: None,
                    merges: BTreeSet::new(),
                    next: None,
                    rests_until: means.now,
                    has_failed: false,
                };
                drawing.ask(context.node, &self.common, means);
                self.step = Step::Drawing(drawing);
            }
        }
    }

    fn on_drawn(
        &mut self,
        context: &Context<'_>,
        id: QuestionId,
        items: Vec<Item>,
        next: Option<Bytes>,
        is_whole: bool,
        means: &mut Means<'_>,
    ) -> usize {
        let Step::Drawing(drawing) = &mut self.step else { return 0 };
        if drawing.question.take_if(|question| question.id == id).is_none() {
            return 0;
        }
        drawing.has_failed |= !is_whole;
        drawing.next = next;
        means.counts.keys_received += items.len() as u64;
        means.ledger.charge(means.now, items.len() as u64, items.iter().map(Item::wire_bytes).sum());
        let mut merging = 0;
        for Item { key, epoch: _, record } in items {
            if Slot::of_key(&key) == drawing.slot {
                merging += 1;
                drawing.merges.insert(means.ask(Ask::Merge { key, record }));
            }
        }
        if merging == 0 {
            self.page_is_done(context, means);
        }
        merging
    }

    fn on_merged(&mut self, context: &Context<'_>, token: Token, applied: &Applied, means: &mut Means<'_>) {
        let Step::Drawing(drawing) = &mut self.step else { return };
        drawing.merges.remove(&token);
        drawing.has_failed |= matches!(applied, Applied::Refused(_));
        if drawing.merges.is_empty() && drawing.question.is_none() {
            self.page_is_done(context, means);
        }
    }

    fn page_is_done(&mut self, context: &Context<'_>, means: &mut Means<'_>) {
        let Step::Drawing(drawing) = &mut self.step else { return };
        if drawing.has_failed {
            self.step = Step::Idle { until: means.now + PAUSE };
        } else if drawing.next.is_some() {
            drawing.rests_until = means.ledger.opens_at(means.now);
            if drawing.rests_until <= means.now {
                drawing.ask(context.node, &self.common, means);
            }
        } else {
            let slot = drawing.slot;
            self.step = Step::Idle { until: means.now };
            if context.wanted.contains(slot) {
                self.has(slot);
            }
        }
    }
}

impl Drawing {
    /// Asks for the next page.
    fn ask(&mut self, from: NodeId, common: &Common, means: &mut Means<'_>) {
        let after = self.next.take();
        let is_ahead = |(key, _): &&(Bytes, Mark)| after.as_ref().is_none_or(|after| key > after);
        let held = self.held.iter().filter(is_ahead).take(HELD_MAX).map(|(_, mark)| *mark).collect();
        let (digest, salt, slot) = (common.digest(), self.salt, self.slot);
        let message = |id| Exchange::Draw { id, digest, salt, slot, after, held };
        self.question = Some(Question::ask(from, message, means));
    }
}
