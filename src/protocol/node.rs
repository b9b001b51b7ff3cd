//! One node of a cluster, as a state machine.

mod disk;
mod gauges;
mod healing;
mod hinting;
mod inquiry;
mod reaping;
mod stall;
mod start;
mod status;
mod trust;

use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::antientropy::AntiEntropy;
use crate::protocol::antientropy::reaper::Reaper;
use crate::protocol::codec;
use crate::protocol::config::NodeConfig;
use crate::protocol::id::{Actor, ClusterId, Incarnation, NodeId, RequestId, SessionId};
use crate::protocol::input::Input;
use crate::protocol::membership::{Effect, Membership, PersistToken};
use crate::protocol::output::{Destination, Notice, Output};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::replication::author::Author;
use crate::protocol::replication::coordinator::{Coordinator, Event};
use crate::protocol::replication::desk::{Desk, Errand, Reply, Vigil};
use crate::protocol::replication::hints::Hints;
use crate::protocol::replication::latency::Latency;
use crate::protocol::replication::register::HintRegister;
use crate::protocol::replication::replay::is_replay;
use crate::protocol::replication::replica;
use crate::protocol::replication::scope::{Origin, Peers, Scope, Stamped};
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::RingView;
use crate::protocol::rng::Rng;
use crate::protocol::storage::epochs::Epochs;
use crate::protocol::storage::op::{DiskRequest, Lsn, MetaKey};
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::client::{Answer, Code, Problem, Request};
use crate::protocol::wire::peer::{Hello, PeerMessage, PeerRefusal};

use inquiry::Inquiry;
use stall::Stall;

pub use gauges::Gauges;
pub use start::{Identity, Start, StartError};
use trust::Losses;

/// One node of a cluster: routes inputs to the parts that own the rules, and owns those parts. It holds no algorithm.
///
/// # Contract
/// * Call [`handle`](Node::handle) for everything that happens, in one order, and carry out the outputs that it appends, in theirs.
/// * Call it with [`Input::Deadline`] when the time of [`next_deadline`](Node::next_deadline) has come; ask again after
///   every input.
/// * `now` must never go back (its monotonic half; the wall clock may jump).
/// * Messages may be lost, repeated, delayed and reordered. Disk replies may not.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    life: Life,
    started_at: Moment,
    stall: Stall,
    incarnation: Incarnation,
    author: Author,
    inquiry: Inquiry,
    losses: Losses,
    membership: Membership,
    view: Option<RingView>,
    coordinator: Coordinator,
    antientropy: AntiEntropy,
    epochs: Epochs,
    reaper: Reaper,
    desk: Desk,
    latency: Latency,
    register: HintRegister,
    hints: Hints,
    doubts: Vec<NodeId>,
    missed: Vec<(NodeId, Slot)>,
    counts: Counts,
    rng: Rng,
}

/// How far a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Its new incarnation and actor are not durable yet: it says nothing to anybody.
    Starting,
    /// It talks, and serves if it has a ring.
    Running,
    /// It has said goodbye and finishes what is under way.
    Stopping,
    /// It has nothing left to do.
    Stopped,
}

/// What a node has done since its start.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    reads: u64,
    writes: u64,
    replicated: u64,
    fetched: u64,
    amnesia: u64,
}

impl Node {
    /// Takes note of something that happened at `now` and appends what is to be done to `out`.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        self.stall.begins(now.monotonic);
        match input {
            Input::Peer { from, message } => self.on_peer(now, from, message, out),
            Input::Client { session, id, deadline_ms, request } => {
                let patience = self.stall.what_is_left(now.monotonic, deadline_ms);
                self.on_client(now, session, id, patience, request, out);
            }
            Input::Disk(reply) => self.on_disk(now, reply, out),
            Input::Deadline => self.on_deadline(now, out),
            Input::Stop => self.on_stop(now, out),
        }
        for (node, slot) in self.missed.drain(..) {
            self.antientropy.missed(node, slot);
        }
        if self.author.is_doubted() {
            self.forget_actor(out);
        }
        if self.life == Life::Stopping && self.coordinator.is_empty() && self.desk.is_empty() {
            self.life = Life::Stopped;
            out.push(Output::Notice(Notice::Stopped));
        }
        self.stall.ends(now.monotonic, self.next_deadline());
    }

    /// When to call [`handle`](Node::handle) with [`Input::Deadline`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        match self.life {
            Life::Starting | Life::Stopped => Moment::NEVER,
            Life::Running | Life::Stopping => self
                .membership
                .next_deadline()
                .min(self.coordinator.next_deadline())
                .min(self.antientropy.next_deadline())
                .min(self.losses_deadline())
                .min(self.inquiry_deadline())
                .min(self.next_hinting())
                .min(self.next_reaping()),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.membership.own().id
    }

    /// Its generation clock.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Its cluster, once founded.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.membership.cluster().map(|cluster| cluster.id)
    }

    /// What it knows of the members.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The ring as it sees it, once it serves.
    #[must_use]
    pub fn ring_view(&self) -> Option<&RingView> {
        self.view.as_ref()
    }

    /// Whether it serves requests.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.life == Life::Running && self.view.is_some()
    }

    /// What the shell says first on every connection to a peer; `None` while it may not talk.
    #[must_use]
    pub fn hello(&self) -> Option<Hello> {
        matches!(self.life, Life::Running | Life::Stopping).then(|| Hello {
            node: self.id(),
            name: self.config.name.clone(),
            cluster: self.cluster(),
            incarnation: self.incarnation,
        })
    }

    fn on_peer(&mut self, now: Now, from: NodeId, message: PeerMessage, out: &mut Vec<Output>) {
        // Nothing leaves before the new incarnation is durable, answers included.
        if matches!(self.life, Life::Starting | Life::Stopped) || from == self.id() {
            return;
        }
        self.membership.heard(now, from);
        if let Some(milestone) = message.milestone() {
            let mut effects = Vec::new();
            self.membership.acknowledged(now, from, milestone, &mut effects);
            self.carry_out(now, effects, out);
        }
        match message {
            PeerMessage::Hello(_) => {}
            PeerMessage::Gossip(gossip) => {
                let mut effects = Vec::new();
                self.membership.handle(now, from, gossip, &mut effects);
                self.carry_out(now, effects, out);
            }
            PeerMessage::Replicate { request, digest, epoch, actor, key, record } => {
                self.counts.replicated += 1;
                match self.scope(now, out) {
                    Some((_, mut scope)) => {
                        replica::on_replicate(
                            from,
                            request,
                            digest,
                            actor,
                            &key,
                            Stamped { record, epoch },
                            &mut scope,
                        );
                    }
                    None => self.decline(from, request, out),
                }
            }
            PeerMessage::Fetch { request, digest, key } => {
                self.counts.fetched += 1;
                match self.scope(now, out) {
                    Some((_, mut scope)) => replica::on_fetch(from, request, digest, &key, &mut scope),
                    None => self.decline(from, request, out),
                }
            }
            PeerMessage::Forward { request, deadline_ms, ask } => {
                let patience = self.stall.what_is_left(now.monotonic, deadline_ms);
                if self.life != Life::Running && self.coordinator.has_let_in(from, request, &ask) {
                    // A copy of what was let in before: to refuse it would say that nothing was done.
                    return;
                }
                match self.scope(now, out) {
                    Some((coordinator, mut scope)) => {
                        coordinator.start(Origin::Peer { node: from, request }, ask, patience, &mut scope);
                    }
                    None => self.decline(from, request, out),
                }
            }
            PeerMessage::Stored { request, .. } if is_replay(request) => {
                self.on_hint_stored(now, from, request, out);
            }
            PeerMessage::Stored { request, entry, .. } => {
                self.tell(now, request, Event::Stored { from, entry }, out);
            }
            PeerMessage::Fetched { request, raised, committed, record, .. } => {
                let reply = Reply { record, raised, committed };
                self.tell(now, request, Event::Fetched { from, reply }, out);
            }
            PeerMessage::Refused { request, reason } => {
                if let PeerRefusal::OtherRing(entries) = &reason {
                    let mut effects = Vec::new();
                    self.membership.absorb(now, entries.clone(), &mut effects);
                    self.carry_out(now, effects, out);
                }
                match reason {
                    // Every owner has had what it holds, and forgot it in a round.
                    PeerRefusal::Reaped if is_replay(request) => {
                        self.on_hint_stored(now, from, request, out);
                    }
                    reason => self.tell(now, request, Event::Refused { from, reason }, out),
                }
            }
            PeerMessage::Forwarded { request, answer, .. } => {
                self.tell(now, request, Event::Forwarded { from, answer }, out);
            }
            PeerMessage::Hint { .. }
            | PeerMessage::Hinted { .. }
            | PeerMessage::AskHints { .. }
            | PeerMessage::NoHints { .. } => self.on_hinting(now, from, message, out),
            PeerMessage::Exchange(message) => self.on_exchange(now, from, message, out),
            PeerMessage::Reap(message) => self.on_reap(now, from, message, out),
        }
    }

    fn on_client(
        &mut self,
        now: Now,
        session: SessionId,
        id: u64,
        patience: Duration,
        request: Request,
        out: &mut Vec<Output>,
    ) {
        let origin = Origin::Client { session, id };
        let answer = match request {
            Request::Topology => Answer::Topology(self.topology(now)),
            Request::Status => Answer::Status(self.status(now)),
            Request::Admin(_) => {
                Answer::Refused(Problem::new(Code::BadRequest, "this node cannot be administrated this way"))
            }
            Request::Write(_) | Request::Read(_) | Request::Explain { .. } => {
                match &request {
                    Request::Write(_) => self.counts.writes += 1,
                    _ => self.counts.reads += 1,
                }
                match self.scope(now, out) {
                    Some((coordinator, mut scope)) => {
                        return coordinator.start(origin, request, patience, &mut scope);
                    }
                    None => Answer::Refused(Problem::new(Code::NotReady, self.why_not_ready())),
                }
            }
        };
        out.push(Output::Respond { session, id, answer });
    }

    fn wait(&mut self, now: Now, lsn: Lsn, vigil: Vigil, out: &mut Vec<Output>) {
        if let Some(vigil) = self.desk.wait(lsn, vigil) {
            self.on_durable(now, vigil, out);
        }
    }

    fn on_durable(&mut self, now: Now, vigil: Vigil, out: &mut Vec<Output>) {
        match vigil {
            Vigil::OwnWrite(request) => self.tell(now, request, Event::Logged, out),
            Vigil::OwnRead(request, reply) => {
                let event = Event::Fetched { from: self.id(), reply };
                self.tell(now, request, event, out);
            }
            Vigil::Start(actor) => {
                self.author.became_durable(actor);
                if self.life == Life::Starting {
                    self.life = Life::Running;
                    out.push(Output::Notice(Notice::Started));
                    let mut effects = Vec::new();
                    self.membership.start(now, &mut effects);
                    self.carry_out(now, effects, out);
                }
            }
            Vigil::Belief(token) => {
                let mut effects = Vec::new();
                self.membership.persisted(now, PersistToken(token), &mut effects);
                self.carry_out(now, effects, out);
            }
            Vigil::Reap(token) => self.on_reap_durable(now, token, out),
            Vigil::Mended(slot) => self.on_mended_durably(now, slot, out),
            Vigil::Trust => self.on_trust_durable(now, out),
            Vigil::Register(..) | Vigil::Hinted { .. } | Vigil::DropHint(_) => {
                self.on_hint_durable(now, vigil, out);
            }
            Vigil::Stored { .. } | Vigil::Fetched { .. } => {
                if let Some((_, mut scope)) = self.any_scope(now, out) {
                    replica::on_durable(vigil, &mut scope);
                }
            }
        }
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Output>) {
        if matches!(self.life, Life::Starting | Life::Stopped) {
            return;
        }
        if now.monotonic >= self.membership.next_deadline() {
            let mut effects = Vec::new();
            self.membership.tick(now, &mut effects);
            self.carry_out(now, effects, out);
        }
        if let Some((coordinator, mut scope)) = self.any_scope(now, out) {
            coordinator.tick(&mut scope);
        }
        if now.monotonic >= self.next_reaping() {
            self.tick_reaper(now, out);
        }
        if now.monotonic >= self.next_hinting() {
            self.tick_hints(now, out);
        }
        if now.monotonic >= self.antientropy.next_deadline() {
            self.tick_exchanges(now, out);
        }
        self.tick_losses(now, out);
        self.tick_inquiry(now, out);
        for node in std::mem::take(&mut self.doubts) {
            self.membership.doubt(now, node);
        }
    }

    fn on_stop(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.life {
            // It has promised nothing to anybody, and it may not say a word.
            Life::Starting => {
                self.life = Life::Stopped;
                out.push(Output::Notice(Notice::Stopped));
            }
            Life::Running => {
                self.life = Life::Stopping;
                self.antientropy.halt();
                self.reaper.halt();
                let mut effects = Vec::new();
                self.membership.say_goodbye(now, &mut effects);
                self.carry_out(now, effects, out);
            }
            Life::Stopping | Life::Stopped => {}
        }
    }

    /// Does what the membership wants done.
    fn carry_out(&mut self, now: Now, effects: Vec<Effect>, out: &mut Vec<Output>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    out.push(Output::Send { to, message: PeerMessage::Gossip(message) })
                }
                Effect::Persist { token, entries } => {
                    self.desk.ask(
                        Errand::Belief(token.0),
                        |ticket| DiskRequest::Meta { ticket, entries },
                        out,
                    );
                }
                Effect::Notice(notice) => out.push(Output::Notice(notice)),
                Effect::Fenced(generation) => self.on_fenced(generation, out),
                Effect::Denied { by, remembers } => self.on_denied(by, remembers, out),
                Effect::Believed(member) => self.on_believed(now, member, out),
                // Before it is founded, some of the members may be unknown, and theirs would be another ring.
                Effect::Changed if self.view.is_none() => {}
                Effect::Changed | Effect::Founded => self.look_at_the_ring(now, out),
            }
        }
    }

    /// Computes the ring anew from what is known of the members, if it is another one.
    fn look_at_the_ring(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(cluster) = self.membership.cluster() else { return };
        let view = RingView::build(cluster.id, cluster.replicas, self.membership.ring_members());
        // A ring that was there does not go away: operations under way would have nothing to end by.
        let Some(view) = view else { return };
        if self.view.as_ref() == Some(&view) {
            // Most of what changes in entries, addresses for example, changes neither owners nor digests.
            return self.on_generation(now, out);
        }
        let was_serving = self.is_serving();
        if matches!(self.life, Life::Starting | Life::Running) {
            self.antientropy.on_ring_change(now.monotonic, &view);
            self.reaper.begin(now.monotonic);
        }
        self.view = Some(view);
        self.on_generation(now, out);
        self.look_at_answers(now, out);
        if let Some((coordinator, mut scope)) = self.any_scope(now, out) {
            coordinator.on_ring_change(&mut scope);
        }
        if !was_serving && self.is_serving() {
            out.push(Output::Notice(Notice::Serving));
        }
    }

    /// The node has forgotten writes of its actor, or its clock cannot be trusted: both go, and no dot is issued before
    /// the new actor is durable.
    fn forget_actor(&mut self, out: &mut Vec<Output>) {
        self.counts.amnesia += 1;
        out.push(Output::Notice(Notice::Amnesia));
        let actor = Actor(self.rng.bits());
        self.author.replace(actor);
        let start = Start { incarnation: self.incarnation, actor };
        let entries = vec![(MetaKey::Start, Some(codec::encode(&start).into()))];
        self.desk.ask(Errand::Start(actor), |ticket| DiskRequest::Meta { ticket, entries }, out);
    }

    /// Hands an event to an operation.
    fn tell(&mut self, now: Now, request: RequestId, event: Event, out: &mut Vec<Output>) {
        if let Some((coordinator, mut scope)) = self.any_scope(now, out) {
            coordinator.handle(request, event, &mut scope);
        }
    }

    fn decline(&self, to: NodeId, request: RequestId, out: &mut Vec<Output>) {
        let to = Destination::Node { id: to, address: self.membership.address(to) };
        out.push(Output::Send {
            to,
            message: PeerMessage::Refused { request, reason: PeerRefusal::NotReady },
        });
    }

    /// The coordinator and what its operations may use, if the node takes new work.
    fn scope<'a>(
        &'a mut self,
        now: Now,
        out: &'a mut Vec<Output>,
    ) -> Option<(&'a mut Coordinator, Scope<'a>)> {
        if self.life == Life::Running { self.any_scope(now, out) } else { None }
    }

    /// The same, for what is under way already.
    fn any_scope<'a>(
        &'a mut self,
        now: Now,
        out: &'a mut Vec<Output>,
    ) -> Option<(&'a mut Coordinator, Scope<'a>)> {
        let scope = Scope {
            now,
            own: self.membership.own().id,
            config: &self.config.replication,
            limits: &self.config.limits,
            view: self.view.as_ref()?,
            secret: &self.membership.cluster()?.secret,
            peers: &self.membership,
            milestone: self.membership.milestone(),
            trust: &self.losses.trust,
            author: &mut self.author,
            desk: &mut self.desk,
            latency: &mut self.latency,
            register: &mut self.register,
            hints: &mut self.hints,
            hint_config: &self.config.hints,
            epochs: &mut self.epochs,
            rounds: &self.reaper,
            ledger: self.antientropy.ledger(),
            doubts: &mut self.doubts,
            missed: &mut self.missed,
            out,
        };
        Some((&mut self.coordinator, scope))
    }
}

impl Peers for Membership {
    fn is_reachable(&self, node: NodeId) -> bool {
        #[cfg(test)]
        if planted::is(Planted::HearsayRoutes) {
            return self.health(node) == Some(crate::protocol::wire::client::Health::Alive);
        }
        Membership::is_reachable(self, node)
    }

    fn address(&self, node: NodeId) -> Option<SocketAddr> {
        Membership::address(self, node)
    }

    fn name(&self, node: NodeId) -> String {
        Membership::name(self, node).map_or_else(|| node.to_string(), |name| name.to_string())
    }

    fn entry(&self, node: NodeId) -> Option<Entry> {
        Membership::entry(self, node).cloned()
    }

    fn clock_offset(&self) -> i64 {
        Membership::clock_offset(self)
    }
}

#[cfg(test)]
mod tests;
