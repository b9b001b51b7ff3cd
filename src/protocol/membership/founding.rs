//! How nodes without data become a cluster, once.
//!
//! ```text
//!             enough candidates,          proposal of another
//!             own id is the lowest        that names this node
//!   Free ───────────────────▶ bound to itself      Free ─────▶ bound to the other
//!    ▲                         │        │                        │        │
//!    └── yields to a lower ◀───┘        │ all confirmed          │        └──▶ released ──▶ Free
//!        rival, or proposes anew        ▼                        ▼
//!                                    Cluster ───── Founded ──▶ Cluster
//! ```
//!
//! Every arrow is durable before anybody hears of it, and everything that is said is said again each period until it is
//! overtaken, so that lost messages and restarts at any point only delay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::founding_words as words;
use crate::protocol::causality::ClusterSecret;
use crate::protocol::id::{ClusterId, NodeId};
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::member::RingMember;
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::rng::Rng;
use crate::protocol::time::Moment;
use crate::protocol::wire::gossip::{Body, Cluster, Founders};

/// A candidate counts while it was heard of within so many periods.
const FRESH_PERIODS: u32 = 5;

/// After so many periods without all confirmations, a proposer looks for others; after as many, one that yielded tries again.
const STALLED_PERIODS: u32 = 10;

/// The most candidates that a node keeps in mind.
const CANDIDATES_MAX: usize = 256;

/// What a node has promised while a cluster is being founded: durable before it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pledge {
    /// The highest ballot under which this node itself ever proposed.
    pub ballot: u64,
    /// What it is bound to.
    pub bound: Option<Bond>,
}

/// A binding to one proposal; only its proposer can undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// Whose proposal.
    pub proposer: NodeId,
    /// Which of its proposals.
    pub ballot: u64,
    /// Replicas of every key.
    pub replicas: Replicas,
    /// Who is to found the cluster.
    pub founders: Founders,
}

/// What founding wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Say(NodeId, Body),
    SayTo(SocketAddr, Body),
    /// Make the pledge durable, then call [`Founding::saved`].
    Save(Pledge),
    /// All confirmed: make this durable and be it.
    Seal(Cluster),
    Trouble(String),
}

/// Another node without a cluster.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) entry: Entry,
    found: Option<u16>,
    replicas: Replicas,
    /// When it last spoke for itself; until it does, it is only an address to speak to.
    heard: Option<Moment>,
}

/// A node's part in the founding of its cluster.
#[derive(Clone, Debug)]
pub(super) struct Founding {
    own: Entry,
    found: Option<u16>,
    replicas: Replicas,
    seeds: Vec<SocketAddr>,
    period: std::time::Duration,
    /// What the disk has.
    pledge: Pledge,
    /// What the disk was asked to have; nothing else is promised meanwhile.
    saving: Option<Pledge>,
    candidates: BTreeMap<NodeId, Candidate>,
    /// Who confirmed the own proposal.
    confirmed: BTreeSet<NodeId>,
    proposed: Moment,
    /// A lower proposer than the one that this node is bound to.
    rival: Option<NodeId>,
    yielded: Option<(NodeId, Moment)>,
    /// The cluster that was founded without this node. It founds no second one with the others that are left over.
    surplus: Option<ClusterId>,
    is_sealing: bool,
}

impl Founding {
    pub(super) fn new(
        own: Entry,
        found: Option<u16>,
        replicas: Replicas,
        seeds: Vec<SocketAddr>,
        period: std::time::Duration,
        pledge: Pledge,
    ) -> Founding {
        // Alone and told nothing, or told that one is enough: a cluster of one. A promise that was made binds all the same.
        let found = if found.is_none() && seeds.is_empty() { Some(1) } else { found };
        Founding {
            own,
            found,
            replicas,
            seeds,
            period,
            pledge,
            saving: None,
            candidates: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            proposed: Moment::default(),
            rival: None,
            yielded: None,
            surplus: None,
            is_sealing: false,
        }
    }

    /// Once a period, and at the start.
    pub(super) fn tick(&mut self, now: Moment, rng: &mut Rng, steps: &mut Vec<Step>) {
        self.candidates
            .retain(|_, candidate| candidate.heard.is_none_or(|heard| now.since(heard) < self.period * 60));
        if self.proposed == Moment::default() {
            // A proposal of an earlier life gets its time, too.
            self.proposed = now;
        }
        self.hail(now, rng, steps);
        self.reconsider(now, rng, steps);
        self.speak(steps);
    }

    /// Says again whatever has not been overtaken.
    fn speak(&mut self, steps: &mut Vec<Step>) {
        let Some(bond) = &self.pledge.bound else { return };
        if self.saving.is_some() || self.is_sealing {
            return;
        }
        if bond.proposer == self.own.id {
            for id in bond.founders.ids().filter(|id| *id != self.own.id && !self.confirmed.contains(id)) {
                let (ballot, replicas, founders) = (bond.ballot, bond.replicas, bond.founders.clone());
                steps.push(Step::Say(id, Body::Propose { ballot, replicas, founders }));
            }
        } else {
            steps.push(Step::Say(bond.proposer, Body::Confirm { ballot: bond.ballot, rival: self.rival }));
        }
    }

    /// Tells everybody who might care that this node is here.
    fn hail(&self, now: Moment, rng: &mut Rng, steps: &mut Vec<Step>) {
        let known: BTreeSet<SocketAddr> = self
            .candidates
            .values()
            .filter_map(|candidate| candidate.entry.addresses.first().copied())
            .collect();
        for &seed in &self.seeds {
            if !known.contains(&seed) && !self.own.addresses.contains(&seed) {
                steps.push(Step::SayTo(seed, self.presence(now, rng)));
            }
        }
        for &id in self.candidates.keys() {
            steps.push(Step::Say(id, self.presence(now, rng)));
        }
    }

    /// What this node says to one that takes it for a member.
    pub(super) fn introduction(&self, to: NodeId, now: Moment, rng: &mut Rng) -> Step {
        Step::Say(to, self.presence(now, rng))
    }

    /// This node's own entry, and as many of the candidates that it heard lately as fit.
    fn presence(&self, now: Moment, rng: &mut Rng) -> Body {
        let mut others: Vec<&Entry> = self
            .fresh(now)
            .map(|candidate| &candidate.entry)
            .filter(|entry| entry.id != self.own.id)
            .collect();
        rng.shuffle(&mut others);
        let entries = super::packing::fitting(std::iter::once(&self.own).chain(others).cloned());
        Body::Candidate { found: self.found, replicas: self.replicas, entries }
    }

    fn fresh(&self, now: Moment) -> impl Iterator<Item = &Candidate> {
        let limit = self.period * FRESH_PERIODS;
        self.candidates
            .values()
            .filter(move |candidate| candidate.heard.is_some_and(|heard| now.since(heard) <= limit))
    }

    /// Another node without a cluster speaks.
    pub(super) fn on_candidate(
        &mut self,
        now: Moment,
        from: NodeId,
        (found, replicas): (Option<u16>, Replicas),
        entries: Vec<Entry>,
        rng: &mut Rng,
        steps: &mut Vec<Step>,
    ) {
        let mut entries = entries.into_iter();
        let Some(entry) = entries.next().filter(|entry| entry.id == from) else { return };
        let is_known = self.fresh(now).any(|candidate| candidate.entry.id == from);
        if self.candidates.len() < CANDIDATES_MAX || self.candidates.contains_key(&from) {
            self.candidates.insert(from, Candidate { entry, found, replicas, heard: Some(now) });
        }
        for entry in entries {
            let is_news = entry.id != self.own.id && !self.candidates.contains_key(&entry.id);
            if is_news && self.candidates.len() < CANDIDATES_MAX {
                let id = entry.id;
                self.candidates.insert(id, Candidate { entry, found, replicas, heard: None });
                steps.push(Step::Say(id, self.presence(now, rng)));
            }
        }
        if !is_known {
            steps.push(Step::Say(from, self.presence(now, rng)));
        }
        if let Some(size) = self.found.filter(|_| found.is_some()) {
            let (mine, theirs) = ((Some(size), self.replicas), (found, replicas));
            if mine != theirs {
                let other = &self.candidates[&from].entry.name;
                steps.push(Step::Trouble(words::other_terms(&self.own.name, mine, other, theirs)));
            }
        }
        self.reconsider(now, rng, steps);
    }

    /// The candidates that this node could found a cluster with, itself included, by id.
    fn eligible(&self, now: Moment) -> BTreeMap<NodeId, &Entry> {
        let mut eligible: BTreeMap<NodeId, &Entry> = self
            .fresh(now)
            .filter(|candidate| (candidate.found, candidate.replicas) == (self.found, self.replicas))
            .map(|candidate| (candidate.entry.id, &candidate.entry))
            .collect();
        eligible.insert(self.own.id, &self.own);
        eligible
    }

    /// Proposes if it is this node's turn, and proposes anew if its proposal leads nowhere.
    fn reconsider(&mut self, now: Moment, rng: &mut Rng, steps: &mut Vec<Step>) {
        if self.saving.is_some() || self.is_sealing {
            return;
        }
        match &self.pledge.bound {
            None => self.propose(now, &BTreeSet::new(), steps),
            Some(bond) if bond.proposer == self.own.id => {
                if bond.founders.ids().all(|id| id == self.own.id || self.confirmed.contains(&id)) {
                    return self.seal(rng, steps);
                }
                let missing: BTreeSet<NodeId> = bond
                    .founders
                    .ids()
                    .filter(|id| *id != self.own.id && !self.confirmed.contains(id))
                    .collect();
                let has_changed = missing.iter().any(|id| {
                    let now_says = self.fresh(now).find(|candidate| candidate.entry.id == *id);
                    now_says.is_some_and(|candidate| {
                        bond.founders.get(*id) != Some(ring_member(&candidate.entry))
                    })
                });
                if has_changed {
                    self.propose(now, &BTreeSet::new(), steps);
                } else if now.since(self.proposed) > self.period * STALLED_PERIODS {
                    self.propose(now, &missing, steps);
                }
            }
            Some(_) => {}
        }
    }

    /// Proposes the candidates with the lowest ids, if this node is the lowest and there are enough of them.
    fn propose(&mut self, now: Moment, without: &BTreeSet<NodeId>, steps: &mut Vec<Step>) {
        let Some(size) = self.found.map(usize::from).filter(|&size| size > 0) else { return };
        let waits = self.period * STALLED_PERIODS;
        if self.surplus.is_some() || self.yielded.is_some_and(|(_, at)| now.since(at) < waits) {
            return;
        }
        let eligible = self.eligible(now);
        let chosen: Vec<&Entry> = if size == 1 {
            vec![&self.own]
        } else {
            eligible.values().copied().filter(|entry| !without.contains(&entry.id)).take(size).collect()
        };
        if chosen.len() < size || chosen[0].id != self.own.id {
            return;
        }
        if let Some(name) = words::shared_name(&chosen) {
            steps.push(Step::Trouble(words::two_of_a_name(name)));
            return;
        }
        match Founders::new(chosen) {
            Err(error) => steps.push(Step::Trouble(error.to_string())),
            Ok(founders) => {
                let ballot = self.pledge.ballot + 1;
                let bond = Bond { proposer: self.own.id, ballot, replicas: self.replicas, founders };
                self.proposed = now;
                self.save(Pledge { ballot, bound: Some(bond) }, steps);
            }
        }
    }

    fn save(&mut self, pledge: Pledge, steps: &mut Vec<Step>) {
        assert!(self.saving.is_none() && !self.is_sealing, "one promise at a time");
        self.saving = Some(pledge.clone());
        steps.push(Step::Save(pledge));
    }

    /// The pledge is durable: act on it.
    pub(super) fn saved(&mut self, now: Moment, rng: &mut Rng, steps: &mut Vec<Step>) {
        let Some(pledge) = self.saving.take() else { return };
        self.pledge = pledge;
        self.confirmed.clear();
        self.rival = None;
        self.reconsider(now, rng, steps);
        self.speak(steps);
    }

    /// Another proposes.
    pub(super) fn on_propose(&mut self, now: Moment, from: NodeId, bond: Bond, steps: &mut Vec<Step>) {
        if self.saving.is_some() || self.is_sealing || !bond.founders.contains(self.own.id) {
            return;
        }
        match &self.pledge.bound {
            Some(mine) if mine.proposer == from => {
                if mine.ballot == bond.ballot {
                    let body = Body::Confirm { ballot: bond.ballot, rival: self.rival };
                    return steps.push(Step::Say(from, body));
                }
                if mine.ballot > bond.ballot {
                    return;
                }
                // A later proposal of the same proposer has released the earlier one.
            }
            Some(mine) if mine.proposer == self.own.id && from < self.own.id => {
                self.yielded = Some((from, now));
            }
            Some(mine) => {
                if from < mine.proposer {
                    self.rival = Some(from);
                }
                let body = Body::Bound { ballot: bond.ballot, proposer: mine.proposer };
                return steps.push(Step::Say(from, body));
            }
            None if self.surplus.is_some() => return,
            None => {}
        }
        let size = self.found.map(usize::from);
        let fits = size.is_none_or(|size| size == bond.founders.len()) && bond.replicas == self.replicas;
        if fits && bond.founders.get(self.own.id) == Some(ring_member(&self.own)) {
            let ballot = self.pledge.ballot;
            self.save(Pledge { ballot, bound: Some(bond) }, steps);
        }
    }

    /// A candidate is bound to a proposal of this node.
    pub(super) fn on_confirm(
        &mut self,
        now: Moment,
        from: NodeId,
        ballot: u64,
        rival: Option<NodeId>,
        rng: &mut Rng,
        steps: &mut Vec<Step>,
    ) {
        if self.saving.is_some() || self.is_sealing {
            return;
        }
        match &self.pledge.bound {
            Some(bond) if bond.proposer == self.own.id && bond.ballot == ballot => {
                if !bond.founders.contains(from) {
                    return;
                }
                self.confirmed.insert(from);
                // If all have confirmed, the rival comes too late: it can never get those that are bound here.
                self.reconsider(now, rng, steps);
                if let Some(rival) = rival.filter(|_| !self.is_sealing && self.saving.is_none()) {
                    self.yield_to(now, rival, steps);
                }
            }
            _ if ballot <= self.pledge.ballot => steps.push(Step::Say(from, Body::Released { ballot })),
            // A proposal that this node does not remember: its disk was set back. It may have founded a cluster
            // with it, so it must not release anybody.
            _ => {}
        }
    }

    /// A candidate is bound to another proposer.
    pub(super) fn on_bound(&mut self, now: Moment, ballot: u64, proposer: NodeId, steps: &mut Vec<Step>) {
        let is_mine = |bond: &Bond| bond.proposer == self.own.id && bond.ballot == ballot;
        if self.saving.is_none() && !self.is_sealing && self.pledge.bound.as_ref().is_some_and(is_mine) {
            self.yield_to(now, proposer, steps);
        }
    }

    /// Of two proposers that want the same candidates, the higher lets go of its own.
    fn yield_to(&mut self, now: Moment, rival: NodeId, steps: &mut Vec<Step>) {
        if rival < self.own.id {
            self.yielded = Some((rival, now));
            self.save(Pledge { ballot: self.pledge.ballot, bound: None }, steps);
        }
    }

    /// A proposer lets go.
    pub(super) fn on_released(&mut self, from: NodeId, ballot: u64, steps: &mut Vec<Step>) {
        let frees = |bond: &Bond| bond.proposer == from && from != self.own.id && bond.ballot <= ballot;
        if self.saving.is_none() && self.pledge.bound.as_ref().is_some_and(frees) {
            self.save(Pledge { ballot: self.pledge.ballot, bound: None }, steps);
        }
    }

    /// A cluster exists. Tells whether this node is to become part of it.
    pub(super) fn on_founded(&mut self, from: NodeId, cluster: &Cluster, steps: &mut Vec<Step>) -> bool {
        if self.is_sealing {
            return false;
        }
        if cluster.founders.contains(self.own.id) {
            return true;
        }
        self.candidates.remove(&from);
        if let Some(bond) = &self.pledge.bound {
            // 1. The proposer that this node is bound to became part of something else: it had let go before.
            // 2. One that this node proposed did: the proposal can lead nowhere.
            // Any other cluster has nothing to do with the one that this node promised to found.
            let is_void =
                bond.proposer == from || (bond.proposer == self.own.id && bond.founders.contains(from));
            if is_void && self.saving.is_none() {
                self.save(Pledge { ballot: self.pledge.ballot, bound: None }, steps);
            }
            return false;
        }
        if self.found.is_some() {
            self.surplus = Some(cluster.id);
            steps.push(Step::Trouble(words::surplus(cluster.id)));
            return false;
        }
        self.saving.is_none()
    }

    /// Draws the cluster.
    fn seal(&mut self, rng: &mut Rng, steps: &mut Vec<Step>) {
        let Some(bond) = &self.pledge.bound else { return };
        self.is_sealing = true;
        steps.push(Step::Seal(Cluster {
            id: ClusterId(rng.bits()),
            secret: ClusterSecret::draw(rng),
            replicas: bond.replicas,
            founders: bond.founders.clone(),
        }));
    }

    /// The entries of those that this node heard of, founders-to-be among them.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.candidates.values().map(|candidate| &candidate.entry)
    }

    /// Where a candidate can be reached.
    pub(super) fn entry(&self, id: NodeId) -> Option<&Entry> {
        self.candidates.get(&id).map(|candidate| &candidate.entry)
    }

    /// What is missing, for people.
    pub(super) fn waiting_for(&self, now: Moment) -> String {
        let name = |id: NodeId| match self.entry(id) {
            _ if id == self.own.id => self.own.name.to_string(),
            Some(entry) => entry.name.to_string(),
            None => id.to_string(),
        };
        match (&self.pledge.bound, self.found) {
            (Some(bond), _) if bond.proposer == self.own.id => {
                let missing =
                    bond.founders.ids().filter(|id| *id != self.own.id && !self.confirmed.contains(id));
                words::unconfirmed(&missing.map(name).collect::<Vec<_>>())
            }
            (Some(bond), _) => words::bound(&name(bond.proposer)),
            (None, Some(_)) if let Some(cluster) = self.surplus => words::surplus(cluster),
            (None, None) => words::no_cluster(&self.seeds),
            (None, Some(size)) => {
                let mut here: Vec<String> =
                    self.eligible(now).values().map(|entry| entry.name.to_string()).collect();
                here.sort();
                words::gathering(&here, size)
            }
        }
    }
}

fn ring_member(entry: &Entry) -> RingMember {
    RingMember { node: entry.id, place: entry.place, zone: entry.zone.clone(), weight: entry.weight }
}
