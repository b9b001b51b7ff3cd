//! One connection to one node: numbered requests out, answers in any order back (Request Pipeline).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clock;
use super::inbox::{Delivery, Inbox, Reply};
use crate::protocol::codec;
use crate::protocol::wire::client::{AnswerFrame, ClientFrame, Code, Problem, Request};
use crate::protocol::wire::frame::CLIENT_REQUEST_BYTES_MAX;
use crate::transport::link::{CloseCode, Link, LinkError, LinkReceiver, LinkSender, PushError};

/// What a frame takes besides its key, value and context, generously.
const ENVELOPE_BYTES: usize = 256;

/// A connection that has not said a word for this long while a request waited is doubtful.
const SILENCE: Duration = Duration::from_millis(300);

/// A connection on which something was sent this long ago, and nothing at all came back, not even an acknowledgement, is
/// given up for a new one. The other side may have lost what it knew of it, and QUIC would repeat its probes ever more slowly.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// After this much silence it gets another chance: perhaps all that it had to answer was given up.
const SILENCE_FORGIVEN: Duration = Duration::from_secs(3);

/// One connection to one node.
pub(super) struct Connection {
    sender: LinkSender,
    state: Mutex<State>,
}

struct State {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Why there will be no more answers, once that is so.
    over: Option<Problem>,
    /// When the first request was sent after which nothing arrived.
    unanswered_since: Option<Instant>,
    /// When something was sent with nothing to show for it since, and how many datagrams had come by then.
    unheard: Option<(Instant, u64)>,
    /// When the last request was sent, or the connection was opened.
    used_at: Instant,
}

struct Waiting {
    inbox: Arc<Inbox>,
    attempt: u32,
}

/// One attempt of a request, on its way out.
#[derive(Clone)]
pub(super) struct Attempt {
    /// Its number within its operation.
    pub(super) number: u32,
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// Where its end is told.
    pub(super) inbox: Arc<Inbox>,
}

impl Attempt {
    /// It never left.
    pub(super) fn fail(self, problem: Problem) {
        self.inbox.deliver(Delivery { attempt: self.number, reply: Reply::NotSent(problem) });
    }
}

impl Connection {
    /// Takes over a link and begins to read from it, on a thread of async-std's. `on_end` runs once, after
    /// it is over.
    pub(super) fn start(link: Link, on_end: impl FnOnce() + Send + 'static) -> Arc<Connection> {
        let state = State {
            next: 1,
            waiting: BTreeMap::new(),
            over: None,
            unanswered_since: None,
            unheard: None,
            used_at: clock::now(),
        };
        let connection = Arc::new(Connection { sender: link.sender, state: Mutex::new(state) });
        let reading = Arc::clone(&connection);
        async_std::task::spawn(async move {
            let problem = reading.read(link.receiver).await;
            let waiting = reading.shut(&problem);
            // Whoever hears of a lost request and tries again must not come upon this connection.
            on_end();
            for waiting in waiting.into_values() {
                let reply = Reply::Lost(problem.clone());
                waiting.inbox.deliver(Delivery { attempt: waiting.attempt, reply });
            }
        });
        connection
    }

    /// Sends a request. Its end is told to its inbox, at once if it cannot be sent.
    pub(super) fn send(self: &Arc<Connection>, attempt: Attempt) {
        let now = clock::now();
        let deadline_ms = clock::remaining_ms(now, attempt.deadline);
        if let Some(problem) = unsendable(&attempt.request, deadline_ms) {
            return attempt.fail(problem);
        }
        let id = {
            let mut state = self.state();
            if let Some(problem) = &state.over {
                let problem = problem.clone();
                drop(state);
                return attempt.fail(problem);
            }
            let id = state.next;
            state.next += 1;
            state.unanswered_since.get_or_insert(now);
            state.unheard.get_or_insert_with(|| (now, self.sender.datagrams_received()));
            state.used_at = now;
            state.waiting.insert(id, Waiting { inbox: Arc::clone(&attempt.inbox), attempt: attempt.number });
            id
        };
        if !attempt.inbox.note_open(Arc::clone(self), id, attempt.number) {
            return self.forget(id);
        }
        // The node gives up a little earlier, so that its own word on what became of the request still arrives.
        let frame = ClientFrame {
            id,
            deadline_ms: deadline_ms - (deadline_ms / 8).min(250),
            request: attempt.request,
        };
        if let Err(error) = self.sender.push(|out| codec::encode_into(&frame, out)) {
            // Whoever takes the entry out tells its end: here, or whoever noticed first that the link is over.
            let waiting = self.state().waiting.remove(&id);
            if let Some(waiting) = waiting {
                let problem = unpushed(error);
                waiting.inbox.deliver(Delivery { attempt: waiting.attempt, reply: Reply::NotSent(problem) });
            }
        }
    }

    /// Nobody waits for this answer any more; when it comes it is ignored.
    pub(super) fn forget(&self, id: u64) {
        self.state().waiting.remove(&id);
    }

    /// Whether requests can still be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state().over.is_none()
    }

    /// Whether it has been silent for a while although something was asked.
    pub(super) fn is_silent(&self) -> bool {
        let mut state = self.state();
        let silence = state.unanswered_since.map_or(Duration::ZERO, |since| clock::now() - since);
        if silence > SILENCE_FORGIVEN {
            state.unanswered_since = None;
            return false;
        }
        silence > SILENCE
    }

    /// Whether what is sent on it seems to be lost. To be asked when something is to be sent.
    pub(super) fn is_stale(&self) -> bool {
        let mut state = self.state();
        let now = clock::now();
        let Some((_, before)) = state.unheard.filter(|(since, _)| now - *since >= STALE_AFTER) else {
            return false;
        };
        let received = self.sender.datagrams_received();
        if received != before {
            // It is there, and has not answered yet; or it was there a moment ago.
            state.unheard = Some((now, received));
        }
        received == before
    }

    /// Whether nobody waits for an answer, and nobody has asked anything since `moment`.
    pub(super) fn is_unused_since(&self, moment: Instant) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.used_at < moment
    }

    /// Ends it from this side.
    pub(super) fn close(&self) {
        self.sender.close(CloseCode::DONE, "the client is done");
    }

    /// Reads until the link is over, and says why it is.
    async fn read(&self, mut receiver: LinkReceiver) -> Problem {
        let mut payloads = Vec::new();
        loop {
            if let Err(error) = receiver.next_batch(&mut payloads).await {
                return broken(&self.sender, &error);
            }
            if let Err(error) = self.dispatch(&mut payloads) {
                // What follows cannot be trusted either: the link is dropped, the node may be dialled anew.
                self.sender.close(CloseCode::VIOLATION, "an answer does not decode");
                let from = self.sender.remote_address();
                return Problem::new(Code::Connection, format!("{from} answered with garbage: {error}"));
            }
        }
    }

    fn dispatch(&self, payloads: &mut Vec<Bytes>) -> Result<(), codec::DecodeError> {
        let mut answered = Vec::with_capacity(payloads.len());
        let mut garbage = None;
        {
            let mut state = self.state();
            (state.unanswered_since, state.unheard) = (None, None);
            for payload in payloads.drain(..) {
                match codec::decode::<AnswerFrame>(&payload) {
                    Ok(frame) => {
                        let waiting = state.waiting.remove(&frame.id);
                        answered.extend(waiting.map(|waiting| (waiting, frame.answer)));
                    }
                    Err(error) => {
                        garbage = Some(error);
                        break;
                    }
                }
            }
            if !state.waiting.is_empty() {
                state.unanswered_since = Some(clock::now());
            }
        }
        for (waiting, answer) in answered {
            waiting.inbox.deliver(Delivery { attempt: waiting.attempt, reply: Reply::Answer(answer) });
        }
        garbage.map_or(Ok(()), Err)
    }

    /// From now on nothing is sent. Gives the requests that will not be answered.
    fn shut(&self, problem: &Problem) -> BTreeMap<u64, Waiting> {
        let mut state = self.state();
        state.over = Some(problem.clone());
        std::mem::take(&mut state.waiting)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in this file panics with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// Why a request is not even tried: nobody would wait for its answer, or the node would close the connection over it.
fn unsendable(request: &Request, deadline_ms: u32) -> Option<Problem> {
    if deadline_ms == 0 {
        return Some(Problem::new(Code::Timeout, "the deadline passed before the request could be sent"));
    }
    let (key, value, context) = match request {
        Request::Write(write) => (
            write.key.len(),
            write.value.as_ref().map_or(0, Bytes::len),
            write.context.as_ref().map_or(0, |context| context.as_bytes().len()),
        ),
        Request::Read(read) => (read.key.len(), 0, 0),
        Request::Explain { key } => (key.len(), 0, 0),
        Request::Topology | Request::Status | Request::Admin(_) => (0, 0, 0),
    };
    let bytes = ENVELOPE_BYTES + key + value + context;
    (bytes > CLIENT_REQUEST_BYTES_MAX).then(|| too_long(key >= value, bytes))
}

fn too_long(is_key: bool, bytes: usize) -> Problem {
    let (code, what) = if is_key { (Code::BadKey, "key") } else { (Code::ValueTooLarge, "value") };
    Problem::new(
        code,
        format!(
            "the {what} is too long: a request has at most {CLIENT_REQUEST_BYTES_MAX} bytes, this one {bytes}"
        ),
    )
}

fn unpushed(error: PushError) -> Problem {
    match error {
        PushError::Closed => Problem::new(Code::Connection, "the connection was just closed"),
        PushError::Full => Problem::new(
            Code::Overloaded,
            "too many requests wait to be sent; wait for answers before you send more",
        ),
        PushError::TooLong { bytes, .. } => too_long(false, bytes),
    }
}

fn broken(sender: &LinkSender, error: &LinkError) -> Problem {
    let forbidden = matches!(error, LinkError::ClosedThere { code: CloseCode::FORBIDDEN, .. });
    let code = if forbidden { Code::Forbidden } else { Code::Connection };
    Problem::new(code, format!("the connection to {} is over: {error}", sender.remote_address()))
}
