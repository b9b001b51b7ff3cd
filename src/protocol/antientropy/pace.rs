//! Whose turn it is: the fellow owners of a node, and when it compares itself with each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc as Shared;
use std::time::Duration;

use super::walk::End;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::ring::common::Common;
use crate::protocol::ring::slot::Slot;
use crate::protocol::rng::Rng;
use crate::protocol::time::Moment;

/// After records were moved, the next look follows after this: at what came too late for the last one.
const QUICK: Duration = Duration::from_secs(1);

/// How soon after a fellow has come back it is looked at. Its own news has to get around first.
const RETURNED: (u64, u64) = (100, 400);

/// When a fellow that was busy is asked again, in milliseconds.
const BUSY: (u64, u64) = (300, 1_200);

/// The pause after the first exchange in a row that failed; doubles up to the cycle.
const RETRY: Duration = Duration::from_secs(1);

/// So many slots with missed writes are remembered for each fellow. Beyond them the marks have to tell.
const MISSED_MAX: usize = 1_024;

/// So many of them are named to a leader at once.
pub(super) const NUDGED_MAX: usize = 256;

/// The fellow owners of a node, and when it is whose turn.
#[derive(Debug)]
pub(super) struct Pace {
    fellows: BTreeMap<NodeId, Fellow>,
    cycle: Duration,
}

#[derive(Debug)]
struct Fellow {
    common: Shared<Common>,
    /// Whether this node leads. Of two nodes the one with the lower id does.
    is_led: bool,
    due: Moment,
    retry: Duration,
    /// The life in which it can be reached now.
    seen: Option<Incarnation>,
    /// Slots of which it has missed something, or this node has.
    missed: BTreeSet<Slot>,
    /// How many slots differed in the last exchange.
    differing: u64,
    /// Slots that are not known to be equal again: those that differed in the last exchange, or were left over by one that failed.
    unequal: BTreeSet<Slot>,
}

impl Pace {
    pub(super) fn new(cycle: Duration) -> Pace {
        Pace { fellows: BTreeMap::new(), cycle }
    }

    /// The slots that are shared with others have changed, or may have. Returns those with whom they have.
    pub(super) fn align(
        &mut self,
        own: NodeId,
        fellows: &[(NodeId, Shared<Common>)],
        now: Moment,
    ) -> Vec<NodeId> {
        let mut changed = Vec::new();
        let mut before = std::mem::take(&mut self.fellows);
        for (node, common) in fellows {
            let known = before.remove(node);
            if known.as_ref().is_none_or(|fellow| fellow.common != *common) {
                changed.push(*node);
                let missed = known.map(|fellow| fellow.missed).unwrap_or_default();
                let fellow = Fellow {
                    common: Shared::clone(common),
                    is_led: own < *node,
                    due: now,
                    retry: RETRY,
                    // Whoever can be reached is then found to have come back, and looked at soon.
                    seen: None,
                    missed,
                    differing: 0,
                    unequal: BTreeSet::new(),
                };
                self.fellows.insert(*node, fellow);
            } else if let Some(fellow) = known {
                self.fellows.insert(*node, fellow);
            }
        }
        changed.extend(before.into_keys());
        changed
    }

    /// What is shared with a node.
    pub(super) fn common(&self, node: NodeId) -> Option<&Shared<Common>> {
        self.fellows.get(&node).map(|fellow| &fellow.common)
    }

    /// The fellows, and what is shared with each.
    pub(super) fn commons(&self) -> impl Iterator<Item = (NodeId, &Shared<Common>)> {
        self.fellows.iter().map(|(node, fellow)| (*node, &fellow.common))
    }

    /// Looks who can be reached. One that could not be, or lives another life now, is due soon: it has missed something.
    pub(super) fn look(&mut self, now: Moment, reach: &dyn Fn(NodeId) -> Option<Incarnation>, rng: &mut Rng) {
        for (node, fellow) in &mut self.fellows {
            let seen = reach(*node);
            if seen.is_some() && seen != fellow.seen {
                fellow.retry = RETRY;
                fellow.due = now + millis(RETURNED, rng);
            }
            fellow.seen = seen;
        }
    }

    /// Whether a fellow could be reached at the last look.
    pub(super) fn is_seen(&self, node: NodeId) -> bool {
        self.fellows.get(&node).is_some_and(|fellow| fellow.seen.is_some())
    }

    /// A write to a slot was not delivered to a fellow.
    pub(super) fn missed(&mut self, node: NodeId, slot: Slot) {
        if let Some(fellow) = self.fellows.get_mut(&node)
            && fellow.missed.len() < MISSED_MAX
            && fellow.common.has(slot)
        {
            fellow.missed.insert(slot);
        }
    }

    /// A fellow knows of such writes.
    pub(super) fn nudged(&mut self, now: Moment, node: NodeId, slots: Vec<Slot>) {
        slots.into_iter().for_each(|slot| self.missed(node, slot));
        if let Some(fellow) = self.fellows.get_mut(&node) {
            fellow.due = fellow.due.min(now + QUICK);
        }
    }

    /// What is to be told to leaders that can be reached.
    pub(super) fn nudges(&mut self) -> Vec<(NodeId, Vec<Slot>)> {
        let mut nudges = Vec::new();
        for (node, fellow) in &mut self.fellows {
            if !fellow.is_led && fellow.seen.is_some() && !fellow.missed.is_empty() {
                let slots: Vec<Slot> = fellow.missed.iter().take(NUDGED_MAX).copied().collect();
                slots.iter().for_each(|slot| {
                    fellow.missed.remove(slot);
                });
                nudges.push((*node, slots));
            }
        }
        nudges
    }

    /// Whose turn it is, if it is anybody's: who has waited longest.
    pub(super) fn next(&self, now: Moment) -> Option<NodeId> {
        let due = self.led().filter(|(_, fellow)| fellow.due <= now);
        due.min_by_key(|(node, fellow)| (fellow.due, **node)).map(|(node, _)| *node)
    }

    /// When it is somebody's turn.
    pub(super) fn due(&self) -> Moment {
        self.led().map(|(_, fellow)| fellow.due).min().unwrap_or(Moment::NEVER)
    }

    fn led(&self) -> impl Iterator<Item = (&NodeId, &Fellow)> {
        self.fellows.iter().filter(|(_, fellow)| fellow.is_led && fellow.seen.is_some())
    }

    /// An exchange begins: what is shared, and what is known to be missed.
    pub(super) fn begin(&mut self, node: NodeId) -> Option<(Shared<Common>, BTreeSet<Slot>)> {
        let fellow = self.fellows.get_mut(&node)?;
        Some((Shared::clone(&fellow.common), std::mem::take(&mut fellow.missed)))
    }

    /// An exchange has ended.
    pub(super) fn end(
        &mut self,
        now: Moment,
        node: NodeId,
        end: End,
        differing: u64,
        unequal: BTreeSet<Slot>,
        rng: &mut Rng,
    ) {
        let Some(fellow) = self.fellows.get_mut(&node) else { return };
        if matches!(end, End::Failed | End::Busy) {
            fellow.unequal.extend(unequal);
        } else {
            fellow.differing = differing;
            fellow.unequal = unequal;
            fellow.retry = RETRY;
        }
        let pause = match end {
            End::Equal | End::Unmoved => {
                // Not all pairs of a cluster in step.
                let eighth = u64::try_from(self.cycle.as_millis()).unwrap_or(u64::MAX) / 8;
                self.cycle - millis((0, eighth), rng)
            }
            End::Moved => QUICK,
            End::Busy => millis(BUSY, rng),
            End::Failed => {
                let pause = fellow.retry;
                fellow.retry = (fellow.retry * 2).min(self.cycle);
                pause
            }
        };
        fellow.due = now + pause;
    }

    /// Slots of which this node has reason to think that it and a fellow do not hold the same.
    pub(super) fn dirty(&self) -> impl Iterator<Item = Slot> {
        self.fellows.values().flat_map(|fellow| fellow.missed.iter().chain(&fellow.unequal).copied())
    }

    /// Slots that differed the last time, over all fellows that this node leads.
    pub(super) fn differing(&self) -> u64 {
        self.fellows.values().map(|fellow| fellow.differing).sum()
    }
}

fn millis((least, most): (u64, u64), rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.between(least, most))
}
