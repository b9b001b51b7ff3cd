//! Links: one QUIC connection with one long-lived stream of frames in each direction (Single-Socket Channel).
//!
//! ```text
//!  any thread ── push ──────▶ outbox ──▶ writer task ══ QUIC stream ══▶ next_batch ──▶ the one reader
//!             ── push_bulk ─▶ outbox ──▶ writer task ══ QUIC stream ══▶ next_batch ──▶ another one
//! ```
//!
//! Between nodes there is a second stream each way for bulk: many records that nobody waits for from one moment to the next.
//! Frames of one stream arrive in order, so a long frame, or a lost packet of one, holds up all that are behind it; those of
//! another stream go by. It is opened when there is something to send on it.
//!
//! The dialler opens the stream with a greeting, an empty frame; the acceptor answers with one once it has read the
//! dialler's certificate. TLS 1.3 alone would let a dialler begin before it knows whether it is welcome. After the
//! greeting frames of both directions flow independently, numbered by whoever writes them (Request Pipeline).

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use thiserror::Error;

use super::identity::Identity;
use super::outbox::{Outbox, Work};
use super::tls::Protocol;
use crate::protocol::wire::frame::{
    CLIENT_REQUEST_BYTES_MAX, FrameReader, FrameTooLong, PEER_FRAME_BYTES_MAX, RESPONSE_BYTES_MAX,
};

pub use super::outbox::PushError;

/// Whatever waits on the stream of requests goes first.
const BULK_PRIORITY: i32 = -1;

/// Pieces of the stream that one call takes at most; each is what one datagram carried of it.
const CHUNKS_MAX: usize = 32;

/// Why a link was closed, for programs. The transport's own are below 256; those above are for what uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// Nothing is wrong.
    pub const DONE: CloseCode = CloseCode(0);
    /// The certificate does not allow what was asked for.
    pub const FORBIDDEN: CloseCode = CloseCode(1);
    /// The two nodes belong to different clusters.
    pub const WRONG_CLUSTER: CloseCode = CloseCode(2);
    /// What arrived breaks the rules of the protocol, an over-long frame for one.
    pub const VIOLATION: CloseCode = CloseCode(3);
    /// The link was not opened in time.
    pub const TOO_SLOW: CloseCode = CloseCode(4);
    /// There are too many links already.
    pub const BUSY: CloseCode = CloseCode(5);
}

/// Why a link is over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// By a call on this side.
    #[error("this side closed the link: {reason}")]
    ClosedHere {
        /// The code given.
        code: CloseCode,
        /// The reason given.
        reason: String,
    },
    /// By the other side.
    #[error("the other side closed the link: {reason}")]
    ClosedThere {
        /// The code that came with it.
        code: CloseCode,
        /// The reason that came with it.
        reason: String,
    },
    /// The other side has sent all that it wanted to. Frames may still flow in the other direction.
    #[error("the other side has sent all it had")]
    Finished,
    /// Nothing was heard for the idle timeout: the other side or the network between is down.
    #[error("nothing was heard from the other side for too long")]
    TimedOut,
    /// The other side sent an over-long frame; the link was closed for it.
    #[error(transparent)]
    FrameTooLong(#[from] FrameTooLong),
    /// Anything else that ends a connection.
    #[error("the link broke: {0}")]
    Broken(String),
}

/// One link, with a sending and a receiving half that may part.
#[derive(Debug)]
pub struct Link {
    /// Cheap to clone; any number of threads may push.
    pub sender: LinkSender,
    /// For one reader. Dropping it closes the link: frames that nobody reads would only fill windows.
    pub receiver: LinkReceiver,
}

/// The sending half. When all clones are gone, what was pushed is still sent and the other side reads
/// [`LinkError::Finished`] after it.
#[derive(Clone)]
pub struct LinkSender {
    shared: Arc<Shared>,
    /// Counts the senders.
    _alive: Arc<FinishOnDrop>,
}

/// The receiving half.
pub struct LinkReceiver {
    shared: Arc<Shared>,
    stream: RecvStream,
    reader: FrameReader,
    chunks: [Bytes; CHUNKS_MAX],
    /// An error that came behind whole frames, which are delivered first.
    pending_error: Option<LinkError>,
}

struct Shared {
    connection: quinn::Connection,
    identity: Identity,
    protocol: Protocol,
    outbox: Outbox,
    bulk: Outbox,
    /// What this side said when it closed the link; QUIC does not remember.
    closed_here: OnceLock<(CloseCode, String)>,
}

struct FinishOnDrop(Arc<Shared>);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        self.0.outbox.begin_finish();
        self.0.bulk.begin_finish();
    }
}

/// Which end of a link this is; with the protocol it decides how long frames may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Dialler,
    Acceptor,
}

/// The longest payload that this end sends and receives, in bytes.
fn payload_bytes_max(protocol: Protocol, end: End) -> (usize, usize) {
    match (protocol, end) {
        (Protocol::Peer, _) => (PEER_FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX),
        (Protocol::Client, End::Dialler) => (CLIENT_REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX),
        (Protocol::Client, End::Acceptor) => (RESPONSE_BYTES_MAX, CLIENT_REQUEST_BYTES_MAX),
    }
}

/// All that makes a link, after the greetings.
pub(super) struct Parts<P> {
    pub(super) connection: quinn::Connection,
    pub(super) streams: (SendStream, RecvStream),
    pub(super) identity: Identity,
    pub(super) protocol: Protocol,
    pub(super) end: End,
    pub(super) queued_bytes_max: usize,
    /// Given back when the connection is over, whoever still holds a half of the link.
    pub(super) permit: P,
}

impl Link {
    /// Puts a link together and starts its tasks: the writers, and the one that notices the end.
    pub(super) fn start<P: Send + 'static>(parts: Parts<P>) -> Link {
        let (send_max, receive_max) = payload_bytes_max(parts.protocol, parts.end);
        let shared = Arc::new(Shared {
            connection: parts.connection,
            identity: parts.identity,
            protocol: parts.protocol,
            outbox: Outbox::new(send_max, parts.queued_bytes_max),
            bulk: Outbox::new(send_max, parts.queued_bytes_max),
            closed_here: OnceLock::new(),
        });
        let (send, stream) = parts.streams;
        async_std::task::spawn(write_batches(Arc::clone(&shared), send));
        match parts.protocol {
            Protocol::Peer => {
                shared.connection.set_max_concurrent_uni_streams(1_u32.into());
                async_std::task::spawn(write_bulk(Arc::clone(&shared)));
            }
            Protocol::Client => shared.bulk.close(),
        }
        let (watched, permit) = (Arc::clone(&shared), parts.permit);
        async_std::task::spawn(async move {
            let error = watched.connection.closed().await;
            tracing::debug!(other = %watched.identity, address = %watched.connection.remote_address(), %error,
                "a link is over");
            watched.outbox.close();
            watched.bulk.close();
            drop(permit);
        });
        Link {
            sender: LinkSender {
                _alive: Arc::new(FinishOnDrop(Arc::clone(&shared))),
                shared: Arc::clone(&shared),
            },
            receiver: LinkReceiver::new(shared, stream, receive_max),
        }
    }

    /// Who is at the other end, by its certificate.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.sender.identity()
    }

    /// Where the other end is.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.sender.remote_address()
    }

    /// What the link is for.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.sender.protocol()
    }

    /// Closes the link; see [`LinkSender::close`].
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.sender.close(code, reason);
    }
}

impl LinkSender {
    /// Queues the frame whose payload `encode` appends to the buffer that it is given (and must not touch otherwise).
    ///
    /// Never waits, so it may be called under a lock and from any thread; `encode` runs under a lock of the link's
    /// own. Frames arrive in the order of their pushes. On an error nothing was queued. That a frame was queued does
    /// not mean that it arrives: only an answer says that.
    pub fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), PushError> {
        self.shared.outbox.push(encode)
    }

    /// The same for bulk, which goes over a stream of its own and never before what was [pushed](LinkSender::push) there.
    /// Only links between nodes have one; on others this fails as on a closed link. What was not sent when the link is
    /// finished is lost.
    pub fn push_bulk(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), PushError> {
        self.shared.bulk.push(encode)
    }

    /// Bytes that QUIC has not taken over yet. It holds up to 4 MiB more that the other side has not acknowledged.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.outbox.queued_bytes()
    }

    /// Takes no more frames and waits until the other side's QUIC has acknowledged all that were pushed. The receiving
    /// half goes on. Errors if the link ended before that.
    pub async fn finish(&self) -> Result<(), LinkError> {
        self.shared.outbox.begin_finish();
        self.shared.bulk.begin_finish();
        if self.shared.outbox.ended().await { Ok(()) } else { Err(self.closed().await) }
    }

    /// Closes the link at once, both directions; what has not been sent is lost. `reason` is for people and reaches
    /// the other side, cut to what fits into a packet. Only the first close counts.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.shared.close(code, reason);
    }

    /// Waits for the end of the link, and says why it ended.
    pub async fn closed(&self) -> LinkError {
        let error = self.shared.connection.closed().await;
        self.shared.explain(error)
    }

    /// Why the link is over, if it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<LinkError> {
        self.shared.connection.close_reason().map(|error| self.shared.explain(error))
    }

    /// Who is at the other end, by its certificate.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Where the other end is.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.shared.connection.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// What the link is for.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.shared.protocol
    }

    /// How many datagrams have come from the other side, mere acknowledgements included: whether it is still there, even
    /// if it has nothing to say.
    #[must_use]
    pub fn datagrams_received(&self) -> u64 {
        self.shared.connection.stats().udp_rx.datagrams
    }

    /// QUIC's estimate of the round-trip time.
    #[must_use]
    pub fn round_trip(&self) -> std::time::Duration {
        self.shared.connection.rtt()
    }
}

impl LinkReceiver {
    fn new(shared: Arc<Shared>, stream: RecvStream, payload_bytes_max: usize) -> LinkReceiver {
        LinkReceiver {
            shared,
            stream,
            reader: FrameReader::new(payload_bytes_max),
            chunks: std::array::from_fn(|_| Bytes::new()),
            pending_error: None,
        }
    }

    /// Waits until the other side has bulk to send, and gives back what receives that. To be called once for each link
    /// between nodes. Dropping either half closes the link.
    pub fn bulk(&self) -> impl Future<Output = Result<LinkReceiver, LinkError>> + use<> {
        let (shared, payload_bytes_max) = (Arc::clone(&self.shared), self.reader.payload_bytes_max());
        async move {
            match shared.connection.accept_uni().await {
                Ok(stream) => Ok(LinkReceiver::new(shared, stream, payload_bytes_max)),
                Err(error) => Err(shared.explain(error)),
            }
        }
    }

    /// Waits for at least one whole frame, and appends the payloads of all that are there (up to what some tens of
    /// datagrams carry) to `out`, in order. May be cancelled without a loss.
    ///
    /// Payloads are slices of what was received; whoever keeps one for long copies it. Handle a batch inline and push
    /// its answers together: that is what makes the link fast. After an error every further call fails as well.
    pub async fn next_batch(&mut self, out: &mut Vec<Bytes>) -> Result<(), LinkError> {
        if let Some(error) = &self.pending_error {
            return Err(error.clone());
        }
        let before = out.len();
        while out.len() == before {
            let failed = match self.stream.read_chunks(&mut self.chunks).await {
                Ok(Some(count)) => self.feed(count, out).err(),
                Ok(None) if self.reader.is_between_frames() => Some(LinkError::Finished),
                Ok(None) => Some(self.violation("the stream ended within a frame")),
                Err(ReadError::ConnectionLost(error)) => Some(self.shared.explain(error)),
                Err(error) => Some(LinkError::Broken(error.to_string())),
            };
            if let Some(error) = failed {
                self.pending_error = Some(error.clone());
                return if out.len() == before { Err(error) } else { Ok(()) };
            }
        }
        Ok(())
    }

    fn feed(&mut self, count: usize, out: &mut Vec<Bytes>) -> Result<(), LinkError> {
        for chunk in &mut self.chunks[..count] {
            if let Err(error) = self.reader.feed(std::mem::take(chunk), out) {
                self.shared.close(CloseCode::VIOLATION, &error.to_string());
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn violation(&self, reason: &str) -> LinkError {
        self.shared.close(CloseCode::VIOLATION, reason);
        LinkError::Broken(reason.to_owned())
    }
}

impl Drop for LinkReceiver {
    fn drop(&mut self) {
        self.shared.close(CloseCode::DONE, "nobody reads this link any more");
    }
}

impl Shared {
    fn close(&self, code: CloseCode, reason: &str) {
        // If the connection is over already, neither call has an effect beyond the words kept here.
        if self.connection.close_reason().is_none() {
            let _ = self.closed_here.set((code, reason.to_owned()));
            self.connection.close(VarInt::from_u32(code.0), reason.as_bytes());
        }
        // At once, not when the watching task gets to it: whoever closes a link and then pushes is to hear of it.
        self.outbox.close();
        self.bulk.close();
    }

    fn explain(&self, error: ConnectionError) -> LinkError {
        match (error, self.closed_here.get()) {
            (ConnectionError::LocallyClosed, Some((code, reason))) => {
                LinkError::ClosedHere { code: *code, reason: reason.clone() }
            }
            (ConnectionError::LocallyClosed, None) => {
                LinkError::ClosedHere { code: CloseCode::DONE, reason: "the endpoint was closed".to_owned() }
            }
            (error, _) => explain(error),
        }
    }
}

/// Why a connection ended, as far as the connection itself knows.
pub(super) fn explain(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::ApplicationClosed(close) => LinkError::ClosedThere {
            code: CloseCode(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX)),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::TimedOut => LinkError::TimedOut,
        // It restarted, or it heard nothing for longer than the idle timeout, as after a pause.
        ConnectionError::Reset => LinkError::Broken("the other side no longer knows the link".to_owned()),
        other => LinkError::Broken(other.to_string()),
    }
}

/// The writer: takes whatever waits and writes it at once, again and again.
async fn write_batches(shared: Arc<Shared>, mut stream: SendStream) {
    let mut batch = Vec::new();
    loop {
        match poll_fn(|cx| shared.outbox.poll_take(cx, &mut batch)).await {
            Work::Write => match stream.write_all(&batch).await {
                Ok(()) => {}
                Err(WriteError::ConnectionLost(_)) => return,
                Err(error) => return shared.close(CloseCode::VIOLATION, &error.to_string()),
            },
            Work::Finish => {
                // This fails only if the stream was stopped or the connection lost, and then so does the next line.
                let _ = stream.finish();
                match stream.stopped().await {
                    Ok(None) => shared.outbox.set_finished(),
                    Ok(Some(_)) => shared.close(CloseCode::VIOLATION, "the other side stopped reading"),
                    Err(_) => {}
                }
                return;
            }
            Work::Stop => return,
        }
    }
}

/// The writer of bulk. Whatever it has not written when the link is finished can be asked for again.
async fn write_bulk(shared: Arc<Shared>) {
    let mut batch = Vec::new();
    let mut stream: Option<SendStream> = None;
    while let Work::Write = poll_fn(|cx| shared.bulk.poll_take(cx, &mut batch)).await {
        let opened = match &mut stream {
            Some(opened) => opened,
            none => {
                let Ok(opened) = shared.connection.open_uni().await else { return };
                let _ = opened.set_priority(BULK_PRIORITY);
                none.insert(opened)
            }
        };
        match opened.write_all(&batch).await {
            Ok(()) => {}
            Err(WriteError::ConnectionLost(_)) => return,
            Err(error) => return shared.close(CloseCode::VIOLATION, &error.to_string()),
        }
    }
}

impl fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSender")
            .field("identity", self.identity())
            .field("remote_address", &self.remote_address())
            .field("protocol", &self.protocol())
            .field("queued_bytes", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LinkReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkReceiver").field("identity", &self.shared.identity).finish_non_exhaustive()
    }
}
