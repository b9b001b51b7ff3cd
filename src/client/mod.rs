//! The client library: reads and writes keys from any program.
//!
//! ```text
//! Client ─▶ Get, Put, update ─▶ Operation: attempts, retries, hedges, the honest verdict
//!                                   │
//!                                   ▼
//!                                Cluster ─▶ Connection ═══ QUIC ═══ node        one per node, many requests in flight
//!                                   ▲
//!              Follower: topology, ring, lost nodes
//! ```
//!
//! Start at [`Client`]. The verb for everyday use is [`Client::update`]: it reads what is there, lets you make one value
//! of it, and writes that with the [`Context`] of the read, so that nothing is overwritten that you have not seen.
//!
//! Everything here is plain futures: it works from a program on any async runtime. What goes on in the background runs
//! on threads of async-std's.

mod bootstrap;
mod clock;
mod cluster;
mod connection;
mod context;
mod error;
mod follower;
mod get;
mod inbox;
mod inspect;
mod latency;
mod operation;
mod options;
mod outcome;
mod put;
mod reading;
mod receipt;
mod retry;
mod route;
mod update;
mod view;

use std::fmt;
use std::sync::Arc;

use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::Name;
use crate::protocol::rng::Rng;
use crate::protocol::wire::client::MemberView;

pub use crate::protocol::causality::{ContextToken, Dot, Sibling};
pub use crate::protocol::wire::client::{Code, Level, Problem};
pub use bytes::Bytes;
pub use context::{BadContext, Context};
pub use error::{
    AdminError, AskError, ConnectError, ReadError, SeedError, Unmerged, UnmergedReason, Unsettled,
    UpdateError, WriteError,
};
pub use get::Get;
pub use options::{ConnectOptions, Deadlines};
pub use put::Put;
pub use reading::{Conflict, Reading};
pub use receipt::Receipt;
pub use update::{Edit, Updated};

use cluster::Cluster;
use update::Round;
use view::View;

/// A client of one cluster. Cheap to clone; the clones share connections and knowledge, and any number of requests may
/// be under way at once. Dropping the future of a request forgets the request; a write may happen all the same.
///
/// ```no_run
/// use starling::client::{Client, ConnectOptions};
/// use starling::transport::Credentials;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let credentials = Credentials::load("ca.pem".as_ref(), "me.pem".as_ref(), "me.key".as_ref())?;
/// let client = Client::connect(ConnectOptions::new(["127.0.0.1:7400".parse()?], credentials)).await?;
///
/// // Read, modify, write: the closure gets every concurrent value and makes one of them.
/// client
///     .update("cart:7", |carts| {
///         let mut items: Vec<&[u8]> = carts.iter().flat_map(|cart| cart.split(|byte| *byte == b',')).collect();
///         items.push(b"apple");
///         items.sort();
///         items.dedup();
///         items.join(&b',')
///     })
///     .await?;
///
/// for value in client.get("cart:7").await?.values() {
///     println!("{}", String::from_utf8_lossy(value));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl Client {
    /// Finds the cluster by any of the seeds, learns who is in it and computes the ring.
    ///
    /// The seeds are tried one after the other without waiting for the slow; if none answers, the error lists what came
    /// of each.
    pub async fn connect(options: ConnectOptions) -> Result<Client, ConnectError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| ConnectError::Randomness(error.to_string()))?;
        if options.seeds.is_empty() {
            return Err(ConnectError::NoSeeds);
        }
        let endpoint = Cluster::endpoint(&options)?;
        let found = bootstrap::find(&endpoint, &options.seeds, options.deadlines.connect).await?;
        let (node, topology) = (found.topology.node, found.topology);
        let place = move || View::new(topology, found.asked, found.answered, None);
        let view = async_std::task::spawn_blocking(place).await;
        if let Some(wanted) = &options.via
            && view.named(wanted).is_none()
        {
            let names = view.topology().members.iter().map(|member| member.entry.name.clone());
            return Err(ConnectError::NoSuchNode { wanted: wanted.clone(), known: names.collect() });
        }
        let cluster = Arc::new(Cluster::new(options, endpoint, view, Rng::from_seed(seed)));
        cluster.keep(node, found.link);
        let refresh = cluster.options.deadlines.refresh;
        async_std::task::spawn(follower::follow(Arc::downgrade(&cluster), refresh));
        Ok(Client { cluster })
    }

    /// Reads a key: every concurrent value, and the [`Context`] to answer with.
    ///
    /// ```no_run
    /// # async fn run(client: starling::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use starling::client::Level;
    ///
    /// let reading = client.get("greeting").r(Level::All).await?;
    /// match reading.single() {
    ///     Ok(None) => println!("nothing there"),
    ///     Ok(Some(value)) => println!("{value:?}"),
    ///     Err(conflict) => println!("{conflict}; the latest is {:?}", reading.latest()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        Get::new(Arc::clone(&self.cluster), bytes_of(key))
    }

    /// Reads a key, lets `change` make one value of all that are there (none, if the key is absent), and writes it with
    /// the context of the read: what takes its place was seen. The normal way to write.
    ///
    /// If others write at the same time, their values stand beside this one, and the round is repeated, five times at
    /// most: `change` then finds **its own earlier result** among the values. Let it merge in such a way that it does
    /// no harm twice, as adding to a set does; if it cannot, like appending to a list, use
    /// [`update_merging`](Client::update_merging). A number that clients count up cannot be kept in one key of a store
    /// like this one: let each client count in a key of its own, and add when you read.
    ///
    /// `change` returns anything that converts into an [`Edit`]: a value, or an `Option` of one, where `None` deletes.
    pub async fn update<E: Into<Edit>>(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(&[Bytes]) -> E,
    ) -> Result<Updated, UpdateError> {
        let change = |round: Round<'_>| change(round.values).into();
        update::run(Arc::clone(&self.cluster), bytes_of(key), change).await
    }

    /// Like [`update`](Client::update), with merging and changing kept apart: `merge` makes one value of several (it is
    /// called only if there are several, as often as needed), `change` is applied to the result, exactly once.
    ///
    /// ```no_run
    /// # async fn run(client: starling::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client
    ///     .update_merging(
    ///         "log",
    ///         |logs| logs.join(&b'\n'),
    ///         |log| [log.as_deref().unwrap_or_default(), b"one more line\n"].concat(),
    ///     )
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update_merging<M: Into<Bytes>, E: Into<Edit>>(
        &self,
        key: impl AsRef<[u8]>,
        mut merge: impl FnMut(&[Bytes]) -> M,
        change: impl FnOnce(Option<Bytes>) -> E,
    ) -> Result<Updated, UpdateError> {
        let mut change = Some(change);
        let rounds = |round: Round<'_>| {
            let merged = match round.values {
                [] => None,
                [value] => Some(value.clone()),
                several => Some(merge(several).into()),
            };
            match change.take().filter(|_| round.first) {
                Some(change) => change(merged).into(),
                None => merged.into(),
            }
        };
        update::run(Arc::clone(&self.cluster), bytes_of(key), rounds).await
    }

    /// Writes a value in place of what a reading showed: the context of that reading says what, and which key.
    ///
    /// ```no_run
    /// # async fn run(client: starling::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let reading = client.get("greeting").await?;
    /// let receipt = client.put_with(reading.context(), "hello").await?;
    /// assert!(receipt.siblings > 1 || client.get("greeting").await?.values() == ["hello"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_with(&self, seen: &Context, value: impl Into<Bytes>) -> Put {
        let token = seen.token().cloned();
        Put::new(Arc::clone(&self.cluster), seen.key().clone(), Some(value.into()), token)
    }

    /// Writes a value without having looked. It takes nobody's place: what is there stays beside it, and readers see
    /// both. Right for keys that are written once; for all others use [`update`](Client::update).
    pub fn put_blind(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Put {
        Put::new(Arc::clone(&self.cluster), bytes_of(key), Some(value.into()), None)
    }

    /// Deletes a key: the coordinator reads it and deletes what it read. A value that is written at the same time
    /// stays.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Put {
        Put::new(Arc::clone(&self.cluster), bytes_of(key), None, None)
    }

    /// Deletes what a reading showed. Values that came since then stay. If it showed nothing, there is nothing to
    /// delete, and the answer is [`NotApplied`](WriteError::NotApplied).
    pub fn delete_with(&self, seen: &Context) -> Put {
        Put::new(Arc::clone(&self.cluster), seen.key().clone(), None, seen.token().cloned())
            .of_what_was_seen()
    }

    /// The members as this client believes them to be now, without asking anybody.
    #[must_use]
    pub fn members(&self) -> Vec<MemberView> {
        self.cluster.view().topology().members.clone()
    }

    /// The owners of a key as this client computes them, in the order of the ring.
    #[must_use]
    pub fn owners(&self, key: impl AsRef<[u8]>) -> Vec<NodeId> {
        self.cluster.view().owners(key.as_ref()).to_vec()
    }

    /// What a node is called, if this client knows it.
    #[must_use]
    pub fn name_of(&self, node: NodeId) -> Option<Name> {
        self.cluster.view().member(node).map(|member| member.entry.name.clone())
    }

    /// Closes all connections. Requests under way end with what is known of them; later ones fail. Dropping the last
    /// clone of a client does the same, without waiting for the other sides to hear of it.
    pub async fn close(&self) {
        self.cluster.close();
        self.cluster.seed_endpoint().close("the client is done").await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("seeds", &self.cluster.options.seeds).finish_non_exhaustive()
    }
}

fn bytes_of(key: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(key.as_ref())
}
