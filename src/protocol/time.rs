//! Time as the protocol sees it: handed in, never asked for.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use serde::{Deserialize, Serialize};

/// A point on the node's own monotonic clock, in microseconds since an arbitrary origin. Only differences mean
/// anything, and only within one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than every deadline.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, span: Duration) -> Moment {
        Moment(self.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since the Unix epoch by some machine's wall clock. May jump, may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Signed distance `self - other`, in milliseconds.
    #[must_use]
    pub fn offset_from(self, other: WallTime) -> i64 {
        let (a, b) = (i128::from(self.0), i128::from(other.0));
        i64::try_from(a - b).unwrap_or(if a > b { i64::MAX } else { i64::MIN })
    }

    /// This time and `span` more.
    #[must_use]
    pub fn plus(self, span: Duration) -> WallTime {
        WallTime(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This time and `span` less.
    #[must_use]
    pub fn minus(self, span: Duration) -> WallTime {
        WallTime(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Both clocks of a node at the moment of one input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and intervals.
    pub monotonic: Moment,
    /// For timestamps that people and other machines see.
    pub wall: WallTime,
}

/// The timestamp half of a dot: 48 bits of milliseconds since the Unix epoch and 16 bits of counter.
///
/// No rule of the store compares the timestamps of two actors; they order the history that is shown to people and the
/// choice of `--latest` reads, nothing else.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

const COUNTER_BITS: u32 = 16;

impl Timestamp {
    /// The first timestamp of the given millisecond.
    #[must_use]
    pub fn at(wall: WallTime) -> Timestamp {
        Timestamp(wall.0.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS)
    }

    /// The millisecond that this timestamp names.
    #[must_use]
    pub fn millis(self) -> WallTime {
        WallTime(self.0 >> COUNTER_BITS)
    }

    /// The counter within that millisecond.
    #[must_use]
    pub fn counter(self) -> u16 {
        (self.0 & u64::from(u16::MAX)) as u16
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis().0, self.counter())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

/// A Hybrid Clock (*Patterns of Distributed Systems*; Kulkarni et al., *Logical Physical Clocks*, 2014), kept by one
/// actor: strictly monotone, close to the wall clock.
#[derive(Clone, Debug, Default)]
pub struct HybridClock {
    last: Timestamp,
}

impl HybridClock {
    /// Issues a timestamp above every one issued or observed before.
    pub fn issue(&mut self, wall: WallTime) -> Timestamp {
        #[cfg(test)]
        if planted::is(Planted::ClockFollowsTheWall) && wall < self.last.millis() {
            self.last = Timestamp::at(wall);
            return self.last;
        }
        #[cfg(test)]
        if planted::is(Planted::OneDotForTwoPuts) || planted::is(Planted::EqualDotsDropped) {
            self.last = self.last.max(Timestamp::at(wall));
            return self.last;
        }
        self.last = Timestamp::at(wall).max(Timestamp(self.last.0 + 1));
        self.last
    }

    /// Takes note of a timestamp seen in a record, but is not pulled further than `skew` ahead of the local wall clock:
    /// one node with a broken clock must not drag the others along.
    pub fn observe(&mut self, seen: Timestamp, wall: WallTime, skew: Duration) {
        self.last = self.last.max(seen.min(Timestamp::at(wall.plus(skew))));
    }

    /// Whether the clock runs ahead of the wall by more than `skew`, as it does after the wall jumped back. The cure
    /// is a new clock *together with a new actor*.
    #[must_use]
    pub fn is_ahead(&self, wall: WallTime, skew: Duration) -> bool {
        self.last > Timestamp::at(wall.plus(skew))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_millis(500);

    #[test]
    fn timestamps_rise_even_when_the_wall_stands_still_or_jumps_back() {
        let mut clock = HybridClock::default();
        let a = clock.issue(WallTime(1_000));
        let b = clock.issue(WallTime(1_000));
        let c = clock.issue(WallTime(400));
        assert!(a < b && b < c);
        assert_eq!(a.millis(), WallTime(1_000));
        assert!(clock.is_ahead(WallTime(400), SKEW));
        assert!(!clock.is_ahead(WallTime(900), SKEW));
    }

    #[test]
    fn a_far_future_timestamp_does_not_pull_the_clock_beyond_the_skew() {
        let mut clock = HybridClock::default();
        clock.observe(Timestamp::at(WallTime(3_600_000)), WallTime(1_000), SKEW);
        assert!(!clock.is_ahead(WallTime(1_000), SKEW));
        assert!(clock.issue(WallTime(1_000)) > Timestamp::at(WallTime(1_500)));
    }
}
