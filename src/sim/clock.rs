//! The clocks of one simulated machine.

use std::time::Duration;

use crate::protocol::time::{Moment, Now, WallTime};

/// What the wall shows when the world begins, on a machine without skew: a moment in November 2026.
const EPOCH: WallTime = WallTime(1_795_000_000_000);

const MILLION: i128 = 1_000_000;

/// The two clocks of one machine, as functions of the world's time: a monotonic one that starts anywhere and runs a
/// little too fast or too slow, and a wall clock that is off and may jump.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    origin: u64,
    drift_ppm: i32,
    wall_offset_ms: i64,
}

impl Clock {
    /// A clock that runs `drift_ppm` millionths too fast and whose wall is off by `wall_offset_ms`.
    pub(super) fn new(origin: u64, drift_ppm: i32, wall_offset_ms: i64) -> Clock {
        Clock { origin, drift_ppm, wall_offset_ms }
    }

    /// A new process: its monotonic clock begins anywhere.
    pub(super) fn restart(&mut self, origin: u64) {
        self.origin = origin;
    }

    /// Somebody sets the wall clock.
    pub(super) fn jump(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// What the clocks show at this moment of the world.
    pub(super) fn now(&self, at: Moment) -> Now {
        let elapsed = self.run(at);
        let wall = i128::from(EPOCH.0) + i128::from(elapsed) / 1_000 + i128::from(self.wall_offset_ms);
        Now {
            monotonic: Moment(self.origin + elapsed),
            wall: WallTime(u64::try_from(wall).unwrap_or_default()),
        }
    }

    /// The first moment of the world at which the monotonic clock shows at least `deadline`.
    pub(super) fn when(&self, deadline: Moment) -> Moment {
        if deadline == Moment::NEVER {
            return Moment::NEVER;
        }
        let elapsed = i128::from(deadline.0.saturating_sub(self.origin));
        let rate = MILLION + i128::from(self.drift_ppm);
        Moment(u64::try_from((elapsed * MILLION + rate - 1) / rate).unwrap_or(u64::MAX))
    }

    fn run(&self, at: Moment) -> u64 {
        let rate = MILLION + i128::from(self.drift_ppm);
        u64::try_from(i128::from(at.0) * rate / MILLION).unwrap_or(u64::MAX / 2)
    }
}

/// Seconds and microseconds, for people.
pub(super) fn show(at: Moment) -> String {
    format!("{:>3}.{:06}", at.0 / 1_000_000, at.0 % 1_000_000)
}

/// A span in whole microseconds.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_come_at_the_moment_that_the_clock_says_and_not_before() {
        for drift in [-20_000, -7, 0, 3, 19_999] {
            let clock = Clock::new(123_456, drift, -5_000);
            for deadline in [123_456, 123_457, 200_000, 1_000_000_007] {
                let at = clock.when(Moment(deadline));
                assert!(clock.now(at).monotonic >= Moment(deadline));
                if at > Moment(0) {
                    assert!(clock.now(Moment(at.0 - 1)).monotonic < Moment(deadline));
                }
            }
        }
        assert_eq!(Clock::new(1, 5, 0).when(Moment::NEVER), Moment::NEVER);
    }

    #[test]
    fn a_jump_moves_the_wall_and_nothing_else() {
        let mut clock = Clock::new(0, 0, 0);
        let before = clock.now(Moment(7_000_000));
        clock.jump(-3_600_000);
        let after = clock.now(Moment(7_000_000));
        assert_eq!(after.monotonic, before.monotonic);
        assert_eq!(after.wall.offset_from(before.wall), -3_600_000);
    }
}
