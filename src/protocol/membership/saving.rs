//! What membership makes durable, and what follows once it is.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::founding::{Pledge, Step};
use super::recovered::write;
use super::{Effect, Membership, PersistToken, founding_words as words};
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::ring::entry::Entry;
use crate::protocol::storage::op::MetaKey;
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::gossip::{Body, Cluster, News};

/// How many lines of the book are written behind at once.
const LINES_MAX: usize = 256;

/// How many periods ordinary lines may wait to be written together.
const LINES_PERIODS: u32 = 5;

/// Why something is being made durable.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A promise of the founding, before it is spoken.
    Pledge,
    /// The cluster, before this node is part of it, with the lines of its founders as far as they are known.
    Cluster(Cluster, Vec<News>),
    /// Entries with facts that the ring reads, before a ring is built from them.
    Facts(Vec<Entry>),
    /// A higher incarnation, with a version, before it is shown. The rest of the entry goes its own way meanwhile.
    Outbid(Incarnation, u32),
    /// A higher amnesia generation, before it is shown.
    Amnesia(u32),
    /// Lines of the book, behind.
    Lines,
    /// The seeds.
    Seeds,
    /// That the others have been asked.
    Life,
}

/// What is under way to the disk.
#[derive(Debug, Default)]
pub(super) struct Saves {
    last: u64,
    pending: BTreeMap<PersistToken, Purpose>,
    next_lines: Moment,
}

impl Saves {
    pub(super) fn is_pending(&self, is_meant: impl Fn(&Purpose) -> bool) -> bool {
        self.pending.values().any(is_meant)
    }
}

fn line(news: &News) -> (MetaKey, Option<Bytes>) {
    (MetaKey::Member(news.entry.id), Some(write(news)))
}

impl Membership {
    pub(super) fn persist(
        &mut self,
        purpose: Purpose,
        entries: Vec<(MetaKey, Option<Bytes>)>,
        out: &mut Vec<Effect>,
    ) {
        self.saves.last += 1;
        let token = PersistToken(self.saves.last);
        self.saves.pending.insert(token, purpose);
        out.push(Effect::Persist { token, entries });
    }

    /// Something is durable: now it may be acted on.
    pub(super) fn act_on(&mut self, token: PersistToken, out: &mut Vec<Effect>) {
        match self.saves.pending.remove(&token) {
            Some(Purpose::Pledge) => {
                let mut steps = Vec::new();
                if let Some(founding) = &mut self.founding {
                    founding.saved(self.now.monotonic, &mut self.rng, &mut steps);
                }
                self.follow(steps, out);
            }
            Some(Purpose::Cluster(cluster, lines)) => self.belong_to(cluster, lines, out),
            Some(Purpose::Facts(entries)) => {
                let own = self.book.own().amnesia;
                for mut entry in entries {
                    if entry.id == self.id {
                        // A generation that was raised since this was asked for, and is durable, stays in force.
                        entry.amnesia = entry.amnesia.max(own);
                    }
                    self.settled.insert(entry.id, entry);
                }
                if self.is_serving {
                    out.push(Effect::Changed);
                }
                self.serve_if_ready(out);
            }
            Some(Purpose::Outbid(incarnation, version)) => {
                if (incarnation, version) > self.book.own().age() {
                    self.book.write_own(Entry { incarnation, version, ..self.book.own().clone() });
                    self.spread(self.id);
                }
            }
            Some(Purpose::Amnesia(generation)) => {
                let mut own = self.book.own().clone();
                own.amnesia = own.amnesia.max(generation);
                own.version = own.version.saturating_add(1);
                self.book.write_own(own);
                if let Some(settled) = self.settled.get_mut(&self.id) {
                    settled.amnesia = settled.amnesia.max(generation);
                }
                self.spread(self.id);
                if self.is_serving {
                    out.push(Effect::Changed);
                }
            }
            Some(Purpose::Lines | Purpose::Seeds | Purpose::Life) | None => {}
        }
    }

    /// Carries out what founding wants.
    pub(super) fn follow(&mut self, steps: Vec<Step>, out: &mut Vec<Effect>) {
        for step in steps {
            match step {
                Step::Say(to, body) => self.send(to, body, out),
                Step::SayTo(address, body) => {
                    self.send_to(crate::protocol::output::Destination::Address(address), body, out);
                }
                Step::Save(pledge) => self.save_pledge(&pledge, out),
                Step::Seal(cluster) => self.adopt(cluster, out),
                Step::Trouble(text) => self.trouble(text, out),
            }
        }
    }

    fn save_pledge(&mut self, pledge: &Pledge, out: &mut Vec<Effect>) {
        self.persist(Purpose::Pledge, vec![(MetaKey::Founding, Some(write(pledge)))], out);
    }

    /// Makes the cluster durable, with all that this node knows of its founders and with its own place in it.
    pub(super) fn adopt(&mut self, cluster: Cluster, out: &mut Vec<Effect>) {
        if self.saves.is_pending(|purpose| matches!(purpose, Purpose::Cluster(..))) {
            return;
        }
        let mut own = self.book.own().clone();
        own.phase.generation = own.phase.generation.max(1);
        let candidates = self.founding.iter().flat_map(|founding| founding.entries());
        let founders = candidates.filter(|entry| cluster.founders.contains(entry.id)).cloned();
        let mut lines: Vec<News> = founders
            .chain([own])
            .map(|entry| News { entry, health: crate::protocol::wire::client::Health::Alive })
            .collect();
        lines.iter_mut().for_each(|news| cluster.founders.pin(&mut news.entry));
        let mut entries = vec![(MetaKey::Cluster, Some(write(&cluster))), (MetaKey::Founding, None)];
        entries.extend(lines.iter().map(line));
        self.persist(Purpose::Cluster(cluster, lines), entries, out);
    }

    /// The cluster is durable: be part of it, and tell the other founders.
    fn belong_to(&mut self, cluster: Cluster, lines: Vec<News>, out: &mut Vec<Effect>) {
        self.founding = None;
        self.book.found(cluster.founders.clone());
        let founders: Vec<_> = cluster.founders.ids().filter(|id| *id != self.id).collect();
        let is_founder = cluster.founders.contains(self.id);
        self.cluster = Some(cluster.clone());
        for news in lines {
            let entry = news.entry.clone();
            if entry.id == self.id {
                let mut own = self.book.own().clone();
                own.phase = own.phase.max(entry.phase);
                self.book.write_own(own);
            } else {
                self.book.learn(news);
            }
            self.book.mark_saved(entry.id);
            if entry.phase.stage == crate::protocol::ring::entry::Stage::Active {
                self.settled.insert(entry.id, entry);
            }
        }
        if is_founder {
            // Each of them tells all the others: whoever hears it first need not wait for the proposer.
            for id in founders {
                self.send(id, Body::Founded(cluster.clone()), out);
            }
        }
        self.next_round = self.now.monotonic;
        self.spread(self.id);
        self.serve_if_ready(out);
    }

    /// Serves once the ring is complete. A ring of some of the founders would be another ring, and a founder that knows of
    /// nobody else yet would be a majority by itself.
    pub(super) fn serve_if_ready(&mut self, out: &mut Vec<Effect>) {
        let Some(cluster) = &self.cluster else { return };
        if !self.is_serving && cluster.founders.ids().all(|id| self.settled.contains_key(&id)) {
            self.is_serving = true;
            out.push(Effect::Founded);
        }
    }

    /// Asks the disk to keep changed facts of the ring, at once.
    pub(super) fn settle(&mut self, out: &mut Vec<Effect>) {
        let ids = std::mem::take(&mut self.unsettled);
        let lines: Vec<News> = ids.iter().filter_map(|&id| self.book.get(id).cloned()).collect();
        if lines.is_empty() {
            return;
        }
        ids.iter().for_each(|&id| self.book.mark_saved(id));
        let entries = lines.iter().map(|news| line(&self.as_saved(news.clone()))).collect();
        self.persist(Purpose::Facts(lines.into_iter().map(|news| news.entry).collect()), entries, out);
    }

    /// Asks the disk to keep a higher incarnation than the one that this node started with.
    pub(super) fn save_outbid(&mut self, own: Entry, out: &mut Vec<Effect>) {
        if !self.saves.is_pending(|purpose| matches!(purpose, Purpose::Outbid(..))) {
            let (incarnation, version) = own.age();
            let news = News { entry: own, health: crate::protocol::wire::client::Health::Alive };
            let entries = vec![line(&self.as_saved(news))];
            self.persist(Purpose::Outbid(incarnation, version), entries, out);
        }
    }

    /// The node has lost some of its data. Raises its amnesia generation, which is in force, and told, once it is durable:
    /// then [`Effect::Changed`] follows. Returns the generation.
    pub fn forget(&mut self, now: Now, out: &mut Vec<Effect>) -> u32 {
        self.enter(now);
        self.amnesia = self.amnesia.max(self.book.own().amnesia).saturating_add(1);
        let own = self.book.get(self.id).cloned().map(|news| line(&self.as_saved(news)));
        self.persist(Purpose::Amnesia(self.amnesia), own.into_iter().collect(), out);
        self.finish(out);
        self.amnesia
    }

    /// A line as the disk is to have it: a generation or an incarnation that is on its way there is not taken back by a
    /// later write.
    fn as_saved(&self, mut news: News) -> News {
        if news.entry.id == self.id {
            news.entry.amnesia = news.entry.amnesia.max(self.amnesia);
            for purpose in self.saves.pending.values() {
                if let Purpose::Outbid(incarnation, version) = purpose
                    && (*incarnation, *version) > news.entry.age()
                {
                    (news.entry.incarnation, news.entry.version) = (*incarnation, *version);
                }
            }
        }
        news
    }

    /// When lines should be written behind.
    pub(super) fn lines_due(&self) -> Moment {
        let is_busy = self.saves.is_pending(|purpose| matches!(purpose, Purpose::Lines));
        let has_any = self.cluster.is_some() && (self.book.has_unsaved() || self.lives.has_unsaved());
        if has_any && !is_busy { self.saves.next_lines } else { Moment::NEVER }
    }

    /// Writes lines behind.
    pub(super) fn save_lines(&mut self, out: &mut Vec<Effect>) {
        let lines = self.book.take_unsaved(LINES_MAX);
        let lives = self.lives.take_unsaved(LINES_MAX);
        if lines.is_empty() && lives.is_empty() {
            return;
        }
        self.saves.next_lines = self.now.monotonic + self.config.period * LINES_PERIODS;
        let saved = |news: Option<News>| news.map(|news| write(&self.as_saved(news)));
        let forgotten: Vec<NodeId> =
            lines.iter().filter(|(_, news)| news.is_none()).map(|(id, _)| *id).collect();
        let mut entries: Vec<_> =
            lines.into_iter().map(|(id, news)| (MetaKey::Member(id), saved(news))).collect();
        entries.extend(lives);
        entries.extend(forgotten.into_iter().filter_map(|id| self.lives.forget(id)));
        self.persist(Purpose::Lines, entries, out);
    }

    /// Remembers the seeds, so that a node that is started without them once does not found a cluster of its own.
    pub(super) fn save_seeds(&mut self, out: &mut Vec<Effect>) {
        let old = self.old_seeds.drain(..).map(|seed| (MetaKey::Seed(seed), None));
        let mut seeds: Vec<_> = old.collect();
        seeds.extend(self.seeds.iter().map(|&seed| (MetaKey::Seed(seed), Some(Bytes::new()))));
        if !seeds.is_empty() {
            self.persist(Purpose::Seeds, seeds, out);
        }
    }

    /// Two clusters, or a node of another one.
    pub(super) fn refuse(
        &mut self,
        from: crate::protocol::id::NodeId,
        theirs: crate::protocol::id::ClusterId,
        out: &mut Vec<Effect>,
    ) {
        if let Some(mine) = self.cluster.as_ref().map(|cluster| cluster.id) {
            let who = self.name(from).map_or_else(|| format!("node {from}"), ToString::to_string);
            self.trouble(words::other_cluster(&who, theirs, mine), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{address_of, entry, entry_at};
    use super::super::{OwnLife, Recovered};
    use super::*;
    use crate::protocol::causality::ClusterSecret;
    use crate::protocol::config::NodeConfig;
    use crate::protocol::id::ClusterId;
    use crate::protocol::ring::entry::{Name, Phase, Stage};
    use crate::protocol::ring::replicas::Replicas;
    use crate::protocol::rng::Rng;
    use crate::protocol::time::WallTime;
    use crate::protocol::wire::client::Health;
    use crate::protocol::wire::gossip::{Founders, Gossip};

    const CLUSTER: ClusterId = ClusterId(7);
    const NOW: Now = Now { monotonic: Moment(1_000_000), wall: WallTime(1_700_000_000_000) };

    /// A member of a cluster of two.
    fn member() -> Membership {
        let mut rng = Rng::from_number(1);
        let founders = [entry(1), entry(2)];
        let cluster = Cluster {
            id: CLUSTER,
            secret: ClusterSecret::draw(&mut rng),
            replicas: Replicas::default(),
            founders: Founders::new(&founders).unwrap(),
        };
        let members = founders.map(|entry| News { entry, health: Health::Alive }).to_vec();
        let recovered = Recovered { cluster: Some(cluster), members, ..Recovered::default() };
        let config = NodeConfig::new(Name::new("n1").unwrap(), address_of(NodeId(1)));
        let own = Entry { incarnation: Incarnation(2), ..entry(1) };
        let life = OwnLife::first(own.incarnation, 1);
        let mut member = Membership::new(&config, own, life, recovered, rng);
        member.start(NOW, &mut Vec::new());
        member
    }

    /// What it asks the disk for, with the own entry of it.
    fn saved(out: &[Effect]) -> Vec<(PersistToken, Entry)> {
        let line = |entries: &[(MetaKey, Option<Bytes>)]| {
            let own = entries.iter().find(|(key, _)| *key == MetaKey::Member(NodeId(1)))?;
            let meta = BTreeMap::from([(own.0.clone(), own.1.clone()?)]);
            Some(Recovered::parse(&meta).unwrap().members.remove(0).entry)
        };
        out.iter()
            .filter_map(|effect| match effect {
                Effect::Persist { token, entries } => Some((*token, line(entries)?)),
                _ => None,
            })
            .collect()
    }

    /// The other member says that it knows this of the first.
    fn tell(member: &mut Membership, entry: Entry) -> Vec<(PersistToken, Entry)> {
        let body = Body::Items { news: vec![News { entry, health: Health::Alive }] };
        let mut out = Vec::new();
        member.handle(NOW, NodeId(2), Gossip { cluster: Some(CLUSTER), body }, &mut out);
        saved(&out)
    }

    fn forget(member: &mut Membership) -> Vec<(PersistToken, Entry)> {
        let mut out = Vec::new();
        assert_eq!(member.forget(NOW, &mut out), 1);
        saved(&out)
    }

    fn own(member: &Membership) -> (u64, u32, u32) {
        let own = member.book.own();
        (own.incarnation.0, own.amnesia, own.phase.generation)
    }

    #[test]
    fn a_higher_incarnation_takes_nothing_back_that_came_while_it_was_written() {
        let mut member = member();
        let foreign = Entry { incarnation: Incarnation(9), ..entry_at(NodeId(1)) };
        let outbid = tell(&mut member, foreign.clone());
        assert_eq!((outbid.len(), outbid[0].1.incarnation), (1, Incarnation(9)));
        let amnesia = forget(&mut member);
        assert_eq!((amnesia[0].1.incarnation, amnesia[0].1.amnesia), (Incarnation(9), 1), "on the disk");
        let phase = Phase { generation: 5, stage: Stage::Active };
        let facts = tell(&mut member, Entry { phase, ..foreign });
        assert_eq!((facts[0].1.incarnation, facts[0].1.amnesia), (Incarnation(9), 1), "on the disk");
        member.persisted(NOW, amnesia[0].0, &mut Vec::new());
        let before = own(&member);
        assert_eq!((before.0, before.1), (2, 1), "the incarnation is not shown yet");
        member.persisted(NOW, outbid[0].0, &mut Vec::new());
        assert_eq!(own(&member), (9, 1, before.2));
    }

    #[test]
    fn facts_of_the_ring_take_no_generation_back_that_came_while_they_were_written() {
        let mut member = member();
        let amnesia = forget(&mut member);
        let phase = Phase { generation: 5, stage: Stage::Active };
        let facts = tell(&mut member, Entry { phase, ..entry_at(NodeId(1)) });
        assert_eq!(facts.len(), 1);
        member.persisted(NOW, amnesia[0].0, &mut Vec::new());
        member.persisted(NOW, facts[0].0, &mut Vec::new());
        assert_eq!(member.settled_amnesia(), 1);
    }
}
