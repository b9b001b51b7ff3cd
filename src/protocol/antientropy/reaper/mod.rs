//! Deletions that are safe to forget: rounds of reaping, which compact contexts on the way.
//!
//! ```text
//! writes, sweep ─▶ candidates ─▶ Round (driver: the first owner of the slot)
//!                                 Looking ─▶ Proposed ───────────▶ Committing ─▶ over
//!                                 own store   all owners raise      all owners
//!                                             and compare           remove
//!                                                │ Propose  ▲ Agreed   │ Commit
//!                                                ▼          │          ▼
//!                                             Pledge (every owner, the driver among them)
//! ```
//!
//! A tombstone must be kept until no older copy of what it deleted can come back. No timer can promise that; a *round* can:
//! every owner of the slot raises its epoch, durably, and tells which of the tombstones it held byte for byte before it did.
//! What all of them held is removed. From then on a message that was read from a store before the round meets an absent key
//! and is refused, so late repairs, hints and retransmissions resurrect nothing ([`Age`](crate::protocol::causality::Age)).
//!
//! A round needs *all* owners and no registered hint. One that is away for a month keeps the tombstones of its slots for a
//! month; that is the price.

mod pledge;
mod round;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use self::pledge::Pledge;
use self::round::{Round, Step};
use self::sweep::Sweep;
use super::Fellows;
use crate::protocol::causality::{Applied, Compact, Record, RecordHash};
use crate::protocol::config::ReapConfig;
use crate::protocol::id::{Actor, NodeId, ReapEpoch};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::RingView;
use crate::protocol::storage::epochs::{Epochs, Standing};
use crate::protocol::storage::op::{DiskReply, MetaKey, Stored};
use crate::protocol::time::{Moment, WallTime};
use crate::protocol::wire::reap::{Obstacle, Reap, ReapCause, ReapWait};

/// So many rounds are under way at once, so that one sync of the log serves several.
const ROUNDS_MAX: usize = 8;

/// The pause after the first round of a slot that came to nothing; doubles up to the longest.
const RETRY: Duration = Duration::from_secs(5);

/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(120);

/// The pause while an owner is away.
const LOOK: Duration = Duration::from_secs(1);

/// A context with at most so many entries that could go is left alone.
const SPARE_ENTRIES: usize = 8;

/// What the reaper may use of its node, for the time of one input.
pub struct Ground<'a> {
    /// The time.
    pub now: Moment,
    /// The time by which operations are dated.
    pub node_time: WallTime,
    /// Who owns what.
    pub view: &'a RingView,
    /// Where the slots of this node stand.
    pub epochs: &'a mut Epochs,
    /// The other members.
    pub fellows: &'a dyn Fellows,
    /// This node's actor.
    pub writing: Actor,
    /// When the node's account of repairs allows the next round to begin.
    pub opens_at: Moment,
    /// What stands in the way of a round here.
    pub obstacle: &'a dyn Fn(Slot) -> Option<Obstacle>,
    /// Where effects go.
    pub out: &'a mut Vec<Effect>,
}

/// What a reaper wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Reap,
    },
    /// Ask the own disk; the reply comes back with the token.
    Disk {
        /// Names the question.
        token: u64,
        /// The question.
        ask: Ask,
    },
}

/// What a reaper asks of the own disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Count and sum of slots.
    Sums(Slot, Slot),
    /// The keys of a slot, behind this one.
    List(Slot, Option<Bytes>),
    /// The records of keys.
    Read(Vec<Bytes>),
    /// Write down how a slot stands. Told of when it is durable.
    Stand(Vec<(MetaKey, Option<Bytes>)>),
    /// Remove a record if it has this hash.
    Remove(Slot, Bytes, RecordHash),
    /// Compact a record.
    Compact(Slot, Bytes, Compact),
}

/// What has been done since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rounds that this node drove.
    pub rounds: u64,
    /// Of those, how many all owners agreed to.
    pub agreed: u64,
    /// Tombstones removed here.
    pub reaped: u64,
    /// Contexts compacted here.
    pub compacted: u64,
}

/// The rounds of one node: those that it drives and those that it takes part in.
#[derive(Debug)]
pub struct Reaper {
    own: NodeId,
    config: ReapConfig,
    candidates: BTreeMap<Slot, Candidate>,
    due: BTreeSet<(Moment, Slot)>,
    rounds: BTreeMap<Slot, Round>,
    pledges: BTreeMap<Slot, Pledge>,
    asked: BTreeMap<u64, Asked>,
    sweep: Sweep,
    /// Before this the account of repairs allows no further round.
    opens_at: Moment,
    next: u64,
    counts: Counts,
}

/// A slot that holds something that may be forgotten.
#[derive(Clone, Debug)]
struct Candidate {
    due: Moment,
    pause: Duration,
    /// Why there has been no round, or why the last one came to nothing.
    why: ReapCause,
}

/// Who waits for the disk.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Sums,
    Look(Slot),
    Pledge(Slot),
    Standing(Slot, Standing),
    Removal,
}

impl Reaper {
    /// Nothing is known to be worth reaping. The number is drawn at random.
    #[must_use]
    pub fn new(own: NodeId, config: &ReapConfig, number: u64) -> Reaper {
        Reaper {
            own,
            config: config.clone(),
            candidates: BTreeMap::new(),
            due: BTreeSet::new(),
            rounds: BTreeMap::new(),
            pledges: BTreeMap::new(),
            asked: BTreeMap::new(),
            sweep: Sweep::new(config.sweep, number),
            opens_at: Moment::default(),
            next: number,
            counts: Counts::default(),
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many slots wait for a round.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.candidates.len()
    }

    /// What the rounds of a slot wait for that this node drives.
    #[must_use]
    pub fn wait(&self, slot: Slot, now: Moment) -> ReapWait {
        let (cause, again_at) = match self.candidates.get(&slot) {
            _ if self.rounds.contains_key(&slot) => (ReapCause::UnderWay, now),
            Some(candidate) => (candidate.why.clone(), candidate.due),
            None => (ReapCause::Unnoticed, self.sweep.comes_to(slot)),
        };
        let again_in = again_at.since(now).as_millis();
        ReapWait { cause, again_in_ms: u64::try_from(again_in).unwrap_or(u64::MAX) }
    }

    /// There is a ring: the sweep begins.
    pub fn begin(&mut self, now: Moment) {
        self.sweep.begin(now);
    }

    /// Begins nothing any more.
    pub fn halt(&mut self) {
        let counts = self.counts;
        *self = Reaper { counts, ..Reaper::new(self.own, &self.config, self.next) };
    }

    /// When to call [`tick`](Reaper::tick) at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        let rounds = self.rounds.values().map(Round::due).min().unwrap_or(Moment::NEVER);
        let next = match self.due.first() {
            Some((due, _)) if self.rounds.len() < ROUNDS_MAX => *due,
            _ => Moment::NEVER,
        };
        rounds.min(next.min(self.sweep.due()).max(self.opens_at))
    }

    /// A record of this node was changed to this.
    pub fn note(&mut self, slot: Slot, record: &Record, ground: &Ground<'_>) {
        let spared = SPARE_ENTRIES + ground.view.slot(slot).read_set().len();
        let is_long = record.context().len() > spared;
        if !(record.is_tombstone() || is_long) || !self.is_driver(slot, ground) {
            return;
        }
        // A context is not made to wait for the end of all writing: an owner that is restarted again and again would
        // have forgotten by then that it wanted to see to it.
        let is_due = !record.is_tombstone()
            && record.compactable(&[], ground.node_time.minus(self.config.rest)) > spared;
        let wait = if is_due { Duration::ZERO } else { ripe_in(record, self.config.rest, ground.node_time) };
        if !self.candidates.contains_key(&slot) && !self.rounds.contains_key(&slot) {
            self.schedule(slot, ground.now + wait, RETRY, ReapCause::Young);
        }
    }

    /// Of all owners the first one drives, so that they do not get in each other's way. Nothing rests on it being one.
    fn is_driver(&self, slot: Slot, ground: &Ground<'_>) -> bool {
        ground.view.slot(slot).read_set().first() == Some(&self.own)
    }

    fn schedule(&mut self, slot: Slot, due: Moment, pause: Duration, why: ReapCause) {
        let candidate = Candidate { due, pause, why };
        if let Some(before) = self.candidates.insert(slot, candidate) {
            self.due.remove(&(before.due, slot));
        }
        self.due.insert((due, slot));
    }

    fn put_off(&mut self, slot: Slot, why: ReapCause, now: Moment) {
        let pause = self.candidates.get(&slot).map_or(RETRY, |candidate| candidate.pause);
        let (wait, pause) = match why {
            // Looking again costs nothing, and such slots are often many.
            ReapCause::Unreachable(_) => (LOOK, RETRY),
            _ => (pause, (pause * 2).min(RETRY_MAX)),
        };
        self.schedule(slot, now + wait, pause, why);
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(candidate) = self.candidates.remove(&slot) {
            self.due.remove(&(candidate.due, slot));
        }
    }

    /// The time of [`next_deadline`](Reaper::next_deadline) may have come.
    pub fn tick(&mut self, ground: &mut Ground<'_>) {
        let late: Vec<Slot> = self
            .rounds
            .iter()
            .filter(|(_, round)| ground.now >= round.due())
            .map(|(slot, _)| *slot)
            .collect();
        for slot in late {
            if let Some(round) = self.rounds.get_mut(&slot) {
                let step = round.on_deadline(ground.now);
                self.step(slot, step, ground);
            }
        }
        self.opens_at = ground.opens_at;
        if self.opens_at > ground.now {
            return;
        }
        while self.rounds.len() < ROUNDS_MAX {
            let Some((_, slot)) = self.due.first().copied().filter(|(due, _)| *due <= ground.now) else {
                break;
            };
            self.attempt(slot, ground);
        }
        if ground.now >= self.sweep.due() {
            let (first, last) = self.sweep.step(ground.now);
            self.ask(Asked::Sums, Ask::Sums(first, last), ground.out);
        }
    }

    /// Begins a round of a slot, unless it is plain that it would come to nothing.
    fn attempt(&mut self, slot: Slot, ground: &mut Ground<'_>) {
        if !self.is_driver(slot, ground) {
            return self.forget(slot);
        }
        let view = ground.view.slot(slot);
        let away =
            view.read_set().iter().find(|node| **node != self.own && ground.fellows.reach(**node).is_none());
        #[cfg(test)]
        let away = away.filter(|_| !planted::is(Planted::ReapWithoutAll));
        let why = match ((ground.obstacle)(slot), away) {
            (Some(obstacle), _) => Some(ReapCause::Declined(self.own, obstacle)),
            (None, Some(node)) => Some(ReapCause::Unreachable(*node)),
            (None, None) => None,
        };
        if let Some(why) = why {
            return self.put_off(slot, why, ground.now);
        }
        if let Some(candidate) = self.candidates.get(&slot) {
            self.due.remove(&(candidate.due, slot));
        }
        let round = Round::new(slot, view.read_set().to_vec(), view.digest, self.config.rest, ground);
        self.rounds.insert(slot, round);
        self.ask(Asked::Look(slot), Ask::List(slot, None), ground.out);
    }

    /// A round has come so far.
    fn step(&mut self, slot: Slot, step: Step, ground: &mut Ground<'_>) {
        match step {
            Step::Wait => {}
            Step::Look(ask) => self.ask(Asked::Look(slot), ask, ground.out),
            Step::Propose => {
                let Some(round) = self.rounds.get_mut(&slot) else { return };
                let newest = ground.epochs.asked(slot).raised.0.max(round.seen().0);
                self.counts.rounds += 1;
                self.next += 1;
                let message = round.propose(ReapEpoch(newest.saturating_add(1)), self.next, ground.now);
                self.handle(self.own, message, ground);
            }
            Step::Commit(message) => {
                self.counts.agreed += 1;
                let Some(round) = self.rounds.get(&slot) else { return };
                for node in round.waiting_for() {
                    if node != self.own {
                        ground.out.push(Effect::Send { to: node, message: message.clone() });
                    }
                }
                self.handle(self.own, message, ground);
            }
            Step::Repeat(message) => {
                let Some(round) = self.rounds.get(&slot) else { return };
                for node in round.waiting_for().filter(|node| *node != self.own) {
                    ground.out.push(Effect::Send { to: node, message: message.clone() });
                }
            }
            // There may be more of it, and what was written meanwhile was not noted.
            Step::Over(Some(Duration::ZERO)) => {
                self.rounds.remove(&slot);
                self.schedule(slot, ground.now, RETRY, ReapCause::Due);
            }
            Step::Over(Some(wait)) => {
                self.rounds.remove(&slot);
                self.schedule(slot, ground.now + wait, RETRY, ReapCause::Young);
            }
            Step::Over(None) => {
                self.rounds.remove(&slot);
                self.forget(slot);
            }
            Step::Failed(why) => {
                self.rounds.remove(&slot);
                self.put_off(slot, why, ground.now);
            }
        }
    }

    /// An owner said something.
    pub fn handle(&mut self, from: NodeId, message: Reap, ground: &mut Ground<'_>) {
        match message {
            Reap::Propose { slot, digest, epoch, proposal, keys } => {
                let view = ground.view.slot(slot);
                let is_agreed = view.digest == digest && view.is_owner(self.own) && view.is_owner(from);
                let standing = ground.epochs.asked(slot);
                let why = if !is_agreed {
                    let owners = view.read_set().iter();
                    Some(Obstacle::OtherRing(owners.filter_map(|node| ground.fellows.entry(*node)).collect()))
                } else if epoch <= standing.raised {
                    Some(Obstacle::Raised(standing.raised))
                } else {
                    (ground.obstacle)(slot)
                };
                if let Some(why) = why {
                    return self.answer(from, Reap::Declined { slot, epoch, proposal, why }, ground);
                }
                // What is read before the epoch is raised is what was held under the old one: the disk executes in order.
                let names = keys.iter().map(|(key, _)| key.clone()).collect();
                self.pledges.insert(slot, Pledge::new(from, (epoch, proposal), keys, ground.writing));
                self.ask(Asked::Pledge(slot), Ask::Read(names), ground.out);
                self.stand(slot, Standing { raised: epoch, ..standing }, ground);
            }
            Reap::Commit { slot, digest, epoch, removed, compacted, writing, marks_before } => {
                let view = ground.view.slot(slot);
                if view.digest != digest || !view.is_owner(self.own) || !view.is_owner(from) {
                    return;
                }
                let standing = ground.epochs.asked(slot);
                if epoch <= ground.epochs.durable(slot).committed {
                    return self.answer(from, Reap::Done { slot, epoch }, ground);
                }
                // Who never agreed cannot have held what all agreed on.
                if epoch <= standing.committed || epoch > standing.raised {
                    return;
                }
                // The epoch first: a removal without it would let late messages in.
                let forgotten = standing.forgotten.max(marks_before);
                self.stand(slot, Standing { committed: epoch, forgotten, ..standing }, ground);
                for (key, hash) in removed {
                    self.ask(Asked::Removal, Ask::Remove(slot, key, hash), ground.out);
                }
                for (key, certified) in compacted {
                    let compact = Compact { certified, epoch, writing: writing.clone(), marks_before };
                    self.ask(Asked::Removal, Ask::Compact(slot, key, compact), ground.out);
                }
            }
            Reap::Agreed { slot, epoch, proposal, equal, writing } => {
                let Some(round) = self.rounds.get_mut(&slot) else { return };
                if from == self.own
                    && let Some(message) = round.take_proposal((epoch, proposal))
                {
                    let ask = |to| Effect::Send { to, message: message.clone() };
                    ground.out.extend(round.others(self.own).map(ask));
                }
                let step = round.on_agreed(from, (epoch, proposal), &equal, writing, ground.now);
                self.step(slot, step, ground);
            }
            Reap::Declined { slot, epoch, proposal, why } => {
                let Some(round) = self.rounds.get_mut(&slot) else { return };
                let step = round.on_declined(from, (epoch, proposal), why);
                self.step(slot, step, ground);
            }
            Reap::Done { slot, epoch } => {
                let Some(round) = self.rounds.get_mut(&slot) else { return };
                let step = round.on_done(from, epoch);
                self.step(slot, step, ground);
            }
            // Questions of people: the node answers them.
            Reap::Ask { .. } | Reap::Told { .. } => {}
        }
    }

    /// Another owner tells how slots stand that this node refills: what they have forgotten this node must not take from
    /// old messages, before it holds anything of them.
    pub fn adopt(&mut self, standings: &[(Slot, Standing)], ground: &mut Ground<'_>) {
        for (slot, theirs) in standings {
            let own = ground.epochs.asked(*slot);
            let joined = Standing {
                raised: own.raised.max(theirs.raised),
                committed: own.committed.max(theirs.committed),
                forgotten: own.forgotten.max(theirs.forgotten),
            };
            if joined != own {
                self.stand(*slot, joined, ground);
            }
        }
    }

    fn answer(&mut self, to: NodeId, message: Reap, ground: &mut Ground<'_>) {
        if to == self.own {
            self.handle(to, message, ground);
        } else {
            ground.out.push(Effect::Send { to, message });
        }
    }

    fn stand(&mut self, slot: Slot, standing: Standing, ground: &mut Ground<'_>) {
        let line = ground.epochs.ask(slot, standing);
        self.ask(Asked::Standing(slot, standing), Ask::Stand(vec![line]), ground.out);
    }

    fn ask(&mut self, who: Asked, ask: Ask, out: &mut Vec<Effect>) {
        self.next += 1;
        self.asked.insert(self.next, who);
        out.push(Effect::Disk { token: self.next, ask });
    }

    /// The own disk answered a question.
    pub fn on_disk(&mut self, token: u64, reply: DiskReply, ground: &mut Ground<'_>) {
        let Some(asked) = self.asked.remove(&token) else { return };
        match (asked, reply) {
            (Asked::Sums, DiskReply::Sums { sums, .. }) => {
                for (slot, sum) in sums {
                    let is_new = !self.candidates.contains_key(&slot) && !self.rounds.contains_key(&slot);
                    if sum.is_some_and(|sum| sum.count > 0) && is_new && self.is_driver(slot, ground) {
                        self.schedule(slot, ground.now, RETRY, ReapCause::Due);
                    }
                }
            }
            (Asked::Look(slot), DiskReply::Listed { page, .. }) => {
                let Some(round) = self.rounds.get_mut(&slot) else { return };
                let step = round.on_page(page);
                self.step(slot, step, ground);
            }
            (Asked::Look(slot), DiskReply::ReadMany { found, .. }) => {
                let Some(round) = self.rounds.get_mut(&slot) else { return };
                let step = round.on_read(found, ground.node_time);
                self.step(slot, step, ground);
            }
            (Asked::Pledge(slot), DiskReply::ReadMany { found, .. }) => {
                if let Some(pledge) = self.pledges.get_mut(&slot) {
                    pledge.compare(&found);
                }
            }
            (Asked::Removal, DiskReply::Removed { is_gone, .. }) => self.counts.reaped += u64::from(is_gone),
            (Asked::Removal, DiskReply::Applied { applied, .. }) => {
                self.counts.compacted += u64::from(matches!(applied, Applied::Changed { .. }));
            }
            _ => {}
        }
    }

    /// How a slot stands is durable.
    pub fn on_durable(&mut self, token: u64, ground: &mut Ground<'_>) {
        let Some(Asked::Standing(slot, standing)) = self.asked.remove(&token) else { return };
        let before = ground.epochs.durable(slot);
        ground.epochs.became_durable(slot, standing);
        if standing.committed > before.committed {
            let driver = ground.view.slot(slot).read_set().first().copied();
            if let Some(driver) = driver {
                self.answer(driver, Reap::Done { slot, epoch: standing.committed }, ground);
            }
        }
        if let Some(pledge) = self.pledges.remove_if(&slot, |pledge| pledge.epoch() <= standing.raised) {
            let (driver, agreed) = pledge.agree(slot);
            self.answer(driver, agreed, ground);
        }
    }
}

/// How long until all operations on the record are as old as they have to be.
fn ripe_in(record: &Record, rest: Duration, node_time: WallTime) -> Duration {
    let ripe = record.operations().newest().map_or(0, |started| started.plus(rest).0.saturating_add(1));
    Duration::from_millis(ripe.saturating_sub(node_time.0))
}

/// Removes an entry that fits.
trait RemoveIf<K, V> {
    fn remove_if(&mut self, key: &K, fits: impl FnOnce(&V) -> bool) -> Option<V>;
}

impl<K: Ord, V> RemoveIf<K, V> for BTreeMap<K, V> {
    fn remove_if(&mut self, key: &K, fits: impl FnOnce(&V) -> bool) -> Option<V> {
        if self.get(key).is_some_and(fits) { self.remove(key) } else { None }
    }
}

/// What a record that was read is to a round.
fn held(stored: &Stored, key: &Bytes) -> Option<RecordHash> {
    match stored {
        Stored::Present(record) => Some(record.hash(key)),
        Stored::Absent | Stored::Lost => None,
    }
}
