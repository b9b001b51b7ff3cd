//! Where the answers to the attempts of one operation arrive.
//!
//! ```text
//! operation ──attempt 1──▶ connection A ─┐
//!     │     ──attempt 2──▶ connection B ─┤
//!     ▼                                  ▼
//!  Mailbox ◀────────(attempt, Reply)── Inbox
//! ```
//!
//! An operation may have several attempts under way, on several connections: a hedged read, or a write whose first
//! coordinator is silent. Whichever answers first is heard first, and a late answer to an attempt that was given up
//! still counts.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use async_io::Timer;

use super::connection::Connection;
use crate::protocol::wire::client::{Answer, Problem};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The node answered.
    Answer(Answer),
    /// It was sent, and the connection broke before an answer came: the node may have acted on it or not.
    Lost(Problem),
    /// It never left this process.
    NotSent(Problem),
}

/// What comes out of a [`Mailbox`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The number of the attempt.
    pub(super) attempt: u32,
    /// How it ended.
    pub(super) reply: Reply,
}

/// The end that connections hold.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    arrived: VecDeque<Delivery>,
    waker: Option<Waker>,
    /// Requests that are sent or about to be: connection, number there, attempt. They are forgotten together with the
    /// operation.
    open: Vec<(Arc<Connection>, u64, u32)>,
    /// The operation ended or its future was dropped.
    closed: bool,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement below, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody still waits. What nobody waits for need not be sent.
    pub(super) fn is_wanted(&self) -> bool {
        !self.state().closed
    }

    /// An attempt ended.
    pub(super) fn deliver(&self, delivery: Delivery) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.arrived.push_back(delivery);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// An attempt is about to be sent over `connection`, as the request of this number. Tells whether it is still
    /// wanted; if not, the caller does not send it.
    pub(super) fn note_open(&self, connection: Arc<Connection>, request: u64, attempt: u32) -> bool {
        let mut state = self.state();
        if !state.closed {
            state.open.push((connection, request, attempt));
        }
        !state.closed
    }
}

/// The end that the operation holds. Dropping it forgets every request that still waits, at no harm to others on the
/// same connection.
#[derive(Debug)]
pub(super) struct Mailbox(Arc<Inbox>);

impl Mailbox {
    pub(super) fn new() -> Mailbox {
        Mailbox(Arc::default())
    }

    /// The other end.
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.0
    }

    /// The next delivery, or `None` at `until`.
    pub(super) async fn next(&self, until: Instant) -> Option<Delivery> {
        let mut timer = pin!(Timer::at(until));
        poll_fn(|context| {
            let mut state = self.0.state();
            if let Some(delivery) = state.arrived.pop_front() {
                return Poll::Ready(Some(delivery));
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            drop(state);
            timer.as_mut().poll(context).map(|_| None)
        })
        .await
    }
}

impl Mailbox {
    /// Ends the operation and tells which attempts were sent. No other one will be from now on.
    pub(super) fn close(self) -> Vec<u32> {
        self.shut()
    }

    fn shut(&self) -> Vec<u32> {
        let open = {
            let mut state = self.0.state();
            state.closed = true;
            state.arrived.clear();
            std::mem::take(&mut state.open)
        };
        let forget = |(connection, request, attempt): (Arc<Connection>, u64, u32)| {
            connection.forget(request);
            attempt
        };
        open.into_iter().map(forget).collect()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.shut();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_std::task;

    use super::super::clock;
    use super::*;
    use crate::protocol::wire::client::Code;

    fn delivery(attempt: u32) -> Delivery {
        let reply = Reply::NotSent(Problem::new(Code::Connection, "nobody there"));
        Delivery { attempt, reply }
    }

    #[test]
    fn deliveries_come_in_order_and_wake_the_one_who_waits() {
        let mailbox = Mailbox::new();
        let inbox = Arc::clone(mailbox.inbox());
        let until = clock::now() + Duration::from_secs(10);
        inbox.deliver(delivery(1));
        task::block_on(async {
            assert_eq!(mailbox.next(until).await, Some(delivery(1)));
            let later = task::spawn(async move { inbox.deliver(delivery(2)) });
            assert_eq!(mailbox.next(until).await, Some(delivery(2)));
            later.await;
            assert_eq!(mailbox.next(clock::now()).await, None);
        });
    }

    #[test]
    fn nothing_is_wanted_any_more_when_the_operation_is_gone() {
        let mailbox = Mailbox::new();
        let inbox = Arc::clone(mailbox.inbox());
        assert!(inbox.is_wanted());
        drop(mailbox);
        assert!(!inbox.is_wanted());
        inbox.deliver(delivery(1));
        assert!(inbox.state().arrived.is_empty());
    }
}
