//! A node that starts from a directory with data in it asks the other owners before it votes.

use super::*;
use crate::protocol::causality::ClusterSecret;
use crate::protocol::id::{Incarnation, Place};
use crate::protocol::membership::{Cluster, Founders, OwnLife, Recovered};
use crate::protocol::ring::entry::{Entry, Phase};
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::wire::life::Life as PastLife;

const OWN: NodeId = NodeId(1);
const THIRD: NodeId = NodeId(43);
const CLUSTER: ClusterId = ClusterId(7);

fn entry(id: NodeId, name: &str) -> Entry {
    Entry {
        id,
        place: Place(id.0),
        name: Name::new(name).unwrap(),
        addresses: vec![([127, 0, 0, 1], id.0 as u16).into()],
        zone: Zone::default(),
        weight: Weight::default(),
        incarnation: Incarnation(1),
        version: 0,
        amnesia: 0,
        phase: Phase::default(),
    }
}

/// What the disk of a member of a cluster of three holds, each of whom owns everything.
fn one_of_three() -> BTreeMap<MetaKey, Bytes> {
    let founders = [entry(OWN, "n1"), entry(PEER, "n2"), entry(THIRD, "n3")];
    let cluster = Cluster {
        id: CLUSTER,
        secret: ClusterSecret::draw(&mut Rng::from_number(1)),
        replicas: Replicas::default(),
        founders: Founders::new(&founders).unwrap(),
    };
    let mut versioned = vec![1];
    codec::encode_into(&cluster, &mut versioned);
    let identity = Identity { node: OWN, name: Name::new("n1").unwrap() };
    let start = Start { incarnation: Incarnation(1), actor: Actor(1) };
    let life = OwnLife::first(Incarnation(1), 11);
    let mut meta = BTreeMap::from([
        (MetaKey::Identity, codec::encode(&identity).into()),
        (MetaKey::Start, codec::encode(&start).into()),
        (MetaKey::Cluster, versioned.into()),
    ]);
    let lines = founders.iter().map(Recovered::remember).chain([life.entry()]);
    meta.extend(lines.filter_map(|(key, value)| Some((key, value?))));
    meta
}

impl Story {
    /// One that has started and asks.
    fn asking() -> Story {
        let (mut story, out) = Story::start(one_of_three(), 1);
        story.keep(out);
        story.work();
        assert!(story.node.is_serving());
        story
    }

    /// So much time passes; gives back who was shown the claim.
    fn pass(&mut self, span: Duration) -> Vec<NodeId> {
        let until = self.now.monotonic + span;
        let mut shown = Vec::new();
        while self.node.next_deadline() <= until {
            self.now.monotonic = self.node.next_deadline().max(self.now.monotonic);
            for output in self.hear(Input::Deadline) {
                if let Output::Send {
                    to: Destination::Node { id, .. },
                    message: PeerMessage::Gossip(Gossip { body: Body::Claim(claim), .. }),
                } = output
                {
                    assert_eq!(&claim, self.node.membership().claim());
                    shown.push(id);
                }
            }
            self.work();
        }
        self.now.monotonic = until;
        shown
    }

    /// A member answers the claim.
    fn answer(&mut self, from: NodeId, life: Option<PastLife>) -> Vec<Output> {
        let nonce = self.node.membership().claim().now.nonce;
        let gossip = Gossip { cluster: Some(CLUSTER), body: Body::Known { nonce, life } };
        let out = self.hear(Input::Peer { from, message: PeerMessage::Gossip(gossip) });
        self.work();
        out
    }

    fn standing(&self) -> Standing {
        self.node.trust().standing(Slot::of_key(b"k"))
    }

    /// What becomes of a hint that it is asked to keep.
    fn refusal_of_a_hint(&mut self) -> Option<PeerRefusal> {
        let message = PeerMessage::Hint {
            request: RequestId(5),
            digest: SlotDigest(1),
            epoch: ReapEpoch::default(),
            target: THIRD,
            key: Bytes::from_static(b"k"),
            record: Record::default(),
        };
        self.hear(Input::Peer { from: PEER, message }).into_iter().find_map(|output| match output {
            Output::Send { message: PeerMessage::Refused { reason, .. }, .. } => Some(reason),
            _ => None,
        })
    }
}

/// How long all other owners are waited for.
fn patience() -> Duration {
    crate::protocol::config::MembershipConfig::default().silence_max
}

#[test]
fn it_votes_when_all_other_owners_have_believed_it_and_comes_after_this_life_next_time() {
    let mut story = Story::asking();
    let shown = story.pass(Duration::from_millis(100));
    assert_eq!(shown, [PEER, THIRD]);
    assert_eq!(story.standing(), Standing::Closed);
    assert_eq!(story.refusal_of_a_hint(), Some(PeerRefusal::NotReady));
    story.answer(PEER, None);
    assert_eq!(story.standing(), Standing::Closed, "the other one may know better");
    story.answer(THIRD, None);
    assert_eq!(story.standing(), Standing::Votes);
    assert!(matches!(story.refusal_of_a_hint(), Some(PeerRefusal::OtherRing(_))));
    assert_eq!(story.pass(Duration::from_secs(10)), [], "it asks no more");

    let asked = story.node.membership().claim().now;
    let (again, _) = Story::start(story.meta, 2);
    let claim = again.node.membership().claim();
    assert_eq!(claim.last.map(|last| last.nonce), Some(asked.nonce));
    assert_eq!(claim.now.chain, claim.now.nonce);
}

#[test]
fn it_waits_for_all_and_then_for_as_many_as_make_a_majority_with_it() {
    let mut story = Story::asking();
    story.pass(Duration::from_millis(100));
    story.answer(THIRD, None);
    story.pass(patience() - Duration::from_millis(200));
    assert_eq!(story.standing(), Standing::Closed);
    story.pass(Duration::from_millis(200));
    assert_eq!(story.standing(), Standing::Votes);
}

#[test]
fn nobody_is_no_majority_and_a_start_that_asked_nobody_goes_on_with_the_same_chain() {
    let mut story = Story::asking();
    let shown = story.pass(patience() * 10);
    assert!(shown.iter().filter(|id| **id == PEER).count() > 10, "it asks again and again: {shown:?}");
    assert_eq!(story.standing(), Standing::Closed);
    assert_eq!(story.refusal_of_a_hint(), Some(PeerRefusal::NotReady));
    let before = *story.node.membership().claim();
    let (again, _) = Story::start(story.meta.clone(), 2);
    let claim = again.node.membership().claim();
    assert_eq!((claim.now.chain, claim.last), (before.now.chain, before.last));
    assert_ne!(claim.now.nonce, before.now.nonce);

    story.answer(PEER, None);
    assert_eq!(story.standing(), Standing::Votes, "it has been patient enough");
}

#[test]
fn one_of_whom_more_is_remembered_stops_and_says_what_it_is_that_it_lacks() {
    let mut story = Story::asking();
    story.pass(Duration::from_millis(100));
    story.answer(THIRD, None);
    let claim = *story.node.membership().claim();
    let remembers = PastLife { nonce: 99, chain: 99, ..claim.now };
    let out = story.answer(PEER, Some(remembers));
    assert_eq!(out, [Output::Notice(Notice::Denied { by: PEER, remembers, claim })]);
    assert_eq!((story.standing(), story.node.next_deadline()), (Standing::Closed, Moment::NEVER));
    assert_eq!(story.node.hello(), None);
    assert_eq!(story.answer(THIRD, None), [], "it does nothing from now on");
}
