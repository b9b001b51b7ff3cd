//! What a message does.

use std::time::Duration;

use super::founding::Bond;
use super::{Effect, Membership, dissemination, founding_words as words};
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::output::Notice;
use crate::protocol::ring::entry::Entry;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::Health;
use crate::protocol::wire::gossip::{Body, Gossip, News};
use crate::protocol::wire::life::Life;

/// Pings on behalf of others that are remembered.
const RELAYS_MAX: usize = 256;

/// As many foreign entries of the own identity within a minute are no memory of an old life, but another process.
const OUTBIDS_MAX: usize = 3;
const OUTBIDS_WITHIN: Duration = Duration::from_secs(60);

impl Membership {
    pub(super) fn receive(&mut self, from: NodeId, message: Gossip, out: &mut Vec<Effect>) {
        match (&self.cluster, message.cluster) {
            (Some(mine), Some(theirs)) if mine.id != theirs => self.refuse(from, theirs, out),
            (Some(_), Some(_)) => self.receive_from_member(from, message.body, out),
            // It has no cluster; here is one. If it is not for that node, it will say so to its people.
            (Some(cluster), None) => self.send(from, Body::Founded(cluster.clone()), out),
            (None, _) => self.receive_as_candidate(from, message, out),
        }
    }

    fn receive_as_candidate(&mut self, from: NodeId, message: Gossip, out: &mut Vec<Effect>) {
        let now = self.now.monotonic;
        let Some(founding) = &mut self.founding else { return };
        let (rng, mut steps) = (&mut self.rng, Vec::new());
        match message.body {
            Body::Founded(cluster) => {
                let is_for_me = founding.on_founded(from, &cluster, &mut steps);
                self.follow(steps, out);
                if is_for_me {
                    self.adopt(cluster, out);
                }
                return;
            }
            // A member speaks as to a member. It does not know that this node is none; it will.
            _ if message.cluster.is_some() => steps.push(founding.introduction(from, now, rng)),
            Body::Candidate { found, replicas, entries } => {
                founding.on_candidate(now, from, (found, replicas), entries, rng, &mut steps);
            }
            Body::Propose { ballot, replicas, founders } => {
                let bond = Bond { proposer: from, ballot, replicas, founders };
                founding.on_propose(now, from, bond, &mut steps);
            }
            Body::Confirm { ballot, rival } => {
                founding.on_confirm(now, from, ballot, rival, rng, &mut steps);
            }
            Body::Bound { ballot, proposer } => founding.on_bound(now, ballot, proposer, &mut steps),
            Body::Released { ballot } => founding.on_released(from, ballot, &mut steps),
            _ => {}
        }
        self.follow(steps, out);
    }

    fn receive_from_member(&mut self, from: NodeId, body: Body, out: &mut Vec<Effect>) {
        let now = self.now.monotonic;
        if self.book.get(from).is_some() {
            self.links.heard(now, from);
        } else if !matches!(body, Body::Items { .. } | Body::Correction { .. } | Body::Digest { .. }) {
            // A member that this node has not heard of: its entry must be about.
            self.send(from, dissemination::digest(&self.book), out);
        }
        let answers = match body {
            Body::Ping { number, incarnation, version, health } => {
                let milestone = self.lives.claim().now.milestone();
                self.send(from, Body::Ack { number, wall: self.now.wall, milestone }, out);
                self.on_ping(from, (incarnation, version), health, out);
                return;
            }
            Body::Ack { number, wall, milestone } => {
                if !self.lives.heard(from, milestone) {
                    self.send(from, Body::Unknown { nonce: milestone.nonce }, out);
                }
                if let Some(answer) = self.links.answered(now, from, number) {
                    self.clocks.sample(self.now, answer.sent, from, wall);
                }
                if let Some(at) = self.relays.iter().position(|&(ping, _, _)| ping == number) {
                    let (_, asker, target) = self.relays.swap_remove(at);
                    if target == from {
                        self.send(asker, Body::Vouch { target }, out);
                    }
                }
                return;
            }
            Body::PingFor { target } => {
                if target != self.id && self.book.get(target).is_some() {
                    let number = self.ping(target, out);
                    self.relays.truncate(RELAYS_MAX - 1);
                    self.relays.insert(0, (number, from, target));
                }
                return;
            }
            Body::Vouch { target } => return self.detector.vouched(now, target),
            // Of whom this node has not heard it remembers nothing; they ask again.
            Body::Claim(_) if self.book.get(from).is_none() => return,
            Body::Claim(claim) => {
                let life = self.lives.shown(from, &claim);
                vec![Body::Known { nonce: claim.now.nonce, life }]
            }
            Body::Known { nonce, life } => return self.on_known(from, nonce, life, out),
            Body::Unknown { nonce } => {
                let claim = self.lives.claim().clone();
                if nonce != claim.now.nonce {
                    return;
                }
                vec![Body::Claim(claim)]
            }
            Body::Digest { hash } => dissemination::on_digest(&self.book, hash, &mut self.rng),
            Body::Buckets { hashes } => dissemination::on_buckets(&self.book, &hashes, &mut self.rng),
            Body::Listing { low, high, members } => {
                dissemination::on_listing(&self.book, low, high, &members, &mut self.rng)
            }
            Body::Want { members } => dissemination::on_want(&self.book, &members, &mut self.rng),
            Body::Items { news } => {
                let better: Vec<News> = news
                    .into_iter()
                    .filter_map(|news| {
                        let id = news.entry.id;
                        self.learn(news, out).then(|| self.book.get(id).cloned()).flatten()
                    })
                    .collect();
                dissemination::corrections(better)
            }
            Body::Correction { news } => {
                for news in news {
                    self.learn(news, out);
                }
                return;
            }
            // The sender has a cluster, and so has this node: what belongs to the founding came too late.
            Body::Candidate { .. }
            | Body::Propose { .. }
            | Body::Confirm { .. }
            | Body::Bound { .. }
            | Body::Released { .. }
            | Body::Founded(_) => return,
        };
        for answer in answers {
            self.send(from, answer, out);
        }
    }

    /// A member says what it remembers of this node.
    fn on_known(&mut self, from: NodeId, nonce: u64, life: Option<Life>, out: &mut Vec<Effect>) {
        let claim = self.lives.claim();
        if nonce != claim.now.nonce {
            return;
        }
        match life {
            Some(remembers) if !claim.comes_after(&remembers) => {
                out.push(Effect::Denied { by: from, remembers });
            }
            Some(_) | None => out.push(Effect::Believed(from)),
        }
    }

    /// A member asks whether this node is there, and says what it knows of it.
    fn on_ping(&mut self, from: NodeId, known: (Incarnation, u32), health: Health, out: &mut Vec<Effect>) {
        let own = self.book.own().age();
        // If it knows a newer entry, it corrects this one. Whether that is to be outbid or obeyed shows only then.
        if known == own && health != Health::Alive {
            self.refute();
        }
        if known != own || health != Health::Alive {
            let news = self.book.get(self.id).cloned().into_iter().collect();
            self.send(from, Body::Items { news }, out);
        }
    }

    /// Merges what another node knows of a member; tells whether this one knows better.
    pub(super) fn learn(&mut self, news: News, out: &mut Vec<Effect>) -> bool {
        let id = news.entry.id;
        if id == self.id {
            return self.learn_of_self(news, out);
        }
        let before = self.book.health(id);
        let learned = self.book.learn(news);
        if learned.changed {
            self.spread(id);
        }
        if learned.ring {
            self.unsettled.insert(id);
        }
        if learned.health {
            self.believe(id, before, out);
        }
        if learned.clash {
            let text = format!(
                "two processes run as {}; stop one of them, and give a copied data directory back to its node",
                self.name(id).map_or_else(|| id.to_string(), ToString::to_string)
            );
            self.trouble(text, out);
        }
        if learned.is_new {
            self.check_name(id, out);
        }
        learned.knew_better
    }

    /// What is believed of a member changed, or was renewed: tell people, and have a look at it where that is called for.
    pub(super) fn believe(&mut self, id: NodeId, before: Option<Health>, out: &mut Vec<Effect>) {
        let Some(health) = self.book.health(id) else { return };
        if before != Some(health) {
            out.push(Effect::Notice(Notice::Health { member: id, health }));
        }
        let is_of_interest = match health {
            Health::Alive => !self.links.is_reachable(id),
            // Whoever watches a suspect tells it, so that it can refute; the others need not crowd it.
            Health::Suspect => self.watched.contains(&id),
            Health::Down => self.links.is_reachable(id),
            Health::Stopped => false,
        };
        if is_of_interest {
            self.links.question(self.now.monotonic, id);
        }
    }

    fn check_name(&mut self, id: NodeId, out: &mut Vec<Effect>) {
        let is_there = |news: &&News| !matches!(news.health, Health::Down | Health::Stopped);
        let Some(name) = self.book.get(id).filter(is_there).map(|news| news.entry.name.clone()) else {
            return;
        };
        let namesakes = self.book.iter().filter(|news| news.entry.name == name).filter(is_there);
        if namesakes.count() > 1 {
            self.trouble(words::two_of_a_name(&name), out);
        }
    }

    /// Others know something of this node. Only this node writes its entry: whatever is newer must be outbid, and whatever is believed
    /// of it wrongly, refuted.
    fn learn_of_self(&mut self, news: News, out: &mut Vec<Effect>) -> bool {
        let own = self.book.own().clone();
        let mut theirs = news.entry;
        if theirs.phase > own.phase {
            // The one fact about a node that others may write.
            self.book.write_own(Entry { phase: theirs.phase, ..own.clone() });
            self.unsettled.insert(self.id);
            self.spread(self.id);
        }
        if theirs.amnesia > own.amnesia && theirs.age() > own.age() {
            // This node makes a generation durable before it tells anybody: that one is of a later life, which has lost
            // what this process has, and all that this process says from now on is void.
            out.push(Effect::Fenced(theirs.amnesia));
            return false;
        }
        theirs.phase = own.phase;
        if let Some(cluster) = &self.cluster {
            cluster.founders.pin(&mut theirs);
        }
        if theirs.age() > own.age() || (theirs.age() == own.age() && theirs != own) {
            self.outbid(theirs.age(), out);
        } else if theirs.age() == own.age() && news.health != Health::Alive {
            self.refute();
        }
        // While a higher incarnation is on its way to the disk there is nothing to say: the other one would say the same
        // again, and so would this one, at the speed of the network.
        self.book.own().age() > theirs.age()
    }

    /// Raises the version: a new entry is alive, whatever was said of the old one.
    fn refute(&mut self) {
        let mut own = self.book.own().clone();
        own.version = own.version.saturating_add(1);
        self.book.write_own(own);
        self.spread(self.id);
    }

    /// Somebody holds an entry of this node that it did not write: of an earlier life that its disk forgot, or by another process
    /// with a copy of its data.
    fn outbid(&mut self, (incarnation, version): (Incarnation, u32), out: &mut Vec<Effect>) {
        let now = self.now.monotonic;
        self.outbids.retain(|at| now.since(*at) < OUTBIDS_WITHIN);
        let mut own = self.book.own().clone();
        own.version = version.saturating_add(1);
        if incarnation > own.incarnation {
            own.incarnation = incarnation;
            self.save_outbid(own, out);
        } else {
            self.book.write_own(own);
            self.spread(self.id);
            self.outbids.push(now);
        }
        if self.outbids.len() >= OUTBIDS_MAX {
            let text = format!(
                "another process runs as {} ({}); stop one of them, and give a copied data directory back to its node",
                self.book.own().name,
                self.id
            );
            self.trouble(text, out);
        }
    }

    /// Passes a line on soon, with others that become new until then.
    pub(super) fn spread(&mut self, id: NodeId) {
        let due: Moment = self.now.monotonic + self.config.period / 20;
        self.dissemination.spread(id, due);
    }
}
