//! What a node remembers of itself, and how it comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Counts, Inquiry, Life, Losses, Node, Stall};
use crate::protocol::antientropy::AntiEntropy;
use crate::protocol::antientropy::reaper::Reaper;
use crate::protocol::codec;
use crate::protocol::config::NodeConfig;
use crate::protocol::id::{Actor, Incarnation, NodeId, Place};
use crate::protocol::membership::{Membership, OwnLife, Recovered};
use crate::protocol::output::{Notice, Output};
use crate::protocol::replication::author::Author;
use crate::protocol::replication::coordinator::Coordinator;
use crate::protocol::replication::desk::{Desk, Errand};
use crate::protocol::replication::hints::Hints;
use crate::protocol::replication::latency::Latency;
use crate::protocol::replication::register::HintRegister;
use crate::protocol::ring::entry::{Entry, Name, Phase};
use crate::protocol::rng::Rng;
use crate::protocol::storage::epochs::Epochs;
use crate::protocol::storage::op::{DiskRequest, Lsn, MetaKey};
use crate::protocol::storage::trust::Trust;
use crate::protocol::time::Now;

/// By how much, at least, a recovery raises the incarnation: more often than that no node starts without being heard.
const UNHEARD_LIVES: u64 = 1_000;

/// By how much, at most, a recovery raises the amnesia generation.
const AMNESIA_STEP: u64 = 256;

/// Who a node is, from its very first start on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Its name, which its certificate carries.
    pub name: Name,
}

/// One start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its generation clock.
    pub incarnation: Incarnation,
    /// Its newest actor.
    pub actor: Actor,
}

/// Why a node cannot start from what its disk holds. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    /// The data belongs to a node of another name.
    #[error(
        "the data belongs to node {found}, not to {wanted}: start it as {found}, or give {wanted} a directory of its own"
    )]
    AnotherName {
        /// The name in the data.
        found: String,
        /// The name in the configuration.
        wanted: String,
    },
    /// The durable state cannot be read.
    #[error("the durable state of the node cannot be read ({0}): the data is damaged or of another version")]
    Unreadable(String),
}

/// What the disk remembers, beside who the node is.
#[derive(Default)]
struct Memory {
    recovered: Recovered,
    trust: Trust,
    register: HintRegister,
    hints: Hints,
    epochs: Epochs,
}

impl Node {
    /// A node that starts from the durable state `meta` (empty at its very first start) and a log that ends at `end`.
    ///
    /// What is to be done for the start is appended to `out`: nothing but a disk request, until the new incarnation and
    /// the new actor are durable. Both are new at *every* start, so that no crash, backup or clone of the directory can
    /// make a dot be issued twice. It has a vote for nothing before it has asked the other members whether its directory
    /// is an old copy.
    pub fn start(
        config: NodeConfig,
        meta: &BTreeMap<MetaKey, Bytes>,
        end: Lsn,
        now: Now,
        mut rng: Rng,
        out: &mut Vec<Output>,
    ) -> Result<Node, StartError> {
        let known: Option<Identity> = read(meta, &MetaKey::Identity)?;
        let is_first = known.is_none();
        let identity =
            known.unwrap_or_else(|| Identity { node: NodeId(rng.bits()), name: config.name.clone() });
        if identity.name != config.name {
            let (found, wanted) = (identity.name.to_string(), config.name.to_string());
            return Err(StartError::AnotherName { found, wanted });
        }
        let last: Option<Start> = read(meta, &MetaKey::Start)?;
        let recovered = Recovered::parse(meta).map_err(|error| StartError::Unreadable(error.to_string()))?;
        let start = Start {
            // Gossip may have had to outbid an incarnation that somebody else claimed for this node.
            incarnation: last
                .map_or(Incarnation::default(), |start| start.incarnation)
                .max(recovered.incarnation_of(identity.node).unwrap_or_default())
                .next(),
            actor: Actor(rng.bits()),
        };
        let life = if is_first {
            OwnLife::first(start.incarnation, rng.bits())
        } else {
            OwnLife::next(recovered.own_life.as_ref(), start.incarnation, end, rng.bits())
        };
        let remembered =
            recovered.members.iter().map(|news| &news.entry).find(|entry| entry.id == identity.node).cloned();
        let own = own_entry(&config, &identity, start.incarnation, remembered.as_ref(), out);
        let entries = vec![
            (MetaKey::Identity, Some(codec::encode(&identity).into())),
            (MetaKey::Start, Some(codec::encode(&start).into())),
            life.entry(),
        ];
        let mut desk = Desk::default();
        desk.ask(Errand::Start(start.actor), |ticket| DiskRequest::Meta { ticket, entries }, out);
        let mut trust = Trust::recover(meta.get(&MetaKey::Trust))
            .map_err(|error| StartError::Unreadable(error.to_string()))?;
        if !is_first {
            trust.ask_first();
        }
        let unreadable = |error: codec::DecodeError| StartError::Unreadable(error.to_string());
        let register = HintRegister::parse(meta).map_err(unreadable)?;
        let hints = Hints::parse(meta).map_err(unreadable)?;
        let epochs = Epochs::parse(meta).map_err(unreadable)?;
        let memory = Memory { recovered, trust, register, hints, epochs };
        Ok(Node::assemble(config, start, (own, life), memory, desk, now, rng))
    }

    /// A node that comes back without its disk: the member that is `known` to the others, under its own id.
    ///
    /// Its incarnation is above the one that is known, and so is its amnesia generation: all others refuse from now on
    /// what an older process of this identity asks or acknowledges. It has a vote for nothing before that is refilled
    /// from the other owners; see [`Trust`]. All of this is durable before it says a word.
    ///
    /// The caller has made sure that nobody lives under this identity, and that the disk is empty.
    pub fn recover(
        mut config: NodeConfig,
        known: &Entry,
        now: Now,
        mut rng: Rng,
        out: &mut Vec<Output>,
    ) -> Result<Node, StartError> {
        if known.name != config.name {
            let (found, wanted) = (known.name.to_string(), config.name.to_string());
            return Err(StartError::AnotherName { found, wanted });
        }
        // It belongs to a cluster already, and gets it from the first member that it meets.
        config.found = None;
        let identity = Identity { node: known.id, name: known.name.clone() };
        // There may have been lives that nobody else has heard of, recoveries among them: the time of day is above
        // those, too.
        let least = known.incarnation.0.saturating_add(UNHEARD_LIVES).max(now.wall.0);
        // A little above by chance, in case that the clock was set back between two of them.
        let incarnation = Incarnation(least.saturating_add(rng.below(UNHEARD_LIVES)));
        let start = Start { incarnation, actor: Actor(rng.bits()) };
        let mut own = own_entry(&config, &identity, start.incarnation, Some(known), out);
        // Two recoveries that begin from the same knowledge must not share a generation: each would take the other's
        // acknowledgements for its own. So it is a little above by chance.
        own.amnesia = known.amnesia.saturating_add(rng.between(1, AMNESIA_STEP) as u32);
        let life = OwnLife::first(incarnation, rng.bits());
        let mut trust = Trust::lost();
        let entries = vec![
            (MetaKey::Identity, Some(codec::encode(&identity).into())),
            (MetaKey::Start, Some(codec::encode(&start).into())),
            (MetaKey::Trust, trust.save().flatten()),
            life.entry(),
            Recovered::remember(&own),
        ];
        let mut desk = Desk::default();
        desk.ask(Errand::Start(start.actor), |ticket| DiskRequest::Meta { ticket, entries }, out);
        let memory = Memory { trust, ..Memory::default() };
        Ok(Node::assemble(config, start, (own, life), memory, desk, now, rng))
    }

    fn assemble(
        config: NodeConfig,
        start: Start,
        (own, life): (Entry, OwnLife),
        memory: Memory,
        desk: Desk,
        now: Now,
        mut rng: Rng,
    ) -> Node {
        let id = own.id;
        let Memory { recovered, trust, mut register, mut hints, epochs } = memory;
        let number = rng.bits();
        hints.number_from(number);
        register.number_from(number);
        let membership = Membership::new(&config, own, life, recovered, rng.fork());
        let antientropy = AntiEntropy::new(id, &config.exchange, rng.fork());
        Node {
            life: Life::Starting,
            started_at: now.monotonic,
            stall: Stall::default(),
            incarnation: start.incarnation,
            author: Author::new(start.actor),
            inquiry: Inquiry::default(),
            losses: Losses::new(trust),
            membership,
            view: None,
            coordinator: Coordinator::new(&mut rng),
            antientropy,
            desk,
            epochs,
            reaper: Reaper::new(id, &config.reap, rng.bits()),
            latency: Latency::default(),
            register,
            hints,
            doubts: Vec::new(),
            missed: Vec::new(),
            counts: Counts::default(),
            rng,
            config,
        }
    }
}

/// What the node says of itself in this life. What placement reads (place, zone, weight) stays as it was when the node
/// became a member: a change of the ring in one step would let a read quorum miss a committed write.
fn own_entry(
    config: &NodeConfig,
    identity: &Identity,
    incarnation: Incarnation,
    remembered: Option<&Entry>,
    out: &mut Vec<Output>,
) -> Entry {
    let mut own = Entry {
        id: identity.node,
        place: Place(identity.node.0),
        name: identity.name.clone(),
        addresses: config.addresses.clone(),
        zone: config.zone.clone(),
        weight: config.weight,
        incarnation,
        version: 0,
        amnesia: 0,
        phase: Phase::default(),
    };
    if let Some(remembered) = remembered {
        if (&remembered.zone, remembered.weight) != (&own.zone, own.weight) {
            let message = format!(
                "zone {} and weight {} are configured, but the node is a member with zone {} and weight {}: they stay as they \
                 are, since this version cannot change the ring",
                own.zone, own.weight, remembered.zone, remembered.weight
            );
            out.push(Output::Notice(Notice::Trouble(message)));
        }
        own.place = remembered.place;
        own.zone = remembered.zone.clone();
        own.weight = remembered.weight;
        own.amnesia = remembered.amnesia;
        own.phase = remembered.phase;
    }
    own
}

fn read<T: DeserializeOwned>(
    meta: &BTreeMap<MetaKey, Bytes>,
    key: &MetaKey,
) -> Result<Option<T>, StartError> {
    let decode =
        |bytes: &Bytes| codec::decode(bytes).map_err(|e| StartError::Unreadable(format!("{key:?}: {e}")));
    meta.get(key).map(decode).transpose()
}
