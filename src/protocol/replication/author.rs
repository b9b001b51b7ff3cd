//! Who issues the dots of a node.

use crate::protocol::causality::Dot;
use crate::protocol::config::CLOCK_SKEW_MAX;
use crate::protocol::id::Actor;
use crate::protocol::time::{HybridClock, Timestamp, WallTime};

/// How many former actors are remembered: operations that began under one may still hear acknowledgements.
const FORMER_MAX: usize = 8;

/// The actor of this start of the node and its hybrid clock: the only place where dots are made.
///
/// An actor's knowledge never shrinks. Whenever there is a proof that the node has lost any record, or that its clock
/// ran ahead of the wall, the actor is *doubted*: it issues nothing any more, the node draws a new one, and that one
/// issues nothing until it is durable.
#[derive(Debug)]
pub struct Author {
    actor: Actor,
    durable: bool,
    doubted: bool,
    clock: HybridClock,
    issued: Timestamp,
    /// The last timestamps of earlier actors of this process, newest last.
    former: Vec<(Actor, Timestamp)>,
}

impl Author {
    /// An author that may not write before [`became_durable`](Author::became_durable).
    #[must_use]
    pub fn new(actor: Actor) -> Author {
        Author {
            actor,
            durable: false,
            doubted: false,
            clock: HybridClock::default(),
            issued: Timestamp::default(),
            former: Vec::new(),
        }
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

    /// Goes on under a new actor with a new clock, once that is durable.
    pub fn replace(&mut self, actor: Actor) {
        if self.former.len() == FORMER_MAX {
            self.former.remove(0);
        }
        self.former.push((self.actor, self.issued));
        *self = Author { former: std::mem::take(&mut self.former), ..Author::new(actor) };
    }

    /// There is a proof that the node has forgotten writes of its actor.
    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Whether the actor has to be [replaced](Author::replace).
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Whether the actor has issued any dot.
    #[must_use]
    pub fn has_issued(&self) -> bool {
        self.issued != Timestamp::default()
    }

    /// A new dot, unless the actor is doubted or not durable yet.
    ///
    /// A clock that the wall has jumped back from is given up together with the actor: nothing would break if it went
    /// on, but every write until the wall has caught up would look newer to people than it is.
    pub fn issue(&mut self, wall: WallTime) -> Option<Dot> {
        self.doubted |= self.clock.is_ahead(wall, CLOCK_SKEW_MAX);
        if self.doubted || !self.durable {
            return None;
        }
        let at = self.clock.issue(wall);
        self.issued = at;
        Some(Dot { actor: self.actor, at })
    }

    /// Keeps the clock near those of the others, so that later writes look later to people.
    ///
    /// It follows by half the skew only. If it went to the very edge, the next dot would lie beyond it, and a peer with
    /// a fast clock would cost this node its actor over and over.
    pub fn observe(&mut self, seen: Timestamp, wall: WallTime) {
        self.clock.observe(seen, wall, CLOCK_SKEW_MAX / 2);
    }

    /// Whether the acknowledgement of a replica counts that was sent a record which covers `dot`, and states `entry` as its
    /// entry for that actor.
    ///
    /// * Below the dot it proves that nothing was merged: merging only adds. That holds for the dots of everybody.
    /// * Above all that was ever issued it proves, for an actor of this process, that this node lost its memory or has a
    ///   twin; the replica may then have taken the write for one that it had seen and superseded. What others have issued
    ///   nobody knows here, so for their dots there is no such bound.
    pub fn believes(&mut self, dot: Dot, entry: Timestamp) -> bool {
        if entry < dot.at {
            return false;
        }
        if dot.actor == self.actor {
            let is_outrun = entry > self.issued;
            self.doubted |= is_outrun;
            return !is_outrun;
        }
        self.former.iter().all(|(former, issued)| *former != dot.actor || entry <= *issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: WallTime = WallTime(1_000_000);

    fn ready() -> Author {
        let mut author = Author::new(Actor(1));
        author.became_durable(Actor(1));
        author
    }

    #[test]
    fn nothing_is_issued_before_the_actor_is_durable() {
        let mut author = Author::new(Actor(1));
        assert_eq!(author.issue(WALL), None);
        author.became_durable(Actor(9));
        assert_eq!(author.issue(WALL), None);
        author.became_durable(Actor(1));
        assert_eq!(author.issue(WALL), Some(Dot { actor: Actor(1), at: Timestamp::at(WALL) }));
        author.replace(Actor(2));
        author.became_durable(Actor(1));
        assert_eq!(author.issue(WALL), None);
    }

    #[test]
    fn a_wall_that_jumps_back_costs_the_actor_and_its_clock() {
        let mut author = ready();
        assert!(author.issue(WALL).is_some());
        let back = WallTime(WALL.0 - 501);
        assert_eq!((author.issue(back), author.is_doubted()), (None, true));
        author.replace(Actor(2));
        author.became_durable(Actor(2));
        assert_eq!(author.issue(back), Some(Dot { actor: Actor(2), at: Timestamp::at(back) }));
    }

    #[test]
    fn a_peer_with_a_fast_clock_does_not_cost_the_actor() {
        let mut author = ready();
        for _ in 0..1_000 {
            author.observe(Timestamp::at(WallTime(WALL.0 + 3_600_000)), WALL);
            assert!(author.issue(WALL).is_some());
        }
        assert!(!author.is_doubted());
    }

    #[test]
    fn an_entry_above_what_was_issued_does_not_count_and_raises_doubt() {
        let mut author = ready();
        let issued = author.issue(WALL).map(|dot| dot.at).unwrap();
        let dot = Dot { actor: Actor(1), at: issued };
        assert!(author.believes(dot, issued));
        assert!(!author.is_doubted());
        assert!(!author.believes(dot, Timestamp(issued.0 + 1)));
        assert!(author.is_doubted());
    }

    #[test]
    fn an_entry_below_the_dot_does_not_count_whoever_wrote_it() {
        let mut author = ready();
        let own = author.issue(WALL).unwrap();
        for dot in [own, Dot { actor: Actor(7), at: Timestamp(5) }] {
            assert!(!author.believes(dot, Timestamp(dot.at.0 - 1)));
            assert!(author.believes(dot, dot.at));
        }
        // What somebody else has issued meanwhile is not known here.
        assert!(author.believes(Dot { actor: Actor(7), at: Timestamp(5) }, Timestamp(1_000)));
        assert!(!author.is_doubted());
    }

    #[test]
    fn an_acknowledgement_of_a_former_actor_raises_no_doubt_about_the_new_one() {
        let mut author = ready();
        let issued = author.issue(WALL).map(|dot| dot.at).unwrap();
        author.replace(Actor(2));
        let dot = Dot { actor: Actor(1), at: issued };
        assert!(author.believes(dot, issued));
        assert!(!author.believes(dot, Timestamp(issued.0 + 1)));
        assert!(!author.is_doubted());
    }
}
