//! Connections to other nodes: one per pair, opened on demand, found again after trouble.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::clock::Clock;
use super::driver::Driver;
use crate::protocol::codec;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::output::Destination;
use crate::protocol::time::Moment;
use crate::protocol::wire::peer::{Hello, PeerMessage};
use crate::transport::endpoint::Endpoint;
use crate::transport::identity::Identity;
use crate::transport::link::{CloseCode, Link, LinkReceiver, LinkSender};
use crate::transport::tls::Protocol;

/// Messages that wait for a connection to be opened; more are dropped, as messages may be.
const WAITING_MAX: usize = 256;

/// A link on which nothing was heard for this long may be dead without knowing it: another one is dialled beside it.
/// QUIC itself would repeat ever more slowly until its idle timeout, and keep a healed network waiting as long.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// The other side has to say hello within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after the first failed attempt to dial; doubles up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A stranger who is refused again and again for the same reason is told of in the log this often.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(60);

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
    /// Why somebody was refused, and when the log was told.
    refusal: Option<(String, Moment)>,
}

/// The link that messages to a node go out on.
#[derive(Clone)]
struct Active {
    sender: LinkSender,
    incarnation: Incarnation,
    opened_by: NodeId,
    /// When something was heard on it last: microseconds of the clock.
    heard: Arc<AtomicU64>,
    serial: u64,
}

/// What waits for a connection to an address.
#[derive(Default)]
struct Dial {
    waiting: Vec<Vec<u8>>,
    under_way: bool,
    not_before: Moment,
    pause: Duration,
    /// Why the last attempt failed, as the log was told.
    problem: String,
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
        let (id, address) = match to {
            Destination::Node { id, address } => (Some(id), address),
            Destination::Address(address) => (table.known.get(&address).copied(), Some(address)),
        };
        let link = id.and_then(|id| table.links.get(&id));
        let mut sent = false;
        let mut is_fresh = false;
        if let Some(active) = link {
            is_fresh = active.is_fresh(now);
            sent = active.sender.push(|out| codec::encode_into(message, out)).is_ok();
            if !sent && let Some(id) = id {
                table.links.remove(&id);
            }
        }
        if sent && is_fresh {
            return;
        }
        let Some(address) = address else { return };
        let dial = table.dials.entry(address).or_default();
        if !sent && dial.waiting.len() < WAITING_MAX && (dial.under_way || now >= dial.not_before) {
            dial.waiting.push(codec::encode(message));
        }
        if !dial.under_way && now >= dial.not_before {
            dial.under_way = true;
            if let Some(driver) = self.driver.get() {
                async_std::task::spawn(dial_and_serve(driver.clone(), address));
            }
        }
    }

    /// Takes a link that another node has dialled and serves it to its end.
    pub(super) async fn accept(driver: Weak<Driver>, link: Link) {
        let Some(strong) = driver.upgrade() else { return };
        let Some(own) = strong.hello() else { return };
        let (sender, mut receiver) = (link.sender, link.receiver);
        let mut early = Vec::new();
        match greet(&sender, &mut receiver, &own, &mut early).await {
            Ok(hello) => {
                let (peer, opened_by) = (hello.node, hello.node);
                let active = strong.peers().register(&own, &hello, opened_by, &sender);
                drop(strong);
                serve(&driver, peer, active, receiver, early).await;
            }
            Err((code, reason)) => {
                strong.peers().tell_of_refusal(sender.remote_address(), &reason);
                sender.close(code, &reason);
            }
        }
    }

    /// Lets what was pushed reach the others, then closes all links.
    pub(super) async fn close(&self, reason: &str) {
        let links: Vec<LinkSender> = self.lock().links.values().map(|active| active.sender.clone()).collect();
        let flush = async {
            for link in links {
                let _ = link.finish().await;
            }
        };
        let tired = async {
            async_io::Timer::after(Duration::from_millis(500)).await;
        };
        futures_lite::future::or(flush, tired).await;
        self.endpoint.close(reason).await;
    }

    /// Decides which link to a node is used from now on.
    fn register(&self, own: &Hello, hello: &Hello, opened_by: NodeId, sender: &LinkSender) -> Active {
        let now = self.clock.now().monotonic;
        let mut table = self.lock();
        let serial = table.links.get(&hello.node).map_or(1, |old| old.serial + 1);
        let new = Active {
            sender: sender.clone(),
            incarnation: hello.incarnation,
            opened_by,
            heard: Arc::new(AtomicU64::new(now.0)),
            serial,
        };
        let first = own.node.min(hello.node);
        let replaces = match table.links.get(&hello.node) {
            None => true,
            Some(old) => {
                old.sender.close_reason().is_some()
                    || old.incarnation < new.incarnation
                    || !old.is_fresh(now)
                    || (new.opened_by == first || old.opened_by != first)
            }
        };
        let superfluous =
            if replaces { table.links.insert(hello.node, new.clone()) } else { Some(new.clone()) };
        if let Some(superfluous) = superfluous.filter(|link| link.opened_by == own.node) {
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
        let is_told = table
            .refusal
            .as_ref()
            .is_some_and(|(told, at)| told == reason && now.since(*at) < REFUSALS_TOLD_EVERY);
        if !is_told {
            tracing::warn!(%from, "refused a peer: {reason}");
            table.refusal = Some((reason.to_owned(), now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    fn is_fresh(&self, now: Moment) -> bool {
        now.since(Moment(self.heard.load(Ordering::Relaxed))) < STALE_AFTER
    }
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
        Ok(Dialled { own, hello, sender, receiver, early }) => {
            let waiting = {
                let mut table = peers.lock();
                table.known.insert(address, hello.node);
                let dial = table.dials.remove(&address).unwrap_or_default();
                dial.waiting
            };
            if hello.node == own.node {
                // A seed list that names everybody names this node too.
                sender.close(CloseCode::DONE, "a node needs no connection to itself");
                return;
            }
            let active = peers.register(&own, &hello, own.node, &sender);
            for message in waiting {
                let _ = sender.push(|out| out.extend_from_slice(&message));
            }
            drop(strong);
            serve(&driver, hello.node, active, receiver, early).await;
        }
        Err(problem) => {
            let mut table = peers.lock();
            let dial = table.dials.entry(address).or_default();
            // Told once, not at every attempt: an outage may last.
            if dial.problem != problem {
                tracing::warn!("cannot reach a peer, and will keep trying: {problem}");
                dial.problem = problem;
            }
            dial.under_way = false;
            dial.waiting.clear();
            dial.pause = (dial.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            dial.not_before = now + dial.pause;
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
    futures_lite::future::or(heard, tired).await?;
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
    let mut frames = Vec::new();
    let mut messages = Vec::new();
    loop {
        let ended = receiver.next_batch(&mut frames).await;
        let Some(driver) = driver.upgrade() else { return };
        if let Err(error) = ended {
            tracing::debug!(%peer, "a link to a peer ended: {error}");
            let mut table = driver.peers().lock();
            if table.links.get(&peer).is_some_and(|link| link.serial == active.serial) {
                table.links.remove(&peer);
            }
            return;
        }
        active.heard.store(driver.peers().clock.now().monotonic.0, Ordering::Relaxed);
        for frame in frames.drain(..) {
            match codec::decode(&frame) {
                Ok(message) => messages.push(message),
                Err(error) => {
                    tracing::warn!(%peer, "a peer sent what is no message: {error}");
                    active.sender.close(CloseCode::VIOLATION, "a frame was no message of this version");
                }
            }
        }
        driver.on_peer(peer, messages.drain(..));
    }
}
