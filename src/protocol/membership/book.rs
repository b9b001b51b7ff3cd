//! The address book: everybody that this node ever heard of, and what is believed of them.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::protocol::codec;
use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::{Entry, Stage};
use crate::protocol::wire::client::Health;
use crate::protocol::wire::gossip::{ADDRESSES_MAX, BUCKETS, Founders, News};

/// The most members that a book ever holds, those that live included: what is beyond is ignored.
const MEMBERS_MAX: usize = 16_384;

/// One line of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) news: News,
    /// A hash of `news`: equal hashes, equal knowledge.
    stamp: u64,
}

/// What became of a piece of news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// The book changed.
    pub(super) changed: bool,
    /// The member was not in the book before.
    pub(super) is_new: bool,
    /// What is believed of the member changed, or its entry was renewed.
    pub(super) health: bool,
    /// What the ring reads changed.
    pub(super) ring: bool,
    /// The book knows better than the news in at least one point.
    pub(super) knew_better: bool,
    /// Two different entries of one age: two processes write under one identity.
    pub(super) clash: bool,
}

/// The durable address book (Gossip Dissemination, *Patterns of Distributed Systems*). It holds the node itself, too.
///
/// Lines merge as a CRDT, so books converge whatever the order in which they learn. The dead stay in it: whoever forgets them
/// can never find the other half of a partition again. Only members that count in no ring are ever dropped,
/// and the same ones everywhere.
#[derive(Clone, Debug)]
pub(super) struct Book {
    own: NodeId,
    members: BTreeMap<NodeId, Member>,
    /// Sums of stamps, by the first bits of the id.
    buckets: [u64; BUCKETS],
    founders: Option<Founders>,
    idle_max: usize,
    /// Lines that the disk does not have as they are.
    unsaved: BTreeSet<NodeId>,
    /// Counts the changes.
    version: u64,
}

/// What decides between two beliefs as of one age. *Stopped* is above all: only the member itself says it.
fn rank(health: Health) -> u8 {
    match health {
        Health::Alive => 0,
        Health::Suspect => 1,
        Health::Down => 2,
        Health::Stopped => 3,
    }
}

fn bucket_of(id: NodeId) -> usize {
    (id.0 >> (u64::BITS - BUCKETS.ilog2())) as usize
}

/// The ids that share a bucket: the first and the last.
pub(super) fn bucket_range(bucket: usize) -> (NodeId, NodeId) {
    let width = u64::BITS - BUCKETS.ilog2();
    let low = (bucket as u64) << width;
    (NodeId(low), NodeId(low | ((1 << width) - 1)))
}

impl Book {
    /// A book that holds `own` and what was recovered.
    pub(super) fn new(own: Entry, founders: Option<Founders>, recovered: Vec<News>, idle_max: usize) -> Book {
        let mut book = Book {
            own: own.id,
            members: BTreeMap::new(),
            buckets: [0; BUCKETS],
            founders,
            idle_max,
            unsaved: BTreeSet::new(),
            version: 1,
        };
        for news in recovered {
            book.learn(news);
        }
        book.unsaved.clear();
        book.write_own(own);
        book
    }

    pub(super) fn own(&self) -> &Entry {
        // The constructor writes the own line, and nothing ever removes it.
        &self.members[&self.own].news.entry
    }

    /// Replaces the own entry, which makes it *alive*.
    pub(super) fn write_own(&mut self, mut entry: Entry) {
        assert_eq!(entry.id, self.own, "only the own entry is written");
        if let Some(founders) = &self.founders {
            founders.pin(&mut entry);
        }
        self.put(News { entry, health: Health::Alive });
    }

    /// Marks the own entry as stopped.
    pub(super) fn stop_own(&mut self) {
        let entry = self.own().clone();
        self.put(News { entry, health: Health::Stopped });
    }

    /// Pins the founders, now that they are known.
    pub(super) fn found(&mut self, founders: Founders) {
        self.founders = Some(founders);
        let lines: Vec<News> = self.members.values().map(|member| member.news.clone()).collect();
        for mut news in lines {
            self.pin(&mut news.entry);
            self.put(news);
        }
    }

    fn pin(&self, entry: &mut Entry) {
        if let Some(founders) = &self.founders {
            founders.pin(entry);
        }
    }

    fn put(&mut self, news: News) {
        let id = news.entry.id;
        let stamp = xxh3_64(&codec::encode(&news));
        let bucket = &mut self.buckets[bucket_of(id)];
        let old = self.members.get(&id).map_or(0, |member| member.stamp);
        if old == stamp {
            return;
        }
        *bucket = bucket.wrapping_sub(old).wrapping_add(stamp);
        self.members.insert(id, Member { news, stamp });
        self.unsaved.insert(id);
        self.version += 1;
    }

    /// Merges what another node knows of a member. The own entry is not written this way: see
    /// [`Membership`](super::Membership).
    pub(super) fn learn(&mut self, news: News) -> Learned {
        let mut theirs = news;
        let id = theirs.entry.id;
        if theirs.entry.addresses.len() > ADDRESSES_MAX {
            return Learned::default();
        }
        let sent = theirs.clone();
        self.pin(&mut theirs.entry);
        let Some(Member { news: mine, .. }) = self.members.get(&id) else {
            return self.learn_new(theirs);
        };
        let (mine, mut merged) = (mine.clone(), mine.clone());
        let mut learned = Learned::default();
        if theirs.entry.age() == mine.entry.age() {
            if rank(theirs.health) > rank(mine.health) {
                merged.health = theirs.health;
            }
            // Two writers under one identity: any choice will do that all nodes make alike, so that their books still converge.
            let mut same = theirs.entry.clone();
            same.phase = mine.entry.phase;
            if same != mine.entry {
                learned.clash = true;
                if codec::encode(&same) > codec::encode(&mine.entry) {
                    merged.entry = same;
                }
            }
        } else if theirs.entry.age() > mine.entry.age() {
            merged.health = theirs.health;
        }
        merged.entry.merge(&theirs.entry);

        learned.changed = merged != mine;
        learned.health = merged.health != mine.health || merged.entry.age() != mine.entry.age();
        learned.ring = ring_facts(&merged.entry) != ring_facts(&mine.entry);
        learned.knew_better = merged != sent;
        if learned.changed {
            self.put(merged);
            self.drop_surplus();
        }
        learned
    }

    fn learn_new(&mut self, news: News) -> Learned {
        let ring = news.entry.phase.stage == Stage::Active;
        if self.members.len() >= MEMBERS_MAX && !ring {
            return Learned::default();
        }
        let id = news.entry.id;
        self.put(news);
        self.drop_surplus();
        if !self.members.contains_key(&id) {
            return Learned::default();
        }
        Learned { changed: true, is_new: true, health: true, ring, ..Learned::default() }
    }

    /// Keeps the number of members that are gone and in no ring within bounds: the lowest ids go, so that all nodes drop
    /// the same ones and their books stay equal.
    fn drop_surplus(&mut self) {
        if self.members.len() <= self.idle_max {
            return;
        }
        let own = self.own;
        let is_idle = |member: &Member| {
            member.news.entry.id != own
                && member.news.entry.phase.stage != Stage::Active
                && matches!(member.news.health, Health::Down | Health::Stopped)
        };
        let idle: Vec<NodeId> =
            self.members.iter().filter(|(_, member)| is_idle(member)).map(|(&id, _)| id).collect();
        for id in idle.iter().take(idle.len().saturating_sub(self.idle_max)) {
            if let Some(member) = self.members.remove(id) {
                let bucket = &mut self.buckets[bucket_of(*id)];
                *bucket = bucket.wrapping_sub(member.stamp);
                self.unsaved.insert(*id);
                self.version += 1;
            }
        }
    }

    /// Writes down an accusation: what is believed of a member gets worse, as of the age of its entry.
    pub(super) fn accuse(&mut self, id: NodeId, health: Health) -> bool {
        let Some(member) = self.members.get(&id) else { return false };
        if rank(health) <= rank(member.news.health) {
            return false;
        }
        let entry = member.news.entry.clone();
        self.put(News { entry, health });
        true
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&News> {
        self.members.get(&id).map(|member| &member.news)
    }

    pub(super) fn health(&self, id: NodeId) -> Option<Health> {
        self.get(id).map(|news| news.health)
    }

    /// Everybody, by id, the node itself included.
    pub(super) fn iter(&self) -> impl Iterator<Item = &News> {
        self.members.values().map(|member| &member.news)
    }

    /// Ids and stamps in a range, both ends included.
    pub(super) fn stamps(&self, low: NodeId, high: NodeId) -> Vec<(NodeId, u64)> {
        if low > high {
            return Vec::new();
        }
        self.members.range(low..=high).map(|(&id, member)| (id, member.stamp)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// One hash over everything.
    pub(super) fn hash(&self) -> u64 {
        xxh3_64(&codec::encode(&self.buckets[..]))
    }

    /// Changes whenever anything in the book does.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Takes up to `most` lines that the disk does not have as they are; `None` for one that is gone.
    pub(super) fn take_unsaved(&mut self, most: usize) -> Vec<(NodeId, Option<News>)> {
        let ids: Vec<NodeId> = self.unsaved.iter().copied().take(most).collect();
        ids.iter().for_each(|id| {
            self.unsaved.remove(id);
        });
        ids.into_iter().map(|id| (id, self.get(id).cloned())).collect()
    }

    /// The line is being saved already.
    pub(super) fn mark_saved(&mut self, id: NodeId) {
        self.unsaved.remove(&id);
    }

    pub(super) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

/// What a ring, or the digest of a slot, is computed from.
fn ring_facts(entry: &Entry) -> impl PartialEq + '_ {
    (entry.phase, entry.amnesia, entry.place, &entry.zone, entry.weight)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entry, news};
    use super::*;
    use crate::protocol::id::Incarnation;
    use crate::protocol::ring::entry::Phase;
    use crate::protocol::rng::Rng;

    fn book() -> Book {
        Book::new(entry(1), None, Vec::new(), 4)
    }

    #[test]
    fn a_belief_holds_as_of_an_age_and_a_newer_entry_refutes_it() {
        let mut book = book();
        book.learn(news(2, Health::Alive));
        assert!(book.accuse(NodeId(2), Health::Suspect));
        assert!(!book.learn(news(2, Health::Alive)).changed, "an old word does not whitewash");
        assert_eq!(book.health(NodeId(2)), Some(Health::Suspect));
        let mut refutation = news(2, Health::Alive);
        refutation.entry.version += 1;
        assert!(book.learn(refutation).health);
        assert_eq!(book.health(NodeId(2)), Some(Health::Alive));
        let late = book.learn(news(2, Health::Down));
        assert!(!late.changed && late.knew_better, "a late accusation of the old age is void");
    }

    #[test]
    fn the_phase_is_merged_by_maximum_whatever_the_incarnation() {
        let mut book = book();
        let active = Phase { generation: 1, stage: Stage::Active };
        let mut old = news(2, Health::Alive);
        old.entry.phase = active;
        book.learn(old);
        let mut restarted = news(2, Health::Alive);
        restarted.entry.incarnation = Incarnation(9);
        let learned = book.learn(restarted);
        assert!(learned.changed && !learned.ring);
        assert_eq!(book.get(NodeId(2)).unwrap().entry.phase, active);
    }

    #[test]
    fn books_converge_in_every_order() {
        let mut rng = Rng::from_number(5);
        for _ in 0..200 {
            let mut all: Vec<News> = (0..12)
                .map(|_| {
                    let healths = [Health::Alive, Health::Suspect, Health::Down, Health::Stopped];
                    let mut news = news(2 + rng.below(3), *rng.pick(&healths).unwrap());
                    news.entry.version = rng.below(3) as u32;
                    news.entry.amnesia = rng.below(2) as u32;
                    news.entry.phase.generation = rng.below(3) as u32;
                    news
                })
                .collect();
            let (mut left, mut right) = (book(), book());
            all.iter().for_each(|news| {
                left.learn(news.clone());
            });
            rng.shuffle(&mut all);
            all.iter().for_each(|news| {
                right.learn(news.clone());
            });
            assert_eq!(left.hash(), right.hash());
            assert_eq!(left.members, right.members);
        }
    }

    #[test]
    fn the_dead_stay_until_there_are_too_many_and_those_of_the_ring_for_ever() {
        let mut book = book();
        let mut founder = news(2, Health::Down);
        founder.entry.phase = Phase { generation: 1, stage: Stage::Active };
        book.learn(founder);
        (3..20).for_each(|id| {
            book.learn(news(id, Health::Down));
        });
        let left: Vec<u64> = book.iter().map(|news| news.entry.id.0).collect();
        assert_eq!(left, [1, 2, 16, 17, 18, 19]);
        assert!(!book.learn(news(3, Health::Down)).changed, "what was dropped is not taken in again");
        let removed = book.take_unsaved(usize::MAX);
        assert!(removed.contains(&(NodeId(3), None)));
    }

    #[test]
    fn the_hash_follows_the_lines() {
        let mut a = book();
        let before = a.hash();
        a.learn(news(2, Health::Alive));
        assert_ne!(a.hash(), before);
        let mut b = book();
        b.learn(news(2, Health::Alive));
        assert_eq!(a.hash(), b.hash());
        b.accuse(NodeId(2), Health::Suspect);
        assert_ne!(a.hash(), b.hash());
    }
}
