//! How a node that starts asks the other members whether its directory is an old copy.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Life, Node};
use crate::protocol::id::NodeId;
use crate::protocol::output::{Notice, Output};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::life::Life as PastLife;

/// Whom a node has asked in this life.
///
/// All members are asked, and not only the other owners of a slot: who has passed a client's request on, or has had a hint
/// kept, counts on what this node acknowledged to it, and may own nothing together with it. A slot votes
///
/// * when all members have believed the node;
/// * once the question was repeated, also when all other owners of the slot have, if those members that are silent are
///   believed to be gone: a dead one costs every start this much, and no more;
/// * after a while, when so many of its owners have that the node is one of a majority with them: more than those cannot
///   be waited for when some are down.
///
/// Whoever was not asked shows what it remembers when it next hears from the node.
#[derive(Debug)]
pub(super) struct Inquiry {
    believed: BTreeSet<NodeId>,
    /// When the first of them were asked: as soon as the ring is known.
    begun: Option<Moment>,
    is_patient: bool,
    /// When those that have not answered are asked again.
    ask_at: Moment,
}

impl Default for Inquiry {
    fn default() -> Inquiry {
        Inquiry { believed: BTreeSet::new(), begun: None, is_patient: true, ask_at: Moment::default() }
    }
}

impl Inquiry {
    /// Whether all others were waited for long enough, and somebody has answered.
    pub(super) fn has_waited(&self) -> bool {
        !self.is_patient && !self.believed.is_empty()
    }
}

impl Node {
    fn is_asking(&self) -> bool {
        self.life == Life::Running && self.view.is_some() && !self.losses.trust.unasked().is_empty()
    }

    /// When something is due here.
    pub(super) fn inquiry_deadline(&self) -> Moment {
        if !self.is_asking() {
            return Moment::NEVER;
        }
        let Inquiry { begun, is_patient, ask_at, .. } = &self.inquiry;
        let patient_until =
            begun.filter(|_| *is_patient).map(|begun| begun + self.config.membership.silence_max);
        patient_until.map_or(*ask_at, |until| until.min(*ask_at))
    }

    pub(super) fn tick_inquiry(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.monotonic < self.inquiry_deadline() {
            return;
        }
        self.look_at_answers(now, out);
        if self.is_asking() && now.monotonic >= self.inquiry.ask_at {
            self.ask_the_members(now, out);
        }
    }

    fn ask_the_members(&mut self, now: Now, out: &mut Vec<Output>) {
        self.inquiry.ask_at = now.monotonic + self.ask_again_after();
        let silent = self.silent_members();
        let mut effects = Vec::new();
        self.membership.ask(silent.into_iter(), &mut effects);
        self.carry_out(now, effects, out);
    }

    fn ask_again_after(&self) -> Duration {
        self.config.membership.period / 2
    }

    /// The other members that have not answered.
    fn silent_members(&self) -> Vec<NodeId> {
        let own = self.id();
        let members = self.membership.entries().map(|entry| entry.id);
        members.filter(|node| *node != own && !self.inquiry.believed.contains(node)).collect()
    }

    /// A member knows nothing that contradicts this directory.
    pub(super) fn on_believed(&mut self, now: Now, by: NodeId, out: &mut Vec<Output>) {
        if self.inquiry.believed.insert(by) {
            self.look_at_answers(now, out);
        }
    }

    /// Opens the slots of which enough others have been asked.
    pub(super) fn look_at_answers(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_asking() {
            return;
        }
        let silent = self.silent_members();
        let asked_twice = self.ask_again_after();
        let (Some(view), own) = (&self.view, self.membership.own().id) else { return };
        let Inquiry { believed, begun, is_patient, .. } = &mut self.inquiry;
        let waited = now.monotonic.since(*begun.get_or_insert(now.monotonic));
        *is_patient &= waited < self.config.membership.silence_max;
        // A member that is believed to be gone may be so for this node alone: what it remembers of others is as old as its
        // directory. By the second question it has heard of the members anew, and from those that are there.
        let nobody_else_is_there = silent.is_empty()
            || (waited >= asked_twice && silent.iter().all(|node| self.membership.is_gone(*node)));
        let unasked = self.losses.trust.unasked();
        let mut asked = SlotSet::new();
        if nobody_else_is_there {
            asked = unasked.clone();
            // What is shared with nobody who still has to answer; slots that this node does not own are among it.
            let silent = self.antientropy.shared().filter(|(node, _)| !believed.contains(node));
            silent.for_each(|(_, shared)| asked.subtract(shared));
        } else if unasked.len() > view.ring().load(own) as usize {
            // Those of others are among them: the first time.
            asked = unasked.clone();
            asked.retain(|slot| !view.slot(slot).is_owner(own));
        }
        if !*is_patient {
            let is_majority = |slot: &Slot| {
                let owners = view.slot(*slot).read_set();
                let others = owners.iter().filter(|node| **node != own);
                others.filter(|node| believed.contains(node)).count() >= owners.len() / 2
            };
            asked.extend(unasked.iter().filter(is_majority));
        }
        if asked.is_empty() {
            return;
        }
        asked.iter().for_each(|slot| self.losses.trust.was_asked(slot));
        if self.losses.trust.unasked().is_empty() {
            let mut effects = Vec::new();
            self.membership.was_believed(&mut effects);
            self.carry_out(now, effects, out);
        }
        self.follow_trust(now, out);
    }

    /// A member remembers what this directory does not hold.
    pub(super) fn on_denied(&mut self, by: NodeId, remembers: PastLife, out: &mut Vec<Output>) {
        if self.life != Life::Stopped {
            self.life = Life::Stopped;
            let claim = self.membership.claim().clone();
            out.push(Output::Notice(Notice::Denied { by, remembers, claim }));
        }
    }
}
