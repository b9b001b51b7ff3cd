//! The real world around a node: disk, sockets, clocks, signals.
//!
//! ```text
//!  peers ──┐                       ┌──▶ peers      one QUIC connection per pair of nodes
//!  clients ┼──▶ driver ─▶ Node ─▶ ─┼──▶ clients    answers of a batch leave together
//!  timer ──┤      ▲                └──▶ disk ─▶ log thread, feeder thread
//!  disk ───┘      └── one lock, one executor thread
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_std::channel::bounded;
use futures_lite::{StreamExt as _, future};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_async_std::Signals;
use thiserror::Error;

use crate::protocol::config::NodeConfig;
use crate::protocol::node::{Node, StartError};
use crate::protocol::ring::entry::Entry;
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::MetaKey;
use crate::protocol::wire::life::{Claim, Life};
use crate::transport::certificate::Credentials;
use crate::transport::endpoint::{Endpoint, EndpointOptions};
use crate::transport::error::BindError;
use crate::transport::faults::Faults;
use crate::transport::identity::Identity;
use crate::transport::tls::Protocol;

pub mod belonging;
mod clock;
pub mod config;
pub mod disk;
mod driver;
mod peers;
mod reset;
mod sessions;
mod usage;

use belonging::BelongingError;
use clock::Clock;
use disk::{Disk, DiskOptions, OpenError, Poisoned};
use driver::Driver;
use peers::Peers;
use sessions::Administration;

/// How long a node that was told to stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that a node's process needs to know.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The node. Addresses that name port 0 get the port that the system picked.
    pub node: NodeConfig,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its data is.
    pub data: PathBuf,
    /// How it treats its disk.
    pub disk: DiskOptions,
    /// Who it is, for the others.
    pub credentials: Credentials,
    /// Whether faults may be injected into its socket.
    pub faults: bool,
    /// Whether it may come back without its data.
    pub recovery: Recovery,
}

/// What a node does that finds no data of its own, or none that it can trust.
#[derive(Clone, Debug, Default)]
pub enum Recovery {
    /// An empty directory is that of a new node, and one that cannot be trusted is an error.
    #[default]
    Off,
    /// Either is an error that [`RunError::is_loss`] knows: the caller asks the members, and tries again.
    Wanted,
    /// The directory is empty, and the node comes back as the member that the others know like this.
    As(Box<Entry>),
}

/// Why a node ended, or did not start. What was acknowledged is on disk in every case.
#[derive(Debug, Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// The data directory is another cluster's.
    #[error(transparent)]
    Belonging(#[from] BelongingError),
    /// The durable state does not fit.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The port cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no data, and the node is not to be a new one.
    #[error("the data directory {} is empty", .0.display())]
    NoData(PathBuf),
    /// Signals cannot be awaited.
    #[error("cannot await signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The disk failed while the node ran.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// A mistake in the node itself: what it would do next could not be trusted.
    #[error("the node panicked, as the log says; start it again, and report it")]
    Panicked,
    /// A later life of this node runs somewhere.
    #[error(
        "this node came back without its disk somewhere else (amnesia generation {generation}): this process has no say \
         any more; put its data directory aside, or recover here and stop the other one"
    )]
    Fenced {
        /// The generation of the other one.
        generation: u32,
    },
    /// The directory is an old copy, or another process runs from one.
    #[error(
        "{by} remembers more of this node than its data directory holds: {}. The directory is a restored backup or a copy, \
         or another process runs from a copy of it. Make sure that no other process runs as this node, put the directory \
         aside, and start the node with --recover: it gets its data back from the other owners",
        told(remembers, claim)
    )]
    Denied {
        /// The name of the member that remembers it.
        by: String,
        /// What it remembers.
        remembers: Life,
        /// What this node could show.
        claim: Claim,
    },
    /// The socket failed for good.
    #[error("the node's UDP socket has failed, as the log says")]
    Deaf,
}

/// What is wrong with a directory.
fn told(remembers: &Life, claim: &Claim) -> String {
    let Claim { now, began, .. } = claim;
    format!(
        "start {} with its log at {}, and this directory's log ended at {} before start {}",
        remembers.incarnation.0, remembers.position.0, began.0, now.incarnation.0
    )
}

impl RunError {
    /// Whether the data is gone or cannot be trusted: a lost disk, from which a node can be recovered.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        use disk::OpenError::{Pointer, Store, Untrusted};
        matches!(
            self,
            RunError::NoData(_)
                | RunError::Disk(Untrusted(_) | Store(_) | Pointer(_))
                | RunError::Denied { .. }
        )
    }
}

/// What a node tells its surroundings once it listens.
pub trait Observer: Send {
    /// It listens here and talks to others from now on.
    fn listening(&mut self, address: SocketAddr);
}

impl<F: FnMut(SocketAddr) + Send> Observer for F {
    fn listening(&mut self, address: SocketAddr) {
        self(address);
    }
}

/// Runs a node until it is told to stop: by SIGTERM, SIGINT, an administrator, or the end of `until`. It then takes no new
/// work, finishes what is under way, says goodbye, syncs its disk and returns.
pub async fn run(
    launch: Launch,
    mut observer: impl Observer,
    until: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let Launch { mut node, listen, data, disk: disk_options, credentials, faults, recovery } = launch;
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(RunError::Signals)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(RunError::Randomness)?;
    let mut rng = Rng::from_seed(seed);

    let (wake, woken) = bounded(1);
    let disk = Disk::open(&data, disk_options, move || {
        let _ = wake.try_send(());
    })?;
    let has_data = disk.meta().contains_key(&MetaKey::Identity);
    if !has_data && matches!(recovery, Recovery::Wanted) {
        disk.close()?;
        return Err(RunError::NoData(data));
    }
    if let Identity::Node { cluster, .. } = credentials.identity() {
        belonging::check(&data, cluster)?;
    }
    let faults = faults.then(|| Arc::new(Faults::new(rng.fork())));
    let reset_secret = reset::secret(&data);
    let options = EndpointOptions { faults: faults.clone(), reset_secret, ..EndpointOptions::default() };
    let endpoint = Endpoint::bind(listen, &credentials, options)?;
    let address = endpoint.local_address();
    for advertised in node.addresses.iter_mut().filter(|advertised| advertised.port() == 0) {
        advertised.set_port(address.port());
    }

    let clock = Clock::start();
    let mut outputs = Vec::new();
    let name = node.name.clone();
    let node = match recovery {
        Recovery::As(known) if !has_data => Node::recover(node, &known, clock.now(), rng, &mut outputs)?,
        _ => Node::start(node, disk.meta(), disk.durable(), clock.now(), rng, &mut outputs)?,
    };
    tracing::info!(%name, id = %node.id(), %address, data = %data.display(), "starting");
    let driver = Driver::new(node, disk, outputs, Peers::new(endpoint.clone(), clock), clock);
    async_std::task::spawn(Driver::run_timer(Arc::downgrade(&driver)));
    async_std::task::spawn(Driver::run_disk(Arc::downgrade(&driver), woken));

    let (stop, stop_asked) = bounded(1);
    let administration = Administration { faults, stop };
    // No task of its own: it holds the socket, and must end when this future is dropped.
    let mut accepting = pin!(accept(&driver, &endpoint, &administration));
    observer.listening(address);

    let told = async {
        let asked = async {
            let _ = stop_asked.recv().await;
        };
        let signalled = async {
            signals.next().await;
        };
        future::or(future::or(signalled, asked), until).await;
        Ok(())
    };
    let failed = async { Err(driver.failure().await) };
    let deaf = async {
        accepting.as_mut().await;
        Err(RunError::Deaf)
    };
    let outcome = future::or(future::or(told, failed), deaf).await;
    if let Err(RunError::Poisoned(_) | RunError::Panicked) = outcome {
        // Neither flushed nor dropped: after a failed sync nobody knows what the disk holds. The log will tell.
        std::mem::forget(driver.take_disk());
        endpoint.close("the node has failed").await;
        return outcome;
    }
    if let Err(RunError::Fenced { .. } | RunError::Denied { .. }) = outcome {
        // It does not say goodbye: that would be said of the other one.
        driver.peers().close(driver.clients(), "another life of this node is known elsewhere").await;
        if let Some(disk) = driver.take_disk() {
            disk.close()?;
        }
        return outcome;
    }
    tracing::info!("stopping");
    let told_again = async {
        signals.next().await;
        tracing::warn!("told to stop again: not waiting for what is under way");
    };
    future::or(driver.stop(DRAIN), told_again).await;
    driver.peers().close(driver.clients(), "the node is stopping").await;
    if let Some(disk) = driver.take_disk() {
        disk.close()?;
    }
    tracing::info!("stopped");
    outcome
}

/// Hands every link that somebody dials to a task of its own. Ends when the endpoint does.
async fn accept(driver: &Arc<Driver>, endpoint: &Endpoint, administration: &Administration) {
    while let Some(link) = endpoint.accept().await {
        let driver = Arc::downgrade(driver);
        match link.protocol() {
            Protocol::Peer => async_std::task::spawn(Peers::accept(driver, link)),
            Protocol::Client => async_std::task::spawn(sessions::serve(driver, link, administration.clone())),
        };
    }
}
