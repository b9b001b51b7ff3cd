//! Who issues the dots of a node.

use crate::protocol::causality::Dot;
use crate::protocol::config::CLOCK_SKEW_MAX;
use crate::protocol::id::Actor;
use crate::protocol::time::{HybridClock, Timestamp, WallTime};

/// The actor of this start of the node and its hybrid clock: the only place where dots are made.
///
/// An actor's knowledge never shrinks. Whenever the node has lost any record, or its clock ran ahead of the wall, it
/// takes a *new* actor, and issues nothing until that is durable.
#[derive(Debug)]
pub struct Author {
    actor: Actor,
    durable: bool,
    clock: HybridClock,
    issued: Timestamp,
}

impl Author {
    /// An author that may not write before [`durable`](Author::became_durable).
    #[must_use]
    pub fn new(actor: Actor) -> Author {
        Author { actor, durable: false, clock: HybridClock::default(), issued: Timestamp::default() }
    }

    /// The actor.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// The actor is on disk: it may issue dots from now on. A late word about an earlier actor changes nothing.
    pub fn became_durable(&mut self, actor: Actor) {
        self.durable |= self.actor == actor;
    }

    /// Whether it may issue dots.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.durable
    }

    /// Whether the clock ran so far ahead of the wall that it has to be given up together with the actor.
    #[must_use]
    pub fn must_be_replaced(&self, wall: WallTime) -> bool {
        self.clock.is_ahead(wall, CLOCK_SKEW_MAX)
    }

    /// A new dot, unless the actor is not durable yet.
    pub fn issue(&mut self, wall: WallTime) -> Option<Dot> {
        if !self.durable {
            return None;
        }
        let at = self.clock.issue(wall);
        self.issued = at;
        Some(Dot { actor: self.actor, at })
    }

    /// Keeps the clock near those of the others, so that later writes look later to people.
    pub fn observe(&mut self, seen: Timestamp, wall: WallTime) {
        self.clock.observe(seen, wall, CLOCK_SKEW_MAX);
    }

    /// Whether a replica that claims to have seen `entry` of `actor` has seen more than was ever issued here: a proof
    /// that this node lost its memory or has a twin.
    #[must_use]
    pub fn is_outrun(&self, actor: Actor, entry: Timestamp) -> bool {
        actor == self.actor && entry > self.issued
    }
}
