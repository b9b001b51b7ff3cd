//! Connections to other nodes: one per pair, opened on demand, found again after trouble.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_lite::future;

use super::clock::Clock;
use super::driver::Driver;
use crate::protocol::codec;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::output::Destination;
use crate::protocol::time::Moment;
use crate::protocol::wire::peer::{Hello, PeerMessage};
use crate::transport::endpoint::Endpoint;
use crate::transport::identity::Identity;
use crate::transport::link::{CloseCode, Link, LinkError, LinkReceiver, LinkSender, PushError};
use crate::transport::tls::Protocol;

/// Messages that wait for a connection to be opened, and their bytes; more are dropped, as messages may be.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 8 << 20;

/// After so much silence it is worth a look whether what is sent on a link is acknowledged.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// A link on which something was sent and not even QUIC's acknowledgement came back within this time may be dead without
/// knowing it: another one is dialled beside it. QUIC itself would repeat ever more slowly until its idle timeout, and
/// keep a healed network waiting as long. Silence alone proves nothing: most pairs of a large cluster have little to say.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// Two dials that began at the same time have both ended, one way or the other, after this long. A node that dials later
/// has given up the link that there was.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// The other side has to say hello within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after the first failed attempt to dial; doubles up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A stranger who is refused again and again for the same reason is told of in the log this often.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Addresses that are remembered; more than a cluster has. Those that nobody asks for are forgotten then.
const ADDRESSES_MAX: usize = 1 << 12;

/// A superfluous link stays this long for what is under way on it.
const GRACE: Duration = Duration::from_secs(1);

/// The connections of a node to others (Single-Socket Channel): one per pair. When two nodes dial each other at the same
/// time, the connection that the lower id opened stays.
pub(super) struct Peers {
    endpoint: Endpoint,
    clock: Clock,
    driver: OnceLock<Weak<Driver>>,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    links: BTreeMap<NodeId, Active>,
    dials: BTreeMap<SocketAddr, Dial>,
    /// Who answered at an address the last time.
    known: BTreeMap<SocketAddr, NodeId>,
    /// Why somebody was refused, who it was, and when the log was told.
    refusal: Option<(String, SocketAddr, Moment)>,
    /// The number of the latest link. Never given twice: the end of a link must not take another one out of the table.
    serial: u64,
}

/// The link that messages to a node go out on.
#[derive(Clone)]
struct Active {
    sender: LinkSender,
    incarnation: Incarnation,
    opened_by: NodeId,
    since: Moment,
    /// When something was heard on it last: microseconds of the clock.
    heard: Arc<AtomicU64>,
    /// When something was sent after a silence, and how many datagrams had come until then.
    asked: Option<(Moment, u64)>,
    serial: u64,
}

/// What waits for a connection to an address.
#[derive(Default)]
struct Dial {
    waiting: Vec<Waiting>,
    under_way: bool,
    not_before: Moment,
    pause: Duration,
    /// Why the last attempt failed, as the log was told.
    problem: String,
}

/// An encoded message, and whom it is for; `None` is whoever answers.
struct Waiting {
    to: Option<NodeId>,
    message: Vec<u8>,
}

impl Peers {
    pub(super) fn new(endpoint: Endpoint, clock: Clock) -> Peers {
        Peers { endpoint, clock, driver: OnceLock::new(), table: Arc::default() }
    }

    /// Tells who handles what peers say. Called once.
    pub(super) fn drive(&self, driver: &Arc<Driver>) {
        let _ = self.driver.set(Arc::downgrade(driver));
    }

    /// How many nodes there is a link to.
    pub(super) fn links(&self) -> usize {
        self.lock().links.len()
    }

    /// Sends a message, now or as soon as there is a connection, or drops it. Never waits.
    pub(super) fn send(&self, now: Moment, to: Destination, message: &PeerMessage) {
        let mut table = self.lock();
        let (to, id, address) = match to {
            Destination::Node { id, address } => (Some(id), Some(id), address),
            Destination::Address(address) => (None, table.known.get(&address).copied(), Some(address)),
        };
        let mut must_wait = true;
        if let Some(active) = id.and_then(|id| table.links.get_mut(&id)) {
            let encode = |out: &mut Vec<u8>| codec::encode_into(message, out);
            let pushed =
                if message.is_bulk() { active.sender.push_bulk(encode) } else { active.sender.push(encode) };
            match pushed {
                Ok(()) if !active.is_stale(now) => return,
                Ok(()) => must_wait = false,
                // A second link beside that of a slow peer would only be a second queue.
                Err(PushError::Full) if !active.is_stale(now) => return,
                Err(PushError::Full) => {}
                Err(error @ PushError::TooLong { .. }) => {
                    return tracing::error!("a message for another node was not sent: {error}");
                }
                Err(PushError::Closed) => {
                    let serial = active.serial;
                    table.links.retain(|_, link| link.serial != serial);
                }
            }
        }
        let Some(address) = address else { return };
        if to.is_some_and(|to| table.is_taken(address, to)) {
            return;
        }
        let Some(driver) = self.driver.get() else { return };
        if table.dial(address, now, must_wait.then(|| Waiting { to, message: codec::encode(message) })) {
            async_std::task::spawn(dial_and_serve(driver.clone(), address));
        }
    }

    /// Takes a link that another node has dialled and serves it to its end.
    pub(super) async fn accept(driver: Weak<Driver>, link: Link) {
        let Some(own) = driver.upgrade().and_then(|driver| driver.hello()) else { return };
        let (sender, mut receiver) = (link.sender, link.receiver);
        let mut early = Vec::new();
        match greet(&sender, &mut receiver, &own, &mut early).await {
            Ok(hello) if is_same_node(&own, &hello, sender.remote_address()) => {
                sender.close(CloseCode::DONE, "a node needs no connection to itself");
            }
            Ok(hello) => {
                let Some(strong) = driver.upgrade() else { return };
                let active = strong.peers().register(&own, &hello, hello.node, &sender);
                drop(strong);
                serve(&driver, hello.node, active, receiver, early).await;
            }
            Err((code, reason)) => {
                if let Some(strong) = driver.upgrade() {
                    strong.peers().tell_of_refusal(sender.remote_address(), &reason);
                }
                sender.close(code, &reason);
            }
        }
    }

    /// Lets what was pushed reach the others, and the clients, then closes all links.
    pub(super) async fn close(&self, clients: Vec<LinkSender>, reason: &str) {
        let mut links = clients;
        links.extend(self.lock().links.values().map(|active| active.sender.clone()));
        let flush = async {
            for link in links {
                let _ = link.finish().await;
            }
        };
        let tired = async {
            async_io::Timer::after(Duration::from_millis(500)).await;
        };
        future::or(flush, tired).await;
        self.endpoint.close(reason).await;
    }

    /// Decides which link to a node is used from now on.
    fn register(&self, own: &Hello, hello: &Hello, opened_by: NodeId, sender: &LinkSender) -> Active {
        let now = self.clock.now().monotonic;
        let mut table = self.lock();
        table.serial += 1;
        let new = Active {
            sender: sender.clone(),
            incarnation: hello.incarnation,
            opened_by,
            since: now,
            heard: Arc::new(AtomicU64::new(now.0)),
            asked: None,
            serial: table.serial,
        };
        if let Some(superfluous) = table.register(own.node, hello.node, new.clone(), now)
            && superfluous.opened_by == own.node
        {
            async_std::task::spawn(async move {
                async_io::Timer::after(GRACE).await;
                superfluous.sender.close(CloseCode::DONE, "another connection between the two nodes is used");
            });
        }
        new
    }

    /// Tells the log, but does not let somebody who tries for ever fill it.
    fn tell_of_refusal(&self, from: SocketAddr, reason: &str) {
        let now = self.clock.now().monotonic;
        let mut table = self.lock();
        // The same stranger may be refused in this side's words now and in its own then.
        let is_told = table.refusal.as_ref().is_some_and(|(told, whom, at)| {
            (told == reason || *whom == from) && now.since(*at) < REFUSALS_TOLD_EVERY
        });
        if !is_told {
            tracing::warn!(%from, "refused a peer: {reason}");
            table.refusal = Some((reason.to_owned(), from, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Decides between a new link to `peer` and the one that there was; gives back the one that is superfluous. Both
    /// nodes decide for themselves, and alike.
    fn register(&mut self, own: NodeId, peer: NodeId, new: Active, now: Moment) -> Option<Active> {
        let first = own.min(peer);
        let replaces = self.links.get_mut(&peer).is_none_or(|old| {
            if old.sender.close_reason().is_some() || old.incarnation != new.incarnation {
                return old.incarnation <= new.incarnation;
            }
            let is_given_up = now.since(old.since) >= SETTLED_AFTER || old.is_stale(now);
            is_given_up || new.opened_by == first || old.opened_by != first
        });
        if replaces { self.links.insert(peer, new) } else { Some(new) }
    }

    /// Whether another node than `wanted` is known to live at the address now: a message would not arrive.
    fn is_taken(&self, address: SocketAddr, wanted: NodeId) -> bool {
        self.known
            .get(&address)
            .filter(|&&tenant| tenant != wanted)
            .and_then(|tenant| self.links.get(tenant))
            .is_some_and(|link| {
                link.sender.remote_address() == address && link.sender.close_reason().is_none()
            })
    }

    /// Lets a message wait for a connection to the address; tells whether to dial now.
    fn dial(&mut self, address: SocketAddr, now: Moment, message: Option<Waiting>) -> bool {
        if self.dials.len() >= ADDRESSES_MAX {
            self.dials.retain(|_, dial| dial.under_way || now < dial.not_before);
        }
        let dial = self.dials.entry(address).or_default();
        let begins = !dial.under_way && now >= dial.not_before;
        if let Some(message) = message
            && (begins || dial.under_way)
            && dial.waiting.len() < WAITING_MAX
            && dial.waiting.iter().map(|waiting| waiting.message.len()).sum::<usize>() < WAITING_BYTES_MAX
        {
            dial.waiting.push(message);
        }
        dial.under_way |= begins;
        begins
    }

    /// Notes who answered at an address; gives what waited for an answer.
    fn reached(&mut self, address: SocketAddr, who: NodeId) -> Vec<Waiting> {
        if self.known.len() >= ADDRESSES_MAX {
            self.known.clear();
        }
        self.known.insert(address, who);
        self.dials.remove(&address).map(|dial| dial.waiting).unwrap_or_default()
    }

    /// Notes that nobody that one could talk to answered; the next attempt has to wait.
    fn missed(&mut self, address: SocketAddr, now: Moment) -> &mut Dial {
        let dial = self.dials.entry(address).or_default();
        dial.under_way = false;
        dial.waiting.clear();
        dial.pause = (dial.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        dial.not_before = now + dial.pause;
        dial
    }
}

impl Active {
    /// Whether what is sent on the link seems to be lost. To be asked when something was sent.
    fn is_stale(&mut self, now: Moment) -> bool {
        if now.since(Moment(self.heard.load(Ordering::Relaxed))) < QUIET_AFTER {
            self.asked = None;
            return false;
        }
        let received = self.sender.datagrams_received();
        match self.asked {
            Some((at, before)) if before == received => now.since(at) >= STALE_AFTER,
            _ => {
                self.asked = Some((now, received));
                false
            }
        }
    }
}

/// Whether the other side is this node: a list of seeds may name everybody. Or a copy of it, which people must hear of.
fn is_same_node(own: &Hello, hello: &Hello, address: SocketAddr) -> bool {
    if hello.node == own.node && hello.incarnation != own.incarnation {
        tracing::warn!(
            %address,
            "another process runs as this node ({}): stop one of them, and give a copied data directory back to its node",
            own.node
        );
    }
    hello.node == own.node
}

/// Opens a connection to `address`, sends what waits for it, and serves it to its end.
async fn dial_and_serve(driver: Weak<Driver>, address: SocketAddr) {
    let Some(strong) = driver.upgrade() else { return };
    let endpoint = strong.peers().endpoint.clone();
    let own = strong.hello();
    drop(strong);
    let result = match own {
        Some(own) => dial(&endpoint, address, own).await,
        None => Err("this node has not started yet".to_owned()),
    };
    let Some(strong) = driver.upgrade() else { return };
    let peers = strong.peers();
    let now = peers.clock.now().monotonic;
    match result {
        Ok(Dialled { own, hello, sender, .. }) if is_same_node(&own, &hello, address) => {
            peers.lock().missed(address, now);
            sender.close(CloseCode::DONE, "a node needs no connection to itself");
        }
        Ok(Dialled { own, hello, sender, receiver, early }) => {
            let waiting = peers.lock().reached(address, hello.node);
            let active = peers.register(&own, &hello, own.node, &sender);
            // The address may have changed hands since somebody was told of it.
            for Waiting { message, .. } in
                waiting.into_iter().filter(|waiting| waiting.to.is_none_or(|to| to == hello.node))
            {
                let _ = sender.push(|out| out.extend_from_slice(&message));
            }
            drop(strong);
            serve(&driver, hello.node, active, receiver, early).await;
        }
        Err(problem) => {
            let mut table = peers.lock();
            let dial = table.missed(address, now);
            // Told once, not at every attempt: an outage may last.
            if dial.problem != problem {
                tracing::warn!(%address, "cannot reach a peer, and will keep trying: {problem}");
                dial.problem = problem;
            }
        }
    }
}

struct Dialled {
    own: Hello,
    hello: Hello,
    sender: LinkSender,
    receiver: LinkReceiver,
    early: Vec<PeerMessage>,
}

async fn dial(endpoint: &Endpoint, address: SocketAddr, own: Hello) -> Result<Dialled, String> {
    let link = endpoint.connect(address, Protocol::Peer).await.map_err(|error| error.to_string())?;
    // Whoever accepts a link checks the same.
    if let (Identity::Node { cluster: ours, .. }, Identity::Node { cluster: theirs, .. }) =
        (endpoint.identity(), link.identity())
        && ours != theirs
    {
        let reason = format!(
            "the certificate is that of {}, and this node belongs to cluster {ours}",
            link.identity()
        );
        link.close(CloseCode::WRONG_CLUSTER, &reason);
        return Err(reason);
    }
    let (sender, mut receiver) = (link.sender, link.receiver);
    let mut early = Vec::new();
    match greet(&sender, &mut receiver, &own, &mut early).await {
        Ok(hello) => Ok(Dialled { own, hello, sender, receiver, early }),
        Err((code, reason)) => {
            sender.close(code, &reason);
            Err(format!("{address}: {reason}"))
        }
    }
}

/// Says hello and waits for the other side's, which comes before anything else.
async fn greet(
    sender: &LinkSender,
    receiver: &mut LinkReceiver,
    own: &Hello,
    early: &mut Vec<PeerMessage>,
) -> Result<Hello, (CloseCode, String)> {
    let violation = |reason: String| (CloseCode::VIOLATION, reason);
    let message = PeerMessage::Hello(own.clone());
    sender.push(|out| codec::encode_into(&message, out)).map_err(|error| violation(format!("{error:?}")))?;
    let mut frames = Vec::new();
    let heard =
        async { receiver.next_batch(&mut frames).await.map_err(|error| violation(error.to_string())) };
    let tired = async {
        async_io::Timer::after(HELLO_TIMEOUT).await;
        Err((CloseCode::TOO_SLOW, "no hello came in time".to_owned()))
    };
    future::or(heard, tired).await?;
    let mut messages = frames.iter().map(|frame| codec::decode::<PeerMessage>(frame));
    let hello = match messages.next() {
        Some(Ok(PeerMessage::Hello(hello))) => hello,
        _ => return Err(violation("the first message was no hello of this version".to_owned())),
    };
    for message in messages {
        early.push(message.map_err(|error| violation(error.to_string()))?);
    }
    match sender.identity() {
        Identity::Node { name, .. } if *name == hello.name.as_str() => {}
        other => {
            let reason = format!("{other} says that it is called {}: the certificate decides", hello.name);
            return Err((CloseCode::FORBIDDEN, reason));
        }
    }
    if let (Some(ours), Some(theirs)) = (own.cluster, hello.cluster)
        && ours != theirs
    {
        let reason = format!("{} belongs to cluster {theirs}, this node to cluster {ours}", hello.name);
        return Err((CloseCode::WRONG_CLUSTER, reason));
    }
    Ok(hello)
}

/// Hands on what a peer says until the link ends.
async fn serve(
    driver: &Weak<Driver>,
    peer: NodeId,
    active: Active,
    mut receiver: LinkReceiver,
    early: Vec<PeerMessage>,
) {
    if let Some(driver) = driver.upgrade() {
        driver.on_peer(peer, early);
    }
    let bulk = receiver.bulk();
    let requests = read(driver, peer, &active, &mut receiver);
    let bulk = async {
        let Ok(mut receiver) = bulk.await else { return future::pending().await };
        // When the other side has sent all its bulk, the rest of the link goes on.
        let _ = read(driver, peer, &active, &mut receiver).await;
        future::pending().await
    };
    let Some(error) = future::or(requests, bulk).await else { return };
    let Some(driver) = driver.upgrade() else { return };
    tracing::debug!(%peer, "a link to a peer ended: {error}");
    let mut table = driver.peers().lock();
    if table.links.get(&peer).is_some_and(|link| link.serial == active.serial) {
        table.links.remove(&peer);
    }
}

/// Hands on what comes on one stream of a link until that ends, and says why it did; `None` if the node is gone.
async fn read(
    driver: &Weak<Driver>,
    peer: NodeId,
    active: &Active,
    receiver: &mut LinkReceiver,
) -> Option<LinkError> {
    let mut frames = Vec::new();
    let mut messages = Vec::new();
    loop {
        let ended = receiver.next_batch(&mut frames).await;
        let driver = driver.upgrade()?;
        if let Err(error) = ended {
            return Some(error);
        }
        active.heard.store(driver.peers().clock.now().monotonic.0, Ordering::Relaxed);
        for frame in frames.drain(..) {
            match codec::decode(&frame) {
                Ok(message) => messages.push(message),
                Err(error) => {
                    tracing::warn!(%peer, "a peer sent what is no message: {error}");
                    active.sender.close(CloseCode::VIOLATION, "a frame was no message of this version");
                    break;
                }
            }
        }
        driver.on_peer(peer, messages.drain(..));
    }
}

#[cfg(test)]
mod tests;
