//! What time does.

use std::time::Duration;

use super::detector::Judgement;
use super::{Effect, Membership, dissemination};
use crate::protocol::id::NodeId;
use crate::protocol::output::Destination;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::Health;
use crate::protocol::wire::gossip::Body;

/// Members that a node tells itself that it stops; the others hear it from these.
pub(super) const GOODBYES_MAX: usize = 64;

/// After how long people are told the same again.
pub(super) const TROUBLE_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Different troubles that people are told of within that time.
pub(super) const TROUBLES_MAX: usize = 64;

/// Pings a period to members that a node looks after although it does not watch them: those that it has not reached yet, or no longer.
const EXTRAS_MAX: usize = 32;

/// Helpers that are asked to reach a silent member.
const HELPERS: usize = 3;

/// How often in a thousand rounds the book is also compared with that of a member believed gone, so that two halves which buried
/// each other meet again,
const COMPARE_WITH_GONE: u32 = 200;

/// and with that of a seed.
const COMPARE_WITH_SEED: u32 = 100;

impl Membership {
    /// Does whatever is due.
    pub(super) fn work(&mut self, out: &mut Vec<Effect>) {
        let now = self.now.monotonic;
        if self.founding.is_some() {
            if self.next_round <= now {
                self.next_round = self.one_period_on();
                self.founding_round(out);
            }
            return;
        }
        self.links.expire(now);
        if self.next_round <= now {
            self.next_round = self.one_period_on();
            self.round(out);
        }
        self.ping_whom_is_due(out);
        for judgement in self.detector.judge(now, &self.watched, &self.book, &self.links) {
            match judgement {
                Judgement::Ask(id) => self.ask_others(id, out),
                Judgement::Accuse(id, health) => {
                    let before = self.book.health(id);
                    if self.book.accuse(id, health) {
                        self.spread(id);
                        self.believe(id, before, out);
                    }
                }
            }
        }
        if self.dissemination.due().is_some_and(|due| due <= now) {
            let live = self.live();
            for (to, body) in self.dissemination.take_rumours(&self.book, &live, &mut self.rng) {
                self.send(to, body, out);
            }
        }
        if self.lines_due() <= now {
            self.save_lines(out);
        }
    }

    /// A period from now, give or take a tenth: rounds of different nodes must not march in step.
    fn one_period_on(&mut self) -> Moment {
        let micros = u64::try_from(self.config.period.as_micros()).unwrap_or(u64::MAX);
        self.now.monotonic
            + Duration::from_micros(self.rng.between(micros - micros / 10, micros + micros / 10))
    }

    fn founding_round(&mut self, out: &mut Vec<Effect>) {
        let mut steps = Vec::new();
        if let Some(founding) = &mut self.founding {
            founding.tick(self.now.monotonic, &mut self.rng, &mut steps);
        }
        self.follow(steps, out);
    }

    /// Once a period.
    fn round(&mut self, out: &mut Vec<Effect>) {
        let now = self.now.monotonic;
        self.extras_left = EXTRAS_MAX;
        self.clocks.expire(now);
        self.detector.look_inward(now, &self.watched, &self.book, &self.links);
        let live = self.live();
        let reachable: Vec<NodeId> = live.iter().copied().filter(|&id| self.links.is_reachable(id)).collect();
        let digest = dissemination::digest(&self.book);
        if let Some(&partner) = self.rng.pick(if reachable.is_empty() { &live } else { &reachable }) {
            self.send(partner, digest.clone(), out);
        }
        if self.rng.chance(COMPARE_WITH_GONE) {
            let is_gone = |health| matches!(health, Health::Down | Health::Stopped);
            let gone: Vec<NodeId> = self
                .book
                .iter()
                .filter(|news| news.entry.id != self.id && is_gone(news.health))
                .map(|news| news.entry.id)
                .collect();
            if let Some(&id) = self.rng.pick(&gone) {
                self.send(id, digest.clone(), out);
            }
        }
        if reachable.is_empty() || self.rng.chance(COMPARE_WITH_SEED) {
            let others = self.seeds.iter().filter(|seed| !self.book.own().addresses.contains(seed));
            let seeds: Vec<_> = others.copied().collect();
            if let Some(&seed) = self.rng.pick(&seeds) {
                self.send_to(Destination::Address(seed), digest, out);
            }
        }
        // One that nobody told this node to watch: so that a link that broke unnoticed is found in the end.
        let unwatched: Vec<NodeId> = live.into_iter().filter(|id| !self.watched.contains(id)).collect();
        if let Some(&id) = self.rng.pick(&unwatched) {
            self.ping(id, out);
        }
    }

    /// Asks those that this node watches, and as many as the period allows of those that it has not reached.
    fn ping_whom_is_due(&mut self, out: &mut Vec<Effect>) {
        let now = self.now.monotonic;
        let is_due = |id: &NodeId| self.links.next_ping(*id) <= now;
        let watched: Vec<NodeId> = self.watched.iter().copied().filter(is_due).collect();
        let mut extras: Vec<(Moment, NodeId)> =
            self.extras().filter(is_due).map(|id| (self.links.next_ping(id), id)).collect();
        extras.sort_unstable();
        extras.truncate(self.extras_left);
        self.extras_left -= extras.len();
        for id in watched.into_iter().chain(extras.into_iter().map(|(_, id)| id)) {
            self.ping(id, out);
        }
    }

    /// Those that this node does not watch, but must reach before it can call them reachable.
    fn extras(&self) -> impl Iterator<Item = NodeId> {
        self.links.open().filter(|id| {
            !self.watched.contains(id)
                && self.book.health(*id).is_some_and(|health| health != Health::Stopped)
        })
    }

    pub(super) fn ping(&mut self, id: NodeId, out: &mut Vec<Effect>) -> u64 {
        let health = self.book.health(id).unwrap_or(Health::Alive);
        let is_rare = health == Health::Down && !self.watched.contains(&id);
        let number = self.links.ping(self.now.monotonic, id, is_rare);
        let (incarnation, version) = self.entry(id).map_or_else(Default::default, |entry| entry.age());
        self.send(id, Body::Ping { number, incarnation, version, health }, out);
        number
    }

    fn ask_others(&mut self, target: NodeId, out: &mut Vec<Effect>) {
        let mut helpers: Vec<NodeId> =
            self.live().into_iter().filter(|&id| id != target && self.links.is_reachable(id)).collect();
        self.rng.shuffle(&mut helpers);
        for &helper in helpers.iter().take(HELPERS) {
            self.send(helper, Body::PingFor { target }, out);
        }
    }

    /// When there is something to do next.
    pub(super) fn next_wake(&self) -> Moment {
        if self.founding.is_some() {
            return self.next_round;
        }
        let now = self.now.monotonic;
        let pings = self.watched.iter().map(|&id| self.links.next_ping(id)).min();
        let extras = self.extras().map(|id| self.links.next_ping(id)).filter(|_| self.extras_left > 0).min();
        let given_up = self.links.open().map(|id| self.links.given_up_at(id)).min();
        let links = [pings, extras, given_up].into_iter().flatten().min();
        let judgement = if self.detector.is_busy() { now + self.config.period / 10 } else { Moment::NEVER };
        let rumours = self.dissemination.due().unwrap_or(Moment::NEVER);
        [self.next_round, links.unwrap_or(Moment::NEVER), judgement, rumours, self.lines_due()]
            .into_iter()
            .min()
            .unwrap_or(Moment::NEVER)
    }
}
