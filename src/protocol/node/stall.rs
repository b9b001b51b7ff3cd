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
    /// When the node wanted to run again at the latest, after it last did.
    due: Option<Moment>,
    over_at: Moment,
    lasted: Duration,
}

impl Stall {
    /// The node runs.
    pub(super) fn begins(&mut self, now: Moment) {
        let late = self.due.map(|due| now.since(due)).unwrap_or_default();
        if late > NOTICED {
            (self.over_at, self.lasted) = (now, late);
        }
    }

    /// It has run, and wants to again at `due`, at the latest. What was overdue already tells nothing.
    pub(super) fn ends(&mut self, now: Moment, due: Moment) {
        self.due = Some(due.max(now));
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
        let run = |stall: &mut Stall, at, due| {
            stall.begins(Moment(at * SECOND));
            stall.ends(Moment(at * SECOND), due);
        };
        // A node that starts is not late, whenever its deadlines were.
        run(&mut stall, 20, Moment::default());
        run(&mut stall, 21, Moment(22 * SECOND));
        run(&mut stall, 23, Moment(24 * SECOND));
        assert_eq!(left(&stall, 23), 5);
        run(&mut stall, 27, Moment(28 * SECOND));
        // Whatever else is done first.
        run(&mut stall, 27, Moment(28 * SECOND));
        assert_eq!((left(&stall, 27), left(&stall, 28)), (2, 5));
        run(&mut stall, 99, Moment::NEVER);
        assert_eq!(left(&stall, 99), 0);
        run(&mut stall, 500, Moment::NEVER);
        assert_eq!(left(&stall, 500), 5);
    }
}
