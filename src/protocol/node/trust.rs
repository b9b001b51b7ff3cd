//! How a node loses the vote for a slot, and gets it back.

use std::time::Duration;

use super::{Life, Node};
use crate::protocol::output::{Notice, Output};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::replication::desk::{Errand, Vigil};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::storage::op::{DiskRequest, DoubtReason, Lsn, MetaKey, Ticket};
use crate::protocol::storage::trust::Trust;
use crate::protocol::time::{Moment, Now};

/// The least time between two raised generations: each one makes every node of the cluster compute its digests anew and
/// begin anew what is under way. Slots that are doubted meanwhile are closed at once and wait for the next one.
const RAISE_PAUSE: Duration = Duration::from_secs(5);

/// How often people are told how far a refill is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What a node knows of its own losses.
#[derive(Debug)]
pub(super) struct Losses {
    pub(super) trust: Trust,
    /// What the generation that is becoming durable speaks for, and which one that is.
    raising: Option<(u32, SlotSet)>,
    /// Before this, no generation is raised.
    raise_from: Moment,
    /// Whether the trust is on its way to the disk.
    is_saving: bool,
    story: Option<Story>,
    /// Whether it was taken note, in this life, that nobody knows who keeps hints.
    are_holders_suspected: bool,
    /// Slots that the disk has mended, and of which that is not durable yet.
    mending: SlotSet,
    /// Records that could not be read and were dropped, since the start of the node.
    pub(super) dropped: u64,
    /// Slots that were doubted, since the start of the node.
    pub(super) doubted: u64,
    /// Slots that were refilled, since the start of the node.
    pub(super) refilled: u64,
}

/// A refill as people are told of it.
#[derive(Clone, Copy, Debug)]
struct Story {
    begun: Moment,
    tell_at: Moment,
    slots: usize,
    /// Of all records that came since the start, how many had come before it began.
    records: u64,
}

impl Losses {
    pub(super) fn new(trust: Trust) -> Losses {
        Losses {
            trust,
            raising: None,
            raise_from: Moment::default(),
            is_saving: false,
            story: None,
            are_holders_suspected: false,
            mending: SlotSet::new(),
            dropped: 0,
            doubted: 0,
            refilled: 0,
        }
    }
}

impl Node {
    /// Which of its slots it may vote for.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.losses.trust
    }

    /// The disk cannot stand for some slots any more.
    pub(super) fn on_doubted(&mut self, now: Now, slots: &[Slot], why: DoubtReason, out: &mut Vec<Output>) {
        let Losses { trust, mending, .. } = &mut self.losses;
        let mut doubt = |slot: Slot| {
            let is_again = mending.remove(slot);
            if is_again {
                trust.doubt_again(slot);
            }
            trust.doubt(slot) || is_again
        };
        let new = slots.iter().filter(|slot| doubt(**slot)).count();
        if new == 0 {
            return;
        }
        self.losses.doubted += new as u64;
        out.push(Output::Notice(Notice::Doubted { slots: new, why }));
        // What it has forgotten it may have written itself. A new actor that is not durable yet has issued nothing.
        #[cfg(test)]
        if planted::is(Planted::ActorKept) {
            self.keep_trust(out);
            return self.follow_trust(now, out);
        }
        if self.author.has_issued() {
            self.forget_actor(out);
        }
        self.keep_trust(out);
        self.follow_trust(now, out);
    }

    /// Keeps what changed of the trust, one write at a time.
    fn keep_trust(&mut self, out: &mut Vec<Output>) {
        if self.losses.is_saving {
            return;
        }
        let Some(bytes) = self.losses.trust.save() else { return };
        self.losses.is_saving = true;
        let entries = vec![(MetaKey::Trust, bytes)];
        self.desk.ask(Errand::Trust, |ticket| DiskRequest::Meta { ticket, entries }, out);
    }

    /// The trust is in the log's next group.
    pub(super) fn on_trust_kept(&mut self, now: Now, lsn: Lsn, out: &mut Vec<Output>) {
        self.losses.is_saving = false;
        self.keep_trust(out);
        self.follow_trust(now, out);
        self.wait(now, lsn, Vigil::Trust, out);
    }

    /// And it is durable. A node is whole when it would be so after a crash, too.
    pub(super) fn on_trust_durable(&mut self, now: Now, out: &mut Vec<Output>) {
        let is_whole = self.losses.trust.voteless().is_empty() && !self.losses.is_saving;
        if let Some(story) = self.losses.story.take_if(|_| is_whole) {
            let records = self.antientropy.refilling().1 - story.records;
            let took = now.monotonic.since(story.begun);
            out.push(Output::Notice(Notice::Whole { records, took }));
        }
    }

    /// Tells the exchanges what there is to refill, and raises the generation if that is due.
    pub(super) fn follow_trust(&mut self, now: Now, out: &mut Vec<Output>) {
        let trust = &self.losses.trust;
        self.antientropy.refill(now.monotonic, trust.withdrawn(), trust.refillable());
        self.tell_of_refill(now, out);
        self.raise_if_due(now, out);
    }

    fn can_raise(&self) -> bool {
        // The withdrawal comes first, in one log: who has heard of the generation may count on it.
        self.life == Life::Running
            && self.view.is_some()
            && self.losses.raising.is_none()
            && !self.losses.is_saving
            && self.losses.trust.is_unsaid()
    }

    /// When the generation has to be raised.
    fn raise_at(&self) -> Moment {
        if self.can_raise() { self.losses.raise_from } else { Moment::NEVER }
    }

    fn raise_if_due(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.can_raise() || now.monotonic < self.losses.raise_from {
            return;
        }
        self.losses.raise_from = now.monotonic + RAISE_PAUSE;
        let mut effects = Vec::new();
        let generation = self.membership.forget(now, &mut effects);
        self.losses.raising = Some((generation, self.losses.trust.unsaid()));
        self.carry_out(now, effects, out);
    }

    /// The ring is another one, perhaps because this node's own raised generation is in force now.
    pub(super) fn on_generation(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(view) = &self.view else { return };
        let own = self.id();
        self.losses.trust.release(|slot| view.slot(slot).is_owner(own));
        let is_disk_lost = !self.losses.trust.unfenced().is_empty();
        if is_disk_lost && !std::mem::replace(&mut self.losses.are_holders_suspected, true) {
            // The register of hints went with the disk. As long as a slot is unfenced a crash brings us here again, so
            // this needs to be no more durable than what follows it in the log.
            let entries = vec![self.register.lost(self.losses.trust.unfenced(), view)];
            self.desk.ask(Errand::StrikeOff, |ticket| DiskRequest::Meta { ticket, entries }, out);
        }
        self.accept_loss();
        let generation = self.membership.settled_amnesia();
        if let Some((_, slots)) = self.losses.raising.take_if(|(raised, _)| *raised <= generation) {
            for slot in self.losses.trust.said(&slots) {
                self.desk.ask(Errand::Mend(slot), |ticket| DiskRequest::Mend { ticket, slot }, out);
            }
        }
        self.keep_trust(out);
        self.follow_trust(now, out);
    }

    /// What could not be read in a slot is dropped.
    pub(super) fn on_mended(
        &mut self,
        now: Now,
        ticket: Ticket,
        lsn: Lsn,
        dropped: u64,
        out: &mut Vec<Output>,
    ) {
        self.losses.dropped += dropped;
        if let Some(Errand::Mend(slot)) = self.desk.fetch_errand(ticket) {
            self.losses.mending.insert(slot);
            self.wait(now, lsn, Vigil::Mended(slot), out);
        }
    }

    /// And that is durable.
    pub(super) fn on_mended_durably(&mut self, now: Now, slot: Slot, out: &mut Vec<Output>) {
        if self.losses.mending.remove(slot) {
            self.losses.trust.mended(slot);
        }
        // What was lost may have been a hint: in a slot of others there is nothing to refill.
        if let Some(view) = &self.view {
            let own = self.id();
            self.losses.trust.release(|slot| view.slot(slot).is_owner(own));
        }
        self.accept_loss();
        #[cfg(test)]
        if planted::is(Planted::VoteBeforeTheRefill) {
            self.losses.trust.refilled(slot);
        }
        self.keep_trust(out);
        self.follow_trust(now, out);
    }

    /// A slot with a single owner can be refilled from nowhere. If the operator says so, what is left has to do.
    fn accept_loss(&mut self) -> bool {
        let Some(view) = self.view.as_ref().filter(|_| self.config.accept_loss) else { return false };
        let trust = &mut self.losses.trust;
        let is_alone = |slot: &Slot| view.slot(*slot).read_set().len() == 1;
        let alone: Vec<Slot> = trust.voteless().iter().filter(is_alone).collect();
        alone.into_iter().filter(|slot| trust.refilled(*slot)).count() > 0
    }

    /// The exchanges have got on with a refill.
    pub(super) fn on_refilled(
        &mut self,
        now: Now,
        fenced: Vec<Slot>,
        refilled: Vec<Slot>,
        out: &mut Vec<Output>,
    ) {
        #[cfg(test)]
        let refilled = if planted::is(Planted::VoteBeforeTheRefill) { fenced.clone() } else { refilled };
        for slot in fenced.iter().chain(&refilled) {
            self.losses.trust.fenced(*slot);
        }
        let whole = refilled.iter().filter(|slot| self.losses.trust.refilled(**slot)).count();
        self.losses.refilled += whole as u64;
        self.keep_trust(out);
        self.follow_trust(now, out);
    }

    /// Tells people how long refills get on, and when they are done.
    fn tell_of_refill(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.view.is_none() {
            return;
        }
        let left = self.losses.trust.voteless().len();
        let (_, records) = self.antientropy.refilling();
        let at = now.monotonic;
        let Some(story) = &mut self.losses.story else {
            if left > 0 {
                self.losses.story = Some(Story { begun: at, tell_at: at + TELL_EVERY, slots: left, records });
            }
            return;
        };
        story.slots = story.slots.max(left);
        let (span, records) = (at.since(story.begun), records - story.records);
        if at >= story.tell_at {
            story.tell_at = at + TELL_EVERY;
            let done = (story.slots - left) as u64;
            // By the slots, which are of nearly equal size.
            let ms = (span.as_millis() as u64).saturating_mul(left as u64).checked_div(done);
            let left_for = ms.map(Duration::from_millis);
            let per_second = records * 1_000 / (span.as_millis() as u64).max(1);
            out.push(Output::Notice(Notice::Refilling { slots_left: left, records, per_second, left_for }));
        }
    }

    /// When something is due here.
    pub(super) fn losses_deadline(&self) -> Moment {
        let tell_at = self.losses.story.map_or(Moment::NEVER, |story| story.tell_at);
        self.raise_at().min(tell_at)
    }

    pub(super) fn tick_losses(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.monotonic >= self.losses_deadline() {
            self.tell_of_refill(now, out);
            self.raise_if_due(now, out);
        }
    }

    /// Somebody else lives under this identity who came later: this process has no say any more.
    pub(super) fn on_fenced(&mut self, generation: u32, out: &mut Vec<Output>) {
        if self.life != Life::Stopped {
            self.life = Life::Stopped;
            out.push(Output::Notice(Notice::Fenced { generation }));
        }
    }
}
