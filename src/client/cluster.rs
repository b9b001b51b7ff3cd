//! All that the clones of a client share: what it believes of the cluster, and its connections.
//!
//! ```text
//! Operation ── choose ──▶ Cluster ── send ──▶ Connection          one per node, opened on demand and kept
//!                           ▲
//! Follower ── refresh ──────┘ topology, every 10 s and whenever something looks changed; redials what was lost
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener};

use super::clock;
use super::connection::{Attempt, Connection};
use super::latency::Latency;
use super::options::ConnectOptions;
use super::route::{Candidate, Standing};
use super::view::View;
use crate::protocol::id::NodeId;
use crate::protocol::rng::Rng;
use crate::protocol::wire::client::{Code, Problem};
use crate::transport::{BindError, Endpoint, EndpointOptions, Identity, Link, Protocol};

/// A dial that takes longer than this lets other nodes go first.
const DIAL_QUICK: Duration = Duration::from_millis(100);

/// The first pause before a node that could not be reached is dialled again; doubles up to [`REDIAL_MAX`].
const REDIAL_MIN: Duration = Duration::from_millis(100);

/// The longest such pause.
const REDIAL_MAX: Duration = Duration::from_secs(5);

/// A connection that was not used for this long is closed: a client should not hold a thousand connections to a large
/// cluster because it once asked everybody something.
const UNUSED_MAX: Duration = Duration::from_secs(120);

/// See the module.
pub(super) struct Cluster {
    pub(super) options: ConnectOptions,
    /// The node that was meant by `options.via` at first, for when it is not heard of for a while.
    pub(super) pinned: Option<NodeId>,
    endpoint: Endpoint,
    state: Mutex<State>,
    rng: Mutex<Rng>,
    reads: Mutex<Latency>,
    /// Something looks changed: the follower should look at once. The flag holds it while the follower is busy.
    is_stale: AtomicBool,
    stale: Event,
}

struct State {
    view: Arc<View>,
    nodes: BTreeMap<NodeId, Peer>,
    closed: bool,
}

/// One node as seen from here.
#[derive(Default)]
struct Peer {
    line: Line,
    /// Dials in a row that failed, and connections that were lost and not replaced.
    failures: u32,
    /// Not to be dialled by the follower before this moment.
    redial_at: Option<Instant>,
    /// Where it answered before; tried before the addresses that it advertises.
    answered_at: Option<SocketAddr>,
    /// Counts its connections, so that the late end of an old one is not taken for the end of the present one.
    generation: u64,
}

#[derive(Default)]
enum Line {
    #[default]
    Idle,
    Dialling {
        since: Instant,
        waiting: Vec<Attempt>,
        /// A connection that nothing came back on. Whoever waits there does so until the dial has ended.
        given_up: Option<Arc<Connection>>,
    },
    Up(Arc<Connection>),
}

impl Cluster {
    /// Opens the socket that all connections share.
    pub(super) fn endpoint(options: &ConnectOptions) -> Result<Endpoint, BindError> {
        let limits =
            EndpointOptions { handshake_timeout: options.deadlines.dial, ..EndpointOptions::dialling_only() };
        let bind = |ip| Endpoint::bind(SocketAddr::new(ip, 0), &options.credentials, limits.clone());
        // The IPv6 wildcard serves both families; some machines have no IPv6 at all.
        bind(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).or_else(|_| bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    pub(super) fn new(options: ConnectOptions, endpoint: Endpoint, view: View, rng: Rng) -> Cluster {
        Cluster {
            pinned: options.via.as_ref().and_then(|name| view.named(name)),
            options,
            endpoint,
            state: Mutex::new(State { view: Arc::new(view), nodes: BTreeMap::new(), closed: false }),
            rng: Mutex::new(rng),
            reads: Mutex::new(Latency::new()),
            is_stale: AtomicBool::new(false),
            stale: Event::new(),
        }
    }

    /// What is believed now.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.state().view)
    }

    /// Believes a newer answer, unless it is of another cluster: an address may have been given to a stranger.
    pub(super) fn adopt(&self, view: View) -> Result<(), Problem> {
        let mut state = self.state();
        let (known, told) = (state.view.topology().cluster, view.topology().cluster);
        if known.is_some() && told != known {
            let text = format!("node {} belongs to another cluster", view.topology().node);
            return Err(Problem::new(Code::Connection, text));
        }
        state.view = Arc::new(view);
        Ok(())
    }

    /// The random numbers of this client.
    pub(super) fn with_rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut lock(&self.rng))
    }

    /// The latencies of reads.
    pub(super) fn with_reads<T>(&self, look: impl FnOnce(&mut Latency) -> T) -> T {
        look(&mut lock(&self.reads))
    }

    /// Asks the follower to look at the topology soon.
    pub(super) fn look_again(&self) {
        self.is_stale.store(true, Ordering::SeqCst);
        self.stale.notify(usize::MAX);
    }

    /// For the follower: wakes whenever [`look_again`](Cluster::look_again) is called.
    pub(super) fn staleness(&self) -> EventListener {
        self.stale.listen()
    }

    /// For the follower: whether somebody asked it to look since the last call.
    pub(super) fn take_staleness(&self) -> bool {
        self.is_stale.swap(false, Ordering::SeqCst)
    }

    /// How the nodes look that may take a request for `key` (any request, without a key).
    pub(super) fn candidates(&self, key: Option<&[u8]>, tried: &[NodeId]) -> Vec<Candidate> {
        let now = clock::now();
        let state = self.state();
        let owners = key.map(|key| state.view.owners(key)).unwrap_or_default();
        let candidate = |node: NodeId| Candidate {
            node,
            owner: owners.contains(&node),
            standing: state.standing(node, now),
            connected: state.is_connected(node),
            tried: tried.iter().filter(|other| **other == node).count() as u32,
        };
        // In a large cluster nobody looks at everybody for each request: the owners do while one of them is well.
        let from_owners: Vec<Candidate> = owners.iter().copied().map(candidate).collect();
        if from_owners.iter().any(|owner| owner.standing == Standing::Good && owner.tried == 0) {
            return from_owners;
        }
        state.view.topology().members.iter().map(|member| candidate(member.entry.id)).collect()
    }

    /// Sends an attempt to a node, by the connection that there is or by a new one. Its end is told to its inbox.
    pub(super) fn send(self: &Arc<Cluster>, node: NodeId, attempt: Attempt) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return attempt.fail(Problem::new(Code::Connection, "the client was closed"));
        }
        let peer = state.nodes.entry(node).or_default();
        match &mut peer.line {
            Line::Up(connection) if !connection.is_stale() => {
                let connection = Arc::clone(connection);
                drop(state);
                connection.send(attempt);
            }
            Line::Dialling { waiting, .. } => waiting.push(attempt),
            line @ (Line::Up(_) | Line::Idle) => {
                let given_up = match std::mem::take(line) {
                    Line::Up(stale) => {
                        // Its end is no loss.
                        peer.generation += 1;
                        Some(stale)
                    }
                    Line::Idle | Line::Dialling { .. } => None,
                };
                *line = Line::Dialling { since: clock::now(), waiting: vec![attempt], given_up };
                drop(state);
                async_std::task::spawn(Arc::clone(self).dial(node));
            }
        }
    }

    /// Dials, without a request, the nodes that were lost and whose pause is over, and closes connections that nobody
    /// uses. Tells when the next dial is due.
    pub(super) fn tidy_up(self: &Arc<Cluster>) -> Option<Instant> {
        let now = clock::now();
        let mut due = Vec::new();
        let mut state = self.state();
        let State { nodes, view, .. } = &mut *state;
        nodes.retain(|node, peer| view.member(*node).is_some() || !matches!(peer.line, Line::Idle));
        for (node, peer) in nodes.iter_mut() {
            if matches!(peer.line, Line::Idle) && peer.redial_at.is_some_and(|at| at <= now) {
                peer.line = Line::Dialling { since: now, waiting: Vec::new(), given_up: None };
                due.push(*node);
            }
            peer.close_if_unused(now);
        }
        let next = nodes
            .values()
            .filter(|peer| matches!(peer.line, Line::Idle))
            .filter_map(|peer| peer.redial_at)
            .min();
        drop(state);
        for node in due {
            async_std::task::spawn(Arc::clone(self).dial(node));
        }
        next
    }

    /// Dials an address of which nothing is known but that a node may be there.
    pub(super) async fn dial_address(
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<Link, crate::transport::ConnectError> {
        endpoint.connect(address, Protocol::Client).await
    }

    /// The socket, to dial seeds with.
    pub(super) fn seed_endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn dial(self: Arc<Cluster>, node: NodeId) {
        let outcome = self.reach(node).await;
        let (waiting, outcome) = match outcome {
            Ok((link, address)) => {
                let connection = self.take_over(node, link);
                (self.arrived(node, &connection, address), Ok(connection))
            }
            Err(problem) => (self.not_reached(node), Err(problem)),
        };
        for attempt in waiting {
            match &outcome {
                Ok(connection) if attempt.inbox.is_wanted() => connection.send(attempt),
                Ok(_) => {}
                Err(problem) => attempt.fail(problem.clone()),
            }
        }
    }

    /// Tries the addresses of a node, one after the other.
    async fn reach(&self, node: NodeId) -> Result<(Link, SocketAddr), Problem> {
        let (view, mut addresses) = {
            let state = self.state();
            let before = state.nodes.get(&node).and_then(|peer| peer.answered_at);
            (Arc::clone(&state.view), before.into_iter().collect::<Vec<_>>())
        };
        for address in view.addresses(node) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        let name = view.name_of(node);
        let mut said = Vec::new();
        for address in addresses {
            match Cluster::dial_address(&self.endpoint, address).await {
                Ok(link) if is_named(&link, &name) => return Ok((link, address)),
                Ok(link) => said.push(format!("at {address} is {} now", link.identity())),
                Err(error) => said.push(error.to_string()),
            }
        }
        let said = if said.is_empty() { "no address of it is known".to_owned() } else { said.join("; ") };
        Err(Problem::new(Code::Connection, format!("{name} cannot be reached: {said}")))
    }

    /// Makes a connection of a link to `node` and watches over its end.
    fn take_over(self: &Arc<Cluster>, node: NodeId, link: Link) -> Arc<Connection> {
        let generation = {
            let mut state = self.state();
            let peer = state.nodes.entry(node).or_default();
            peer.generation += 1;
            peer.generation
        };
        let cluster: Weak<Cluster> = Arc::downgrade(self);
        Connection::start(link, move || {
            if let Some(cluster) = cluster.upgrade() {
                cluster.lost(node, generation);
            }
        })
    }

    /// A new connection stands. Gives the attempts that waited for it.
    fn arrived(&self, node: NodeId, connection: &Arc<Connection>, address: SocketAddr) -> Vec<Attempt> {
        let mut state = self.state();
        if state.closed {
            connection.close();
        }
        let peer = state.nodes.entry(node).or_default();
        peer.answered_at = Some(address);
        if connection.is_open() {
            peer.failures = 0;
            peer.redial_at = None;
        }
        // A connection is over before `lost` is told so: if it is open here, `lost` is still to come.
        let line = if connection.is_open() { Line::Up(Arc::clone(connection)) } else { Line::Idle };
        std::mem::replace(&mut peer.line, line).end_dial()
    }

    fn not_reached(&self, node: NodeId) -> Vec<Attempt> {
        let mut state = self.state();
        let peer = state.nodes.entry(node).or_default();
        peer.set_back();
        let waiting = std::mem::take(&mut peer.line).end_dial();
        drop(state);
        self.look_again();
        waiting
    }

    fn lost(&self, node: NodeId, generation: u64) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let peer = state.nodes.entry(node).or_default();
        if peer.generation != generation {
            return;
        }
        peer.set_back();
        if matches!(peer.line, Line::Up(_)) {
            peer.line = Line::Idle;
        }
        drop(state);
        self.look_again();
    }

    /// Uses the link over which the topology was learned for requests, too, unless there is one already.
    pub(super) fn keep(self: &Arc<Cluster>, node: NodeId, link: Link) {
        let address = link.remote_address();
        if let Some(Peer { line: Line::Up(_), .. }) = self.state().nodes.get(&node) {
            return;
        }
        let connection = self.take_over(node, link);
        let waiting = self.arrived(node, &connection, address);
        for attempt in waiting {
            connection.send(attempt);
        }
    }

    /// Ends all connections; later requests fail.
    pub(super) fn close(&self) {
        let nodes = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.nodes)
        };
        for peer in nodes.into_values() {
            match peer.line {
                Line::Up(connection) => connection.close(),
                dial @ Line::Dialling { .. } => {
                    for attempt in dial.end_dial() {
                        attempt.fail(Problem::new(Code::Connection, "the client was closed"));
                    }
                }
                Line::Idle => {}
            }
        }
        self.look_again();
    }

    /// Whether [`close`](Cluster::close) was called.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn is_connected(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|peer| matches!(peer.line, Line::Up(_)))
    }

    fn standing(&self, node: NodeId, now: Instant) -> Standing {
        let told = if self.view.is_reachable(node) { Standing::Good } else { Standing::Doubtful };
        let Some(peer) = self.nodes.get(&node) else { return told };
        match &peer.line {
            Line::Up(connection) if connection.is_silent() => Standing::Doubtful,
            // A connection of one's own says more than what others can reach.
            Line::Up(_) => Standing::Good,
            _ if peer.failures > 0 => Standing::Down,
            Line::Dialling { since, .. } if now - *since > DIAL_QUICK => Standing::Doubtful,
            Line::Dialling { .. } | Line::Idle => told,
        }
    }
}

impl Line {
    /// The dial has ended, well or not. Gives the attempts that waited for it.
    fn end_dial(self) -> Vec<Attempt> {
        let Line::Dialling { waiting, given_up, .. } = self else { return Vec::new() };
        if let Some(stale) = given_up {
            stale.close();
        }
        waiting
    }
}

impl Peer {
    fn close_if_unused(&mut self, now: Instant) {
        let Line::Up(connection) = &self.line else { return };
        if now.checked_sub(UNUSED_MAX).is_some_and(|long_ago| connection.is_unused_since(long_ago)) {
            connection.close();
            self.line = Line::Idle;
            // Its end is no loss, and nothing is to be redialled.
            self.generation += 1;
        }
    }

    fn set_back(&mut self) {
        let pause = REDIAL_MIN.saturating_mul(1 << self.failures.min(10)).min(REDIAL_MAX);
        self.failures += 1;
        self.redial_at = Some(clock::now() + pause);
    }
}

fn is_named(link: &Link, wanted: &str) -> bool {
    matches!(link.identity(), Identity::Node { name, .. } if name == wanted)
}

/// No code here panics with a lock held, and every state under one is consistent after each statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
