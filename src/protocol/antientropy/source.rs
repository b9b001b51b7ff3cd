//! One other owner, and how far this node is with getting from it what both own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc as Shared;
use std::time::Duration;

use bytes::Bytes;

use super::listing::{Gathered, Listing};
use super::means::{Ask, Means, Token};
use super::tree::{SlotSums, whole_mark};
use crate::protocol::causality::Applied;
use crate::protocol::id::NodeId;
use crate::protocol::ring::arc::Arc;
use crate::protocol::ring::common::Common;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::storage::op::Page;
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

/// Another owner.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) common: Shared<Common>,
    /// It has answered under the present digest.
    pub(super) is_fenced: bool,
    /// Slots that were had from it while it had a vote for them.
    pub(super) had: SlotSet,
    /// And while it had none.
    pub(super) had_what_it_had: SlotSet,
    /// Slots that came to either since they were last looked at.
    pub(super) news: Vec<Slot>,
    /// Slots that it has no vote for, by its last word.
    pub(super) voteless: SlotSet,
    /// To be weighed in this round.
    pub(super) unweighed: VecDeque<Slot>,
    /// To be drawn in this round.
    pub(super) differing: VecDeque<Slot>,
    pub(super) step: Step,
}

#[derive(Debug)]
pub(super) enum Step {
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
pub(super) struct Drawing {
    slot: Slot,
    salt: Salt,
    held: Vec<(Bytes, Mark)>,
    /// The page that is asked for, unless its records are being merged.
    question: Option<Question>,
    pub(super) merges: BTreeSet<Token>,
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
pub(super) struct Question {
    pub(super) id: QuestionId,
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

/// What a source has to know of the rest.
pub(super) struct Context<'a> {
    pub(super) node: NodeId,
    pub(super) wanted: &'a SlotSet,
    /// Slots that are being drawn from others.
    pub(super) taken: Vec<Slot>,
}

impl Source {
    /// An owner of whom nothing is known but what is shared with it.
    pub(super) fn new(common: Shared<Common>, had: SlotSet, now: Moment) -> Source {
        Source {
            common,
            is_fenced: false,
            had,
            had_what_it_had: SlotSet::new(),
            news: Vec::new(),
            voteless: SlotSet::new(),
            unweighed: VecDeque::new(),
            differing: VecDeque::new(),
            step: Step::Idle { until: now },
        }
    }

    /// It does not answer under the present digest: it is asked again a little later.
    pub(super) fn refused(&mut self, now: Moment) {
        self.step = Step::Idle { until: now + PAUSE / 4 };
    }

    pub(super) fn question(&self) -> Option<&Question> {
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

    pub(super) fn is_listing(&self, token: Token) -> bool {
        matches!(&self.step, Step::Listing { listing } if listing.awaits(token))
    }

    /// The slot that is being drawn.
    pub(super) fn drawing(&self) -> Option<Slot> {
        match &self.step {
            Step::Listing { listing } => Some(listing.slot()),
            Step::Drawing(drawing) => Some(drawing.slot),
            _ => None,
        }
    }

    pub(super) fn due(&self) -> Moment {
        match &self.step {
            Step::Idle { until } | Step::Resting { until } => *until,
            Step::Drawing(Drawing { question: None, merges, rests_until, .. }) if merges.is_empty() => {
                *rests_until
            }
            _ => self.question().map_or(Moment::NEVER, |question| question.again_at),
        }
    }

    pub(super) fn on_deadline(&mut self, context: &Context<'_>, means: &mut Means<'_>) {
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

    pub(super) fn weigh(
        &mut self,
        context: &Context<'_>,
        sums: &SlotSums,
        salt: Salt,
        means: &mut Means<'_>,
    ) {
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

    pub(super) fn on_weighed(
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
        let had = if self.voteless.contains(slot) { &mut self.had_what_it_had } else { &mut self.had };
        let is_news = had.insert(slot);
        if is_news {
            self.news.push(slot);
        }
        is_news
    }

    pub(super) fn was_had(&self, slot: Slot) -> bool {
        self.had.contains(slot) || self.had_what_it_had.contains(slot)
    }

    pub(super) fn on_page(
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

    pub(super) fn on_drawn(
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
        for Item { key, epoch, record } in items {
            if Slot::of_key(&key) == drawing.slot {
                merging += 1;
                drawing.merges.insert(means.ask(Ask::Merge { key, record, epoch }));
            }
        }
        if merging == 0 {
            self.page_is_done(context, means);
        }
        merging
    }

    pub(super) fn on_merged(
        &mut self,
        context: &Context<'_>,
        token: Token,
        applied: &Applied,
        means: &mut Means<'_>,
    ) {
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
