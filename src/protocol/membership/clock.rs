//! How far this node's wall clock is from the others'.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::id::NodeId;
use crate::protocol::time::{Moment, Now, WallTime};

/// A sample that was not renewed for this long no longer counts.
const LIFETIME: Duration = Duration::from_secs(60);

/// A round trip that took longer says too little about the other clock.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// The offsets of the clocks that this node hears in the answers to its heartbeats.
///
/// A node that is off the median of all clocks, its own included, by more than the skew coordinates no puts while a better one
/// can be reached. The median, since one clock that is wrong by years must not move it.
#[derive(Clone, Debug, Default)]
pub(super) struct Clocks {
    /// Other clock minus the own monotonic one, in milliseconds: so a jump of the own wall clock shows at once.
    samples: BTreeMap<NodeId, (i128, Moment)>,
    /// Own wall clock minus the own monotonic one, in milliseconds.
    own: i128,
    /// See [`offset`](Clocks::offset).
    ahead: i64,
}

fn millis(moment: Moment) -> i128 {
    i128::from(moment.0 / 1_000)
}

impl Clocks {
    /// Reads the own clocks.
    pub(super) fn observe(&mut self, now: Now) {
        let own = i128::from(now.wall.0) - millis(now.monotonic);
        if std::mem::replace(&mut self.own, own) != own {
            self.compare();
        }
    }

    /// A node that was asked at `sent` answered with its clock. It read it half a round trip ago, more or less.
    pub(super) fn sample(&mut self, now: Now, sent: Moment, from: NodeId, wall: WallTime) {
        let round_trip = now.monotonic.since(sent);
        if round_trip <= ROUND_TRIP_MAX {
            let half = round_trip.as_millis() as i128 / 2;
            let offset = i128::from(wall.0) + half - millis(now.monotonic);
            self.samples.insert(from, (offset, now.monotonic));
            self.compare();
        }
    }

    /// Drops what is too old to count.
    pub(super) fn expire(&mut self, now: Moment) {
        let before = self.samples.len();
        self.samples.retain(|_, (_, at)| now.since(*at) <= LIFETIME);
        if self.samples.len() < before {
            self.compare();
        }
    }

    /// The own clock minus the median of all, in milliseconds: positive if the own clock is ahead.
    pub(super) fn offset(&self) -> i64 {
        self.ahead
    }

    /// Asked for at every operation, so it is computed when a clock was read and not then.
    fn compare(&mut self) {
        let mut all: Vec<i128> = self.samples.values().map(|&(offset, _)| offset).collect();
        all.push(self.own);
        all.sort_unstable();
        let upper = all[all.len() / 2];
        let lower = all[(all.len() - 1) / 2];
        let ahead = self.own - (lower + upper) / 2;
        self.ahead = i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(ms: u64, wall: u64) -> Now {
        Now { monotonic: Moment(ms * 1_000), wall: WallTime(wall) }
    }

    #[test]
    fn alone_one_is_always_right() {
        let mut clocks = Clocks::default();
        clocks.observe(now(5, 1_000_000));
        assert_eq!(clocks.offset(), 0);
    }

    #[test]
    fn the_median_is_not_moved_by_one_mad_clock() {
        let mut clocks = Clocks::default();
        clocks.observe(now(100, 10_100));
        // Half of the round trip of 100 ms is added to what was heard.
        clocks.sample(now(100, 10_100), Moment(0), NodeId(2), WallTime(10_060));
        clocks.sample(now(100, 10_100), Moment(0), NodeId(3), WallTime(1 << 60));
        assert_eq!(clocks.offset(), -10);
    }

    #[test]
    fn a_jump_of_the_own_clock_shows_at_once() {
        let mut clocks = Clocks::default();
        for peer in 2..5 {
            clocks.sample(now(100, 10_100), Moment(100_000), NodeId(peer), WallTime(10_100));
        }
        clocks.observe(now(200, 13_200));
        assert_eq!(clocks.offset(), 3_000);
    }

    #[test]
    fn slow_answers_and_old_ones_do_not_count() {
        let mut clocks = Clocks::default();
        clocks.observe(now(2_000, 12_000));
        clocks.sample(now(2_000, 12_000), Moment(0), NodeId(2), WallTime(1));
        assert_eq!(clocks.offset(), 0);
        clocks.sample(now(2_000, 12_000), Moment(2_000_000), NodeId(2), WallTime(14_000));
        assert_eq!(clocks.offset(), -1_000);
        clocks.expire(Moment(63_000_000));
        assert_eq!(clocks.offset(), 0);
    }
}
