//! The scrub: compares what the store holds with what it should hold, slot by slot, round and round.

use std::time::{Duration, Instant};

use crate::protocol::ring::slot::{SLOTS, Slot};

/// How many slots are compared in one go, at most; feeding goes on in between.
const SLOTS_AT_ONCE: u64 = 256;

/// How much of the store is read in one go, about: what nobody notices, and in the pass after a start as much as a
/// feed may wait for.
const PIECE_BYTES: u64 = 256 << 10;
const FIRST_PIECE_BYTES: u64 = 4 << 20;

/// At least this long between two pieces, however little they hold.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1_000 });

/// Where the comparison is, and when it goes on.
///
/// sled opens a damaged file without a word and without some of its keys, and bits rot in what nobody reads. So the
/// contents of all slots are read again and again: after a start as fast as feeding allows, since until then a slot
/// that lacks something passes for a whole one, and from then on slowly.
#[derive(Debug)]
pub(super) struct Scrub {
    next: u16,
    is_first_pass: bool,
    due: Instant,
    bytes_per_second: u64,
    /// What was read since [`take_unpaid`](Scrub::take_unpaid), the first pass apart.
    unpaid: u64,
    pub(super) bytes: u64,
    pub(super) passes: u64,
}

impl Scrub {
    /// `is_fresh` says that there never was anything in the store.
    pub(super) fn new(is_fresh: bool, bytes_per_second: u64, now: Instant) -> Scrub {
        let passes = u64::from(is_fresh);
        Scrub {
            next: 0,
            is_first_pass: !is_fresh,
            due: now + PAUSE,
            bytes_per_second,
            unpaid: 0,
            bytes: 0,
            passes,
        }
    }

    /// Whether everything was compared once since the start.
    pub(super) fn is_verified(&self) -> bool {
        !self.is_first_pass
    }

    /// When the next piece is due; `None` for never.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.is_first_pass || self.bytes_per_second > 0).then_some(self.due)
    }

    /// Whether a piece is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_first_pass || self.bytes_per_second > 0 && self.due <= now
    }

    /// The next piece, of a store that holds about `bytes`.
    pub(super) fn piece(&self, bytes: u64) -> Option<(Slot, Slot)> {
        let wanted = if self.is_first_pass { FIRST_PIECE_BYTES } else { PIECE_BYTES };
        let per_slot = bytes / u64::from(SLOTS) + 1;
        // At most 256, so it fits.
        let slots = (wanted / per_slot).clamp(1, SLOTS_AT_ONCE) as u16;
        let last = (self.next + (slots - 1)).min(SLOTS - 1);
        Some((Slot::new(self.next).ok()?, Slot::new(last).ok()?))
    }

    /// The piece that ends with `last` was compared, and held this many bytes. Returns whether a pass ends with it.
    pub(super) fn done(&mut self, last: Slot, bytes: u64, now: Instant) -> bool {
        self.bytes += bytes;
        if !self.is_first_pass {
            self.unpaid += bytes;
        }
        let micros = bytes.saturating_mul(1_000_000) / self.bytes_per_second.max(1);
        self.due = now + Duration::from_micros(micros).max(PAUSE);
        self.next = last.get() + 1;
        let is_over = self.next >= SLOTS;
        if is_over {
            self.next = 0;
            self.passes += 1;
            self.is_first_pass = false;
        }
        is_over
    }

    /// What was read since the last call and is to be charged to the node's account of repairs. The first pass is not: the node waits
    /// for it.
    pub(super) fn take_unpaid(&mut self) -> u64 {
        std::mem::take(&mut self.unpaid)
    }

    /// The account allows the next piece after so long: if it is due now, it is put off until then.
    pub(super) fn put_off(&mut self, now: Instant, wait: Duration) {
        if !self.is_first_pass && self.due <= now {
            self.due = now + wait;
        }
    }

    /// Nothing is compared any more: the disk is being closed.
    pub(super) fn stop(&mut self) {
        self.is_first_pass = false;
        self.bytes_per_second = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_shows_every_slot_once_and_keeps_its_pace() {
        let now = Instant::now();
        let mut scrub = Scrub::new(false, 1 << 20, now);
        // 64 KiB a slot: 64 slots at once in the first pass, four in the others.
        let bytes = u64::from(SLOTS) << 16;
        for (at_once, is_first) in [(63, true), (3, false)] {
            let mut expected = 0;
            loop {
                assert_eq!(scrub.is_due(now), is_first);
                let (first, last) = scrub.piece(bytes).unwrap();
                assert_eq!(first.get(), expected);
                assert!(
                    (at_once..=at_once + 1).contains(&(last.get() - first.get() + 1))
                        || last.get() == SLOTS - 1
                );
                expected = last.get() + 1;
                if scrub.done(last, 3 << 20, now) {
                    break;
                }
                assert_eq!(scrub.due, now + Duration::from_secs(3));
            }
            assert_eq!(expected, SLOTS);
            assert!(scrub.is_verified());
        }
        assert_eq!(scrub.passes, 2);
        assert!(scrub.is_due(now + Duration::from_secs(3)));
        scrub.stop();
        assert!(!scrub.is_due(now + Duration::from_secs(3_600)) && scrub.due().is_none());
    }

    #[test]
    fn it_is_paid_for_and_waits_for_the_account_after_the_first_pass() {
        let now = Instant::now();
        let mut scrub = Scrub::new(false, 1 << 20, now);
        let wait = Duration::from_secs(5);
        scrub.put_off(now + PAUSE, wait);
        assert!(scrub.is_due(now + PAUSE), "the node waits for the first pass");
        assert!(scrub.done(Slot::new(SLOTS - 1).unwrap(), 7 << 20, now));
        assert_eq!(scrub.take_unpaid(), 0);
        scrub.put_off(now, wait);
        assert_eq!(scrub.due, now + Duration::from_secs(7), "it is not due before");
        let now = now + Duration::from_secs(7);
        scrub.put_off(now, wait);
        assert!(!scrub.is_due(now) && scrub.is_due(now + wait));
        scrub.done(Slot::new(3).unwrap(), 9, now);
        scrub.done(Slot::new(7).unwrap(), 1, now);
        assert_eq!((scrub.take_unpaid(), scrub.take_unpaid()), (10, 0));
    }

    #[test]
    fn slots_of_any_size_come_in_pieces_of_at_least_one() {
        let scrub = Scrub::new(true, 1, Instant::now());
        let (first, last) = scrub.piece(u64::MAX).unwrap();
        assert_eq!((first.get(), last.get()), (0, 0));
        let (first, last) = scrub.piece(0).unwrap();
        assert_eq!((first.get(), last.get()), (0, 255));
    }
}
