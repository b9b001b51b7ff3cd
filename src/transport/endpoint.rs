//! Endpoints: one UDP socket, from which links are dialled and on which they are accepted.
//!
//! ```text
//! dialler                                            acceptor
//!   │ ── TLS: certificate, protocol name ─────────────▶ │  authority, validity: by TLS
//!   │ ◀───────────────────── TLS: certificate ───────── │
//!   │    is it a node, and of my cluster?               │  does the certificate allow the protocol?
//!   │ ── the stream, an empty frame ──────────────────▶ │
//!   │ ◀────────────────────────────── an empty frame ── │  or the connection closes with a code and a reason
//! ```
//!
//! Every handshake has a deadline and runs in a task of its own, their number and that of links is capped, and beyond
//! a number of handshakes at once an address has to prove itself first (a retry, RFC 9000, 8.1). Strangers cost memory
//! and time within these bounds, and disturb nobody.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_io::Timer;
use async_std::channel::{Receiver, Sender, TrySendError, bounded};
use quinn::{
    ClientConfig, Connection, ConnectionError, EndpointConfig, IdleTimeout, Incoming, MtuDiscoveryConfig,
    ReadError, ReadExactError, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt, WriteError,
};

use super::afterlife::{RandomIds, ResetKey, ResetSecret};
use super::certificate::Credentials;
use super::error::{BindError, ConnectError};
use super::faults::Faults;
use super::identity::{Identity, NODE_SERVER_NAME};
use super::link::{CloseCode, End, Link, Parts};
use super::runtime::{AsyncStd, within};
use super::socket::{self, Socket};
use super::tls::{self, Protocol};
use crate::protocol::wire::frame::HEADER_BYTES;

/// Path MTUs are probed up to this. Loopback and jumbo frames allow it, which nearly halves the CPU time of 1 KiB
/// requests; other paths keep what they can. Ten such datagrams, which go out in one call, fit into 64 KiB: above
/// that the kernel refuses them all and the link stalls.
const MTU_MAX: u16 = 6_500;

/// The round trip assumed before the first one is measured. QUIC's own 333 ms (RFC 9002, 6.2.2) repeats an unanswered
/// first packet after a whole second: as long again for every node that was dialled a moment before it began to listen.
/// Nodes are near each other, and on a longer path the first packets merely go out once more than needed.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// What one stream buffers at most of received bytes that nobody has read, in bytes. A link between nodes has two, so that
/// what waits on the one takes nothing from the other.
const RECEIVE_WINDOW_BYTES: u32 = 2 << 20;

/// What one link keeps at most of sent bytes that the other side has not acknowledged, in bytes.
const SEND_WINDOW_BYTES: u64 = 4 << 20;

/// First packets that one incoming connection may buffer until it is answered, and all of them together, in bytes.
const INCOMING_BYTES_MAX: (u64, u64) = (64 << 10, 4 << 20);

/// Incoming connections that wait for the accept loop at most. It never waits itself, so this is ample.
const INCOMING_MAX: usize = 1 << 10;

/// Between two words to those who speak to the process before this one. All who were connected to it may speak at once,
/// and each of these datagrams is smaller than the one that it answers.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Links that were accepted by the endpoint and wait for [`Endpoint::accept`].
const BACKLOG: usize = 128;

const TOO_BUSY: &str = "too busy to take the link";

/// How long [`Endpoint::close`] waits for the other sides to hear of it.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// An empty frame.
const GREETING: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

/// How an endpoint behaves. The default suits a node.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Whether others may dial this endpoint. Only a node's certificate can.
    pub accepts: bool,
    /// A link is established within this time or not at all. Both sides keep their own.
    pub handshake_timeout: Duration,
    /// The dialling side sends a sign of life after this much silence. `None`: never.
    pub keep_alive_interval: Option<Duration>,
    /// A link on which nothing was heard for this long is over. The smaller one of both sides counts.
    pub idle_timeout: Duration,
    /// Links that were accepted and are open, at most. More are refused at once.
    pub links_max: usize,
    /// Handshakes of diallers under way, at most. More are refused at once.
    pub handshakes_max: usize,
    /// With so many handshakes under way, an address has to prove itself before another one begins.
    pub handshakes_unproven_max: usize,
    /// Bytes that one link queues before a push answers *full*; one frame may exceed it.
    pub queued_bytes_max: usize,
    /// The table of faults to inject into this endpoint's socket. Without one there is no way to inject any.
    pub faults: Option<Arc<Faults>>,
    /// With the secret of the process before it, an endpoint tells those who still speak to that one that it is gone.
    /// Without it they find out by their idle timeouts.
    pub reset_secret: Option<ResetSecret>,
}

impl Default for EndpointOptions {
    fn default() -> EndpointOptions {
        EndpointOptions {
            accepts: true,
            handshake_timeout: Duration::from_secs(5),
            keep_alive_interval: Some(Duration::from_secs(3)),
            idle_timeout: Duration::from_secs(10),
            links_max: 4_096,
            handshakes_max: 512,
            handshakes_unproven_max: 64,
            queued_bytes_max: 64 << 20,
            faults: None,
            reset_secret: None,
        }
    }
}

impl EndpointOptions {
    /// For an endpoint that only dials: a client's.
    #[must_use]
    pub fn dialling_only() -> EndpointOptions {
        EndpointOptions { accepts: false, ..EndpointOptions::default() }
    }

    fn transport(&self, end: End) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(MTU_MAX);
        let streams = match end {
            End::Dialler => 0_u32,
            End::Acceptor => 1,
        };
        transport
            .max_concurrent_bidi_streams(streams.into())
            // Links between nodes allow one, for bulk, when they know what they are.
            .max_concurrent_uni_streams(0_u32.into())
            .stream_receive_window(RECEIVE_WINDOW_BYTES.into())
            .receive_window((2 * RECEIVE_WINDOW_BYTES).into())
            .send_window(SEND_WINDOW_BYTES)
            .datagram_receive_buffer_size(None)
            .initial_rtt(INITIAL_RTT)
            .mtu_discovery_config(Some(mtu))
            .max_idle_timeout(Some(IdleTimeout::from(idle_millis(self.idle_timeout))))
            .keep_alive_interval(self.keep_alive_interval.filter(|_| end == End::Dialler));
        transport
    }
}

/// QUIC counts in milliseconds; zero would mean "never".
fn idle_millis(timeout: Duration) -> VarInt {
    VarInt::from_u32(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1))
}

/// One UDP socket and what is needed to dial and to accept. Clones share it; when the last is dropped, all its links
/// close.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    quinn: quinn::Endpoint,
    own: Identity,
    local_address: SocketAddr,
    options: EndpointOptions,
    peer: ClientConfig,
    client: ClientConfig,
    accepted: Receiver<Link>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Also ends the accept loop, which holds an endpoint of its own.
        self.quinn.close(VarInt::from_u32(CloseCode::DONE.0), b"the endpoint is gone");
    }
}

impl Endpoint {
    /// Opens the UDP socket at `listen` (port 0: the system picks one) and starts to accept, if the options say so.
    pub fn bind(
        listen: SocketAddr,
        credentials: &Credentials,
        options: EndpointOptions,
    ) -> Result<Endpoint, BindError> {
        if options.accepts && !credentials.identity().is_node() {
            return Err(BindError::NotANode { identity: credentials.identity().clone() });
        }
        let io_error = |source| BindError::from_io(listen, source);
        let udp = socket::open(listen).map_err(io_error)?;
        let socket = Arc::new(Socket::new(udp, options.faults.clone()).map_err(io_error)?);

        let secret = match &options.reset_secret {
            Some(secret) => secret.clone(),
            None => ResetSecret::random().map_err(|error| BindError::Tls(error.to_string()))?,
        };
        let mut config = EndpointConfig::new(ResetKey::of(&secret));
        config.cid_generator(|| Box::new(RandomIds)).min_reset_interval(RESET_INTERVAL_MIN);
        config.max_udp_payload_size(MTU_MAX).map_err(|error| BindError::Tls(error.to_string()))?;
        let server = options.accepts.then(|| server_config(credentials, &options)).transpose()?;
        let quinn = quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(AsyncStd))
            .map_err(io_error)?;
        let local_address = quinn.local_addr().map_err(io_error)?;

        let (backlog, accepted) = bounded(BACKLOG);
        let own = credentials.identity().clone();
        if options.accepts {
            let acceptor = Acceptor {
                own: own.clone(),
                options: options.clone(),
                links: Arc::default(),
                handshakes: Arc::default(),
                backlog,
            };
            async_std::task::spawn(Arc::new(acceptor).run(quinn.clone()));
        }
        let dials = |protocol| client_config(credentials, &options, protocol);
        let (peer, client) = (dials(Protocol::Peer)?, dials(Protocol::Client)?);
        Ok(Endpoint { inner: Arc::new(Inner { quinn, own, local_address, options, peer, client, accepted }) })
    }

    /// Where the socket is bound, with the port that the system picked.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.inner.local_address
    }

    /// Who this endpoint is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.own
    }

    /// Dials the node at `address`. The link has been accepted there when this returns.
    ///
    /// Nobody at the address and a lost packet look the same to UDP, so "nobody answers" takes the whole
    /// [handshake timeout](EndpointOptions::handshake_timeout).
    pub async fn connect(&self, address: SocketAddr, protocol: Protocol) -> Result<Link, ConnectError> {
        let config = match protocol {
            Protocol::Peer => self.inner.peer.clone(),
            Protocol::Client => self.inner.client.clone(),
        };
        let limit = self.inner.options.handshake_timeout;
        match within(limit, self.dial(address, protocol, config)).await {
            Some(result) => result,
            None => Err(ConnectError::NobodyAnswers { address, waited: limit }),
        }
    }

    async fn dial(
        &self,
        address: SocketAddr,
        protocol: Protocol,
        config: ClientConfig,
    ) -> Result<Link, ConnectError> {
        let connecting = self
            .inner
            .quinn
            .connect_with(config, address, NODE_SERVER_NAME)
            .map_err(|error| ConnectError::from_start(address, error))?;
        let failed = |error| ConnectError::from_connection(address, protocol, error);
        let connection = connecting.await.map_err(failed)?;
        let identity = match tls::parties(&connection) {
            Ok((identity, _)) if identity.is_node() => identity,
            Ok((identity, _)) => {
                close(&connection, CloseCode::FORBIDDEN, "only nodes accept links");
                return Err(ConnectError::NotANode { address, found: identity.to_string() });
            }
            Err(error) => {
                close(&connection, CloseCode::FORBIDDEN, &error.to_string());
                return Err(ConnectError::NotANode { address, found: error.to_string() });
            }
        };
        let streams = match dialler_greeting(&connection).await {
            Ok(streams) => streams,
            Err(GreetingError::Lost(error)) => return Err(failed(error)),
            Err(GreetingError::Violation(rule)) => {
                return Err(ConnectError::Broken { address, problem: rule.to_owned() });
            }
        };
        Ok(Link::start(Parts {
            connection,
            streams,
            identity,
            protocol,
            end: End::Dialler,
            queued_bytes_max: self.inner.options.queued_bytes_max,
            permit: (),
        }))
    }

    /// The next link that somebody dialled, checked and greeted. `None` when the endpoint is closed, or accepts none.
    pub async fn accept(&self) -> Option<Link> {
        self.inner.accepted.recv().await.ok()
    }

    /// Closes all links with `reason` and accepts no more. Waits until the other sides know, two seconds at most.
    pub async fn close(&self, reason: &str) {
        self.inner.quinn.close(VarInt::from_u32(CloseCode::DONE.0), reason.as_bytes());
        if within(CLOSE_WAIT, self.inner.quinn.wait_idle()).await.is_none() {
            tracing::debug!("closed without waiting for every other side");
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("identity", &self.inner.own)
            .field("local_address", &self.inner.local_address)
            .finish_non_exhaustive()
    }
}

fn server_config(credentials: &Credentials, options: &EndpointOptions) -> Result<ServerConfig, BindError> {
    let mut config = ServerConfig::with_crypto(tls::server(credentials)?);
    config
        .transport_config(Arc::new(options.transport(End::Acceptor)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX.0)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX.1);
    Ok(config)
}

fn client_config(
    credentials: &Credentials,
    options: &EndpointOptions,
    protocol: Protocol,
) -> Result<ClientConfig, BindError> {
    let mut config = ClientConfig::new(tls::client(credentials, protocol)?);
    config.transport_config(Arc::new(options.transport(End::Dialler)));
    Ok(config)
}

/// The link did not begin as a link does.
enum GreetingError {
    /// The connection ended; why, it knows itself.
    Lost(ConnectionError),
    /// The other side breaks the rules. This side has closed the connection.
    Violation(&'static str),
}

async fn dialler_greeting(connection: &Connection) -> Result<(SendStream, RecvStream), GreetingError> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(GreetingError::Lost)?;
    greet(connection, &mut send).await?;
    expect_greeting(connection, &mut receive).await?;
    Ok((send, receive))
}

async fn acceptor_greeting(connection: &Connection) -> Result<(SendStream, RecvStream), GreetingError> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(GreetingError::Lost)?;
    expect_greeting(connection, &mut receive).await?;
    greet(connection, &mut send).await?;
    Ok((send, receive))
}

async fn greet(connection: &Connection, send: &mut SendStream) -> Result<(), GreetingError> {
    match send.write_all(&GREETING).await {
        Ok(()) => Ok(()),
        Err(WriteError::ConnectionLost(error)) => Err(GreetingError::Lost(error)),
        Err(_) => Err(violation(connection, "the stream was stopped before the greeting")),
    }
}

async fn expect_greeting(connection: &Connection, receive: &mut RecvStream) -> Result<(), GreetingError> {
    let mut greeting = [0xff; HEADER_BYTES];
    match receive.read_exact(&mut greeting).await {
        Ok(()) if greeting == GREETING => Ok(()),
        Err(ReadExactError::ReadError(ReadError::ConnectionLost(error))) => Err(GreetingError::Lost(error)),
        _ => Err(violation(connection, "a link begins with an empty frame")),
    }
}

fn violation(connection: &Connection, reason: &'static str) -> GreetingError {
    close(connection, CloseCode::VIOLATION, reason);
    GreetingError::Violation(reason)
}

/// A connection that is closed already is not closed again.
fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(VarInt::from_u32(code.0), reason.as_bytes());
}

/// What the accept loop and its handshakes share.
struct Acceptor {
    own: Identity,
    options: EndpointOptions,
    /// Links that are open, and handshakes that may become links.
    links: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
    backlog: Sender<Link>,
}

/// One of a limited number.
struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Permit> {
        // Whoever comes after the last one takes a number too, and gives it back at once.
        let permit = Permit(Arc::clone(count));
        (count.fetch_add(1, Ordering::Relaxed) < max).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Acceptor {
    /// The accept loop. It never waits for a dialler.
    async fn run(self: Arc<Self>, endpoint: quinn::Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let address = incoming.remote_address();
            let is_crowded = self.handshakes.load(Ordering::Relaxed) >= self.options.handshakes_unproven_max;
            if is_crowded && incoming.may_retry() && !incoming.remote_address_validated() {
                // The address may be forged. Only one that receives the answer can return it.
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%address, %error, "no retry");
                }
                continue;
            }
            let link = Permit::take(&self.links, self.options.links_max);
            let handshake = Permit::take(&self.handshakes, self.options.handshakes_max);
            let (Some(link), Some(handshake)) = (link, handshake) else {
                tracing::debug!(%address, "refused: too many links or handshakes");
                incoming.refuse();
                continue;
            };
            let acceptor = Arc::clone(&self);
            async_std::task::spawn(async move {
                acceptor.welcome(incoming, link).await;
                drop(handshake);
            });
        }
    }

    /// One handshake, to its end or its deadline.
    async fn welcome(&self, incoming: Incoming, permit: Permit) {
        let deadline = Instant::now() + self.options.handshake_timeout;
        let address = incoming.remote_address();
        let connection = match until(deadline, async { incoming.await }).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                tracing::debug!(%address, %error, "a handshake failed");
                return;
            }
            None => {
                tracing::debug!(%address, "a handshake took too long");
                return;
            }
        };
        let refuse = |code, reason: &str| {
            tracing::info!(%address, reason, "refused a link");
            close(&connection, code, reason);
        };
        let (identity, protocol) = match tls::parties(&connection) {
            Ok((identity, Some(protocol))) => (identity, protocol),
            Ok((_, None)) => return refuse(CloseCode::VIOLATION, "no protocol was agreed on"),
            Err(error) => return refuse(CloseCode::FORBIDDEN, &error.to_string()),
        };
        if let Err((code, reason)) = self.admit(&identity, protocol) {
            return refuse(code, &reason);
        }
        // Before the greeting, so that the dialler hears of it as the answer to its call.
        if self.backlog.is_full() {
            return refuse(CloseCode::BUSY, TOO_BUSY);
        }
        let Some(greeted) = until(deadline, acceptor_greeting(&connection)).await else {
            return refuse(CloseCode::TOO_SLOW, "the link was not opened in time");
        };
        let streams = match greeted {
            Ok(streams) => streams,
            Err(GreetingError::Lost(error)) => return tracing::debug!(%address, %error, "no greeting"),
            Err(GreetingError::Violation(rule)) => return tracing::info!(%address, rule, "refused a link"),
        };
        let link = Link::start(Parts {
            connection,
            streams,
            identity,
            protocol,
            end: End::Acceptor,
            queued_bytes_max: self.options.queued_bytes_max,
            permit,
        });
        match self.backlog.try_send(link) {
            Ok(()) => {}
            Err(TrySendError::Full(link)) => link.close(CloseCode::BUSY, TOO_BUSY),
            Err(TrySendError::Closed(link)) => link.close(CloseCode::DONE, "the endpoint is gone"),
        }
    }

    /// Whether a holder of this identity may speak this protocol here.
    fn admit(&self, identity: &Identity, protocol: Protocol) -> Result<(), (CloseCode, String)> {
        match (protocol, identity, &self.own) {
            (Protocol::Client, _, _) => Ok(()),
            (Protocol::Peer, Identity::Client { .. }, _) => Err((
                CloseCode::FORBIDDEN,
                format!("the certificate is that of {identity}: only nodes speak {}", Protocol::Peer.alpn()),
            )),
            (Protocol::Peer, Identity::Node { cluster, .. }, Identity::Node { cluster: own, .. })
                if cluster != own =>
            {
                Err((
                    CloseCode::WRONG_CLUSTER,
                    format!("the certificate is that of {identity}, and this node belongs to cluster {own}"),
                ))
            }
            (Protocol::Peer, Identity::Node { .. }, _) => Ok(()),
        }
    }
}

/// Awaits `future`, but not beyond `deadline`. `None` means that the time was up.
async fn until<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(future.await) }, async {
        Timer::at(deadline).await;
        None
    })
    .await
}
