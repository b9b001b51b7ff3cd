//! What a program may choose: once for a client, and per request.

use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::ring::entry::Name;
use crate::protocol::wire::client::Level;
use crate::transport::certificate::Credentials;

/// How to find a cluster and how to talk to it.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Addresses of some nodes. Any one that answers will do: the others are learned from it.
    pub seeds: Vec<SocketAddr>,
    /// Who this program is, and which authority it trusts.
    pub credentials: Credentials,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// Sends every request to the node of this name, owner or not. For people who look at one node's view of the world;
    /// programs do better without.
    pub via: Option<Name>,
    /// Whether a read that is slower than most is also sent to another owner. Default true.
    pub hedge: bool,
}

impl ConnectOptions {
    /// These seeds and credentials, all else as by default.
    #[must_use]
    pub fn new(seeds: impl Into<Vec<SocketAddr>>, credentials: Credentials) -> ConnectOptions {
        ConnectOptions {
            seeds: seeds.into(),
            credentials,
            deadlines: Deadlines::default(),
            via: None,
            hedge: true,
        }
    }

    /// Sets [`via`](ConnectOptions::via).
    #[must_use]
    pub fn via(mut self, node: Name) -> ConnectOptions {
        self.via = Some(node);
        self
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For a request with all its attempts, unless the request says otherwise. Default 5 s.
    pub request: Duration,
    /// For connecting to one node. Default 2 s.
    pub dial: Duration,
    /// For [`Client::connect`](super::Client::connect) as a whole. Default 5 s.
    pub connect: Duration,
    /// After how long without an answer an attempt is repeated through another node, while the first one may still
    /// answer. Default 1.5 s.
    pub patience: Duration,
    /// How often the topology is learned anew while nothing seems to change. Default 10 s.
    pub refresh: Duration,
    /// The least time after which a read is hedged, however fast the cluster is. Default 2 ms.
    pub hedge_min: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            request: Duration::from_secs(5),
            dial: Duration::from_secs(2),
            connect: Duration::from_secs(5),
            patience: Duration::from_millis(1_500),
            refresh: Duration::from_secs(10),
            hedge_min: Duration::from_millis(2),
        }
    }
}

/// What a read may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadOptions {
    pub(super) r: Level,
    pub(super) atomic: bool,
    pub(super) common: CommonOptions,
}

/// What a write may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteOptions {
    pub(super) w: Level,
    pub(super) sloppy: bool,
    pub(super) common: CommonOptions,
}

/// What every request may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommonOptions {
    pub(super) deadline: Duration,
    /// No more attempts than this.
    pub(super) attempts: u32,
}

impl CommonOptions {
    pub(super) fn new(deadlines: &Deadlines) -> CommonOptions {
        CommonOptions { deadline: deadlines.request, attempts: u32::MAX }
    }
}

impl ReadOptions {
    pub(super) fn new(deadlines: &Deadlines) -> ReadOptions {
        ReadOptions { r: Level::default(), atomic: false, common: CommonOptions::new(deadlines) }
    }
}

impl WriteOptions {
    pub(super) fn new(deadlines: &Deadlines) -> WriteOptions {
        WriteOptions { w: Level::default(), sloppy: false, common: CommonOptions::new(deadlines) }
    }
}
