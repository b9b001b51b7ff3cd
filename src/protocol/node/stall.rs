//! What a node makes of requests that waited while it did not run.

use std::time::Duration;

use crate::protocol::time::Moment;

/// A node that is woken later than this was paused, or starved. It is never without a deadline for that long.
const NOTICED: Duration = Duration::from_secs(2);

/// What arrives within this time after it runs again may have been waiting for it.
const BACKLOG: Duration = Duration::from_secs(1);

/// The last time that the node did not run.
///
/// Requests carry how long their client still waits, *at the time of sending*. A node that was paused finds them in its
/// queues and takes them for new ones. Their clients have given up long ago, perhaps done the same thing through another
/// node, and the marks that would show it may have been reaped together with the key. So what is found after a stall is
/// taken to have waited for all of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stall {
    over_at: Moment,
    lasted: Duration,
}

impl Stall {
    /// The node runs at `now`; it wanted to at `due`, at the latest.
    pub(super) fn look(&mut self, now: Moment, due: Moment) {
        let late = now.since(due);
        if late > NOTICED {
            *self = Stall { over_at: now, lasted: late };
        }
    }

    /// How long the client of a request still waits that was sent with this deadline.
    pub(super) fn what_is_left(&self, now: Moment, deadline_ms: u32) -> Duration {
        let patience = Duration::from_millis(u64::from(deadline_ms));
        let is_backlog = !self.lasted.is_zero() && now < self.over_at + BACKLOG;
        if is_backlog { patience.saturating_sub(self.lasted) } else { patience }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn what_waited_for_a_paused_node_has_aged_with_it() {
        let mut stall = Stall::default();
        let left = |stall: &Stall, at| stall.what_is_left(Moment(at * SECOND), 5_000).as_secs();
        stall.look(Moment(SECOND), Moment::NEVER);
        stall.look(Moment(2 * SECOND), Moment(SECOND));
        assert_eq!(left(&stall, 2), 5);
        stall.look(Moment(7 * SECOND), Moment(4 * SECOND));
        // Whatever else is done first.
        stall.look(Moment(7 * SECOND), Moment(8 * SECOND));
        assert_eq!((left(&stall, 7), left(&stall, 8)), (2, 5));
        stall.look(Moment(99 * SECOND), Moment(8 * SECOND));
        assert_eq!(left(&stall, 99), 0);
    }
}
