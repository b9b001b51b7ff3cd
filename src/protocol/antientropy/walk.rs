//! The leader's side of one exchange: from one mark for everything down to the records that differ.
//!
//! ```text
//!  exploring ──▶ settling ──▶ mending ──▶ done
//!  which slots   wait, since   ask again for those that still differ; list them, offer the
//!  differ?       writes are    buckets that differ; merge what the fellow sends, and send
//!                under way     what it lacks and what the merge made of both
//! ```
//!
//! Under writes the sums of two owners differ at every moment, by what is on its way between them. So a slot counts as
//! different only if it still differs after a pause that is longer than a write's fan-out and its first repetition. A
//! record that is written all the time may be sent now and then without need, one per exchange; it is never left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc as Shared;
use std::time::Duration;

use bytes::Bytes;

use super::listing::{Gathered, Listing, items};
use super::means::{Ask, Means, Token};
use super::tree::{SlotSums, bucket_marks, cut, reach, record_mark};
use crate::protocol::causality::{Applied, Record, RecordHash};
use crate::protocol::id::NodeId;
use crate::protocol::ring::arc::Arc;
use crate::protocol::ring::common::Common;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{Page, Stored};
use crate::protocol::time::Moment;
use crate::protocol::wire::exchange::{Exchange, ExchangeRefusal, Parts, QuestionId, Salt, ShortMark};

/// How long what differs may be merely under way: twice the time after which a coordinator repeats itself.
pub(super) const SETTLING: Duration = Duration::from_millis(500);

/// After how long an unanswered question is asked again; doubles each time.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// How often a question is asked before the fellow counts as silent.
const TRIES_MAX: u32 = 4;

/// How many arcs are compared at once.
const ARCS_AT_ONCE: usize = 64;

/// Slots are compared, one at least, until they hold so many keys: what the fellow lists at one go.
const KEYS_AT_ONCE: u64 = 1_024;

/// How many records are offered at once, about.
const OFFERED_AT_ONCE: usize = 4_096;

/// How often in a row an offer may come to nothing although something was left.
const STALLS_MAX: u32 = 3;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One mark was compared, and it was equal.
    Equal,
    /// Nothing differed for long, and nothing was sent.
    Unmoved,
    /// Records were sent or received.
    Moved,
    /// The fellow is at work with somebody else.
    Busy,
    /// The fellow does not answer, or believes in another ring.
    Failed,
}

/// One exchange with one fellow owner.
#[derive(Debug)]
pub(super) struct Walk {
    fellow: NodeId,
    common: Shared<Common>,
    salt: Salt,
    step: Step,
    /// Arcs that span slots and are to be compared.
    frontier: Vec<Arc>,
    /// Slots that differed at the first look.
    suspects: BTreeSet<Slot>,
    /// Slots that are to be compared and made equal.
    queue: VecDeque<Slot>,
    /// Slots that differ, and by what; to be listed.
    differing: VecDeque<Parts>,
    /// Buckets that differ, and what this node holds there.
    offers: VecDeque<(Arc, Vec<(ShortMark, Bytes)>)>,
    /// What the last offer meant.
    offered: BTreeMap<ShortMark, Bytes>,
    /// Keys that came as records since the last offer.
    received: BTreeSet<Bytes>,
    /// Records on their way into the own store.
    merges: BTreeMap<Token, (Bytes, Record)>,
    /// Keys whose records the fellow is to get.
    push: VecDeque<Bytes>,
    /// Slots that differed, after the pause.
    found: BTreeSet<Slot>,
    is_mending: bool,
    stalls: u32,
    pub(super) tally: Tally,
}

/// What an exchange has come upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Slots that differed, after the pause.
    pub(super) differing: u64,
    /// Slots that are done.
    pub(super) mended: u64,
    /// Records, both ways.
    pub(super) moved: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

#[derive(Debug)]
enum Step {
    /// Nothing is under way.
    Idle,
    /// The ledger is in debt.
    Resting { until: Moment },
    /// Waits for the own sums, to compare these arcs.
    Summing { token: Token, arcs: Vec<Arc> },
    /// Waits for the fellow.
    Asking { question: Question, sums: SlotSums },
    /// Lets pass what is under way.
    Settling { until: Moment },
    /// Lists an own slot that differs.
    Listing { listing: Listing, parts: Parts },
    /// Reads records for the fellow.
    Reading { token: Token },
    /// Waits for merges.
    Merging,
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

impl Walk {
    /// Begins an exchange. `missed` are slots of which it is known that something was not delivered; they come first.
    pub(super) fn begin(
        fellow: NodeId,
        common: Shared<Common>,
        salt: Salt,
        missed: BTreeSet<Slot>,
        means: &mut Means<'_>,
    ) -> (Walk, Option<End>) {
        let queue: VecDeque<Slot> = missed.into_iter().filter(|slot| common.has(*slot)).collect();
        let mut walk = Walk {
            fellow,
            salt,
            step: Step::Idle,
            frontier: vec![Arc::CIRCLE],
            suspects: BTreeSet::new(),
            is_mending: !queue.is_empty(),
            queue,
            common,
            differing: VecDeque::new(),
            offers: VecDeque::new(),
            offered: BTreeMap::new(),
            received: BTreeSet::new(),
            merges: BTreeMap::new(),
            push: VecDeque::new(),
            found: BTreeSet::new(),
            stalls: 0,
            tally: Tally::default(),
        };
        let end = walk.advance(means);
        (walk, end)
    }

    /// With whom.
    pub(super) fn fellow(&self) -> NodeId {
        self.fellow
    }

    /// Whether it has come so far that records may be sent: then this node does not serve another exchange.
    pub(super) fn is_mending(&self) -> bool {
        self.is_mending
    }

    /// Whether that is what comes next.
    pub(super) fn begins_to_mend(&self, now: Moment) -> bool {
        matches!(self.step, Step::Settling { until } if until <= now)
    }

    /// How many records will still have to be sent, about: as many for each slot as it was so far.
    pub(super) fn debt_keys(&self) -> u64 {
        let slots = (self.queue.len() + self.differing.len()) as u64;
        let per_slot = self.tally.moved.checked_div(self.tally.mended).unwrap_or(1).max(1);
        slots * per_slot + self.push.len() as u64
    }

    /// The bytes of those, about: as many for each record as it was so far.
    pub(super) fn debt_bytes(&self) -> u64 {
        let per_record = self.tally.bytes.checked_div(self.tally.moved).unwrap_or(0);
        self.debt_keys() * per_record
    }

    /// Slots in which the two differed when they were last compared, and those that are known to have missed something and
    /// are still to be compared.
    pub(super) fn dirty(&self) -> impl Iterator<Item = Slot> {
        self.found.iter().chain(&self.queue).copied()
    }

    /// When to call [`on_deadline`](Walk::on_deadline).
    pub(super) fn due(&self) -> Moment {
        match &self.step {
            Step::Resting { until } | Step::Settling { until } => *until,
            Step::Asking { question, .. } => question.again_at,
            _ => Moment::NEVER,
        }
    }

    /// The time of [`due`](Walk::due) may have come.
    pub(super) fn on_deadline(&mut self, means: &mut Means<'_>) -> Option<End> {
        let due = self.due();
        if means.now < due {
            return None;
        }
        match &mut self.step {
            Step::Resting { .. } => {
                means.ledger.woken(means.now, due);
                self.advance(means)
            }
            Step::Settling { .. } => {
                self.is_mending = true;
                self.queue.extend(std::mem::take(&mut self.suspects));
                self.advance(means)
            }
            Step::Asking { question, .. } => {
                if question.tries >= TRIES_MAX {
                    return Some(End::Failed);
                }
                question.tries += 1;
                question.pause *= 2;
                question.again_at = means.now + question.pause;
                let message = question.message.clone();
                means.send(self.fellow, message);
                None
            }
            _ => None,
        }
    }

    /// Does what is next: what is nearest to its end comes first, so that little has to be remembered.
    fn advance(&mut self, means: &mut Means<'_>) -> Option<End> {
        let open = means.ledger.opens_at(means.now);
        if open > means.now {
            self.step = Step::Resting { until: open };
            return None;
        }
        if !self.push.is_empty() {
            self.step = Step::Reading { token: means.read(&self.push) };
        } else if !self.merges.is_empty() {
            self.step = Step::Merging;
        } else if let Some(parts) = self.differing.pop_front() {
            let mut listing = Listing::new(parts.arc.slots().0);
            listing.ask(means);
            self.step = Step::Listing { listing, parts };
        } else if !self.offers.is_empty() {
            self.offer(means);
        } else if !self.queue.is_empty() || !self.frontier.is_empty() {
            return self.sum(means);
        } else if !self.suspects.is_empty() {
            self.step = Step::Settling { until: means.now + SETTLING };
        } else {
            return Some(if self.tally.moved > 0 { End::Moved } else { End::Unmoved });
        }
        None
    }

    /// Asks for the own sums that the next comparison needs.
    fn sum(&mut self, means: &mut Means<'_>) -> Option<End> {
        let arcs: Vec<Arc> = if self.queue.is_empty() {
            let at = self.frontier.len().saturating_sub(ARCS_AT_ONCE);
            self.frontier.split_off(at)
        } else {
            let count = self.queue.len().min(ARCS_AT_ONCE);
            self.queue.drain(..count).map(Arc::of_slot).collect()
        };
        // Arcs were there, or this would not have been called.
        let (first, last) = reach(arcs.iter().copied())?;
        let token = means.ask(Ask::Sums(first, last));
        self.step = Step::Summing { token, arcs };
        None
    }

    /// The own sums have come: asks the fellow for its own.
    pub(super) fn on_sums(&mut self, token: Token, sums: SlotSums, means: &mut Means<'_>) -> Option<End> {
        let arcs = match &mut self.step {
            Step::Summing { token: awaited, arcs } if *awaited == token => std::mem::take(arcs),
            _ => return None,
        };
        let (mut asked, mut keys) = (Vec::new(), 0);
        for arc in arcs {
            if arc.spans_slots() {
                asked.push(arc);
                continue;
            }
            let slot = arc.slots().0;
            // A slot of this node's that is not trusted is neither offered nor refilled here.
            let Some(sum) = sums.get(slot) else { continue };
            if keys < KEYS_AT_ONCE || asked.is_empty() {
                keys += sum.count;
                asked.push(arc);
            } else {
                self.queue.push_front(slot);
            }
        }
        if asked.is_empty() {
            return self.advance(means);
        }
        let marks = asked.iter().map(|arc| (*arc, sums.mark(*arc, &self.common, self.salt))).collect();
        let digest = self.common.digest();
        let salt = self.salt;
        self.question(sums, |id| Exchange::Compare { id, digest, salt, arcs: marks }, means);
        None
    }

    fn question(
        &mut self,
        sums: SlotSums,
        message: impl FnOnce(QuestionId) -> Exchange,
        means: &mut Means<'_>,
    ) {
        let id = QuestionId(means.number());
        let message = message(id);
        let again_at = means.now + PATIENCE;
        means.send(self.fellow, message.clone());
        let question = Question { id, message, again_at, pause: PATIENCE, tries: 1 };
        self.step = Step::Asking { question, sums };
    }

    /// The fellow's marks have come.
    pub(super) fn on_compared(
        &mut self,
        id: QuestionId,
        differing: Vec<Parts>,
        left: Vec<Arc>,
        means: &mut Means<'_>,
    ) -> Option<End> {
        let Step::Asking { question, sums } = &self.step else { return None };
        let Exchange::Compare { arcs, .. } = &question.message else { return None };
        if question.id != id {
            return None;
        }
        let was_asked = |arc: &Arc| arcs.iter().any(|(asked, _)| asked == arc);
        if arcs[..] == [(Arc::CIRCLE, arcs[0].1)] && differing.is_empty() && left.is_empty() {
            // What was thought to be missed has arrived too.
            return Some(if self.tally.moved > 0 { End::Moved } else { End::Equal });
        }
        means.counts.slots_compared += arcs.iter().filter(|(arc, _)| !arc.spans_slots()).count() as u64;
        for parts in differing {
            if !was_asked(&parts.arc) || !parts.marks.len().is_power_of_two() {
                continue;
            }
            if !parts.arc.spans_slots() {
                self.tally.differing += 1;
                self.found.insert(parts.arc.slots().0);
                self.differing.push_back(parts);
                continue;
            }
            let bits = parts.marks.len().ilog2();
            if bits != cut(parts.arc) {
                continue;
            }
            for (part, theirs) in parts.arc.parts(bits).zip(&parts.marks) {
                let is_equal = sums.mark(part, &self.common, self.salt).short() == *theirs;
                if is_equal || !self.common.touches(part) {
                    continue;
                }
                if part.spans_slots() {
                    self.frontier.push(part);
                } else {
                    self.suspects.insert(part.slots().0);
                }
            }
        }
        for arc in left.into_iter().filter(|arc| was_asked(arc)) {
            if arc.spans_slots() {
                self.frontier.push(arc);
            } else {
                self.queue.push_front(arc.slots().0);
            }
        }
        self.step = Step::Idle;
        self.advance(means)
    }

    /// A page of an own slot has come.
    pub(super) fn on_page(&mut self, token: Token, page: Option<Page>, means: &mut Means<'_>) -> Option<End> {
        let Step::Listing { listing, parts } = &mut self.step else { return None };
        match listing.on_page(token, page, means) {
            Gathered::Foreign => None,
            Gathered::More => {
                // The rest of a listing is worth more than the pause that its beginning has earned.
                listing.ask(means);
                None
            }
            Gathered::All(entries) => {
                let (slot, theirs) = (listing.slot(), std::mem::take(&mut parts.marks));
                if let Some(entries) = entries {
                    self.prepare_offers(slot, &theirs, entries);
                }
                self.tally.mended += 1;
                self.step = Step::Idle;
                self.advance(means)
            }
        }
    }

    /// Finds out in which buckets the two differ, and what this node holds there.
    fn prepare_offers(&mut self, slot: Slot, theirs: &[ShortMark], entries: Vec<(Bytes, RecordHash)>) {
        let arc = Arc::of_slot(slot);
        let bits = theirs.len().ilog2();
        let ours = bucket_marks(slot, bits, &entries, self.salt);
        let mut buckets: Vec<Vec<(ShortMark, Bytes)>> = vec![Vec::new(); ours.len()];
        for (key, hash) in entries {
            let at = arc.part_of(bits, &key);
            if ours[at] != theirs[at] {
                buckets[at].push((record_mark(hash, self.salt), key));
            }
        }
        for ((part, marks), at) in arc.parts(bits).zip(buckets).zip(0..) {
            if ours[at] != theirs[at] {
                self.split_offer(part, marks);
            }
        }
    }

    /// An offer has to fit into a message, however little the fellow holds where this node has much.
    fn split_offer(&mut self, arc: Arc, marks: Vec<(ShortMark, Bytes)>) {
        if marks.len() <= OFFERED_AT_ONCE || arc.parts(1).len() < 2 {
            self.offers.push_back((arc, marks));
            return;
        }
        let mut halves = [Vec::new(), Vec::new()];
        for (mark, key) in marks {
            halves[arc.part_of(1, &key)].push((mark, key));
        }
        for (half, marks) in arc.parts(1).zip(halves) {
            self.split_offer(half, marks);
        }
    }

    fn offer(&mut self, means: &mut Means<'_>) {
        self.offered.clear();
        self.received.clear();
        let mut arcs = Vec::new();
        while let Some((arc, marks)) = self.offers.pop_front_if(|(_, marks)| {
            arcs.len() < ARCS_AT_ONCE
                && (arcs.is_empty() || self.offered.len() + marks.len() <= OFFERED_AT_ONCE)
        }) {
            arcs.push((arc, marks.iter().map(|(mark, _)| *mark).collect()));
            self.offered.extend(marks);
        }
        let (digest, salt) = (self.common.digest(), self.salt);
        let message = |id| Exchange::Offer { id, digest, salt, arcs };
        self.question(SlotSums::default(), message, means);
    }

    /// A record of the fellow's is on its way into the own store.
    pub(super) fn note_received(&mut self, token: Token, key: Bytes, record: Record, now: Moment) {
        self.tally.moved += 1;
        self.tally.bytes += record.encoded_len() + key.len() as u64;
        self.received.insert(key.clone());
        self.merges.insert(token, (key, record));
        if let Step::Asking { question, .. } = &mut self.step {
            // It is at work on the answer.
            question.again_at = question.again_at.max(now + question.pause);
        }
    }

    /// A record of the fellow's is in the own store: if that made more of it than the fellow has, the fellow is to
    /// have it too.
    pub(super) fn on_merged(&mut self, token: Token, applied: Applied, means: &mut Means<'_>) -> Option<End> {
        let (key, theirs) = self.merges.remove(&token)?;
        if let Applied::Changed { record, .. }
        | Applied::Adopted { record, .. }
        | Applied::Unchanged { record } = applied
            && record != theirs
        {
            self.push.push_back(key);
        }
        match self.step {
            Step::Merging if self.merges.is_empty() || !self.push.is_empty() => self.advance(means),
            _ => None,
        }
    }

    /// All that the offer brought to light has been told.
    pub(super) fn on_answered(
        &mut self,
        id: QuestionId,
        lacking: Vec<ShortMark>,
        left: Vec<Arc>,
        means: &mut Means<'_>,
    ) -> Option<End> {
        let Step::Asking { question, .. } = &self.step else { return None };
        if question.id != id || !matches!(question.message, Exchange::Offer { .. }) {
            return None;
        }
        let has_moved = !self.received.is_empty() || !lacking.is_empty();
        for mark in lacking {
            // Of a record that the fellow holds in another version, the merge shows who lacks what.
            if let Some(key) = self.offered.remove(&mark)
                && !self.received.contains(&key)
            {
                self.push.push_back(key);
            }
        }
        self.stalls = if has_moved || left.is_empty() { 0 } else { self.stalls + 1 };
        if self.stalls > STALLS_MAX {
            return Some(End::Failed);
        }
        let slots: BTreeSet<Slot> = left.into_iter().map(|arc| arc.slots().0).collect();
        for slot in slots.into_iter().rev().filter(|slot| self.common.has(*slot)) {
            self.queue.push_front(slot);
        }
        self.offered.clear();
        self.step = Step::Idle;
        self.advance(means)
    }

    /// Records for the fellow have been read.
    pub(super) fn on_read(
        &mut self,
        token: Token,
        found: Vec<(Bytes, Stored)>,
        means: &mut Means<'_>,
    ) -> Option<End> {
        match self.step {
            Step::Reading { token: awaited } if awaited == token => {}
            _ => return None,
        }
        self.push.drain(..found.len().min(self.push.len()));
        let items = items(found);
        self.tally.moved += items.len() as u64;
        self.tally.bytes += means.send_records(self.fellow, self.common.digest(), items);
        self.step = Step::Idle;
        self.advance(means)
    }

    /// The fellow does not answer.
    pub(super) fn on_refused(&mut self, id: QuestionId, reason: &ExchangeRefusal) -> Option<End> {
        match &self.step {
            Step::Asking { question, .. } if question.id == id => match reason {
                ExchangeRefusal::Busy => Some(End::Busy),
                ExchangeRefusal::OtherRing(_) => Some(End::Failed),
            },
            _ => None,
        }
    }
}
