//! The fellow's side of an exchange: answers what the leader asks, from what the own store holds now.
//!
//! Nothing is remembered from one question to the next but who asked it, so that a leader may stop, repeat itself or
//! begin anew at any time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc as Shared;
use std::time::Duration;

use bytes::Bytes;

use super::listing::{Gathered, Listing, items};
use super::means::{Ask, Means, Token};
use super::tree::{SlotSums, bucket_bits, bucket_marks, cut, reach, record_mark};
use crate::protocol::causality::RecordHash;
use crate::protocol::id::NodeId;
use crate::protocol::ring::arc::Arc;
use crate::protocol::ring::common::Common;
use crate::protocol::ring::slot::{Slot, key_hash};
use crate::protocol::storage::op::{Page, Stored};
use crate::protocol::time::Moment;
use crate::protocol::wire::exchange::{Exchange, Mark, Parts, QuestionId, Salt, ShortMark};

/// A leader that has not asked anything for so long has gone, and another one may come.
const LEASE: Duration = Duration::from_secs(2);

/// So many keys are listed for one comparison; what is left then is asked for again.
const LISTED_MAX: usize = 4_096;

/// So many bytes of records are sent for one offer; the rest is asked for again.
const SENT_BYTES_MAX: u64 = 8 << 20;

/// A comparison of arcs that are not smaller than slots needs nothing but the sums.
#[derive(Debug)]
pub(super) struct Glance {
    pub(super) leader: NodeId,
    pub(super) id: QuestionId,
    pub(super) salt: Salt,
    pub(super) common: Shared<Common>,
    pub(super) arcs: Vec<(Arc, Mark)>,
}

impl Glance {
    /// Asks for the sums.
    pub(super) fn ask(&self, means: &mut Means<'_>) -> Option<Token> {
        let (first, last) = reach(self.arcs.iter().map(|(arc, _)| *arc))?;
        Some(means.ask(Ask::Sums(first, last)))
    }

    /// The arcs that differ, with the marks of their parts.
    pub(super) fn look(&self, sums: &SlotSums) -> Vec<Parts> {
        let mark = |arc: Arc| sums.mark(arc, &self.common, self.salt);
        let differing = self.arcs.iter().filter(|(arc, theirs)| arc.spans_slots() && mark(*arc) != *theirs);
        let parts = |arc: Arc| arc.parts(cut(arc)).map(|part| mark(part).short()).collect();
        differing.map(|(arc, _)| Parts { arc: *arc, marks: parts(*arc) }).collect()
    }
}

/// The work for one leader. There is one at a time: two that send the same records to this node would do so in vain.
#[derive(Debug)]
pub(super) struct Answering {
    leader: NodeId,
    id: QuestionId,
    salt: Salt,
    common: Shared<Common>,
    heard: Moment,
    resting: Option<Moment>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// All is answered.
    Done,
    /// Waits for the own sums, to find out which of these slots differ.
    Summing { token: Token, arcs: Vec<(Arc, Mark)> },
    /// Lists slots that differ.
    Marking { todo: VecDeque<Slot>, listing: Option<Listing>, differing: Vec<Parts>, listed: usize },
    /// Lists slots of which something was offered.
    Matching { todo: VecDeque<Offered>, listing: Option<Listing>, outcome: Outcome },
    /// Reads what the leader lacks and sends it.
    Sending { token: Option<Token>, sent_bytes: u64, outcome: Outcome },
}

/// What was offered of one slot.
type Offered = (Slot, Vec<(Arc, BTreeSet<ShortMark>)>);

/// What an offer brings to light.
#[derive(Debug, Default)]
struct Outcome {
    /// Held here, and not by the leader.
    send: VecDeque<Bytes>,
    /// Held by the leader, and not here.
    lacking: Vec<ShortMark>,
    /// Not looked at to the end.
    left: BTreeSet<Slot>,
}

impl Answering {
    fn new(
        leader: NodeId,
        id: QuestionId,
        salt: Salt,
        common: Shared<Common>,
        work: Work,
        now: Moment,
    ) -> Answering {
        Answering { leader, id, salt, common, heard: now, resting: None, work }
    }

    /// Begins to compare slots.
    pub(super) fn compare(question: Glance, means: &mut Means<'_>) -> Option<Answering> {
        let token = question.ask(means)?;
        let Glance { leader, id, salt, common, arcs } = question;
        let arcs = arcs.into_iter().filter(|(arc, _)| !arc.spans_slots()).collect();
        Some(Answering::new(leader, id, salt, common, Work::Summing { token, arcs }, means.now))
    }

    /// Begins to match an offer.
    pub(super) fn match_offer(
        leader: NodeId,
        id: QuestionId,
        salt: Salt,
        common: Shared<Common>,
        arcs: Vec<(Arc, Vec<ShortMark>)>,
        means: &mut Means<'_>,
    ) -> Answering {
        let mut by_slot: BTreeMap<Slot, Vec<(Arc, BTreeSet<ShortMark>)>> = BTreeMap::new();
        for (arc, marks) in arcs {
            let slot = arc.slots().0;
            if !arc.spans_slots() && common.has(slot) {
                by_slot.entry(slot).or_default().push((arc, marks.into_iter().collect()));
            }
        }
        let work = Work::Matching {
            todo: by_slot.into_iter().collect(),
            listing: None,
            outcome: Outcome::default(),
        };
        let mut answering = Answering::new(leader, id, salt, common, work, means.now);
        answering.advance(means);
        answering
    }

    /// For whom.
    pub(super) fn leader(&self) -> NodeId {
        self.leader
    }

    /// Whether it is at work on this very question, so that a repetition needs no answer of its own.
    pub(super) fn is_at(&self, leader: NodeId, id: QuestionId) -> bool {
        self.leader == leader && self.id == id && !matches!(self.work, Work::Done)
    }

    /// Whether it was this work that asked the own disk.
    pub(super) fn awaits(&self, token: Token) -> bool {
        match &self.work {
            Work::Done => false,
            Work::Summing { token: awaited, .. } => *awaited == token,
            Work::Marking { listing, .. } | Work::Matching { listing, .. } => {
                listing.as_ref().is_some_and(|listing| listing.awaits(token))
            }
            Work::Sending { token: awaited, .. } => *awaited == Some(token),
        }
    }

    /// Until when the leader may be silent.
    pub(super) fn until(&self) -> Moment {
        self.heard + LEASE
    }

    /// Whether nothing more will come of it.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        matches!(self.work, Work::Done) && now >= self.until()
    }

    /// The leader said something else.
    pub(super) fn heard(&mut self, now: Moment) {
        self.heard = self.heard.max(now);
    }

    /// When to call [`on_deadline`](Answering::on_deadline).
    pub(super) fn due(&self) -> Moment {
        match (&self.work, self.resting) {
            (_, Some(until)) => until,
            (Work::Done, None) => self.until(),
            _ => Moment::NEVER,
        }
    }

    /// The time of [`due`](Answering::due) may have come.
    pub(super) fn on_deadline(&mut self, means: &mut Means<'_>) {
        if let Some(due) = self.resting.take_if(|due| *due <= means.now) {
            means.ledger.woken(means.now, due);
            self.advance(means);
        }
    }

    fn advance(&mut self, means: &mut Means<'_>) {
        self.heard = means.now;
        let open = means.ledger.opens_at(means.now);
        if open > means.now {
            self.resting = Some(open);
            return;
        }
        match &mut self.work {
            Work::Done | Work::Summing { .. } => {}
            Work::Marking { todo, listing, differing, listed } => {
                if listing.is_none() && *listed < LISTED_MAX {
                    *listing = todo.pop_front().map(Listing::new);
                }
                match listing {
                    Some(listing) => listing.ask(means),
                    None => {
                        let left = todo.drain(..).map(Arc::of_slot).collect();
                        let differing = std::mem::take(differing);
                        self.work = Work::Done;
                        means.send(self.leader, Exchange::Compared { id: self.id, differing, left });
                    }
                }
            }
            Work::Matching { todo, listing, outcome } => {
                if listing.is_none() {
                    if outcome.send.len() < LISTED_MAX {
                        *listing = todo.front().map(|(slot, _)| Listing::new(*slot));
                    } else {
                        outcome.left.extend(todo.drain(..).map(|(slot, _)| slot));
                    }
                }
                match listing {
                    Some(listing) => listing.ask(means),
                    None => {
                        let outcome = std::mem::take(outcome);
                        self.work = Work::Sending { token: None, sent_bytes: 0, outcome };
                        self.advance(means);
                    }
                }
            }
            Work::Sending { token, sent_bytes, outcome } => {
                if token.is_some() {
                    return;
                }
                if *sent_bytes >= SENT_BYTES_MAX {
                    outcome.left.extend(outcome.send.drain(..).map(|key| Slot::of_key(&key)));
                }
                if !outcome.send.is_empty() {
                    *token = Some(means.read(&outcome.send));
                    return;
                }
                let lacking = std::mem::take(&mut outcome.lacking);
                let left = outcome.left.iter().map(|slot| Arc::of_slot(*slot)).collect();
                self.work = Work::Done;
                means.send(self.leader, Exchange::Answered { id: self.id, lacking, left });
            }
        }
    }

    /// The own sums have come.
    pub(super) fn on_sums(&mut self, token: Token, sums: &SlotSums, means: &mut Means<'_>) {
        let Work::Summing { token: awaited, arcs } = &self.work else { return };
        if *awaited != token {
            return;
        }
        let differs = |(arc, theirs): &&(Arc, Mark)| {
            let slot = arc.slots().0;
            // Of a slot that is not trusted nothing is said, rather than that it is empty.
            self.common.has(slot)
                && sums.get(slot).is_some()
                && sums.mark(*arc, &self.common, self.salt) != *theirs
        };
        let todo = arcs.iter().filter(differs).map(|(arc, _)| arc.slots().0).collect();
        self.work = Work::Marking { todo, listing: None, differing: Vec::new(), listed: 0 };
        self.advance(means);
    }

    /// A page of an own slot has come.
    pub(super) fn on_page(&mut self, token: Token, page: Option<Page>, means: &mut Means<'_>) {
        let (Work::Marking { listing, .. } | Work::Matching { listing, .. }) = &mut self.work else { return };
        let Some(gathered) = listing.as_mut().map(|listing| listing.on_page(token, page, means)) else {
            return;
        };
        let Gathered::All(entries) = gathered else {
            if gathered == Gathered::More {
                self.advance(means);
            }
            return;
        };
        let slot = listing.take().map(|listing| listing.slot());
        let salt = self.salt;
        match &mut self.work {
            Work::Marking { differing, listed, .. } => {
                if let (Some(slot), Some(entries)) = (slot, entries) {
                    *listed += entries.len();
                    let bits = bucket_bits(entries.len() as u64);
                    let marks = bucket_marks(slot, bits, &entries, salt);
                    differing.push(Parts { arc: Arc::of_slot(slot), marks });
                }
            }
            Work::Matching { todo, outcome, .. } => {
                if let (Some((_, offered)), Some(entries)) = (todo.pop_front(), entries) {
                    outcome.match_slot(offered, &entries, salt);
                }
            }
            _ => {}
        }
        self.advance(means);
    }

    /// Records for the leader have been read.
    pub(super) fn on_read(&mut self, token: Token, found: Vec<(Bytes, Stored)>, means: &mut Means<'_>) {
        let Work::Sending { token: awaited, sent_bytes, outcome } = &mut self.work else { return };
        if *awaited != Some(token) {
            return;
        }
        *awaited = None;
        outcome.send.drain(..found.len().min(outcome.send.len()));
        *sent_bytes += means.send_records(self.leader, self.common.digest(), items(found));
        self.advance(means);
    }
}

impl Outcome {
    fn match_slot(
        &mut self,
        mut offered: Vec<(Arc, BTreeSet<ShortMark>)>,
        entries: &[(Bytes, RecordHash)],
        salt: Salt,
    ) {
        offered.sort_unstable_by_key(|(arc, _)| arc.begin());
        for (key, hash) in entries {
            // The last arc that does not begin behind the key.
            let at = offered.partition_point(|(arc, _)| arc.begin() <= key_hash(key));
            if let Some((arc, marks)) = at.checked_sub(1).and_then(|at| offered.get_mut(at))
                && arc.holds(key)
                && !marks.remove(&record_mark(*hash, salt))
            {
                self.send.push_back(key.clone());
            }
        }
        self.lacking.extend(offered.into_iter().flat_map(|(_, marks)| marks));
    }
}
