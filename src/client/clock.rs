//! The client's one look at a clock, and what it knows of the nodes' clocks.

use std::time::{Duration, Instant};

use crate::protocol::time::WallTime;

/// This moment on the machine's monotonic clock. The wall clock of the client's machine is never asked: it may be
/// wrong, and nothing depends on it.
#[expect(
    clippy::disallowed_methods,
    reason = "the client is part of the real world; this is its one look at a clock"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Node time as the client last learned it. Operation ids carry node time, so that a client with a broken clock is no
/// worse off than others.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeTime {
    told: WallTime,
    at: Instant,
}

impl NodeTime {
    /// A node said that it was `told`, in an answer to a question that was asked and answered at these moments. The
    /// node looked at its clock somewhere in between; the middle is off by half a round trip at most.
    pub(super) fn learned(told: WallTime, asked: Instant, answered: Instant) -> NodeTime {
        NodeTime { told, at: asked + answered.saturating_duration_since(asked) / 2 }
    }

    /// Node time at `moment`.
    pub(super) fn at(self, moment: Instant) -> WallTime {
        self.told.plus(moment.saturating_duration_since(self.at))
    }
}

/// The milliseconds from `now` to `deadline`, rounded up, so that the last fraction is not thrown away.
pub(super) fn remaining_ms(now: Instant, deadline: Instant) -> u32 {
    let remaining = deadline.saturating_duration_since(now) + Duration::from_micros(999);
    u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_time_goes_on_from_the_middle_of_the_round_trip() {
        let asked = now();
        let time = NodeTime::learned(WallTime(1_000), asked, asked + Duration::from_millis(40));
        assert_eq!(time.at(asked + Duration::from_millis(20)), WallTime(1_000));
        assert_eq!(time.at(asked + Duration::from_millis(50)), WallTime(1_030));
        assert_eq!(time.at(asked), WallTime(1_000), "never before what was told");
    }

    #[test]
    fn remaining_time_is_rounded_up_and_never_negative() {
        let start = now();
        assert_eq!(remaining_ms(start, start + Duration::from_micros(1_001)), 2);
        assert_eq!(remaining_ms(start, start + Duration::from_millis(5)), 5);
        assert_eq!(remaining_ms(start + Duration::from_secs(1), start), 0);
    }
}
