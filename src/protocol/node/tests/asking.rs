//! A node that starts from a directory with data in it asks the other members before it votes, and what they know.

use super::*;
use crate::protocol::causality::ClusterSecret;
use crate::protocol::id::{Incarnation, Place};
use crate::protocol::membership::{Cluster, Founders, OwnLife, Recovered};
use crate::protocol::ring::entry::{Entry, Phase};
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::wire::life::{Life as PastLife, Milestone};

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
    one_of(&[entry(OWN, "n1"), entry(PEER, "n2"), entry(THIRD, "n3")])
}

/// The same in a cluster of five, where each slot has three owners.
fn one_of_five() -> BTreeMap<MetaKey, Bytes> {
    let others = [entry(NodeId(44), "n4"), entry(NodeId(45), "n5")];
    let [fourth, fifth] = others;
    one_of(&[entry(OWN, "n1"), entry(PEER, "n2"), entry(THIRD, "n3"), fourth, fifth])
}

fn one_of(founders: &[Entry]) -> BTreeMap<MetaKey, Bytes> {
    let cluster = Cluster {
        id: CLUSTER,
        secret: ClusterSecret::draw(&mut Rng::from_number(1)),
        replicas: Replicas::default(),
        founders: Founders::new(founders).unwrap(),
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
        Story::asking_from(one_of_three())
    }

    fn asking_from(meta: BTreeMap<MetaKey, Bytes>) -> Story {
        let (mut story, out) = Story::start(meta, 1);
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

    /// A slot that it owns, and who owns it too and who does not.
    fn slot_and_others(&self) -> (Slot, Vec<NodeId>, Vec<NodeId>) {
        let view = self.node.ring_view().unwrap();
        let slot = Slot::all().find(|slot| view.slot(*slot).is_owner(OWN)).unwrap();
        let others = self.node.membership().entries().map(|entry| entry.id).filter(|id| *id != OWN);
        let (owners, strangers) = others.partition(|id| view.slot(slot).is_owner(*id));
        (slot, owners, strangers)
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
fn members_that_own_nothing_of_a_slot_are_waited_for_too_since_they_may_count_on_what_was_acknowledged() {
    let mut story = Story::asking_from(one_of_five());
    let shown = story.pass(Duration::from_millis(100));
    assert_eq!(shown, [PEER, THIRD, NodeId(44), NodeId(45)]);
    let (slot, owners, strangers) = story.slot_and_others();
    assert_eq!((owners.len(), strangers.len()), (2, 2));
    owners.iter().for_each(|owner| drop(story.answer(*owner, None)));
    story.answer(strangers[0], None);
    story.pass(patience() - Duration::from_millis(200));
    assert_eq!(
        story.node.trust().standing(slot),
        Standing::Closed,
        "one is silent, and not known to be gone"
    );
    story.answer(strangers[1], None);
    assert_eq!(story.node.trust().standing(slot), Standing::Votes);
    assert!(story.node.trust().unasked().is_empty());
}

#[test]
fn a_member_that_is_believed_to_be_gone_is_waited_for_until_the_question_is_repeated() {
    let mut story = Story::asking_from(one_of_five());
    let (slot, owners, strangers) = story.slot_and_others();
    let gone =
        News { entry: story.node.membership().entry(strangers[0]).unwrap().clone(), health: Health::Down };
    let mut line = vec![1];
    codec::encode_into(&gone, &mut line);
    let mut meta = one_of_five();
    meta.insert(MetaKey::Member(strangers[0]), line.into());
    story = Story::asking_from(meta);
    story.pass(Duration::from_millis(100));
    owners.iter().chain(&strangers[1..]).for_each(|member| drop(story.answer(*member, None)));
    assert_eq!(story.node.trust().standing(slot), Standing::Closed, "that is what an old directory says");
    story.pass(Duration::from_millis(500));
    assert_eq!(story.node.trust().standing(slot), Standing::Votes);
}

/// A member that works with another one, which has shown where it comes from.
fn acquainted(life: &OwnLife) -> Story {
    let mut story = Story::asking();
    story.pass(Duration::from_millis(100));
    [PEER, THIRD].into_iter().for_each(|member| drop(story.answer(member, None)));
    assert_eq!(story.shown(life), None);
    story.pass(Duration::from_secs(10));
    story
}

impl Story {
    /// What another member is told of itself that shows this.
    fn shown(&mut self, life: &OwnLife) -> Option<PastLife> {
        let gossip = Gossip { cluster: Some(CLUSTER), body: Body::Claim(life.claim().clone()) };
        let out = self.hear(Input::Peer { from: PEER, message: PeerMessage::Gossip(gossip) });
        let known = out.into_iter().find_map(|output| match output {
            Output::Send {
                message: PeerMessage::Gossip(Gossip { body: Body::Known { life, .. }, .. }),
                ..
            } => Some(life),
            _ => None,
        });
        known.expect("an answer")
    }
}

#[test]
fn whoever_got_an_acknowledgement_and_heard_no_heartbeat_since_denies_a_copy_from_before_it() {
    let life = OwnLife::first(Incarnation(1), 21);
    let milestone = Milestone { nonce: 21, position: Lsn(40) };
    let (request, entry) = (RequestId(5), Timestamp(5));
    let (raised, committed, problem) = (ReapEpoch(0), ReapEpoch(0), Problem::new(Code::Timeout, "late"));
    let answer = Answer::Refused(problem);
    for acknowledgement in [
        PeerMessage::Stored { request, entry, milestone },
        PeerMessage::Hinted { request, milestone },
        PeerMessage::Fetched { request, raised, committed, milestone, record: None },
        PeerMessage::Forwarded { request, milestone, answer },
    ] {
        let mut story = acquainted(&life);
        let said = format!("{acknowledgement:?}");
        story.hear(Input::Peer { from: PEER, message: acknowledgement });
        assert!(story.disk.is_empty(), "{said} costs a write");
        let copy = OwnLife::next(Some(&life), Incarnation(2), Lsn(39), 22);
        let far = PastLife { position: Lsn(40), ..life.claim().now };
        assert_eq!(story.shown(&copy), Some(far), "{said}");
        let after_a_crash = OwnLife::next(Some(&life), Incarnation(2), Lsn(40), 23);
        assert_eq!(story.shown(&after_a_crash), None, "{said}");
    }
}

#[test]
fn an_acknowledgement_says_how_far_the_log_has_got_with_what_it_acknowledges() {
    let mut story = acquainted(&OwnLife::first(Incarnation(1), 21));
    let key = Bytes::from_static(b"k");
    let digest = story.node.ring_view().unwrap().slot(Slot::of_key(&key)).digest;
    let (request, actor, record) = (RequestId(5), Actor(9), Record::default());
    let epoch = ReapEpoch::default();
    let before = story.node.membership().milestone();
    let message = PeerMessage::Replicate { request, digest, epoch, actor, key, record };
    story.hear(Input::Peer { from: PEER, message });
    story.execute();
    let executed = story.log;
    let said: Vec<Milestone> = story
        .sync()
        .iter()
        .filter_map(|output| match output {
            Output::Send { message: PeerMessage::Stored { milestone, .. }, .. } => Some(*milestone),
            _ => None,
        })
        .collect();
    assert_eq!(said, [Milestone { position: executed, ..before }]);
    assert!(before.position < executed);
}

#[test]
fn nobody_is_no_majority_and_a_start_that_asked_nobody_goes_on_with_the_same_chain() {
    let mut story = Story::asking();
    let shown = story.pass(patience() * 10);
    assert!(shown.iter().filter(|id| **id == PEER).count() > 10, "it asks again and again: {shown:?}");
    assert_eq!(story.standing(), Standing::Closed);
    assert_eq!(story.refusal_of_a_hint(), Some(PeerRefusal::NotReady));
    let before = story.node.membership().claim().clone();
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
    let claim = story.node.membership().claim().clone();
    let remembers = PastLife { nonce: 99, chain: 99, ..claim.now };
    let out = story.answer(PEER, Some(remembers));
    assert_eq!(out, [Output::Notice(Notice::Denied { by: PEER, remembers, claim })]);
    assert_eq!((story.standing(), story.node.next_deadline()), (Standing::Closed, Moment::NEVER));
    assert_eq!(story.node.hello(), None);
    assert_eq!(story.answer(THIRD, None), [], "it does nothing from now on");
}
