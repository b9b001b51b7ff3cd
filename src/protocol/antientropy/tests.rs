//! Nodes with real engines and a network of the test's making: who becomes equal, and for how many bytes.

mod bytes;
mod convergence;
mod faults;
mod refills;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use ::bytes::Bytes;

use super::means::Ask;
use super::{AntiEntropy, Effect, Fellows};
use crate::protocol::causality::{Age, Applied, Change, Dot, OperationId, Put, Record, RecordHash};
use crate::protocol::config::{ExchangeConfig, Limits};
use crate::protocol::id::{Actor, ClusterId, Incarnation, NodeId, Place};
use crate::protocol::ring::entry::{Entry, Name, Phase, Stage};
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::ring::slot::{SLOTS, Slot};
use crate::protocol::ring::view::RingView;
use crate::protocol::rng::Rng;
use crate::protocol::storage::engine::Engine;
use crate::protocol::storage::log::{LogId, Scanner};
use crate::protocol::storage::op::{DiskReply, DiskRequest, Stored, Ticket};
use crate::protocol::storage::store::MemoryStore;
use crate::protocol::time::{Moment, Timestamp, WallTime};
use crate::protocol::wire::exchange::Exchange;

fn entry(id: NodeId, incarnation: u64) -> Entry {
    Entry {
        id,
        place: Place(id.0),
        name: Name::new(format!("n{}", id.0)).unwrap(),
        addresses: Vec::new(),
        zone: Zone::default(),
        weight: Weight::default(),
        incarnation: Incarnation(incarnation),
        version: 0,
        amnesia: 0,
        phase: Phase { generation: 0, stage: Stage::Active },
    }
}

/// A record with one value of that many bytes, by an actor of its own.
fn record(actor: u64, at: u64, bytes: usize) -> Record {
    let put = Put {
        context: Default::default(),
        dot: Dot { actor: Actor(actor), at: Timestamp(at + 1) },
        value: Some(Bytes::from(vec![at as u8; bytes])),
        operation: OperationId { started: WallTime(1_000), nonce: at },
        base: None,
        age: Age::default(),
        limits: Limits::default(),
    };
    match Record::apply(&Change::Put(put), None) {
        Applied::Changed { record, .. } => record,
        other => panic!("{other:?}"),
    }
}

fn key(number: usize) -> Bytes {
    Bytes::from(format!("key-{number:07}"))
}

/// One node of the test.
struct Host {
    id: NodeId,
    engine: Engine<MemoryStore>,
    exchanges: AntiEntropy,
    untrusted: BTreeSet<Slot>,
    fenced: BTreeSet<Slot>,
    refilled: BTreeSet<Slot>,
    ticket: u64,
}

impl Host {
    fn execute(&mut self, request: DiskRequest) -> DiskReply {
        let mut replies = Vec::new();
        self.engine.submit(request, &mut replies).unwrap();
        let mut reply = replies.remove(0);
        // As the real disk does.
        match &mut reply {
            DiskReply::Sums { first, last, sums, .. } => {
                sums.retain(|(slot, _)| !self.untrusted.contains(slot));
                let untrusted = self.untrusted.iter().filter(|slot| (*first..=*last).contains(slot));
                sums.extend(untrusted.map(|slot| (*slot, None)));
                sums.sort_unstable_by_key(|(slot, _)| *slot);
            }
            DiskReply::ReadMany { found, .. } => {
                for (key, stored) in found {
                    if self.untrusted.contains(&Slot::of_key(key)) {
                        *stored = Stored::Lost;
                    }
                }
            }
            _ => {}
        }
        reply
    }

    fn put(&mut self, key: &Bytes, record: &Record) {
        let change = Change::Merge { record: record.clone(), own: Actor(0), age: Age::default() };
        let slot = Slot::of_key(key);
        self.execute(DiskRequest::Update { ticket: Ticket(0), slot, key: key.clone(), change });
        // Everything is durable and in the store, so that listings meet both the store and what waits for it.
        if self.ticket.is_multiple_of(2) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        while let Some(group) = self.engine.take_group() {
            self.engine.synced(group.through(), &mut Vec::new());
        }
        while let Some(feed) = self.engine.take_feed(10_000) {
            use crate::protocol::storage::store::Store;
            self.engine.store_mut().replace(&feed.batch, feed.through).unwrap();
            self.engine.fed(feed);
        }
    }

    fn holds(&mut self, key: &Bytes) -> Stored {
        let slot = Slot::of_key(key);
        match self.execute(DiskRequest::Read { ticket: Ticket(0), slot, key: key.clone() }) {
            DiskReply::Read { stored, .. } => stored,
            other => panic!("{other:?}"),
        }
    }
}

/// What nodes know of each other here: everything.
struct Neighbours<'a>(&'a BTreeMap<NodeId, u64>);

impl Fellows for Neighbours<'_> {
    fn reach(&self, node: NodeId) -> Option<Incarnation> {
        self.0.get(&node).copied().map(Incarnation)
    }

    fn entry(&self, node: NodeId) -> Option<Entry> {
        self.0.get(&node).map(|incarnation| entry(node, *incarnation))
    }
}

/// A message on its way.
struct Flying {
    at: Moment,
    number: u64,
    from: usize,
    to: usize,
    message: Exchange,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Flying) -> bool {
        self.number == other.number
    }
}
impl Eq for Flying {}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Flying) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flying {
    fn cmp(&self, other: &Flying) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Nodes, a network, and a clock.
struct World {
    hosts: Vec<Host>,
    alive: BTreeMap<NodeId, u64>,
    flying: BinaryHeap<Reverse<Flying>>,
    now: Moment,
    rng: Rng,
    sent: u64,
    /// Messages in a thousand that are lost, repeated, or late.
    loss: u32,
    bytes: u64,
    longest: u64,
    config: ExchangeConfig,
}

impl World {
    fn new(nodes: u64) -> World {
        World::with(nodes, ExchangeConfig::default(), 1)
    }

    fn with(nodes: u64, config: ExchangeConfig, seed: u64) -> World {
        let ids: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let mut world = World {
            hosts: Vec::new(),
            alive: ids.iter().map(|id| (*id, 1)).collect(),
            flying: BinaryHeap::new(),
            now: Moment(1_000_000),
            rng: Rng::from_number(seed),
            sent: 0,
            loss: 0,
            bytes: 0,
            longest: 0,
            config,
        };
        for id in ids {
            let engine = Engine::recover(MemoryStore::default(), Scanner::new(LogId(1)).finish()).unwrap();
            let exchanges = AntiEntropy::new(id, &world.config, world.rng.fork());
            world.hosts.push(Host {
                id,
                engine,
                exchanges,
                untrusted: BTreeSet::new(),
                fenced: BTreeSet::new(),
                refilled: BTreeSet::new(),
                ticket: 0,
            });
        }
        world.change_ring(0);
        world
    }

    /// Everybody believes in a ring with this amnesia generation.
    fn change_ring(&mut self, amnesia: u32) {
        let view = self.view(amnesia);
        let now = self.now;
        self.hosts.iter_mut().for_each(|host| host.exchanges.on_ring_change(now, &view));
    }

    fn view(&self, amnesia: u32) -> RingView {
        let entries: Vec<Entry> =
            self.hosts.iter().map(|host| Entry { amnesia, ..entry(host.id, 1) }).collect();
        RingView::build(ClusterId(7), Replicas::default(), &entries).unwrap()
    }

    /// Puts a record into the stores of some owners of its key.
    fn put(&mut self, hosts: &[usize], key: &Bytes, record: &Record) {
        for host in hosts {
            self.hosts[*host].put(key, record);
        }
    }

    /// A node starts again with what its disk holds.
    fn restart(&mut self, host: usize) {
        let id = self.hosts[host].id;
        *self.alive.entry(id).or_insert(1) += 1;
        let rng = self.rng.fork();
        self.hosts[host].exchanges = AntiEntropy::new(id, &self.config, rng);
        let (view, now) = (self.view(0), self.now);
        self.hosts[host].exchanges.on_ring_change(now, &view);
    }

    fn carry_out(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(from, to, message),
                Effect::Refilled { fenced, refilled } => {
                    self.hosts[from].fenced.extend(fenced);
                    self.hosts[from].refilled.extend(refilled);
                }
                Effect::Disk { token, ask } => {
                    let host = &mut self.hosts[from];
                    host.ticket += 1;
                    let ticket = Ticket(host.ticket);
                    let mut effects = Vec::new();
                    match ask {
                        Ask::Merge { key, record, epoch } => {
                            let age = Age { read: epoch, ..Age::default() };
                            let change = Change::Merge { record, own: Actor(0), age };
                            let slot = Slot::of_key(&key);
                            let applied = if host.untrusted.contains(&slot) {
                                Applied::Refused(crate::protocol::causality::Refusal::Lost)
                            } else {
                                match host.execute(DiskRequest::Update { ticket, slot, key, change }) {
                                    DiskReply::Applied { applied, .. } => applied,
                                    other => panic!("{other:?}"),
                                }
                            };
                            host.exchanges.on_merged(self.now, token, applied, &mut effects);
                        }
                        ask => {
                            let reply = match ask {
                                Ask::Sums(first, last) => {
                                    host.execute(DiskRequest::Sums { ticket, first, last })
                                }
                                Ask::List { slot, .. } if host.untrusted.contains(&slot) => {
                                    DiskReply::Listed { ticket, page: None }
                                }
                                // Pages of a few keys, so that there are several of them.
                                Ask::List { slot, after, keys_max } => {
                                    let keys_max = keys_max.min(7);
                                    host.execute(DiskRequest::List { ticket, slot, after, keys_max })
                                }
                                Ask::Read { keys, bytes_max } => {
                                    host.execute(DiskRequest::ReadMany { ticket, keys, bytes_max })
                                }
                                Ask::Merge { .. } => unreachable!("see above"),
                            };
                            host.exchanges.on_disk(self.now, token, reply, &mut effects);
                        }
                    }
                    self.carry_out(from, effects);
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: Exchange) {
        let bytes = message.wire_bytes();
        self.bytes += bytes;
        let is_single = matches!(&message, Exchange::Records { items, .. } if items.len() == 1);
        if !is_single {
            self.longest = self.longest.max(bytes);
        }
        let Some(to) = self.hosts.iter().position(|host| host.id == to) else { return };
        let copies = if self.rng.chance(self.loss) { self.rng.index(3) } else { 1 };
        for _ in 0..copies {
            let most = if self.loss > 0 { 200_000 } else { 1_000 };
            self.sent += 1;
            let at = self.now + Duration::from_micros(self.rng.between(200, most));
            let flying = Flying { at, number: self.sent, from, to, message: message.clone() };
            self.flying.push(Reverse(flying));
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.hosts.iter().filter(|host| self.alive.contains_key(&host.id));
            let due = due.map(|host| host.exchanges.next_deadline()).min().unwrap_or(Moment::NEVER);
            let arrival = self.flying.peek().map_or(Moment::NEVER, |Reverse(flying)| flying.at);
            let next = due.min(arrival).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if arrival <= self.now {
                let Some(Reverse(flying)) = self.flying.pop() else { return };
                let (from, to) = (self.hosts[flying.from].id, flying.to);
                if !self.alive.contains_key(&self.hosts[to].id) || !self.alive.contains_key(&from) {
                    continue;
                }
                let mut effects = Vec::new();
                let fellows = Neighbours(&self.alive);
                self.hosts[to].exchanges.handle(self.now, from, flying.message, &fellows, &mut effects);
                self.carry_out(to, effects);
                continue;
            }
            for host in 0..self.hosts.len() {
                if self.alive.contains_key(&self.hosts[host].id)
                    && self.hosts[host].exchanges.next_deadline() <= self.now
                {
                    let mut effects = Vec::new();
                    let fellows = Neighbours(&self.alive);
                    self.hosts[host].exchanges.tick(self.now, &fellows, &mut effects);
                    self.carry_out(host, effects);
                    let next = self.hosts[host].exchanges.next_deadline();
                    assert!(next > self.now, "host {host} asks to be woken without end");
                }
            }
        }
    }

    /// Runs until all are equal; returns how long that took. Panics after `limit`.
    #[track_caller]
    fn run_until_equal(&mut self, limit: Duration) -> Duration {
        let begun = self.now;
        while !self.are_equal() {
            assert!(self.now.since(begun) < limit, "not equal after {limit:?}");
            self.run(Duration::from_millis(50));
        }
        self.now.since(begun)
    }

    fn are_equal(&self) -> bool {
        let (first, last) = (Slot::new(0).unwrap(), Slot::new(SLOTS - 1).unwrap());
        let view = self.view(0);
        (first.get()..=last.get()).all(|slot| {
            let slot = Slot::new(slot).unwrap();
            let owners = self.hosts.iter().filter(|host| view.slot(slot).is_owner(host.id));
            let mut sums = owners.map(|host| host.engine.sums().get(slot));
            let one = sums.next();
            sums.all(|sum| Some(sum) == one)
        })
    }

    fn moved(&self) -> u64 {
        self.hosts.iter().map(|host| host.exchanges.counts().keys_sent).sum()
    }
}
