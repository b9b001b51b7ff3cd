mod register;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::causality::Record;
use crate::protocol::config::HintConfig;
use crate::protocol::id::{NodeId, ReapEpoch, RequestId};
use crate::protocol::output::{Destination, Output};
use crate::protocol::replication::fixture::*;
use crate::protocol::replication::register::HintRegister;
use crate::protocol::replication::replay::REPLAY;
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::storage::op::{DiskRequest, MetaKey};
use crate::protocol::time::Timestamp;
use crate::protocol::wire::client::{Level, Outcome, Request, Write};
use crate::protocol::wire::life::Milestone;
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

const LOOK: Duration = Duration::from_millis(100);

/// A coordinator that owns the key with two others, in a cluster of five: with it the first two that own nothing of it.
fn coordinator() -> Story {
    let owns = |story: &Story| sorted(story.view.slot(Slot::of_key(&key())).read_set().to_vec());
    let mut clusters = (4..).map(|id| Story::among(&[OWN, B, C, NodeId(id), NodeId(id + 1)]));
    clusters.find(|story| owns(story) == [OWN, B, C]).unwrap()
}

fn sorted(mut nodes: Vec<NodeId>) -> Vec<NodeId> {
    nodes.sort();
    nodes
}

/// The nodes that stand in, in the order of preference.
fn stand_ins(story: &Story) -> [NodeId; 2] {
    let list = story.view.ring().preference(Slot::of_key(&key()));
    let others: Vec<NodeId> = list.iter().filter(|p| !p.owner).map(|p| p.node).collect();
    [others[0], others[1]]
}

/// The hint that goes to `to`, if any does.
fn hint_to(out: &[Output], to: NodeId) -> Option<(NodeId, Record)> {
    out.iter().find_map(|output| match output {
        Output::Send {
            to: Destination::Node { id, .. },
            message: PeerMessage::Hint { target, record, .. },
        } if *id == to => Some((*target, record.clone())),
        _ => None,
    })
}

/// A question after hints: whom, its number, the slots.
type Question = (NodeId, RequestId, Vec<Slot>);

fn asked_of(out: &[Output]) -> Vec<Question> {
    out.iter()
        .filter_map(|output| match output {
            Output::Send {
                to: Destination::Node { id, .. },
                message: PeerMessage::AskHints { request, slots },
            } => Some((*id, *request, slots.clone())),
            _ => None,
        })
        .collect()
}

fn no_hints((_, request, slots): &Question) -> PeerMessage {
    PeerMessage::NoHints { request: *request, slots: slots.clone() }
}

impl Story {
    /// Of a coordinator that has hinted a write for an owner which is gone: the stand-in that was asked to keep it.
    fn with_a_hint() -> (Story, NodeId) {
        let mut story = coordinator();
        let [first, _] = stand_ins(&story);
        story.peers.gone = vec![C];
        story.ask(Request::Write(put("v1")));
        story.execute();
        story.sync();
        (story, first)
    }

    /// Time passes until it is asked after hints.
    fn ask_for_hints(&mut self) -> Vec<Question> {
        asked_of(&self.look_at_hints(Duration::from_secs(11)))
    }
}

fn hinted_by(story: &mut Story, node: NodeId) -> Vec<Output> {
    let request = story.last_request();
    story.hear(node, PeerMessage::Hinted { request, milestone: Milestone::default() })
}

#[test]
fn a_hint_is_asked_for_only_when_it_is_durable_that_it_may_exist() {
    let mut story = coordinator();
    let [first, _] = stand_ins(&story);
    story.peers.gone = vec![C];
    let dot = story.dot();
    story.ask(Request::Write(put("v1")));
    let out = story.execute();
    assert_eq!(out, [story.replicate(B, &story.stored())], "no hint yet");
    let written = story.meta.get(&MetaKey::HintHolders(Slot::of_key(&key()))).cloned().flatten();
    assert!(written.is_some(), "it is on its way to the log");
    let out = story.sync();
    assert_eq!(hint_to(&out, first), Some((C, story.stored())));
    // The next one of the slot needs no second entry.
    let out = story.stored_by(B, dot.at);
    assert_eq!(written_answer(&out).outcome, Outcome::Committed);
    story.ask(Request::Write(Write { operation: operation(2), ..put("v2") }));
    assert!(hint_to(&story.execute(), first).is_some());
}

#[test]
fn a_strict_quorum_does_not_count_hints_and_a_sloppy_one_does() {
    for sloppy in [false, true] {
        let mut story = coordinator();
        let [first, _] = stand_ins(&story);
        story.peers.gone = vec![C];
        story.ask(Request::Write(Write { sloppy, ..put("v1") }));
        story.execute();
        story.sync();
        let out = hinted_by(&mut story, first);
        if sloppy {
            let written = written_answer(&out);
            assert_eq!(
                (written.outcome, written.acks, written.hinted),
                (Outcome::Committed, vec![OWN], vec![first])
            );
        } else {
            assert_eq!(out, []);
            let entry = story.stored().siblings()[0].dot.at;
            let written = written_answer(&story.stored_by(B, entry));
            assert_eq!((written.acks, written.hinted), (vec![OWN, B], vec![first]));
        }
        assert!(story.coordinator.is_empty());
    }
}

#[test]
fn a_sloppy_write_needs_no_second_owner_but_as_many_nodes_as_it_says() {
    let mut story = coordinator();
    let [first, second] = stand_ins(&story);
    story.peers.gone = vec![B, C];
    assert_eq!(
        outcome(&story.ask(Request::Write(put("v1")))).0,
        Outcome::NotApplied,
        "a strict one is refused"
    );
    let all = Write { sloppy: true, w: Level::All, operation: operation(2), ..put("v2") };
    story.ask(Request::Write(all));
    story.execute();
    let out = story.sync();
    let targets = [hint_to(&out, first).unwrap().0, hint_to(&out, second).unwrap().0];
    assert_eq!(sorted(targets.to_vec()), [B, C], "one stand-in for each");
    assert_eq!(hinted_by(&mut story, first), []);
    assert_eq!(written_answer(&hinted_by(&mut story, second)).outcome, Outcome::Committed);

    story.peers.gone = vec![B, C, second];
    let all = Write { sloppy: true, w: Level::All, operation: operation(3), ..put("v3") };
    assert_eq!(outcome(&story.ask(Request::Write(all))).0, Outcome::NotApplied, "three copies on two nodes");
}

#[test]
fn another_node_is_asked_when_the_first_one_has_no_room() {
    let mut story = coordinator();
    let [first, second] = stand_ins(&story);
    story.peers.gone = vec![C];
    story.ask(Request::Write(put("v1")));
    story.execute();
    story.sync();
    let out = story.refused_by(first, PeerRefusal::Overloaded);
    assert_eq!(hint_to(&out, second), None, "the register first");
    story.execute();
    assert!(hint_to(&story.sync(), second).is_some());
    assert_eq!(story.refused_by(second, PeerRefusal::Overloaded), []);
    let entry = story.stored().siblings()[0].dot.at;
    assert_eq!(written_answer(&story.stored_by(B, entry)).outcome, Outcome::Committed, "refused by nobody");
    assert!(story.coordinator.is_empty(), "nothing more can be done for the absent owner");
}

/// A node that keeps a hint of the key, which `owners` own, for the last of them.
fn stand_in() -> Story {
    let mut story = Story::among(&[B, C, STRANGER]);
    story.peers.gone = vec![STRANGER];
    story
}

fn hint(story: &Story, request: u64, record: &Record) -> PeerMessage {
    PeerMessage::Hint {
        request: RequestId(request),
        digest: story.digest(),
        epoch: ReapEpoch(0),
        target: STRANGER,
        key: key(),
        record: record.clone(),
    }
}

/// The replay that goes to each node.
fn replays(out: &[Output]) -> Vec<(NodeId, RequestId, Record)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Send {
                to: Destination::Node { id, .. },
                message: PeerMessage::Replicate { request, record, .. },
            } => Some((*id, *request, record.clone())),
            _ => None,
        })
        .collect()
}

fn look(story: &mut Story, after: Duration) -> Vec<(NodeId, RequestId, Record)> {
    assert_eq!(story.look_at_hints(after), []);
    replays(&story.execute())
}

fn acknowledge(story: &mut Story, node: NodeId, request: RequestId) {
    let out = story.hear(node, stored(request, Timestamp(0)));
    assert_eq!(out, []);
}

#[test]
fn a_hint_is_acknowledged_when_it_is_durable() {
    let mut story = stand_in();
    let record = written(7, Some("v1"));
    assert_eq!(story.hear(B, hint(&story, 3, &record)), []);
    assert_eq!(story.execute(), []);
    let hinted = PeerMessage::Hinted { request: RequestId(3), milestone: Milestone::default() };
    assert_eq!(story.sync(), [send(B, hinted)]);
    assert_eq!((story.stored(), story.hints.len()), (record, 1));
    let bytes = key().len() as u64 + story.stored().encoded_len();
    assert_eq!(story.hints.bytes_to_move(), bytes);
}

#[test]
fn a_hint_is_dropped_only_when_every_owner_has_it_on_disk() {
    let mut story = stand_in();
    let record = written(7, Some("v1"));
    story.hear(B, hint(&story, 3, &record));
    story.execute();
    story.sync();
    let sent = look(&mut story, LOOK);
    let request = sent[0].1;
    assert_eq!(sorted(sent.iter().map(|(node, ..)| *node).collect()), [B, C], "those that can be reached");
    assert_eq!(request.0 & REPLAY, REPLAY);
    acknowledge(&mut story, B, request);
    acknowledge(&mut story, C, request);
    assert_eq!(look(&mut story, LOOK * 100), [], "they need not hear it again");

    story.peers.gone.clear();
    let sent = look(&mut story, LOOK);
    assert_eq!(sent.iter().map(|(node, ..)| *node).collect::<Vec<_>>(), [STRANGER]);
    acknowledge(&mut story, STRANGER, request);
    assert_eq!((story.execute(), story.hints.len()), (vec![], 1), "an answer to the earlier replay");
    acknowledge(&mut story, STRANGER, sent[0].1);
    story.execute();
    assert_eq!(story.hints.len(), 1, "the removal is not durable yet");
    story.sync();
    assert_eq!((story.hints.len(), story.hints.bytes(), story.hints.counts().delivered), (0, 0, 1));
    assert!(story.disk.is_empty());
}

#[test]
fn an_owner_that_does_not_answer_is_sent_it_again_after_ever_longer_pauses() {
    let mut story = stand_in();
    story.peers.gone = vec![B, C];
    story.hear(B, hint(&story, 3, &written(7, Some("v1"))));
    story.execute();
    story.sync();
    let mut requests = vec![look(&mut story, LOOK)[0].1];
    for pause in [1, 2, 4, 8, 16, 32, 32] {
        assert_eq!(look(&mut story, Duration::from_secs(pause) / 2), []);
        let sent = look(&mut story, Duration::from_secs(pause) / 2 + LOOK);
        requests.push(sent[0].1);
    }
    requests.dedup();
    assert_eq!((requests.len(), story.hints.len()), (8, 1));
}

#[test]
fn a_hint_that_grows_while_it_is_delivered_is_delivered_anew() {
    let mut story = stand_in();
    story.peers.gone.clear();
    let first = written(7, Some("v1"));
    let second = overwritten(&first, 8, Some("v2"));
    story.hear(B, hint(&story, 3, &first));
    story.execute();
    story.sync();
    let request = look(&mut story, LOOK)[0].1;
    for node in [B, C, STRANGER] {
        acknowledge(&mut story, node, request);
    }
    // The next one overtakes the removal.
    let removal = story.waiting.pop_back().unwrap();
    story.hear(B, hint(&story, 4, &second));
    story.waiting.push_back(removal);
    story.execute();
    story.sync();
    assert_eq!((story.hints.len(), story.stored()), (1, second.clone()));
    let sent = look(&mut story, LOOK);
    assert_eq!((sent.len(), &sent[0].2), (3, &second));
}

#[test]
fn what_has_no_room_is_refused_and_what_is_kept_is_not() {
    let mut story = stand_in();
    story.hint_config = HintConfig { bytes_per_target_max: 1_000, ..HintConfig::default() };
    story.hear(B, hint(&story, 3, &written(7, Some("v1"))));
    story.execute();
    story.sync();
    let big: &'static str = "v2 is a value so large that the two of them are more than a thousand bytes, with all that a \
                             hint costs in memory beside its key and its value, which is said to be four hundred bytes";
    let out = story.hear(B, hint(&story, 4, &written(9, Some(big.repeat(3).leak()))));
    let reason = PeerRefusal::Overloaded;
    assert_eq!(out, [send(B, PeerMessage::Refused { request: RequestId(4), reason })]);
    assert_eq!(story.hints.len(), 1);
}

#[test]
fn an_owner_keeps_no_hints_and_nobody_does_for_another_ring() {
    let mut story = Story::new();
    let record = written(7, Some("v1"));
    let out = story.hear(B, hint(&story, 3, &record));
    assert!(matches!(
        out[..],
        [Output::Send { message: PeerMessage::Refused { reason: PeerRefusal::OtherRing(_), .. }, .. }]
    ));
    let mut story = stand_in();
    let old = hint(&story, 3, &record);
    story.change_ring(&[B, C, STRANGER]);
    let out = story.hear(B, old);
    assert!(matches!(
        out[..],
        [Output::Send { message: PeerMessage::Refused { reason: PeerRefusal::OtherRing(_), .. }, .. }]
    ));
}

#[test]
fn an_owner_for_whom_nobody_keeps_a_hint_is_left_to_an_exchange() {
    let slot = Slot::of_key(&key());
    let mut story = coordinator();
    let [first, second] = stand_ins(&story);
    story.peers.gone = vec![C];
    story.ask(Request::Write(put("v1")));
    story.execute();
    story.sync();
    hinted_by(&mut story, first);
    assert_eq!(story.missed, [], "the hint will do");

    story.peers.gone = vec![C, first, second];
    story.ask(Request::Write(Write { operation: operation(2), ..put("v2") }));
    story.execute();
    assert_eq!(story.missed, [(C, slot)]);

    let mut story = coordinator();
    story.peers.gone = vec![C];
    story.ask(Request::Write(put("v1")));
    story.execute();
    story.sync();
    story.refused_by(first, PeerRefusal::Overloaded);
    story.execute();
    story.sync();
    assert_eq!(story.missed, []);
    story.refused_by(second, PeerRefusal::DiskFull);
    assert_eq!(story.missed, [(C, slot)]);
}

#[test]
fn a_hint_that_is_on_its_way_to_the_disk_is_not_denied() {
    let mut story = stand_in();
    let slots = vec![Slot::of_key(&key())];
    let ask = PeerMessage::AskHints { request: RequestId(9), slots: slots.clone() };
    let none = PeerMessage::NoHints { request: RequestId(9), slots };
    assert_eq!(story.hear(B, ask.clone()), [send(B, none)]);
    story.hear(B, hint(&story, 3, &written(7, Some("v1"))));
    assert_eq!(story.hear(B, ask.clone()), []);
    story.execute();
    assert_eq!(story.hear(B, ask), []);
}

#[test]
fn the_epoch_is_written_down_before_the_hint_and_goes_with_every_replay_and_is_one_for_all_of_a_slot() {
    let slot = Slot::of_key(&key());
    let mut story = stand_in();
    story.peers.gone = vec![B, STRANGER];
    let of_epoch = |story: &Story, request, epoch| match hint(story, request, &written(7, Some("v1"))) {
        PeerMessage::Hint { request, digest, target, key, record, .. } => {
            PeerMessage::Hint { request, digest, epoch: ReapEpoch(epoch), target, key, record }
        }
        other => other,
    };
    let epochs_sent = |out: Vec<Output>| -> Vec<u64> {
        let epoch = |output: &Output| match output {
            Output::Send { message: PeerMessage::Replicate { epoch, .. }, .. } => Some(epoch.0),
            _ => None,
        };
        out.iter().filter_map(epoch).collect()
    };
    for (request, epoch, is_kept) in [(3, 5, true), (4, 7, false), (5, 2, false), (6, 5, true)] {
        let hint = of_epoch(&story, request, epoch);
        let refused = PeerMessage::Refused { request: RequestId(request), reason: PeerRefusal::Overloaded };
        let expected = if is_kept { vec![] } else { vec![send(B, refused)] };
        assert_eq!(story.hear(B, hint), expected, "{request}");
        let is_meta = |request: Option<&DiskRequest>| matches!(request, Some(DiskRequest::Meta { .. }));
        assert_eq!(is_meta(story.waiting.front()), request == 3, "the log keeps the order");
        story.execute();
        story.look_at_hints(LOOK);
        assert_eq!(epochs_sent(story.execute()), if is_kept { vec![5] } else { vec![] });
    }
    // Until it is known again what is kept, nothing of another epoch can be.
    story.restart_hints();
    assert_eq!(story.hints.epoch(slot), ReapEpoch(5));
    assert_eq!(story.hear(B, of_epoch(&story, 7, 6)).len(), 1);
    assert_eq!(story.hear(B, of_epoch(&story, 8, 5)), []);
}

#[test]
fn a_hint_that_the_own_disk_doubts_is_neither_sent_nor_forgotten() {
    let mut story = stand_in();
    story.hear(B, hint(&story, 3, &written(7, Some("v1"))));
    story.execute();
    story.lost.push(key());
    assert_eq!(look(&mut story, LOOK), []);
    assert_eq!(story.hints.len(), 1);
    story.lost.clear();
    assert_eq!(look(&mut story, Duration::from_secs(31)), []);
    assert_ne!(look(&mut story, Duration::from_secs(2)), []);
    // A look at what former lives have left meets the doubt as well.
    story.lost.push(key());
    story.restart_hints();
    for _ in 0..40 {
        story.look_at_hints(Duration::from_secs(1));
        story.execute();
    }
    assert!(story.hints.is_empty() && !story.hints.is_counted());
    story.lost.clear();
    for _ in 0..4 {
        story.look_at_hints(Duration::from_secs(1));
        story.execute();
    }
    assert!(story.hints.len() == 1 && story.hints.is_counted());
}

#[test]
fn what_was_acknowledged_under_another_digest_does_not_count() {
    let mut story = stand_in();
    story.peers.gone = vec![];
    story.hear(B, hint(&story, 3, &written(7, Some("v1"))));
    story.execute();
    let owners = story.view.slot(Slot::of_key(&key())).read_set().to_vec();
    let request = look(&mut story, LOOK)[0].1;
    // One of the owners has lost its disk since; the others' members are as they were.
    let members: Vec<NodeId> = story.view.ring().members().iter().map(|member| member.node).collect();
    story.change_ring(&members);
    story.look_at_hints(LOOK);
    owners.iter().for_each(|owner| acknowledge(&mut story, *owner, request));
    assert!(!story.waiting.iter().any(|request| matches!(request, DiskRequest::Remove { .. })));
    let again = replays(&story.execute());
    assert_eq!(again.len(), owners.len(), "all of them are asked again");
    owners.iter().for_each(|owner| acknowledge(&mut story, *owner, again[0].1));
    assert!(story.waiting.iter().any(|request| matches!(request, DiskRequest::Remove { .. })));
}

#[test]
fn replays_wait_for_the_account_of_repairs() {
    let mut story = stand_in();
    story.peers.gone = vec![B, STRANGER];
    story.hear(B, hint(&story, 3, &written(7, Some("v1"))));
    story.execute();
    let now = story.now.monotonic;
    story.ledger.charge(now, 5_000, 0);
    assert_eq!(look(&mut story, LOOK), [], "it has spent half a second's worth");
    assert_eq!(look(&mut story, LOOK), []);
    assert_eq!(look(&mut story, Duration::from_secs(30)).len(), 1);
}
