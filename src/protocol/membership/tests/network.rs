//! A network of memberships in virtual time: delays, loss, duplicates, cuts, crashes and pauses, all from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::super::testing::{address_of, entry_at};
use super::super::{Effect, Membership, OwnLife, PersistToken, Recovered};
use crate::protocol::codec;
use crate::protocol::config::NodeConfig;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::output::{Destination, Notice};
use crate::protocol::ring::entry::Name;
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::MetaKey;
use crate::protocol::time::{Moment, Now, WallTime};
use crate::protocol::wire::client::Health;
use crate::protocol::wire::gossip::{GOSSIP_BYTES_MAX, Gossip};
use crate::protocol::wire::peer::PeerMessage;

enum Event {
    Deliver { from: NodeId, to: NodeId, message: Gossip },
    Durable { node: NodeId, life: u64, token: PersistToken, entries: Vec<(MetaKey, Option<Bytes>)> },
    Wake(NodeId),
}

pub(super) struct Host {
    pub(super) config: NodeConfig,
    pub(super) disk: BTreeMap<MetaKey, Bytes>,
    incarnation: Incarnation,
    pub(super) life: u64,
    pub(super) membership: Option<Membership>,
    asleep: Option<Vec<(NodeId, Gossip)>>,
    pub(super) is_serving: bool,
    pub(super) notices: Vec<(u64, Notice)>,
    pub(super) wall_offset: i64,
    /// The generation of a later life that it has heard of.
    pub(super) fenced: Option<u32>,
    /// What it has asked the disk for, in all its lives.
    pub(super) persists: u64,
}

pub(super) struct Network {
    pub(super) now: u64,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    rng: Rng,
    pub(super) loss_per_mille: u32,
    pub(super) duplicate_per_mille: u32,
    /// One way, in microseconds.
    pub(super) delay: (u64, u64),
    pub(super) cuts: BTreeSet<(NodeId, NodeId)>,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    /// Crashes the node on the message or write with this number, counted over the whole run.
    pub(super) crash_at: Option<u64>,
    pub(super) steps: u64,
    pub(super) crashed: Option<NodeId>,
}

const DISK: u64 = 3_000;

impl Network {
    pub(super) fn new(seed: u64) -> Network {
        Network {
            now: 1_000_000,
            hosts: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: Rng::from_number(seed),
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            delay: (500, 25_000),
            cuts: BTreeSet::new(),
            bytes: 0,
            messages: 0,
            crash_at: None,
            steps: 0,
            crashed: None,
        }
    }

    /// Ids that are spread over the whole range, as random ones are.
    pub(super) fn id(number: u64) -> NodeId {
        NodeId((number << 56) ^ (number << 40) ^ number)
    }

    pub(super) fn config(number: u64, found: Option<u16>, seeds: &[u64]) -> NodeConfig {
        let id = Network::id(number);
        let mut config = NodeConfig::new(Name::new(format!("n{number}")).unwrap(), address_of(id));
        config.found = found;
        config.seeds = seeds.iter().map(|&seed| address_of(Network::id(seed))).collect();
        config
    }

    pub(super) fn add(&mut self, number: u64, config: NodeConfig) {
        let host = Host {
            config,
            disk: BTreeMap::new(),
            incarnation: Incarnation(0),
            life: 0,
            membership: None,
            asleep: None,
            is_serving: false,
            notices: Vec::new(),
            wall_offset: 0,
            fenced: None,
            persists: 0,
        };
        self.hosts.insert(Network::id(number), host);
        self.start(Network::id(number));
    }

    /// A cluster of `size`, all of them founders.
    pub(super) fn founded(size: u64, seed: u64) -> Network {
        let mut network = Network::new(seed);
        for number in 1..=size {
            network.add(number, Network::config(number, Some(size as u16), &[1, 2]));
        }
        network.run_until(30, |network| network.all_serve());
        network.run_until(60, |network| network.all_agree());
        network
    }

    fn clock(&self, id: NodeId) -> Now {
        let wall = 1_700_000_000_000 + (self.now / 1_000) as i64 + self.hosts[&id].wall_offset;
        Now { monotonic: Moment(self.now), wall: WallTime(wall as u64) }
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let seed = self.rng.bits();
        let now = self.clock(id);
        let host = self.hosts.get_mut(&id).unwrap();
        let recovered = Recovered::parse(&host.disk).unwrap();
        let remembered = recovered.incarnation_of(id).unwrap_or_default();
        host.incarnation = host.incarnation.max(remembered).next();
        host.life += 1;
        host.is_serving = false;
        host.asleep = None;
        let mut own = entry_at(id);
        own.name = host.config.name.clone();
        own.incarnation = host.incarnation;
        own.addresses = host.config.addresses.clone();
        own.zone = host.config.zone.clone();
        // What membership does with lives does not depend on the log.
        let life = OwnLife::first(own.incarnation, seed);
        let mut membership = Membership::new(&host.config, own, life, recovered, Rng::from_number(seed));
        let mut out = Vec::new();
        membership.start(now, &mut out);
        host.membership = Some(membership);
        self.carry_out(id, out);
    }

    /// As if the disk that knows it had been set back.
    pub(super) fn forget_incarnation(&mut self, id: NodeId) {
        self.hosts.get_mut(&id).unwrap().incarnation = Incarnation(0);
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        self.hosts.get_mut(&id).unwrap().membership = None;
    }

    pub(super) fn restart(&mut self, id: NodeId) {
        self.crash(id);
        self.start(id);
    }

    pub(super) fn pause(&mut self, id: NodeId) {
        self.hosts.get_mut(&id).unwrap().asleep = Some(Vec::new());
    }

    pub(super) fn resume(&mut self, id: NodeId) {
        let waiting = self.hosts.get_mut(&id).unwrap().asleep.take().unwrap();
        for (from, message) in waiting {
            self.deliver(from, id, message);
        }
        self.wake(id);
    }

    pub(super) fn stop(&mut self, id: NodeId) {
        self.with(id, |membership, now, out| membership.say_goodbye(now, out));
        self.crash(id);
    }

    /// Cuts every link from `left` to `right`, in this direction only.
    pub(super) fn cut(&mut self, left: &[NodeId], right: &[NodeId]) {
        self.cuts.extend(left.iter().flat_map(|&a| right.iter().map(move |&b| (a, b))));
    }

    pub(super) fn with(&mut self, id: NodeId, act: impl FnOnce(&mut Membership, Now, &mut Vec<Effect>)) {
        let now = self.clock(id);
        let mut out = Vec::new();
        if let Some(membership) = &mut self.hosts.get_mut(&id).unwrap().membership {
            act(membership, now, &mut out);
        }
        self.carry_out(id, out);
    }

    fn push(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn carry_out(&mut self, id: NodeId, out: Vec<Effect>) {
        for effect in out {
            if self.hosts[&id].membership.is_none() {
                return;
            }
            self.steps += u64::from(matches!(effect, Effect::Send { .. } | Effect::Persist { .. }));
            if self.crash_at == Some(self.steps) {
                self.crash_at = None;
                self.crashed = Some(id);
                return self.crash(id);
            }
            match effect {
                Effect::Send { to, message } => self.transmit(id, to, message),
                Effect::Persist { token, entries } => {
                    let host = self.hosts.get_mut(&id).unwrap();
                    host.persists += 1;
                    let life = host.life;
                    self.push(self.now + DISK, Event::Durable { node: id, life, token, entries });
                }
                Effect::Notice(notice) => {
                    let at = self.now;
                    self.hosts.get_mut(&id).unwrap().notices.push((at, notice));
                }
                Effect::Founded => {
                    let host = self.hosts.get_mut(&id).unwrap();
                    assert!(!host.is_serving, "founded twice");
                    host.is_serving = true;
                    let membership = host.membership.as_ref().unwrap();
                    let cluster = membership.cluster().unwrap();
                    assert!(cluster.founders.ids().eq(membership.ring_members().map(|entry| entry.id)));
                    let recovered = Recovered::parse(&host.disk).unwrap();
                    assert_eq!(recovered.cluster.as_ref(), Some(cluster), "served before it was durable");
                }
                Effect::Changed => {}
                // A disk that was set back, which these stories are not about.
                Effect::Denied { .. } | Effect::Believed(_) => {}
                Effect::Fenced(generation) => {
                    self.hosts.get_mut(&id).unwrap().fenced = Some(generation);
                }
            }
        }
        let deadline = self.hosts[&id].membership.as_ref().map(Membership::next_deadline);
        if let Some(deadline) = deadline.filter(|&deadline| deadline != Moment::NEVER) {
            self.push(deadline.0.max(self.now + 1), Event::Wake(id));
        }
    }

    fn transmit(&mut self, from: NodeId, to: Destination, message: Gossip) {
        let bytes = codec::encode(&PeerMessage::Gossip(message.clone()));
        assert!(bytes.len() <= GOSSIP_BYTES_MAX, "{} bytes: {message:?}", bytes.len());
        assert_eq!(codec::decode(&bytes), Ok(PeerMessage::Gossip(message.clone())));
        self.bytes += bytes.len() as u64;
        self.messages += 1;
        let has_address =
            |id: NodeId, address| self.hosts.get(&id).is_some_and(|host| host.config.addresses[0] == address);
        let to = match to {
            Destination::Node { id, address: None } => Some(id),
            Destination::Node { id, address: Some(address) } => {
                Some(id).filter(|&id| has_address(id, address))
            }
            Destination::Address(address) => self.hosts.keys().copied().find(|&id| has_address(id, address)),
        };
        let Some(to) = to else { return };
        let copies = 1 + u32::from(self.rng.chance(self.duplicate_per_mille));
        for _ in 0..copies {
            if self.cuts.contains(&(from, to)) || self.rng.chance(self.loss_per_mille) {
                continue;
            }
            let at = self.now + self.rng.between(self.delay.0, self.delay.1);
            self.push(at, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Gossip) {
        self.with(to, |membership, now, out| membership.handle(now, from, message, out));
    }

    fn wake(&mut self, id: NodeId) {
        let now = self.now;
        let is_due = |membership: &Membership| membership.next_deadline().0 <= now;
        if self.hosts[&id].membership.as_ref().is_some_and(is_due) {
            self.with(id, |membership, now, out| membership.tick(now, out));
        }
    }

    /// Lets one thing happen.
    fn step(&mut self) {
        let ((at, _), event) = self.queue.pop_first().expect("something is always due");
        self.now = self.now.max(at);
        match event {
            Event::Deliver { from, to, message } => match &mut self.hosts.get_mut(&to).unwrap().asleep {
                Some(waiting) => waiting.push((from, message)),
                None => self.deliver(from, to, message),
            },
            Event::Durable { node, life, token, entries } => {
                let host = self.hosts.get_mut(&node).unwrap();
                // A write under way at a crash may or may not have happened.
                let is_alive = host.life == life && host.membership.is_some();
                if host.life != life || (!is_alive && self.rng.chance(500)) {
                    return;
                }
                for (key, value) in entries {
                    match value {
                        Some(bytes) => drop(host.disk.insert(key, bytes)),
                        None => drop(host.disk.remove(&key)),
                    }
                }
                self.with(node, |membership, now, out| membership.persisted(now, token, out));
            }
            Event::Wake(id) => {
                if self.hosts[&id].asleep.is_none() {
                    self.wake(id);
                }
            }
        }
    }

    pub(super) fn run_for(&mut self, span: Duration) {
        let end = self.now + span.as_micros() as u64;
        while self.queue.first_key_value().is_some_and(|(&(at, _), _)| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until something is so, at most so many seconds; returns how long it took, in milliseconds.
    #[track_caller]
    pub(super) fn run_until(&mut self, seconds: u64, is_so: impl Fn(&Network) -> bool) -> u64 {
        let begin = self.now;
        while !is_so(self) {
            if self.now - begin > seconds * 1_000_000 {
                panic!("not within {seconds} s:\n{}", self.describe());
            }
            self.run_for(Duration::from_millis(50));
        }
        (self.now - begin) / 1_000
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (NodeId, &Membership)> {
        self.hosts.iter().filter_map(|(&id, host)| host.membership.as_ref().map(|running| (id, running)))
    }

    pub(super) fn at(&self, id: NodeId) -> &Membership {
        self.hosts[&id].membership.as_ref().expect("the node runs")
    }

    pub(super) fn all_serve(&self) -> bool {
        self.hosts.values().filter(|host| host.membership.is_some()).all(|host| host.is_serving)
    }

    /// Whether all that run hold one view, in which all that run are alive and can be reached by all, and nobody else is.
    pub(super) fn all_agree(&self) -> bool {
        let running: BTreeSet<NodeId> = self.running().map(|(id, _)| id).collect();
        let mut views = self.running().map(|(_, membership)| {
            membership.members().into_iter().map(|view| (view.entry, view.health)).collect::<Vec<_>>()
        });
        let Some(first) = views.next() else { return true };
        let is_right = |&(ref entry, health): &(_, Health)| {
            let entry: &crate::protocol::ring::entry::Entry = entry;
            running.contains(&entry.id) == (health == Health::Alive)
        };
        first.len() >= running.len()
            && first.iter().all(is_right)
            && views.all(|view| view == first)
            && self.running().all(|(_, membership)| {
                self.hosts.keys().all(|&id| membership.is_reachable(id) == running.contains(&id))
            })
    }

    /// What every running node believes of this one.
    pub(super) fn all_believe(&self, id: NodeId, health: Health) -> bool {
        self.running().filter(|&(other, _)| other != id).all(|(_, view)| view.health(id) == Some(health))
    }

    /// How often anybody's belief became this.
    pub(super) fn verdicts(&self, verdict: Health) -> usize {
        let is_one = |notice: &Notice| matches!(notice, Notice::Health { health, .. } if *health == verdict);
        self.hosts.values().flat_map(|host| &host.notices).filter(|(_, notice)| is_one(notice)).count()
    }

    pub(super) fn troubles(&self, id: NodeId) -> Vec<&str> {
        self.hosts[&id]
            .notices
            .iter()
            .filter_map(|(_, notice)| match notice {
                Notice::Trouble(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for (id, membership) in self.running() {
            let waits = membership.waiting_for();
            text += &format!("{} {id:?}: waits for {waits:?}\n", self.hosts[&id].config.name);
            for view in membership.members() {
                let (age, health) = (view.entry.age(), view.health);
                text += &format!("    {} {age:?} {health:?} {}\n", view.entry.name, view.reachable);
            }
        }
        text
    }
}
