//! How books become equal: rumours for what is new, comparison of hashes for what was missed.

use std::collections::{BTreeMap, BTreeSet};

use super::book::{Book, bucket_range};
use super::packing;
use crate::protocol::id::NodeId;
use crate::protocol::rng::Rng;
use crate::protocol::time::Moment;
use crate::protocol::wire::gossip::{BUCKETS, Body, News};

/// To how many members each node passes on what is new to it. With four, all but about two in a hundred hear of it by
/// rumour, within a few round trips; the comparison of digests, each period, is for those two.
const FANOUT: usize = 4;

/// A book of no more members than this is listed at once, without comparing buckets first: one message holds that many.
const LISTING_MAX: usize = 64;

/// No answer to one message has more messages than this; the next round goes on where this one ended.
const ANSWER_MAX: usize = 16;

/// Gossip Dissemination (*Patterns of Distributed Systems*; Demers et al., *Epidemic Algorithms*, 1987): news is pushed at
/// once to a few; then books are compared in pairs, hash by hash, so that two equal ones exchange a single hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Dissemination {
    rumours: BTreeSet<NodeId>,
    due: Option<Moment>,
}

impl Dissemination {
    /// The line of this member is new here: pass it on, together with what else becomes new until `due`.
    pub(super) fn spread(&mut self, id: NodeId, due: Moment) {
        self.rumours.insert(id);
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// When the rumours are to leave.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// The rumours, and to whom of `live` they go.
    pub(super) fn take_rumours(
        &mut self,
        book: &Book,
        live: &[NodeId],
        rng: &mut Rng,
    ) -> Vec<(NodeId, Body)> {
        self.due = None;
        let rumours = std::mem::take(&mut self.rumours);
        let news = rumours.iter().filter_map(|&id| book.get(id).cloned());
        let messages = packing::messages(news);
        let mut to = live.to_vec();
        rng.shuffle(&mut to);
        to.truncate(FANOUT);
        to.iter()
            .flat_map(|&to| messages.iter().map(move |news| (to, Body::Items { news: news.clone() })))
            .collect()
    }
}

/// The first message of a comparison.
pub(super) fn digest(book: &Book) -> Body {
    Body::Digest { hash: book.hash() }
}

/// Another book has this hash.
pub(super) fn on_digest(book: &Book, hash: u64, rng: &mut Rng) -> Vec<Body> {
    if hash == book.hash() {
        Vec::new()
    } else if book.len() <= LISTING_MAX {
        listings(book, NodeId(0), NodeId(u64::MAX), rng)
    } else {
        vec![Body::Buckets { hashes: book.buckets().to_vec() }]
    }
}

/// Another book has these hashes: list what is in the buckets that differ.
pub(super) fn on_buckets(book: &Book, hashes: &[u64], rng: &mut Rng) -> Vec<Body> {
    if hashes.len() != BUCKETS {
        return Vec::new();
    }
    let mut runs: Vec<(NodeId, NodeId)> = Vec::new();
    let mut is_open = false;
    for (bucket, (mine, theirs)) in book.buckets().iter().zip(hashes).enumerate() {
        let differs = mine != theirs;
        if differs {
            let (low, high) = bucket_range(bucket);
            match runs.last_mut().filter(|_| is_open) {
                Some(run) => run.1 = high,
                None => runs.push((low, high)),
            }
        }
        is_open = differs;
    }
    let all = runs.into_iter().flat_map(|(low, high)| listings(book, low, high, rng)).collect();
    some_of(all, rng)
}

/// What this book holds in a range of ids, cut into ranges that fit.
fn listings(book: &Book, low: NodeId, high: NodeId, rng: &mut Rng) -> Vec<Body> {
    let cuts = packing::messages(book.stamps(low, high));
    if cuts.is_empty() {
        return vec![Body::Listing { low, high, members: Vec::new() }];
    }
    let mut listings = Vec::with_capacity(cuts.len());
    let mut begin = low;
    let count = cuts.len();
    for (index, members) in cuts.into_iter().enumerate() {
        // The ranges meet without a gap, so that what only the other book holds is noticed wherever it lies.
        let end = match members.last() {
            Some(&(last, _)) if index + 1 < count => last,
            _ => high,
        };
        listings.push(Body::Listing { low: begin, high: end, members });
        begin = NodeId(end.0.saturating_add(1));
    }
    some_of(listings, rng)
}

/// Another book holds this in a range: send what it lacks or holds otherwise, and ask for what this one lacks.
pub(super) fn on_listing(
    book: &Book,
    low: NodeId,
    high: NodeId,
    members: &[(NodeId, u64)],
    rng: &mut Rng,
) -> Vec<Body> {
    let theirs: BTreeMap<NodeId, u64> = members.iter().copied().collect();
    let mine: BTreeMap<NodeId, u64> = book.stamps(low, high).into_iter().collect();
    let differing = mine.iter().filter(|(id, stamp)| theirs.get(id) != Some(stamp));
    let news = differing.filter_map(|(&id, _)| book.get(id).cloned());
    let mut answers = items(news);
    let unknown: Vec<NodeId> = theirs.keys().copied().filter(|id| !mine.contains_key(id)).collect();
    if !unknown.is_empty() {
        answers.push(Body::Want { members: packing::fitting(unknown) });
    }
    some_of(answers, rng)
}

/// Another node asks for these lines.
pub(super) fn on_want(book: &Book, members: &[NodeId], rng: &mut Rng) -> Vec<Body> {
    let news = members.iter().filter_map(|&id| book.get(id).cloned());
    some_of(items(news), rng)
}

/// Lines, cut into messages.
pub(super) fn items(news: impl IntoIterator<Item = News>) -> Vec<Body> {
    packing::messages(news).into_iter().map(|news| Body::Items { news }).collect()
}

/// Lines that another node holds in a worse state, cut into messages.
pub(super) fn corrections(news: impl IntoIterator<Item = News>) -> Vec<Body> {
    packing::messages(news).into_iter().map(|news| Body::Correction { news }).collect()
}

/// A random choice if there are too many messages: each round moves another part.
fn some_of(mut messages: Vec<Body>, rng: &mut Rng) -> Vec<Body> {
    if messages.len() > ANSWER_MAX {
        rng.shuffle(&mut messages);
        messages.truncate(ANSWER_MAX);
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entry, news, news_at};
    use super::*;
    use crate::protocol::wire::client::Health;

    fn book(own: u64, members: impl IntoIterator<Item = NodeId>) -> Book {
        let mut book = Book::new(entry(own), None, Vec::new(), 10_000);
        members.into_iter().for_each(|id| {
            book.learn(news_at(id, Health::Alive));
        });
        book
    }

    fn spread_out(count: u64) -> Vec<NodeId> {
        let mut rng = Rng::from_number(count);
        (0..count).map(|_| NodeId(rng.bits())).collect()
    }

    /// Lets `a` begin a comparison with `b`; returns the number of messages after the digest.
    fn compare(a: &mut Book, b: &mut Book, rng: &mut Rng) -> usize {
        let Body::Digest { hash } = digest(a) else { panic!("a comparison begins with a digest") };
        let mut to_a = on_digest(b, hash, rng);
        let mut count = to_a.len();
        let mut to_b = Vec::new();
        while !(to_a.is_empty() && to_b.is_empty()) {
            (to_a, to_b) = (
                to_b.into_iter().flat_map(|body| answer(b, body, rng)).collect::<Vec<_>>(),
                to_a.into_iter().flat_map(|body| answer(a, body, rng)).collect::<Vec<_>>(),
            );
            count += to_a.len() + to_b.len();
        }
        count
    }

    fn answer(book: &mut Book, body: Body, rng: &mut Rng) -> Vec<Body> {
        match body {
            Body::Buckets { hashes } => on_buckets(book, &hashes, rng),
            Body::Listing { low, high, members } => on_listing(book, low, high, &members, rng),
            Body::Want { members } => on_want(book, &members, rng),
            Body::Items { news } => {
                let better: Vec<News> = news
                    .into_iter()
                    .filter_map(|news| {
                        let id = news.entry.id;
                        book.learn(news).knew_better.then(|| book.get(id).cloned()).flatten()
                    })
                    .collect();
                items(better)
            }
            other => panic!("no part of a comparison: {other:?}"),
        }
    }

    #[test]
    fn two_equal_books_exchange_one_hash() {
        let members = spread_out(500);
        let (mut a, mut b) = (book(1, members.clone()), book(2, members));
        a.learn(news(2, Health::Alive));
        b.learn(news(1, Health::Alive));
        assert_eq!(compare(&mut a, &mut b, &mut Rng::from_number(1)), 0);
    }

    #[test]
    fn what_differs_is_all_that_moves() {
        let members = spread_out(900);
        let (mut a, mut b) = (book(1, members.clone()), book(1, members.clone()));
        b.accuse(members[7], Health::Down);
        // Buckets, one listing, the line of one side and that of the other.
        assert!(compare(&mut a, &mut b, &mut Rng::from_number(1)) <= 5);
        assert_eq!(a.hash(), b.hash());
        assert_eq!(a.health(members[7]), Some(Health::Down));
    }

    #[test]
    fn books_of_any_size_become_equal() {
        for (left, right) in [(0, 1), (3, 40), (60, 70), (1, 1_000), (700, 900)] {
            let all = spread_out(1_000);
            let mut a = book(1, all[..left].to_vec());
            let mut b = book(2, all[1_000 - right..].to_vec());
            let mut rng = Rng::from_number(2);
            let rounds = (1..100).find(|_| {
                compare(&mut a, &mut b, &mut rng);
                a.hash() == b.hash()
            });
            assert!(rounds.is_some_and(|rounds| rounds <= 12), "{left} and {right}: {rounds:?} rounds");
        }
    }
}
