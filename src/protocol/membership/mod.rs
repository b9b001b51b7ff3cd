//! Who is there, and who can be reached.
//!
//! ```text
//!                              ┌──────────────── Membership ─────────────────┐
//!  a node without a cluster ──▶│ founding ──▶ Cluster                        │
//!                              │                 │                           │
//!            messages ───────▶ │ dissemination ◀─┴─▶ book (durable, a CRDT)  │──▶ messages, things to
//!            time ───────────▶ │       ▲              ▲       │              │    make durable, notices
//!            disk done ──────▶ │       │ rumours      │       ▼ whom to watch│
//!                              │       └────────── detector ◀── reachability │
//!                              │                     (opinions)  (own pings) │
//!                              │                                 clock       │
//!                              └─────────────────────────────────────────────┘
//! ```
//!
//! Three things are kept apart. What a member says of itself (its [`Entry`], with the phase that decides the ring). What gossip
//! believes of it ([`Health`]): an opinion, which people see. And whether *this* node can reach it now:
//! requests are routed by that alone.

mod book;
mod clock;
mod detector;
mod dissemination;
mod founding;
mod founding_words;
mod lives;
mod packing;
mod reachability;
mod receive;
mod recovered;
mod rounds;
mod saving;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;

use self::book::Book;
use self::clock::Clocks;
use self::detector::Detector;
use self::dissemination::Dissemination;
use self::founding::Founding;
pub use self::founding::{Bond, Pledge};
use self::lives::Lives;
pub use self::lives::OwnLife;
use self::reachability::Links;
pub use self::recovered::{RecoverError, Recovered};
use self::saving::{Purpose, Saves};
use crate::protocol::config::{MembershipConfig, NodeConfig};
use crate::protocol::id::NodeId;
use crate::protocol::output::{Destination, Notice};
use crate::protocol::ring::entry::{Entry, Name, Stage};
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::{Lsn, MetaKey};
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::client::{Health, MemberView};
use crate::protocol::wire::gossip::{ADDRESSES_MAX, Body, Gossip};
pub use crate::protocol::wire::gossip::{Cluster, Founders};
use crate::protocol::wire::life::{Claim, Life, Milestone};

/// Names something that was asked to be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistToken(pub u64);

/// What membership wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message; it may be lost.
    Send {
        /// To whom.
        to: Destination,
        /// What.
        message: Gossip,
    },
    /// Make these pieces durable, all at once (`None` removes one), then call [`Membership::persisted`].
    Persist {
        /// Comes back.
        token: PersistToken,
        /// The pieces.
        entries: Vec<(MetaKey, Option<Bytes>)>,
    },
    /// Tell people.
    Notice(Notice),
    /// What the ring is computed from changed, durably: build it anew from [`Membership::ring_members`]. Only after
    /// `Founded`.
    Changed,
    /// Another process lives under this identity, a later one with a higher amnesia generation: this one must stop.
    Fenced(u32),
    /// Somebody remembers a life of this node that it does not come after: it runs from an old copy of its directory, or
    /// beside another process of its identity, and must stop.
    Denied {
        /// Who remembers it.
        by: NodeId,
        /// What.
        remembers: Life,
    },
    /// A member has been shown where this node comes from, and does not know better.
    Believed(NodeId),
    /// The cluster is known and durable, and so is everything that its ring needs: build the ring from
    /// [`Membership::ring_members`] and serve. Once per start.
    Founded,
}

/// All that a node knows about the nodes of its cluster, and its part in it.
///
/// # Contract
/// * [`start`](Membership::start) is called once the incarnation of the own entry is durable; before that, nothing is said and
///   nothing is heard.
/// * [`tick`](Membership::tick) is called when [`next_deadline`](Membership::next_deadline) has come; ask again after every call.
/// * Whoever sends a message has been verified by the shell. Messages may be lost, repeated, delayed and reordered.
/// * [`persisted`](Membership::persisted) is called in the order of the requests.
#[derive(Debug)]
pub struct Membership {
    config: MembershipConfig,
    id: NodeId,
    seeds: Vec<SocketAddr>,
    /// Seeds that the disk holds and that are none any more.
    old_seeds: Vec<SocketAddr>,
    rng: Rng,
    book: Book,
    links: Links,
    detector: Detector,
    dissemination: Dissemination,
    clocks: Clocks,
    lives: Lives,
    /// While there is no cluster.
    founding: Option<Founding>,
    cluster: Option<Cluster>,
    /// The entries that decide the ring, as the disk has them.
    settled: BTreeMap<NodeId, Entry>,
    /// Whose changed ring facts the disk was not yet asked to keep.
    unsettled: BTreeSet<NodeId>,
    saves: Saves,
    /// Whom this node watches, as of a version of the book.
    watched: BTreeSet<NodeId>,
    watched_as_of: u64,
    /// The highest amnesia generation that the disk was asked to keep.
    amnesia: u32,
    /// Pings on behalf of others: number, who asked, about whom.
    relays: Vec<(u64, NodeId, NodeId)>,
    /// When people were last told what.
    troubles: BTreeMap<String, Moment>,
    /// When an entry of this node that it did not write last had to be outbid.
    outbids: Vec<Moment>,
    has_started: bool,
    is_leaving: bool,
    is_serving: bool,
    /// How many that it does not watch this node may still ask in this period.
    extras_left: usize,
    now: Now,
    next_round: Moment,
    wake: Moment,
}

impl Membership {
    /// The membership of a node that starts as `own` from what it remembers.
    ///
    /// `own` carries an incarnation above every earlier one ([`Recovered::incarnation_of`]); its phase, amnesia generation and, for a founder,
    /// place, zone and weight are those that are remembered. `life` is what this start can show for itself.
    #[must_use]
    pub fn new(
        config: &NodeConfig,
        mut own: Entry,
        life: OwnLife,
        recovered: Recovered,
        mut rng: Rng,
    ) -> Membership {
        let Recovered { cluster, pledge, members, seeds, own_life: _, lives } = recovered;
        own.addresses.truncate(ADDRESSES_MAX);
        if let Some(line) = members.iter().find(|news| news.entry.id == own.id) {
            own.phase = own.phase.max(line.entry.phase);
            own.amnesia = own.amnesia.max(line.entry.amnesia);
            if line.entry.age() >= own.age() {
                own.incarnation = line.entry.incarnation;
                own.version = line.entry.version.saturating_add(1);
            }
        }
        let (seeds, old_seeds) = if config.seeds.is_empty() {
            (seeds, Vec::new())
        } else {
            (config.seeds.clone(), seeds.into_iter().filter(|seed| !config.seeds.contains(seed)).collect())
        };
        let watch = config.membership.clone();
        let founding = cluster.is_none().then(|| {
            Founding::new(own.clone(), config.found, config.replicas, seeds.clone(), watch.period, pledge)
        });
        let founders = cluster.as_ref().map(|cluster| cluster.founders.clone());
        let amnesia = own.amnesia;
        let book = Book::new(own.clone(), founders, members, watch.book_max);
        let in_ring = |entry: &&Entry| entry.phase.stage == Stage::Active;
        let settled = book
            .iter()
            .map(|news| &news.entry)
            .filter(in_ring)
            .map(|entry| (entry.id, entry.clone()))
            .collect();
        Membership {
            id: own.id,
            seeds,
            old_seeds,
            book,
            links: Links::new(watch.period, watch.silence_max, rng.bits()),
            detector: Detector::new(&watch),
            dissemination: Dissemination::default(),
            clocks: Clocks::default(),
            lives: Lives::new(life, lives),
            founding,
            cluster,
            settled,
            unsettled: BTreeSet::new(),
            saves: Saves::default(),
            watched: BTreeSet::new(),
            watched_as_of: 0,
            amnesia,
            relays: Vec::new(),
            troubles: BTreeMap::new(),
            outbids: Vec::new(),
            has_started: false,
            is_leaving: false,
            is_serving: false,
            extras_left: 0,
            now: Now::default(),
            next_round: Moment::default(),
            wake: Moment::NEVER,
            config: watch,
            rng,
        }
    }

    /// The incarnation is durable: begin to talk.
    pub fn start(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.has_started = true;
        self.now = now;
        self.next_round = now.monotonic;
        self.save_seeds(out);
        if self.cluster.is_some() {
            self.spread(self.id);
            self.serve_if_ready(out);
        }
        self.finish(out);
    }

    /// A member said something.
    pub fn handle(&mut self, now: Now, from: NodeId, message: Gossip, out: &mut Vec<Effect>) {
        if self.enter(now) && from != self.id {
            self.receive(from, message, out);
            self.finish(out);
        }
    }

    /// The deadline has come, or might have.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.enter(now) {
            self.finish(out);
        }
    }

    /// When to call [`tick`](Membership::tick) at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        self.wake
    }

    /// Some other message came directly from a member: a sign of life.
    pub fn heard(&mut self, now: Now, from: NodeId) {
        if self.enter(now) && from != self.id && self.book.get(from).is_some() {
            self.links.heard(now.monotonic, from);
            self.wake = self.wake.min(self.links.next_ping(from));
        }
    }

    /// A request to a member was not answered in time: look after it now, whoever's task that is otherwise.
    pub fn doubt(&mut self, now: Now, member: NodeId) {
        if self.enter(now) && member != self.id && self.book.get(member).is_some() {
            self.links.question(now.monotonic, member);
            self.wake = self.wake.min(self.links.next_ping(member));
        }
    }

    /// What was asked for under this token is durable.
    pub fn persisted(&mut self, now: Now, token: PersistToken, out: &mut Vec<Effect>) {
        if self.enter(now) {
            self.act_on(token, out);
            self.finish(out);
        }
    }

    /// The disk was asked to keep something of its own at this position, other than what this node knows of others.
    pub fn wrote(&mut self, position: Lsn) {
        self.lives.wrote(position);
    }

    /// The log is durable up to here.
    pub fn is_durable(&mut self, through: Lsn) {
        self.lives.is_durable(through);
    }

    /// What this node can show of its lives.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        self.lives.claim()
    }

    /// How far this node has got: what it says with whatever others count on.
    #[must_use]
    pub fn milestone(&self) -> Milestone {
        self.lives.claim().now.milestone()
    }

    /// A member has acknowledged something, and said how far it has got. That is remembered as if a heartbeat had told: it
    /// costs no write of its own.
    pub fn acknowledged(&mut self, now: Now, by: NodeId, milestone: Milestone, out: &mut Vec<Effect>) {
        if !self.enter(now) || self.cluster.is_none() {
            return;
        }
        if self.lives.heard(by, milestone) {
            self.wake = self.wake.min(self.lines_due());
        } else if self.lives.asks_about(by, milestone.nonce) {
            self.send(by, Body::Unknown { nonce: milestone.nonce }, out);
        }
    }

    /// The latest life of a member, as it is remembered here.
    #[must_use]
    pub fn remembers(&self, member: NodeId) -> Option<&Life> {
        self.lives.of(member)
    }

    /// Shows some members where this node comes from.
    pub fn ask(&self, members: impl Iterator<Item = NodeId>, out: &mut Vec<Effect>) {
        for id in members {
            self.send(id, Body::Claim(self.lives.claim().clone()), out);
        }
    }

    /// Enough of them have answered. What they have believed need not be shown again.
    pub fn was_believed(&mut self, out: &mut Vec<Effect>) {
        let entry = self.lives.confirm();
        self.persist(Purpose::Life, vec![entry], out);
    }

    /// The node stops in good order: the others need not find out.
    pub fn say_goodbye(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.enter(now) {
            return;
        }
        self.is_leaving = true;
        self.wake = Moment::NEVER;
        if self.cluster.is_none() {
            return;
        }
        // A version of its own, so that no suspicion of the last one stands against it.
        let mut own = self.book.own().clone();
        own.version = own.version.saturating_add(1);
        self.book.write_own(own);
        self.book.stop_own();
        let mut to = self.live();
        self.rng.shuffle(&mut to);
        to.truncate(rounds::GOODBYES_MAX);
        let news: Vec<_> = self.book.get(self.id).cloned().into_iter().collect();
        for id in to {
            self.send(id, Body::Items { news: news.clone() }, out);
        }
        self.save_lines(out);
    }

    /// Entries that came inside a refusal.
    pub fn absorb(&mut self, now: Now, entries: Vec<Entry>, out: &mut Vec<Effect>) {
        if self.enter(now) && self.cluster.is_some() {
            for entry in entries {
                // Nothing is said about health; an entry of the same age leaves the belief as it is.
                self.learn(crate::protocol::wire::gossip::News { entry, health: Health::Alive }, out);
            }
            self.finish(out);
        }
    }

    /// Takes note of the time; tells whether this node takes part at all.
    fn enter(&mut self, now: Now) -> bool {
        if !self.has_started || self.is_leaving {
            return false;
        }
        // Nobody called for a while, although this node asked for it: it was not running. What it did not hear meanwhile is no
        // evidence, and what it concludes next deserves less trust.
        let late = now.monotonic.since(self.wake.max(self.now.monotonic));
        if late > self.config.period / 2 {
            self.links.forgive(late);
            self.detector.was_late(late);
        }
        self.now = now;
        self.clocks.observe(now);
        true
    }

    /// Does what is due, and finds out when something is due next.
    fn finish(&mut self, out: &mut Vec<Effect>) {
        if self.is_leaving {
            return;
        }
        self.rewatch();
        self.settle(out);
        self.work(out);
        self.rewatch();
        self.wake = self.next_wake();
    }

    fn rewatch(&mut self) {
        if self.watched_as_of != self.book.version() {
            self.watched_as_of = self.book.version();
            self.watched = self.detector.watched(self.id, &self.book);
            let others = self.book.iter().map(|news| news.entry.id).filter(|&id| id != self.id);
            self.links.align(&others.collect());
        }
    }

    fn send(&self, to: NodeId, body: Body, out: &mut Vec<Effect>) {
        self.send_to(Destination::Node { id: to, address: self.address(to) }, body, out);
    }

    fn send_to(&self, to: Destination, body: Body, out: &mut Vec<Effect>) {
        let cluster = self.cluster.as_ref().map(|cluster| cluster.id);
        out.push(Effect::Send { to, message: Gossip { cluster, body } });
    }

    /// Tells people, once a minute at most.
    fn trouble(&mut self, text: String, out: &mut Vec<Effect>) {
        let now = self.now.monotonic;
        self.troubles.retain(|_, said| now.since(*said) < rounds::TROUBLE_AGAIN_AFTER);
        if self.troubles.len() < rounds::TROUBLES_MAX && !self.troubles.contains_key(&text) {
            self.troubles.insert(text.clone(), now);
            out.push(Effect::Notice(Notice::Trouble(text)));
        }
    }

    /// The others that are believed to be there.
    fn live(&self) -> Vec<NodeId> {
        let is_live = |health| matches!(health, Health::Alive | Health::Suspect);
        self.book
            .iter()
            .filter(|news| news.entry.id != self.id && is_live(news.health))
            .map(|news| news.entry.id)
            .collect()
    }

    /// The node's own entry.
    #[must_use]
    pub fn own(&self) -> &Entry {
        self.book.own()
    }

    /// Everybody's entry, by id, the own one included.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.book.iter().map(|news| &news.entry)
    }

    /// Everybody as people see them, by id.
    #[must_use]
    pub fn members(&self) -> Vec<MemberView> {
        let view = |news: &crate::protocol::wire::gossip::News| MemberView {
            entry: news.entry.clone(),
            health: news.health,
            reachable: self.is_reachable(news.entry.id),
        };
        self.book.iter().map(view).collect()
    }

    /// A member's entry.
    #[must_use]
    pub fn entry(&self, id: NodeId) -> Option<&Entry> {
        self.book.get(id).map(|news| &news.entry)
    }

    /// What people call a member.
    #[must_use]
    pub fn name(&self, id: NodeId) -> Option<&Name> {
        self.entry(id).map(|entry| &entry.name)
    }

    /// Where a member, or a candidate, can be reached.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<SocketAddr> {
        let candidate = || self.founding.as_ref().and_then(|founding| founding.entry(id));
        self.entry(id).or_else(candidate).and_then(|entry| entry.addresses.first().copied())
    }

    /// Whether this node itself can reach the member now; of what others say, only a member's own goodbye counts.
    #[must_use]
    pub fn is_reachable(&self, id: NodeId) -> bool {
        id == self.id || (self.links.is_reachable(id) && self.health(id) != Some(Health::Stopped))
    }

    /// Whether a member is believed to be gone, and has shown no sign of life to this node itself.
    #[must_use]
    pub fn is_gone(&self, id: NodeId) -> bool {
        let is_gone = matches!(self.health(id), None | Some(Health::Down | Health::Stopped));
        is_gone && !self.links.is_reachable(id)
    }

    /// What gossip believes of a member.
    #[must_use]
    pub fn health(&self, id: NodeId) -> Option<Health> {
        self.book.health(id)
    }

    /// The cluster, once it is known and durable.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The entries of the members that are in the ring, as this node has them on disk, by id. Nobody before
    /// [`Effect::Founded`] was given; then, everybody. Rings are built from these and not from
    /// [`entries`](Membership::entries), which may hold what a crash would make this node forget.
    pub fn ring_members(&self) -> impl Iterator<Item = &Entry> {
        self.settled.values().filter(|entry| self.is_serving && entry.phase.stage == Stage::Active)
    }

    /// The own amnesia generation, as it is durable and in force.
    #[must_use]
    pub fn settled_amnesia(&self) -> u32 {
        self.settled.get(&self.id).unwrap_or(self.book.own()).amnesia
    }

    /// The own wall clock minus the median of all that are heard, in milliseconds: positive if this one is ahead.
    #[must_use]
    pub fn clock_offset(&self) -> i64 {
        self.clocks.offset()
    }

    /// Changes whenever [`members`](Membership::members) does.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.book.version() + self.links.version()
    }

    /// What keeps this node from serving, for people; `None` if nothing does.
    #[must_use]
    pub fn waiting_for(&self) -> Option<String> {
        if self.is_serving {
            return None;
        }
        match (&self.founding, &self.cluster) {
            (Some(founding), _) => Some(founding.waiting_for(self.now.monotonic)),
            (None, Some(cluster)) => {
                let known = cluster.founders.ids().filter(|id| self.settled.contains_key(id)).count();
                Some(founding_words::entries(known, cluster.founders.len()))
            }
            (None, None) => None,
        }
    }
}
