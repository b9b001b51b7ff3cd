//! The sweep: finds what nobody remembers to be worth reaping, by looking through all slots again and again.

use std::time::Duration;

use crate::protocol::ring::slot::{SLOTS, Slot};
use crate::protocol::time::Moment;

/// So many slots are looked through for contents in one step.
const STEP_SLOTS: u16 = 64;

/// So many steps are a pass.
const STEPS: u16 = SLOTS / STEP_SLOTS;

/// The first pass goes so many times as fast: with its start a node has forgotten what it knew to be worth reaping.
const FIRST_FASTER: u32 = 6;

/// Where the sweep is, and when it goes on.
///
/// It begins anywhere: one that began with the first slot at each start of its node would never come to the last ones, if
/// the node is restarted more often than a pass takes.
#[derive(Debug)]
pub(super) struct Sweep {
    pass: Duration,
    cursor: Slot,
    at: Moment,
    /// Steps that are left of the first pass.
    first_left: u16,
}

impl Sweep {
    /// One that has not begun, with so long a pass. The number, which is drawn at random, says where it begins.
    pub(super) fn new(pass: Duration, number: u64) -> Sweep {
        let step = (number % u64::from(STEPS)) as u16;
        let cursor = Slot::new(step * STEP_SLOTS).unwrap_or_default();
        Sweep { pass, cursor, at: Moment::NEVER, first_left: STEPS }
    }

    /// It begins, if it has not.
    pub(super) fn begin(&mut self, now: Moment) {
        if self.at == Moment::NEVER {
            self.at = now + self.pause(true);
        }
    }

    /// When to take the next step.
    pub(super) fn due(&self) -> Moment {
        self.at
    }

    /// When it comes to a slot, about.
    pub(super) fn comes_to(&self, slot: Slot) -> Moment {
        let steps = (slot.get() + SLOTS - self.cursor.get()) % SLOTS / STEP_SLOTS;
        let fast = steps.min(self.first_left);
        self.at + self.pause(true) * u32::from(fast) + self.pause(false) * u32::from(steps - fast)
    }

    /// The next slots to look through, from the first to the last.
    pub(super) fn step(&mut self, now: Moment) -> (Slot, Slot) {
        self.first_left = self.first_left.saturating_sub(1);
        self.at = now + self.pause(self.first_left > 0);
        let first = self.cursor;
        let last = Slot::new(first.get() + STEP_SLOTS - 1).unwrap_or(first);
        self.cursor = Slot::new(last.get() + 1).unwrap_or_default();
        (first, last)
    }

    fn pause(&self, is_first_pass: bool) -> Duration {
        let pass = if is_first_pass { self.pass / FIRST_FASTER } else { self.pass };
        pass / u32::from(STEPS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::rng::Rng;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_pass_comes_to_every_slot_once_when_it_said_and_the_first_one_is_fast() {
        let mut now = Moment(7);
        let mut sweep = Sweep::new(HOUR, 300);
        assert_eq!((sweep.due(), sweep.cursor.get()), (Moment::NEVER, 44 * STEP_SLOTS));
        sweep.begin(now);
        for pass in [HOUR / FIRST_FASTER, HOUR, HOUR] {
            let begun = now;
            let said: Vec<Moment> = Slot::all().map(|slot| sweep.comes_to(slot)).collect();
            let mut seen = BTreeSet::new();
            for _ in 0..STEPS {
                now = sweep.due();
                let (first, last) = sweep.step(now);
                assert!((first.get()..=last.get()).all(|slot| seen.insert(slot)));
                let off = now.since(said[first.index()]).max(said[first.index()].since(now));
                assert!(off <= HOUR / u32::from(STEPS), "off by {off:?}");
            }
            assert_eq!(seen.len(), usize::from(SLOTS));
            let took = now.since(begun);
            assert!(took <= pass + pass / 50 && took * 50 >= pass * 48, "{took:?}");
        }
    }

    #[test]
    fn a_node_that_never_lives_as_long_as_a_pass_comes_to_every_slot_in_the_end() {
        let mut rng = Rng::from_number(1);
        let (mut seen, mut lives) = (BTreeSet::new(), 0);
        while seen.len() < usize::from(STEPS) {
            lives += 1;
            assert!(lives < 400, "so many lives of half a minute are not enough");
            let mut sweep = Sweep::new(HOUR, rng.bits());
            sweep.begin(Moment(0));
            while sweep.due() <= Moment(0) + Duration::from_secs(30) {
                seen.insert(sweep.step(sweep.due()).0);
            }
        }
    }
}
