//! The real clocks, read in this one place.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::protocol::time::{Moment, Now, WallTime};

/// Turns the machine's clocks into the protocol's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose moments count from now.
    #[must_use]
    pub(super) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Both clocks.
    #[must_use]
    pub(super) fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
        Now { monotonic: Moment::default() + self.origin.elapsed(), wall }
    }

    /// How long it is until `moment`; `None` if that never comes.
    #[must_use]
    pub(super) fn until(&self, moment: Moment) -> Option<Duration> {
        (moment != Moment::NEVER).then(|| moment.since(self.now().monotonic))
    }
}
