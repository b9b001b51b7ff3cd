//! Rewriting the store into a fresh one, since sled's file never shrinks.
//!
//! ```text
//!            store ──pieces, in order of the keys──▶ store-2
//! feeds ──▶  all of it                               what lies before the end of the copy
//!                     then: compare the copy, sync it, rename `current`, drop the old one
//! ```
//!
//! The feeder does all of it, piece by piece between its feeds, so that no key changes while it is copied: what comes
//! before the end of the copy goes to both, what comes behind it will be copied with its new contents. Until the
//! rename the old store is the one that counts, whole and as durable as ever; a crash leaves it so.

use std::time::{Duration, Instant};

use super::options::DiskOptions;
use super::sled::SledStore;
use crate::protocol::ring::slot::{SLOTS, Slot};
use crate::protocol::storage::op::Lsn;

/// How much is copied in one go: what a feed may wait for.
const PIECE_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 256 << 10 };

/// The same for one that comes late.
const PIECE_BYTES_MAX: u64 = 8 * PIECE_BYTES;

/// How many slots of the copy are compared in one go, at most.
const SLOTS_AT_ONCE: u64 = if cfg!(test) { 4_096 } else { 256 };

/// What the feeder does for it.
#[derive(Debug)]
pub(super) enum Task {
    /// Open a fresh store beside the current one.
    Begin,
    /// Copy about so many bytes.
    Copy(u64),
    /// Make the copy durable and the one that counts; it holds everything up to here.
    Switch(Lsn),
    /// Close the store that no longer counts, and remove it.
    Retire,
    /// Close the copy, and remove it.
    GiveUp,
    /// Lose a key of the copy.
    #[cfg(test)]
    Spoil,
}

/// What the feeder says to that.
#[derive(Debug)]
pub(super) enum Step {
    /// The fresh store is open.
    Begun,
    /// So many bytes were copied.
    Copied { bytes: u64, is_all: bool },
    /// The copy counts; this is a handle to it.
    Switched(SledStore),
    /// The old store is gone, or the copy.
    Over,
    #[cfg(test)]
    Spoilt,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to do.
    Resting,
    Wanted,
    /// A fresh store is being opened.
    Beginning,
    Copying,
    /// Comparing the copy, from this slot on.
    Comparing(u16),
    Switching,
    Retiring,
    /// The copy is of no use.
    GivingUp,
}

/// Decides when the store is rewritten, and what comes next.
#[derive(Debug)]
pub(super) struct Compaction {
    phase: Phase,
    due: Instant,
    /// Below this size the store is left alone: it was just rewritten and is no smaller, or that was given up.
    enough_bytes: u64,
    /// How often the store was rewritten.
    pub(super) count: u64,
}

/// The next thing to do.
pub(super) enum Next {
    Task(Task),
    /// Compare these slots of the copy with what they should hold.
    Compare(Slot, Slot),
}

impl Compaction {
    pub(super) fn new(now: Instant) -> Compaction {
        Compaction { phase: Phase::Resting, due: now, enough_bytes: 0, count: 0 }
    }

    /// Looks whether the store takes too much: `taken` bytes on disk for `live` bytes of keys and records. `free` is
    /// what is left on the file system.
    pub(super) fn consider(&mut self, taken: u64, live: u64, free: u64, options: &DiskOptions) {
        let limit = live.saturating_mul(options.compact_percent) / 100;
        let is_too_large = options.compact_percent > 0
            && taken > limit.max(options.compact_floor_bytes).max(self.enough_bytes);
        if self.phase != Phase::Resting || !is_too_large {
            return;
        }
        // A copy is not larger than what it is copied from.
        if free < options.free_space_floor.saturating_add(taken) {
            tracing::warn!(taken, live, free, "no space to rewrite the store, which takes too much");
            self.enough_bytes = taken + taken / 4;
            return;
        }
        tracing::info!(taken, live, "rewriting the store");
        self.phase = Phase::Wanted;
    }

    /// For tests: rewrites it whatever it takes.
    #[cfg(test)]
    pub(super) fn want(&mut self) {
        self.phase = Phase::Wanted;
    }

    #[cfg(test)]
    pub(super) fn is_comparing(&self) -> bool {
        matches!(self.phase, Phase::Comparing(_))
    }

    /// Whether the store is being rewritten.
    pub(super) fn is_under_way(&self) -> bool {
        self.phase != Phase::Resting
    }

    /// When the next step is due; `None` if there is nothing to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_under_way().then_some(self.due)
    }

    /// What to do now, if anything. The store holds everything up to `fed`, and about `live` bytes.
    pub(super) fn next(&mut self, fed: Lsn, live: u64, now: Instant, options: &DiskOptions) -> Option<Next> {
        if self.due > now {
            return None;
        }
        let task = match self.phase {
            Phase::Resting | Phase::Beginning => return None,
            Phase::Wanted => {
                self.phase = Phase::Beginning;
                Task::Begin
            }
            // Between large feeds it comes late, and does more at once: a copy that is slower than what is written
            // anew would never end.
            Phase::Copying => {
                let late = now.duration_since(self.due).as_millis() as u64;
                let owed = late.saturating_mul(options.compact_bytes_per_second) / 1_000;
                Task::Copy(PIECE_BYTES.saturating_add(owed).min(PIECE_BYTES_MAX))
            }
            Phase::Comparing(next) => {
                let slots = (PIECE_BYTES / (live / u64::from(SLOTS) + 1)).clamp(1, SLOTS_AT_ONCE) as u16;
                let last = (next + (slots - 1)).min(SLOTS - 1);
                return Some(Next::Compare(Slot::new(next).ok()?, Slot::new(last).ok()?));
            }
            Phase::Switching => Task::Switch(fed),
            Phase::Retiring => Task::Retire,
            Phase::GivingUp => Task::GiveUp,
        };
        Some(Next::Task(task))
    }

    /// A step was done, except the switch.
    pub(super) fn done(&mut self, step: &Step, taken: u64, now: Instant, options: &DiskOptions) {
        match step {
            // It may have been given up meanwhile.
            Step::Begun if self.phase == Phase::Beginning => self.phase = Phase::Copying,
            Step::Begun => {}
            Step::Copied { bytes, is_all } => {
                self.pace(*bytes, now, options);
                if *is_all && self.phase == Phase::Copying {
                    self.phase = Phase::Comparing(0);
                }
            }
            Step::Switched(_) => {
                self.phase = Phase::Retiring;
                self.count += 1;
            }
            Step::Over => {
                // Once more only after it has grown by half: what sled takes for small records at its best may be
                // more than the limit.
                self.enough_bytes = taken + taken / 2;
                tracing::info!(
                    taken,
                    rewritten = self.phase == Phase::Retiring,
                    "done with the store's copy"
                );
                self.phase = Phase::Resting;
            }
            #[cfg(test)]
            Step::Spoilt => {}
        }
    }

    /// A piece of the copy was compared: whether it holds what it should.
    pub(super) fn compared(
        &mut self,
        last: Slot,
        bytes: u64,
        is_right: bool,
        now: Instant,
        options: &DiskOptions,
    ) {
        self.pace(bytes, now, options);
        if let Phase::Comparing(_) = self.phase {
            self.phase = match last.get() + 1 {
                _ if !is_right => Phase::GivingUp,
                SLOTS.. => Phase::Switching,
                next => Phase::Comparing(next),
            };
        }
    }

    /// Ends it, if the copy does not count yet: there is no space, or no time, for the rest. Whatever the pace is, what is left to
    /// be done is due now.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.due = self.due.min(now);
        match self.phase {
            Phase::Beginning | Phase::Copying | Phase::Comparing(_) => self.phase = Phase::GivingUp,
            Phase::Wanted => self.phase = Phase::Resting,
            // Switching is the last step and may be under way.
            Phase::Resting | Phase::Switching | Phase::Retiring | Phase::GivingUp => {}
        }
    }

    fn pace(&mut self, bytes: u64, now: Instant, options: &DiskOptions) {
        // What was under way when it was given up puts nothing off.
        if !matches!(self.phase, Phase::Copying | Phase::Comparing(_)) {
            return;
        }
        let micros = bytes.saturating_mul(1_000_000) / options.compact_bytes_per_second.max(1);
        self.due = now + Duration::from_micros(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn options() -> DiskOptions {
        DiskOptions { free_space_floor: 100 * MIB, ..DiskOptions::default() }
    }

    #[test]
    fn a_store_is_rewritten_when_it_is_large_and_mostly_dead_and_there_is_room() {
        let now = Instant::now();
        let wants = |taken: u64, live: u64, free: u64| {
            let mut compaction = Compaction::new(now);
            compaction.consider(taken * MIB, live * MIB, free * MIB, &options());
            compaction.is_under_way()
        };
        assert!(wants(301, 100, 1_000));
        assert!(!wants(300, 100, 1_000), "not yet three times");
        assert!(wants(65, 0, 1_000));
        assert!(!wants(64, 0, 1_000), "not worth it");
        assert!(!wants(301, 100, 400), "it would eat up the free space");
        let mut off = Compaction::new(now);
        off.consider(900 * MIB, 1, u64::MAX, &DiskOptions { compact_percent: 0, ..options() });
        assert!(!off.is_under_way());
    }

    #[test]
    fn one_that_did_not_help_is_not_repeated_at_once() {
        let now = Instant::now();
        let mut compaction = Compaction::new(now);
        for (taken, is_wanted) in [(400, true), (400, false), (590, false), (610, true)] {
            compaction.consider(taken * MIB, 100 * MIB, u64::MAX, &options());
            assert_eq!(compaction.is_under_way(), is_wanted, "{taken}");
            if is_wanted {
                compaction.give_up(now);
                compaction.phase = Phase::GivingUp;
                compaction.done(&Step::Over, 400 * MIB, now, &options());
            }
        }
    }

    #[test]
    fn the_steps_follow_each_other_and_a_wrong_copy_is_given_up() {
        let now = Instant::now();
        for is_right in [true, false] {
            let mut compaction = Compaction::new(now);
            let task =
                |compaction: &mut Compaction, now| match compaction.next(Lsn(7), u64::MAX, now, &options()) {
                    Some(Next::Task(task)) => format!("{task:?}"),
                    Some(Next::Compare(first, last)) => format!("Compare {} to {}", first.get(), last.get()),
                    None => "None".to_owned(),
                };
            assert_eq!(task(&mut compaction, now), "None");
            compaction.consider(100 * MIB, 0, u64::MAX, &options());
            assert_eq!(task(&mut compaction, now), "Begin");
            compaction.done(&Step::Begun, 0, now, &options());
            let copy = format!("{:?}", Task::Copy(PIECE_BYTES));
            assert_eq!(task(&mut compaction, now), copy);
            compaction.done(&Step::Copied { bytes: 16 * MIB, is_all: false }, 0, now, &options());
            assert_eq!(task(&mut compaction, now), "None", "16 MiB are a second's worth");
            let now = now + Duration::from_secs(1);
            assert_eq!(task(&mut compaction, now), copy);
            let most = format!("{:?}", Task::Copy(PIECE_BYTES_MAX));
            assert_eq!(
                task(&mut compaction, now + Duration::from_secs(9)),
                most,
                "what is late is made up for"
            );
            compaction.done(&Step::Copied { bytes: 0, is_all: true }, 0, now, &options());
            assert_eq!(task(&mut compaction, now), "Compare 0 to 0");
            compaction.compared(Slot::new(0).unwrap(), 0, is_right, now, &options());
            if !is_right {
                assert_eq!(task(&mut compaction, now), "GiveUp");
                continue;
            }
            assert_eq!(task(&mut compaction, now), "Compare 1 to 1");
            let begun = Compaction { phase: compaction.phase, ..Compaction::new(now) };
            for phase in [Phase::Beginning, Phase::Copying, begun.phase] {
                let mut given_up = Compaction { phase, ..Compaction::new(now) };
                given_up.due = now + Duration::from_secs(1_000);
                given_up.give_up(now);
                given_up.done(&Step::Begun, 0, now, &options());
                given_up.done(&Step::Copied { bytes: 99 * MIB, is_all: true }, 0, now, &options());
                given_up.compared(Slot::new(SLOTS - 1).unwrap(), 99 * MIB, true, now, &options());
                assert_eq!(task(&mut given_up, now), "GiveUp", "{phase:?}");
            }
            compaction.compared(Slot::new(SLOTS - 1).unwrap(), 0, true, now, &options());
            assert_eq!(task(&mut compaction, now), format!("{:?}", Task::Switch(Lsn(7))));
        }
    }
}
