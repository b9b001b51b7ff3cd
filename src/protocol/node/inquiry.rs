//! How a node that starts asks the other owners of its slots whether its directory is an old copy.

use std::collections::BTreeSet;

use super::{Life, Node};
use crate::protocol::id::NodeId;
use crate::protocol::output::{Notice, Output};
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::life::Life as PastLife;

/// Whom a node has asked in this life.
///
/// All other owners are asked. A slot votes when all of them have believed it, or, after a while, when so many have that
/// the node is one of a majority with them: more than those cannot be waited for when some are down. Whoever was not asked
/// shows what it remembers when it next hears from the node.
#[derive(Debug)]
pub(super) struct Inquiry {
    believed: BTreeSet<NodeId>,
    /// Until then all other owners are waited for; set when the ring is known.
    patient_until: Option<Moment>,
    is_patient: bool,
    /// When those that have not answered are asked again.
    ask_at: Moment,
}

impl Default for Inquiry {
    fn default() -> Inquiry {
        Inquiry {
            believed: BTreeSet::new(),
            patient_until: None,
            is_patient: true,
            ask_at: Moment::default(),
        }
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
        let Inquiry { patient_until, is_patient, ask_at, .. } = &self.inquiry;
        patient_until.filter(|_| *is_patient).map_or(*ask_at, |until| until.min(*ask_at))
    }

    pub(super) fn tick_inquiry(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.monotonic < self.inquiry_deadline() {
            return;
        }
        self.look_at_answers(now, out);
        if self.is_asking() && now.monotonic >= self.inquiry.ask_at {
            self.ask_the_owners(now, out);
        }
    }

    fn ask_the_owners(&mut self, now: Now, out: &mut Vec<Output>) {
        self.inquiry.ask_at = now.monotonic + self.config.membership.period / 2;
        let Some(view) = &self.view else { return };
        let (own, unasked) = (self.id(), self.losses.trust.unasked());
        let owners: BTreeSet<NodeId> =
            unasked.iter().flat_map(|slot| view.slot(slot).read_set().iter().copied()).collect();
        let open = owners.into_iter().filter(|node| *node != own && !self.inquiry.believed.contains(node));
        let mut effects = Vec::new();
        self.membership.ask(open, &mut effects);
        self.carry_out(now, effects, out);
    }

    /// A member knows nothing that contradicts this directory.
    pub(super) fn on_believed(&mut self, now: Now, by: NodeId, out: &mut Vec<Output>) {
        if self.inquiry.believed.insert(by) {
            self.look_at_answers(now, out);
        }
    }

    /// Opens the slots of which enough other owners have been asked.
    pub(super) fn look_at_answers(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_asking() {
            return;
        }
        let (Some(view), own) = (&self.view, self.membership.own().id) else { return };
        let Inquiry { believed, patient_until, is_patient, .. } = &mut self.inquiry;
        let until = *patient_until.get_or_insert(now.monotonic + self.config.membership.silence_max);
        *is_patient &= now.monotonic < until;
        // What is shared with nobody who still has to answer; slots that this node does not own are among it.
        let mut asked = self.losses.trust.unasked().clone();
        let silent = self.antientropy.shared().filter(|(node, _)| !believed.contains(node));
        silent.for_each(|(_, shared)| asked.subtract(shared));
        if !*is_patient {
            let is_majority = |slot: &Slot| {
                let owners = view.slot(*slot).read_set();
                let others = owners.iter().filter(|node| **node != own);
                others.filter(|node| believed.contains(node)).count() >= owners.len() / 2
            };
            asked.extend(self.losses.trust.unasked().iter().filter(is_majority));
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
            let claim = *self.membership.claim();
            out.push(Output::Notice(Notice::Denied { by, remembers, claim }));
        }
    }
}
