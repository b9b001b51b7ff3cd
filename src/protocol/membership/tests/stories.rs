//! One node, message by message.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::testing::{address_of, entry, news};
use super::super::{Effect, Membership, OwnLife, PersistToken, Recovered};
use crate::protocol::causality::ClusterSecret;
use crate::protocol::config::NodeConfig;
use crate::protocol::id::{ClusterId, Incarnation, NodeId};
use crate::protocol::output::{Destination, Notice};
use crate::protocol::ring::entry::{Entry, Name, Stage};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::{Lsn, MetaKey};
use crate::protocol::time::{Moment, Now, WallTime};
use crate::protocol::wire::client::Health;
use crate::protocol::wire::gossip::{Body, Cluster, Founders, Gossip, News};
use crate::protocol::wire::life::{Life, Milestone};

const OWN: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn now(ms: u64) -> Now {
    Now { monotonic: Moment(ms * 1_000), wall: WallTime(1_000_000 + ms) }
}

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId(77),
        secret: ClusterSecret::draw(&mut Rng::from_number(1)),
        replicas: Replicas::THREE,
        founders: Founders::new(&[entry(1), entry(2), entry(3)]).unwrap(),
    }
}

/// Names the life of the node in these stories.
const NONCE: u64 = 11;

fn life() -> OwnLife {
    OwnLife::first(Incarnation(5), NONCE)
}

fn config(found: Option<u16>) -> NodeConfig {
    let mut config = NodeConfig::new(Name::new("n1").unwrap(), address_of(OWN));
    config.found = found;
    config.seeds = vec![address_of(PEER)];
    config
}

/// A member of a cluster of three that has been running for a moment.
fn member() -> Membership {
    let members = vec![news(1, Health::Alive), news(2, Health::Alive), news(3, Health::Alive)];
    let recovered = Recovered { cluster: Some(cluster()), members, ..Recovered::default() };
    let mut own = entry(1);
    own.incarnation = Incarnation(5);
    let mut member = Membership::new(&config(None), own, life(), recovered, Rng::from_number(1));
    let mut out = Vec::new();
    member.start(now(0), &mut out);
    assert!(out.contains(&Effect::Founded));
    for (token, _) in persists(&out) {
        member.persisted(now(5), token, &mut Vec::new());
    }
    member
}

fn candidate(found: Option<u16>) -> Membership {
    let recovered = Recovered::default();
    let mut candidate = Membership::new(&config(found), entry(1), life(), recovered, Rng::from_number(1));
    candidate.start(now(0), &mut Vec::new());
    candidate
}

fn say(to: &mut Membership, from: NodeId, cluster: Option<ClusterId>, body: Body) -> Vec<Effect> {
    let mut out = Vec::new();
    to.handle(now(10), from, Gossip { cluster, body }, &mut out);
    out
}

fn tell(to: &mut Membership, body: Body) -> Vec<Effect> {
    say(to, PEER, Some(ClusterId(77)), body)
}

/// What was said, and to whom.
fn said(effects: &[Effect]) -> Vec<(NodeId, Body)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { to: Destination::Node { id, .. }, message } => Some((*id, message.body.clone())),
            _ => None,
        })
        .collect()
}

fn persists(effects: &[Effect]) -> Vec<(PersistToken, Vec<MetaKey>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist { token, entries } => {
                Some((*token, entries.iter().map(|(key, _)| key.clone()).collect()))
            }
            _ => None,
        })
        .collect()
}

fn has_trouble(effects: &[Effect], words: &str) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Notice(Notice::Trouble(text)) if text.contains(words)))
}

#[test]
fn nothing_is_said_or_heard_before_the_incarnation_is_durable() {
    let recovered = Recovered { cluster: Some(cluster()), ..Recovered::default() };
    let mut member = Membership::new(&config(None), entry(1), life(), recovered, Rng::from_number(1));
    assert_eq!(tell(&mut member, Body::Digest { hash: 0 }), []);
    let mut out = Vec::new();
    member.tick(now(5_000), &mut out);
    assert_eq!(out, []);
    assert_eq!(member.next_deadline(), Moment::NEVER);
}

#[test]
fn a_ping_is_answered_with_the_clock_and_nothing_else() {
    let mut member = member();
    let (incarnation, version) = member.own().age();
    let ping = Body::Ping { number: 9, incarnation, version, health: Health::Alive };
    let effects = tell(&mut member, ping);
    let acks: Vec<_> = said(&effects);
    assert_eq!(
        acks,
        [(PEER, Body::Ack { number: 9, wall: WallTime(1_000_010), milestone: milestone(NONCE, 0) })]
    );
}

#[test]
fn whoever_asks_with_an_old_entry_or_a_suspicion_gets_the_new_entry() {
    let mut member = member();
    let (incarnation, version) = member.own().age();
    let old = Body::Ping { number: 9, incarnation: Incarnation(1), version: 0, health: Health::Down };
    let effects = tell(&mut member, old);
    assert!(matches!(&said(&effects)[1], (PEER, Body::Items { news }) if news[0].entry == *member.own()));
    assert_eq!(member.own().version, version, "a belief of an old age needs no refutation");

    let suspicion = Body::Ping { number: 10, incarnation, version, health: Health::Suspect };
    let effects = tell(&mut member, suspicion);
    assert_eq!(member.own().version, version + 1);
    assert!(
        matches!(&said(&effects)[1], (PEER, Body::Items { news }) if news[0].entry.version == version + 1)
    );
}

#[test]
fn equal_books_answer_nothing_and_different_ones_a_listing() {
    let mut member = member();
    let hash = member.book.hash();
    assert_eq!(said(&tell(&mut member, Body::Digest { hash })), []);
    let effects = tell(&mut member, Body::Digest { hash: hash ^ 1 });
    assert!(matches!(&said(&effects)[..], [(PEER, Body::Listing { members, .. })] if members.len() == 3));
}

#[test]
fn what_a_node_knows_better_it_returns_and_is_not_answered() {
    let mut member = member();
    let mut newer = news(3, Health::Alive);
    newer.entry.version = 4;
    tell(&mut member, Body::Items { news: vec![newer.clone()] });
    let effects = tell(&mut member, Body::Items { news: vec![news(3, Health::Down)] });
    let Some((PEER, Body::Correction { news: better })) = said(&effects).pop() else { panic!("{effects:?}") };
    assert_eq!(better[0].entry.version, 4);
    assert_eq!(better[0].health, Health::Alive);
    // Late corrections that call each other forth would outgrow everything else that is said.
    let late = Body::Correction { news: vec![news(3, Health::Down)] };
    assert_eq!(said(&tell(&mut member, late)), []);
    newer.entry.version = 5;
    tell(&mut member, Body::Correction { news: vec![newer] });
    assert_eq!(member.entry(NodeId(3)).unwrap().version, 5, "a correction is learned");
}

#[test]
fn another_cluster_is_refused_and_named() {
    let mut member = member();
    let foreign = Body::Items { news: vec![news(9, Health::Alive)] };
    let effects = say(&mut member, NodeId(9), Some(ClusterId(78)), foreign.clone());
    assert!(has_trouble(&effects, &ClusterId(78).to_string()) && has_trouble(&effects, "000000000000004d"));
    assert!(member.entry(NodeId(9)).is_none());
    let again = say(&mut member, NodeId(9), Some(ClusterId(78)), foreign);
    assert!(!has_trouble(&again, "cluster"), "once a minute is enough");
}

#[test]
fn facts_of_the_ring_count_once_they_are_durable() {
    let mut member = member();
    let mut recovered_without_data = news(3, Health::Alive);
    recovered_without_data.entry.incarnation = Incarnation(2);
    recovered_without_data.entry.amnesia = 1;
    let effects = tell(&mut member, Body::Items { news: vec![recovered_without_data] });
    let (token, keys) = persists(&effects).remove(0);
    assert_eq!(keys, [MetaKey::Member(NodeId(3))]);
    let amnesia = |member: &Membership| member.ring_members().map(|entry| entry.amnesia).sum::<u32>();
    assert!(!effects.contains(&Effect::Changed));
    assert_eq!(amnesia(&member), 0);
    assert_eq!(member.entry(NodeId(3)).unwrap().amnesia, 1);
    let mut out = Vec::new();
    member.persisted(now(20), token, &mut out);
    assert!(out.contains(&Effect::Changed));
    assert_eq!(amnesia(&member), 1);
}

#[test]
fn ordinary_news_is_written_behind_and_together() {
    let mut member = member();
    for version in 1..50 {
        let mut newer = news(3, Health::Alive);
        newer.entry.version = version;
        assert_eq!(persists(&tell(&mut member, Body::Items { news: vec![newer] })), []);
    }
    let mut count = 0;
    let mut out = Vec::new();
    for ms in (100..10_000).step_by(100) {
        member.tick(now(ms), &mut out);
        for (token, _) in persists(&std::mem::take(&mut out)) {
            count += 1;
            member.persisted(now(ms), token, &mut out);
        }
    }
    assert!((1..=2).contains(&count), "{count} writes");
}

#[test]
fn detection_never_changes_the_ring() {
    let mut member = member();
    let before: Vec<_> = member.ring_members().cloned().collect();
    let effects = tell(&mut member, Body::Items { news: vec![news(3, Health::Down)] });
    assert!(effects.contains(&Effect::Notice(Notice::Health { member: NodeId(3), health: Health::Down })));
    assert!(!effects.contains(&Effect::Changed) && persists(&effects).is_empty());
    assert_eq!(member.ring_members().cloned().collect::<Vec<_>>(), before);
}

#[test]
fn the_word_of_others_makes_nobody_reachable() {
    let mut member = member();
    tell(&mut member, Body::Items { news: vec![news(3, Health::Alive)] });
    tell(&mut member, Body::Vouch { target: NodeId(3) });
    member.heard(now(20), NodeId(3));
    assert!(!member.is_reachable(NodeId(3)));
    let mut out = Vec::new();
    member.tick(now(2_000), &mut out);
    let number = said(&out).into_iter().find_map(|(to, body)| match body {
        Body::Ping { number, .. } if to == NodeId(3) => Some(number),
        _ => None,
    });
    let version = member.version();
    let ack = Body::Ack { number: number.unwrap(), wall: WallTime(1), milestone: milestone(3, 0) };
    let gossip = Gossip { cluster: Some(ClusterId(77)), body: ack };
    member.handle(now(2_010), NodeId(3), gossip, &mut Vec::new());
    assert!(member.is_reachable(NodeId(3)));
    assert_ne!(member.version(), version);
}

#[test]
fn a_helper_asks_and_vouches() {
    let mut member = member();
    let effects = tell(&mut member, Body::PingFor { target: NodeId(3) });
    let Some((NodeId(3), Body::Ping { number, .. })) = said(&effects).first().cloned() else {
        panic!("{effects:?}")
    };
    let ack = Body::Ack { number, wall: WallTime(5), milestone: milestone(3, 0) };
    let effects = say(&mut member, NodeId(3), Some(ClusterId(77)), ack);
    assert!(said(&effects).contains(&(PEER, Body::Vouch { target: NodeId(3) })));
}

#[test]
fn a_goodbye_is_the_last_word() {
    let mut member = member();
    let mut out = Vec::new();
    member.say_goodbye(now(100), &mut out);
    let told: Vec<NodeId> = said(&out)
        .into_iter()
        .filter(|(_, body)| {
            matches!(body, Body::Items { news } if news[0].entry.id == OWN && news[0].health == Health::Stopped)
        })
        .map(|(to, _)| to)
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(member.next_deadline(), Moment::NEVER);
    assert_eq!(tell(&mut member, Body::Digest { hash: 1 }), []);
}

#[test]
fn two_processes_of_one_identity_are_pointed_out() {
    let mut member = member();
    let mut seen = false;
    for _ in 0..5 {
        let mut other: News = member.book.get(OWN).cloned().unwrap();
        other.entry.version += 1;
        other.entry.addresses = vec![address_of(NodeId(9))];
        seen |=
            has_trouble(&tell(&mut member, Body::Items { news: vec![other] }), "another process runs as n1");
    }
    assert!(seen);
}

#[test]
fn a_higher_incarnation_is_durable_before_it_is_shown() {
    let mut member = member();
    let mut other: News = member.book.get(OWN).cloned().unwrap();
    other.entry.incarnation = Incarnation(9);
    let effects = tell(&mut member, Body::Items { news: vec![other] });
    let (token, keys) = persists(&effects).remove(0);
    assert_eq!(keys, [MetaKey::Member(OWN)]);
    assert_eq!(member.own().incarnation, Incarnation(5));
    member.persisted(now(20), token, &mut Vec::new());
    assert_eq!(member.own().age(), (Incarnation(9), 1));
}

#[test]
fn a_waiting_node_becomes_a_learner_and_serves_once_it_knows_the_founders() {
    let mut learner =
        Membership::new(&config(None), entry(9), life(), Recovered::default(), Rng::from_number(1));
    let mut out = Vec::new();
    learner.start(now(0), &mut out);
    assert!(matches!(&out[..], [.., Effect::Send { to: Destination::Address(seed), message }]
        if *seed == address_of(PEER) && matches!(message.body, Body::Candidate { found: None, .. })));

    let effects = say(&mut learner, PEER, Some(ClusterId(77)), Body::Founded(cluster()));
    let (token, keys) = persists(&effects).remove(0);
    assert_eq!(keys, [MetaKey::Cluster, MetaKey::Founding, MetaKey::Member(NodeId(9))]);
    assert!(learner.cluster().is_none());
    let mut out = Vec::new();
    learner.persisted(now(20), token, &mut out);
    assert_eq!(learner.cluster(), Some(&cluster()));
    assert_eq!(learner.own().phase.stage, Stage::Learning);
    assert!(!out.contains(&Effect::Founded) && !out.contains(&Effect::Changed));
    assert_eq!(learner.ring_members().count(), 0);
    assert!(learner.waiting_for().unwrap().contains("0 of 3"));

    let founders = vec![news(1, Health::Alive), news(2, Health::Alive), news(3, Health::Down)];
    let effects = tell(&mut learner, Body::Items { news: founders });
    let (token, _) = persists(&effects).remove(0);
    let mut out = Vec::new();
    learner.persisted(now(30), token, &mut out);
    assert!(out.contains(&Effect::Founded));
    assert_eq!(learner.ring_members().count(), 3);
    assert_eq!(learner.waiting_for(), None);
}

#[test]
fn a_confirmation_is_durable_before_it_is_spoken() {
    let mut candidate = candidate(Some(3));
    let founders = cluster().founders;
    let propose = Body::Propose { ballot: 4, replicas: Replicas::THREE, founders: founders.clone() };
    let effects = say(&mut candidate, PEER, None, propose.clone());
    assert!(said(&effects).is_empty());
    let (token, keys) = persists(&effects).remove(0);
    assert_eq!(keys, [MetaKey::Founding]);
    let mut out = Vec::new();
    candidate.persisted(now(20), token, &mut out);
    assert_eq!(said(&out), [(PEER, Body::Confirm { ballot: 4, rival: None })]);

    // From now on it is bound: to that proposer, whatever others say, and over a restart.
    let effects = say(&mut candidate, NodeId(3), None, propose);
    assert_eq!(said(&effects), [(NodeId(3), Body::Bound { ballot: 4, proposer: PEER })]);
    assert!(persists(&say(&mut candidate, NodeId(3), None, Body::Released { ballot: 4 })).is_empty());
    assert!(persists(&say(&mut candidate, PEER, None, Body::Released { ballot: 3 })).is_empty());
    let effects = say(&mut candidate, PEER, None, Body::Released { ballot: 4 });
    assert_eq!(persists(&effects).len(), 1);
}

/// Of two proposers that want the same node, the higher lets go: whichever of them that node is bound to.
#[test]
fn the_higher_of_two_proposers_yields() {
    for is_bound_to_the_rival in [true, false] {
        let recovered = Recovered::default();
        let mut proposer =
            Membership::new(&config(Some(3)), entry(5), life(), recovered, Rng::from_number(1));
        proposer.start(now(0), &mut Vec::new());
        let hail =
            |id: u64| Body::Candidate { found: Some(3), replicas: Replicas::THREE, entries: vec![entry(id)] };
        say(&mut proposer, NodeId(6), None, hail(6));
        let effects = say(&mut proposer, NodeId(7), None, hail(7));
        let mut out = Vec::new();
        proposer.persisted(now(20), persists(&effects)[0].0, &mut out);
        let proposals = said(&out).into_iter().filter(|(_, body)| matches!(body, Body::Propose { .. }));
        assert_eq!(proposals.map(|(to, _)| to).collect::<Vec<_>>(), [NodeId(6), NodeId(7)]);

        let (higher, lower) = if is_bound_to_the_rival {
            let bound = |to| Body::Bound { ballot: 1, proposer: NodeId(to) };
            (bound(6), bound(3))
        } else {
            let confirm = |rival| Body::Confirm { ballot: 1, rival: Some(NodeId(rival)) };
            (confirm(6), confirm(3))
        };
        assert!(persists(&say(&mut proposer, NodeId(6), None, higher)).is_empty());
        let effects = say(&mut proposer, NodeId(6), None, lower);
        let (token, keys) = persists(&effects).remove(0);
        assert_eq!(keys, [MetaKey::Founding]);
        proposer.persisted(now(30), token, &mut Vec::new());
        let effects = say(&mut proposer, NodeId(7), None, Body::Confirm { ballot: 1, rival: None });
        assert_eq!(said(&effects), [(NodeId(7), Body::Released { ballot: 1 })]);
        assert!(persists(&effects).is_empty(), "it does not propose again at once");
    }
}

#[test]
fn a_promise_survives_a_restart() {
    let mut candidate = candidate(Some(3));
    let propose = Body::Propose { ballot: 4, replicas: Replicas::THREE, founders: cluster().founders };
    let effects = say(&mut candidate, PEER, None, propose);
    let Some(Effect::Persist { entries, .. }) =
        effects.iter().find(|effect| matches!(effect, Effect::Persist { .. }))
    else {
        panic!("{effects:?}")
    };
    let disk: BTreeMap<MetaKey, Bytes> =
        entries.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    let recovered = Recovered::parse(&disk).unwrap();
    // Even without --found and without seeds it does not found a cluster of its own.
    let lonely = NodeConfig::new(Name::new("n1").unwrap(), address_of(OWN));
    let mut again = Membership::new(&lonely, entry(1), life(), recovered, Rng::from_number(2));
    let mut out = Vec::new();
    again.start(now(0), &mut out);
    for s in 1..60 {
        again.tick(now(s * 1_000), &mut out);
    }
    assert!(persists(&out).is_empty());
    assert!(again.waiting_for().unwrap().contains("has confirmed the proposal of"));
    assert!(said(&out).contains(&(PEER, Body::Confirm { ballot: 4, rival: None })));
}

/// The proposal reached this founder before the entries of the others did. Alone in its ring, it would commit writes by itself.
#[test]
fn a_founder_that_knows_nobody_yet_does_not_serve() {
    let mut founder = candidate(Some(3));
    let effects = say(&mut founder, PEER, Some(ClusterId(77)), Body::Founded(cluster()));
    let (token, _) = persists(&effects).remove(0);
    let mut out = Vec::new();
    founder.persisted(now(20), token, &mut out);
    assert_eq!(founder.own().phase.stage, Stage::Active);
    assert!(!out.contains(&Effect::Founded) && !out.contains(&Effect::Changed));
    assert_eq!(founder.ring_members().count(), 0);
    assert!(founder.waiting_for().unwrap().contains("1 of 3"));
}

#[test]
fn a_surplus_candidate_is_told_what_to_do() {
    let mut surplus =
        Membership::new(&config(Some(3)), entry(9), life(), Recovered::default(), Rng::from_number(1));
    surplus.start(now(0), &mut Vec::new());
    let effects = say(&mut surplus, PEER, Some(ClusterId(77)), Body::Founded(cluster()));
    assert!(has_trouble(&effects, "founded without this node; start it without --found"));
    assert!(persists(&effects).is_empty());
}

#[test]
fn a_doubted_member_is_asked_at_once() {
    let mut member = member();
    let mut out = Vec::new();
    member.tick(now(1_000), &mut out);
    out.clear();
    member.doubt(now(1_400), PEER);
    let deadline = member.next_deadline();
    assert!(deadline <= now(1_400).monotonic + Duration::from_millis(250));
    member.tick(Now { monotonic: deadline, wall: WallTime(0) }, &mut out);
    assert!(said(&out).iter().any(|(to, body)| *to == PEER && matches!(body, Body::Ping { .. })));
}

fn milestone(nonce: u64, position: u64) -> Milestone {
    Milestone { nonce, position: Lsn(position) }
}

/// What is said in answer to a claim of the other member.
fn answer_to(member: &mut Membership, life: &OwnLife) -> Option<Life> {
    let said = said(&tell(member, Body::Claim(life.claim().clone())));
    match &said[..] {
        [(PEER, Body::Known { nonce, life: known })] if *nonce == life.claim().now.nonce => *known,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_remembers_the_furthest_life_of_another_and_tells_whoever_comes_from_less() {
    let mut member = member();
    let ack =
        |nonce, position| Body::Ack { number: 0, wall: WallTime(1), milestone: milestone(nonce, position) };
    assert_eq!(said(&tell(&mut member, ack(21, 1))), [(PEER, Body::Unknown { nonce: 21 })]);
    let first = OwnLife::first(Incarnation(1), 21);
    assert_eq!(answer_to(&mut member, &first), None);
    assert_eq!(said(&tell(&mut member, ack(21, 40))), []);
    let far = Life { position: Lsn(40), ..first.claim().now };
    let copy = OwnLife::next(Some(&first), Incarnation(2), Lsn(30), 22);
    assert_eq!(answer_to(&mut member, &copy), Some(far));
    let second = OwnLife::next(Some(&first), Incarnation(2), Lsn(45), 23);
    assert_eq!(answer_to(&mut member, &second), None);
    let clone = OwnLife::next(Some(&first), Incarnation(2), Lsn(45), 24);
    assert_eq!(answer_to(&mut member, &clone), Some(second.claim().now));
    assert_eq!(said(&tell(&mut member, ack(24, 50))), [(PEER, Body::Unknown { nonce: 24 })]);

    let mut out = Vec::new();
    member.tick(now(60_000), &mut out);
    let entries = out.into_iter().filter_map(|effect| match effect {
        Effect::Persist { entries, .. } => Some(entries),
        _ => None,
    });
    let kept: BTreeMap<MetaKey, Bytes> =
        entries.flatten().filter_map(|(key, value)| Some((key, value?))).collect();
    assert_eq!(Recovered::parse(&kept).unwrap().lives, BTreeMap::from([(PEER, second.claim().now)]));
}

#[test]
fn what_a_member_acknowledges_is_remembered_as_what_its_heartbeats_tell_and_costs_no_write_of_its_own() {
    let mut member = member();
    let acknowledge = |member: &mut Membership, milestone| {
        let mut out = Vec::new();
        member.acknowledged(now(1_000), PEER, milestone, &mut out);
        out
    };
    let unknown = [(PEER, Body::Unknown { nonce: 21 })];
    assert_eq!(said(&acknowledge(&mut member, milestone(21, 7))), unknown);
    assert_eq!(acknowledge(&mut member, milestone(21, 8)), [], "a burst of them asks once");
    let first = OwnLife::first(Incarnation(1), 21);
    assert_eq!(answer_to(&mut member, &first), None);
    member.tick(now(60_000), &mut Vec::new());

    // Nothing but acknowledgements tells how far it has got from here on.
    for position in 41..=50 {
        assert_eq!(acknowledge(&mut member, milestone(21, position)), [], "neither a word nor a write");
    }
    let far = Life { position: Lsn(50), ..first.claim().now };
    assert_eq!(member.remembers(PEER), Some(&far));
    let copy = OwnLife::next(Some(&first), Incarnation(2), Lsn(49), 22);
    assert_eq!(answer_to(&mut member, &copy), Some(far));
    let after_a_crash = OwnLife::next(Some(&first), Incarnation(2), Lsn(50), 23);
    assert_eq!(answer_to(&mut member, &after_a_crash), None);
}

#[test]
fn a_node_that_is_told_of_more_than_it_comes_from_is_denied_and_of_less_it_is_believed() {
    let mut member = member();
    let claim = member.claim().clone();
    let effects = tell(&mut member, Body::Unknown { nonce: NONCE });
    assert_eq!(said(&effects), [(PEER, Body::Claim(claim.clone()))]);
    assert_eq!(tell(&mut member, Body::Unknown { nonce: 1 }), [], "of an earlier life");
    let believed = Effect::Believed(PEER);
    assert_eq!(tell(&mut member, Body::Known { nonce: NONCE, life: None }), std::slice::from_ref(&believed));
    let remembers = Life { directory: Incarnation(6), ..claim.now };
    assert_eq!(tell(&mut member, Body::Known { nonce: 1, life: Some(remembers) }), []);
    let less = Life { directory: Incarnation(4), ..claim.now };
    assert_eq!(tell(&mut member, Body::Known { nonce: NONCE, life: Some(less) }), [believed]);
    let denied = Effect::Denied { by: PEER, remembers };
    assert_eq!(tell(&mut member, Body::Known { nonce: NONCE, life: Some(remembers) }), [denied]);
}

#[test]
fn while_a_higher_incarnation_is_written_nothing_is_said_of_the_lower_one() {
    let mut member = member();
    let mut foreign = member.own().clone();
    foreign.incarnation = Incarnation(9);
    let news = |entry: &Entry| vec![News { entry: entry.clone(), health: Health::Alive }];
    let items = |entry: &Entry| Body::Items { news: news(entry) };
    let effects = tell(&mut member, items(&foreign));
    let kept = persists(&effects);
    let [(token, _)] = &kept[..] else { panic!("{effects:?}") };
    assert_eq!(said(&effects), []);
    assert_eq!(tell(&mut member, items(&foreign)), [], "nor when it is told once more");
    member.persisted(now(20), *token, &mut Vec::new());
    assert!(member.own().age() > foreign.age());
    let answer = said(&tell(&mut member, items(&foreign)));
    assert_eq!(answer, [(PEER, Body::Correction { news: news(member.own()) })]);
}
