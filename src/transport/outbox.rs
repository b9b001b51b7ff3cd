//! The outbox of a link: frames that wait to be written, all in one buffer (Request Batch).
//!
//! Anybody may append, at any time and without waiting; one writer takes whatever has gathered and writes it at once.
//! While it writes, the next batch gathers: the busier the link, the larger the batches, with no delay added when idle.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use event_listener::Event;
use thiserror::Error;

use crate::protocol::wire::frame;

/// A buffer that one large batch has blown up is not kept beyond this size.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// A frame was not queued. Nothing of it was or will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// The link is closed, or [finishing](super::link::LinkSender::finish).
    #[error("the link is closed")]
    Closed,
    /// Too much waits already: the other side, or the network, is slower than whoever pushes.
    #[error("the link's queue is full")]
    Full,
    /// The other side would close the link over such a frame.
    #[error("a frame of {bytes} bytes is too long, at most {max} are allowed on this link")]
    TooLong {
        /// The length of the payload.
        bytes: usize,
        /// What the other side accepts.
        max: usize,
    },
}

#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    payload_bytes_max: usize,
    queued_bytes_max: usize,
    /// The phase has become [`Phase::Finished`] or [`Phase::Closed`].
    ended: Event,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    /// Taken by the writer, not yet taken over by QUIC.
    in_write: usize,
    writer: Option<Waker>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// What waits is still written; nothing more is taken.
    Finishing,
    /// All that was queued has arrived at the other side.
    Finished,
    Closed,
}

/// What the writer is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The buffer holds a batch.
    Write,
    /// Nothing will come any more.
    Finish,
    /// The connection is gone.
    Stop,
}

impl Outbox {
    pub(super) fn new(payload_bytes_max: usize, queued_bytes_max: usize) -> Outbox {
        let state = State { waiting: Vec::new(), in_write: 0, writer: None, phase: Phase::Open };
        Outbox { state: Mutex::new(state), payload_bytes_max, queued_bytes_max, ended: Event::new() }
    }

    pub(super) fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), PushError> {
        let mut state = self.state();
        if state.phase != Phase::Open {
            return Err(PushError::Closed);
        }
        if state.waiting.len() + state.in_write >= self.queued_bytes_max {
            return Err(PushError::Full);
        }
        {
            let mut attempt = Attempt::begin(&mut state.waiting);
            let bytes = frame::append(attempt.buffer, encode);
            if bytes > self.payload_bytes_max {
                return Err(PushError::TooLong { bytes, max: self.payload_bytes_max });
            }
            attempt.keep();
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    pub(super) fn queued_bytes(&self) -> usize {
        let state = self.state();
        state.waiting.len() + state.in_write
    }

    /// For the one writer: `buffer` was written and comes back with the next batch.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<Work> {
        buffer.clear();
        if buffer.capacity() > BUFFER_KEPT_BYTES {
            buffer.shrink_to(BUFFER_KEPT_BYTES);
        }
        let mut state = self.state();
        state.in_write = 0;
        match state.phase {
            Phase::Closed | Phase::Finished => Poll::Ready(Work::Stop),
            _ if !state.waiting.is_empty() => {
                std::mem::swap(&mut state.waiting, buffer);
                state.in_write = buffer.len();
                Poll::Ready(Work::Write)
            }
            Phase::Finishing => Poll::Ready(Work::Finish),
            Phase::Open => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes no more frames; those that wait are still written.
    pub(super) fn begin_finish(&self) {
        self.advance(Phase::Open, Phase::Finishing);
    }

    /// All has arrived.
    pub(super) fn set_finished(&self) {
        self.advance(Phase::Finishing, Phase::Finished);
    }

    /// The connection is gone. What waits is lost.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.waiting = Vec::new();
        let from = state.phase;
        drop(state);
        if from != Phase::Finished {
            self.advance(from, Phase::Closed);
        }
    }

    /// Waits for the end; whether all that was queued has arrived.
    pub(super) async fn ended(&self) -> bool {
        loop {
            let listener = self.ended.listen();
            match self.state().phase {
                Phase::Finished => return true,
                Phase::Closed => return false,
                Phase::Open | Phase::Finishing => {}
            }
            listener.await;
        }
    }

    fn advance(&self, from: Phase, to: Phase) {
        let mut state = self.state();
        // `Closed` wins over every other phase but `Finished`, whichever `from` was seen.
        if state.phase == from || (to == Phase::Closed && state.phase != Phase::Finished) {
            state.phase = to;
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        self.ended.notify(usize::MAX);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // An encoder that panics poisons the lock, but its half frame has been rolled back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes back what was appended to a buffer unless it is kept, also when the encoder panics: half a frame would make
/// everything after it unreadable.
struct Attempt<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    is_kept: bool,
}

impl<'a> Attempt<'a> {
    fn begin(buffer: &'a mut Vec<u8>) -> Attempt<'a> {
        let start = buffer.len();
        Attempt { buffer, start, is_kept: false }
    }

    fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.buffer.truncate(self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn take(outbox: &Outbox, buffer: &mut Vec<u8>) -> Poll<Work> {
        outbox.poll_take(&mut Context::from_waker(Waker::noop()), buffer)
    }

    #[test]
    fn what_gathers_is_taken_at_once_and_counts_until_it_is_written() {
        let outbox = Outbox::new(10, 20);
        let mut buffer = Vec::new();
        assert!(take(&outbox, &mut buffer).is_pending());
        for payload in [b"a", b"b"] {
            outbox.push(|out| out.extend_from_slice(payload)).unwrap();
        }
        assert_eq!(take(&outbox, &mut buffer), Poll::Ready(Work::Write));
        assert_eq!(buffer, [1, 0, 0, 0, b'a', 1, 0, 0, 0, b'b']);
        assert_eq!(outbox.queued_bytes(), 10);
        outbox.push(|out| out.extend_from_slice(&[0; 6])).unwrap();
        assert_eq!(outbox.push(|_| ()), Err(PushError::Full));
        assert_eq!(take(&outbox, &mut buffer), Poll::Ready(Work::Write));
        assert_eq!(outbox.queued_bytes(), 10);
    }

    #[test]
    fn a_refused_frame_and_a_panicking_encoder_leave_nothing_behind() {
        let outbox = Outbox::new(3, 100);
        outbox.push(|out| out.push(1)).unwrap();
        let long = outbox.push(|out| out.extend_from_slice(&[0; 4]));
        assert_eq!(long, Err(PushError::TooLong { bytes: 4, max: 3 }));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            outbox.push(|out| {
                out.push(9);
                panic!("on purpose");
            })
        }));
        assert!(panicked.is_err());
        outbox.push(|out| out.push(2)).unwrap();
        let mut buffer = Vec::new();
        assert_eq!(take(&outbox, &mut buffer), Poll::Ready(Work::Write));
        assert_eq!(buffer, [1, 0, 0, 0, 1, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn finishing_writes_what_waits_first_and_takes_nothing_more() {
        let outbox = Outbox::new(10, 100);
        outbox.push(|out| out.push(1)).unwrap();
        outbox.begin_finish();
        assert_eq!(outbox.push(|_| ()), Err(PushError::Closed));
        let mut buffer = Vec::new();
        assert_eq!(take(&outbox, &mut buffer), Poll::Ready(Work::Write));
        assert_eq!(take(&outbox, &mut buffer), Poll::Ready(Work::Finish));
        outbox.set_finished();
        outbox.close();
        assert!(async_std::task::block_on(outbox.ended()));
    }
}
