use std::time::Duration;

use crate::protocol::causality::{ContextToken, Dot, Refusal};
use crate::protocol::id::{NodeId, ReapEpoch};
use crate::protocol::output::{Destination, Output};
use crate::protocol::replication::author::Author;
use crate::protocol::replication::fixture::*;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::epochs::Standing;
use crate::protocol::time::{Timestamp, WallTime};
use crate::protocol::wire::client::{Answer, Code, Level, Outcome, Request, Write, Written};
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

fn committed(story: &Story, dot: Dot, acks: &[NodeId]) -> Written {
    Written {
        outcome: Outcome::Committed,
        context: Some(story.context(&story.stored())),
        dot: Some(dot),
        siblings: 1,
        acks: acks.to_vec(),
        hinted: vec![],
        problem: None,
    }
}

/// A put that its disk has executed and nobody has acknowledged.
fn under_way(story: &mut Story, write: Write) -> Dot {
    let dot = story.dot();
    story.ask(Request::Write(write));
    story.execute();
    dot
}

#[test]
fn a_put_goes_out_when_it_is_executed_and_commits_when_a_majority_has_it_on_disk() {
    let mut story = Story::new();
    let dot = story.dot();
    assert_eq!(story.ask(Request::Write(put("v1"))), []);
    let out = story.execute();
    let record = story.stored();
    assert_eq!(record.values(), ["v1"]);
    assert_eq!(out, [story.replicate(B, &record), story.replicate(C, &record)]);
    assert_eq!(story.sync(), []);
    let out = story.stored_by(C, dot.at);
    assert_eq!(out, [story.respond(Answer::Written(committed(&story, dot, &[OWN, C])))]);
    assert!(story.coordinator.is_empty());
    assert_eq!(story.stored_by(B, dot.at), []);
}

#[test]
fn the_own_replica_does_not_count_before_its_log_is_synced() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    assert_eq!(story.stored_by(B, dot.at), []);
    let out = story.sync();
    assert_eq!(out, [story.respond(Answer::Written(committed(&story, dot, &[B, OWN])))]);
}

#[test]
fn two_others_commit_a_put_without_the_own_sync() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    assert_eq!(story.stored_by(B, dot.at), []);
    assert_eq!(written_answer(&story.stored_by(C, dot.at)).acks, [B, C]);
}

#[test]
fn levels_ask_for_as_many_as_they_say() {
    for (level, acks) in [(Level::One, vec![OWN]), (Level::All, vec![OWN, B, C])] {
        let mut story = Story::new();
        let dot = under_way(&mut story, Write { w: level, ..put("v1") });
        let mut out = story.sync();
        for node in &acks[1..] {
            assert_eq!(out, []);
            out = story.stored_by(*node, dot.at);
        }
        assert_eq!((written_answer(&out).outcome, written_answer(&out).acks), (Outcome::Committed, acks));
    }
}

#[test]
fn one_acknowledgement_counts_once_and_one_of_a_stranger_not_at_all() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    assert_eq!(story.stored_by(B, dot.at), []);
    assert_eq!(story.stored_by(B, dot.at), []);
    assert_eq!(story.stored_by(STRANGER, dot.at), []);
    assert_eq!(story.coordinator.len(), 1);
}

#[test]
fn an_acknowledgement_below_the_dot_or_above_what_was_issued_does_not_count() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    story.sync();
    assert_eq!(story.stored_by(B, Timestamp(dot.at.0 - 1)), []);
    assert!(!story.author.is_doubted());
    assert_eq!(story.stored_by(C, Timestamp(dot.at.0 + 1)), []);
    assert!(story.author.is_doubted());
}

#[test]
fn an_actor_that_was_replaced_meanwhile_is_still_believed_what_it_had_issued() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    story.sync();
    story.author.replace(OTHER);
    assert_eq!(outcome(&story.stored_by(B, dot.at)), (Outcome::Committed, None));
    assert!(!story.author.is_doubted());
}

#[test]
fn silent_owners_are_sent_the_record_again_and_those_that_answered_are_not() {
    let mut story = Story::new();
    let dot = under_way(&mut story, Write { w: Level::All, ..put("v1") });
    story.stored_by(B, dot.at);
    let again = [story.replicate(C, &story.stored())];
    assert_eq!(story.pass(Duration::from_millis(249)), []);
    assert_eq!(story.pass(Duration::from_millis(1)), again);
    assert_eq!(story.pass(Duration::from_millis(499)), []);
    assert_eq!(story.pass(Duration::from_millis(1)), again);
    // And the membership is asked to look after it.
    assert_eq!(story.doubts, [C]);
}

#[test]
fn a_refusal_that_passes_is_waited_out() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    story.sync();
    for reason in [PeerRefusal::NotReady, PeerRefusal::Overloaded, PeerRefusal::OtherRing(vec![])] {
        assert_eq!(story.refused_by(B, reason.clone()), []);
        assert_eq!(story.refused_by(C, reason), []);
    }
    assert_eq!(outcome(&story.stored_by(B, dot.at)), (Outcome::Committed, None));
}

#[test]
fn a_put_that_too_few_can_keep_is_unknown_for_the_own_disk_has_executed_it() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    story.sync();
    assert_eq!(story.refused_by(B, PeerRefusal::Lost), []);
    let written = written_answer(&story.refused_by(C, PeerRefusal::DiskFull));
    assert_eq!((written.outcome, written.dot, written.acks), (Outcome::Unknown, Some(dot), vec![OWN]));
}

#[test]
fn at_the_deadline_a_put_is_unknown_and_names_its_dot() {
    let mut story = Story::new();
    let dot = under_way(&mut story, put("v1"));
    story.sync();
    story.pass(Duration::from_millis(4_999));
    let written = written_answer(&story.pass(Duration::from_millis(1)));
    assert_eq!(written.problem.as_ref().map(|problem| problem.code), Some(Code::Timeout));
    assert_eq!((written.outcome, written.dot, written.acks), (Outcome::Unknown, Some(dot), vec![OWN]));
    assert!(story.coordinator.is_empty());
}

#[test]
fn a_put_whose_disk_has_not_answered_by_the_deadline_is_unknown() {
    let mut story = Story::new();
    story.ask(Request::Write(put("v1")));
    assert_eq!(outcome(&story.pass(PATIENCE)), (Outcome::Unknown, Some(Code::Timeout)));
    assert_eq!(story.execute(), []);
}

#[test]
fn a_put_that_the_disk_refuses_is_not_applied_and_goes_nowhere() {
    for (refusal, code) in [
        (Refusal::DiskFull, Code::DiskFull),
        (Refusal::Overloaded, Code::Overloaded),
        (Refusal::TooManySiblings(64), Code::TooManySiblings),
    ] {
        let mut story = Story::new();
        story.refusing = Some(refusal);
        story.ask(Request::Write(put("v1")));
        let written = written_answer(&story.execute());
        assert_eq!((written.outcome, written.context, written.dot), (Outcome::NotApplied, None, None));
        assert_eq!(written.problem.map(|problem| problem.code), Some(code));
    }
    let mut story = Story::new();
    story.lost.push(key());
    story.ask(Request::Write(put("v1")));
    assert_eq!(outcome(&story.execute()), (Outcome::NotApplied, Some(Code::RecordLost)));
}

#[test]
fn without_a_quorum_in_reach_nothing_is_logged() {
    let mut story = Story::new();
    story.peers.gone = vec![B, C];
    let out = story.ask(Request::Write(put("v1")));
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::Unavailable)));
    let message = written_answer(&out).problem.unwrap().message;
    assert!(message.contains("from n1 (n1; not: n2, n3)"), "{message}");
    assert!(story.waiting.is_empty());
}

#[test]
fn a_quorum_that_goes_out_of_reach_ends_a_put_as_unknown() {
    let mut story = Story::new();
    under_way(&mut story, put("v1"));
    story.sync();
    story.peers.gone = vec![B, C];
    let out = story.pass(Duration::from_millis(250));
    assert_eq!(outcome(&out), (Outcome::Unknown, Some(Code::Unavailable)));
}

#[test]
fn what_is_wrong_with_a_write_is_said_before_anything_is_logged() {
    let elsewhere = Story::new();
    let foreign = ContextToken::seal(written(5, Some("v")).context(), b"another key", &elsewhere.secret);
    let damaged = ContextToken::from(bytes::Bytes::from_static(b"no context"));
    let large = bytes::Bytes::from(vec![0; (1 << 20) + 1]);
    let future = WallTime(WALL.0 + 10_001);
    for (write, code) in [
        (Write { context: Some(foreign), ..put("v") }, Code::ContextOfAnotherKey),
        (Write { context: Some(damaged), ..put("v") }, Code::ContextDamaged),
        (Write { value: Some(large.clone()), ..put("v") }, Code::ValueTooLarge),
        (Write { key: bytes::Bytes::new(), ..put("v") }, Code::BadKey),
        (Write { key: large.slice(..4_097), ..put("v") }, Code::BadKey),
        (
            Write {
                operation: crate::protocol::causality::OperationId { started: future, nonce: 1 },
                ..put("v")
            },
            Code::BadRequest,
        ),
    ] {
        let mut story = Story::new();
        assert_eq!(outcome(&story.ask(Request::Write(write))), (Outcome::NotApplied, Some(code)));
        assert!(story.waiting.is_empty());
    }
}

#[test]
fn a_put_hands_out_the_records_context_only_if_its_sibling_is_the_only_one() {
    let mut story = Story::new();
    let other = written(5, Some("unseen"));
    story.disk.insert(key(), other.clone());
    let dot = under_way(&mut story, put("v1"));
    story.sync();
    let blind = written_answer(&story.stored_by(B, dot.at));
    assert_eq!((blind.outcome, blind.context, blind.siblings), (Outcome::Committed, None, 2));

    story.pass(Duration::from_millis(1));
    let seen = story.context(&other);
    let second = Write { context: Some(seen.clone()), operation: operation(2), ..put("v2") };
    let dot = under_way(&mut story, second);
    story.sync();
    let partly = written_answer(&story.stored_by(B, dot.at));
    assert_eq!((partly.context, partly.siblings), (Some(seen), 2));

    story.pass(Duration::from_millis(1));
    let all = Some(story.context(&story.stored()));
    let dot = under_way(&mut story, Write { context: all, operation: operation(3), ..put("v3") });
    story.sync();
    let written = written_answer(&story.stored_by(B, dot.at));
    assert_eq!((written.context, written.siblings), (Some(story.context(&story.stored())), 1));
}

#[test]
fn a_retry_reads_a_majority_first_and_adopts_what_an_earlier_attempt_did() {
    let mut first = Story::new();
    let made = under_way(&mut first, put("v1"));
    let earlier = first.stored();

    let mut story = Story::new();
    story.author = Author::new(OTHER);
    story.author.became_durable(OTHER);
    assert_eq!(story.ask(Request::Write(Write { attempt: 2, ..put("v1") })), [story.fetch(B)]);
    assert_eq!(story.execute(), []);
    assert!(story.disk.is_empty());
    story.fetched_from(B, Some(&earlier));
    // The owners are asked for their entry of the actor that made the dot, which is not this node's.
    assert_eq!(story.execute(), [story.replicate(B, &earlier), story.replicate(C, &earlier)]);
    assert_eq!(story.stored(), earlier);
    story.sync();
    assert_eq!(story.stored_by(B, Timestamp(made.at.0 - 1)), [], "it has not merged the write");
    let written = written_answer(&story.stored_by(C, made.at));
    assert_eq!((written.outcome, written.dot, written.siblings), (Outcome::Committed, Some(made), 1));
}

#[test]
fn a_retry_of_what_was_superseded_does_not_bring_it_back() {
    let mut first = Story::new();
    let made = under_way(&mut first, put("v1"));
    let earlier = first.stored();
    let newer = overwritten(&earlier, 9, Some("v2"));

    let mut story = Story::new();
    story.disk.insert(key(), earlier);
    story.ask(Request::Write(Write { attempt: 2, ..put("v1") }));
    story.execute();
    story.fetched_from(B, Some(&newer));
    story.execute();
    assert_eq!(story.stored().values(), ["v2"]);
    story.sync();
    let written = written_answer(&story.stored_by(B, made.at));
    assert_eq!((written.outcome, written.dot, written.context), (Outcome::Committed, Some(made), None));
}

#[test]
fn a_retry_without_a_majority_to_ask_is_not_applied() {
    let mut story = Story::new();
    story.ask(Request::Write(Write { attempt: 2, ..put("v1") }));
    story.execute();
    let out = story.pass(PATIENCE);
    assert_eq!(outcome(&out[out.len() - 1..]), (Outcome::NotApplied, Some(Code::Timeout)));
    assert!(story.waiting.is_empty() && story.disk.is_empty());
    assert_eq!(story.fetched_from(B, None), []);
}

#[test]
fn a_retry_that_nobody_could_recognise_any_more_is_unknown() {
    let mut story = Story::new();
    story.pass(Duration::from_millis(60_001));
    let out = story.ask(Request::Write(Write { attempt: 2, ..put("v1") }));
    assert_eq!(outcome(&out), (Outcome::Unknown, Some(Code::OperationExpired)));
    assert!(story.waiting.is_empty());
}

#[test]
fn a_clock_that_is_off_makes_no_retry_look_expired() {
    let mut story = Story::new();
    story.peers.clock_offset = 3_600_000;
    story.now.wall = WallTime(WALL.0 + 3_600_000);
    story.forwarded(B, 1, Request::Write(Write { attempt: 2, ..put("v1") }));
    assert_eq!(story.coordinator.len(), 1);
}

#[test]
fn a_first_attempt_of_an_old_operation_is_done_although_its_mark_is_forgotten_at_once() {
    let mut story = Story::new();
    story.disk.insert(key(), written(5, Some("other")));
    let old = crate::protocol::causality::OperationId { started: WallTime(WALL.0 - 120_000), nonce: 3 };
    let dot = under_way(&mut story, Write { operation: old, ..put("v1") });
    assert_eq!(mark(&story.stored(), old), None);
    story.sync();
    let written = written_answer(&story.stored_by(B, dot.at));
    assert_eq!((written.outcome, written.dot, written.siblings), (Outcome::Committed, Some(dot), 2));
}

#[test]
fn a_delete_without_a_context_deletes_what_a_majority_shows() {
    let mut story = Story::new();
    let theirs = written(5, Some("v1"));
    let unseen = written(6, Some("v2"));
    let dot = story.dot();
    assert_eq!(story.ask(Request::Write(delete())), [story.fetch(B)]);
    story.execute();
    story.fetched_from(B, Some(&theirs));
    let out = story.execute();
    let record = story.stored();
    assert!(record.is_tombstone() && record.is_dead(theirs.siblings()[0].dot));
    assert!(!record.context().covers(unseen.siblings()[0].dot));
    assert_eq!(out, [story.replicate(B, &record), story.replicate(C, &record)]);
    story.sync();
    let out = story.stored_by(B, dot.at);
    assert_eq!(out, [story.respond(Answer::Written(committed(&story, dot, &[OWN, B])))]);
}

/// Without the mark another attempt of it, late by a pause or another way, would delete what was written since.
#[test]
fn a_delete_of_nothing_leaves_its_mark_for_its_other_attempts() {
    let gone = overwritten(&written(5, Some("v1")), 6, None);
    for found in [None, Some(gone)] {
        let mut story = Story::new();
        let dot = story.dot();
        story.ask(Request::Write(delete()));
        story.execute();
        story.fetched_from(B, found.as_ref());
        story.execute();
        let record = story.stored();
        assert!(record.is_tombstone() && record.siblings().len() == 1);
        assert!(mark(&record, delete().operation).is_some());
        story.sync();
        let written = written_answer(&story.stored_by(B, dot.at));
        assert_eq!((written.outcome, written.dot), (Outcome::Committed, Some(dot)));
    }
}

#[test]
fn a_put_whose_coordinator_is_no_owner_any_more_is_unknown_once_it_is_executed_and_not_applied_before() {
    let others = [B, C, NodeId(8), NodeId(9)];
    let mut story = Story::new();
    under_way(&mut story, put("v1"));
    let out = story.change_ring(&others);
    assert_eq!(outcome(&out), (Outcome::Unknown, Some(Code::RingChanged)));

    let mut story = Story::new();
    story.ask(Request::Write(delete()));
    story.execute();
    let out = story.change_ring(&others);
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::RingChanged)));
    assert!(story.coordinator.is_empty());
}

/// B acknowledges, loses its disk and comes back under a raised generation; C has been read for B's refill already. If
/// what C acknowledges now counted together with what B has lost, the write would be committed with one copy.
#[test]
fn what_was_acknowledged_under_one_digest_does_not_count_beside_what_is_acknowledged_under_another() {
    let mut story = Story::new();
    story.config.requests_max = 100;
    let w = Level::All;
    let dot = under_way(&mut story, Write { w, ..put("v1") });
    story.sync();
    let before = story.last_request();
    assert_eq!(story.stored_by(B, dot.at), []);
    let record = story.stored();
    let out = story.change_ring(&[OWN, B, C]);
    assert_eq!(out, [story.replicate(B, &record), story.replicate(C, &record)], "all are asked again");
    assert_ne!(story.last_request(), before);
    // The late acknowledgements of the old life and under the old digest are heard by nobody.
    story.execute();
    story.sync();
    assert_eq!(story.hear(B, stored(before, dot.at)), []);
    assert_eq!(story.hear(C, stored(before, dot.at)), []);
    assert_eq!(story.stored_by(C, dot.at), []);
    let written = written_answer(&story.stored_by(B, dot.at));
    assert_eq!(
        (written.outcome, written.dot, written.acks),
        (Outcome::Committed, Some(dot), vec![OWN, C, B])
    );
}

#[test]
fn a_put_that_was_still_reading_reads_again_under_another_digest() {
    let mut story = Story::new();
    story.ask(Request::Write(delete()));
    story.execute();
    let before = story.last_request();
    let out = story.change_ring(&[OWN, B, C]);
    assert_eq!(out, [story.fetch(B)]);
    assert_eq!(story.hear(B, fetched(before, None)), []);
    story.execute();
    story.fetched_from(B, None);
    story.execute();
    story.sync();
    assert!(story.stored().is_tombstone());
}

#[test]
fn an_owner_without_a_vote_runs_puts_and_its_own_copy_counts_unless_it_takes_no_part_at_all() {
    let mut story = Story::new();
    story.lose(false);
    let dot = under_way(&mut story, put("v1"));
    story.sync();
    assert_eq!(written_answer(&story.stored_by(B, dot.at)).outcome, Outcome::Committed);

    let mut story = Story::new();
    story.lose(true);
    let out = story.ask(Request::Write(put("v1")));
    assert!(matches!(out[..], [Output::Send { message: PeerMessage::Forward { .. }, .. }]), "{out:?}");
    let out = story.forwarded(B, 1, Request::Write(put("v2")));
    assert!(
        matches!(
            &out[..],
            [Output::Send { message: PeerMessage::Forwarded { answer: Answer::Written(written), .. }, .. }]
                if written.outcome == Outcome::NotApplied
        ),
        "{out:?}"
    );
}

#[test]
fn a_node_between_two_actors_writes_nothing() {
    let mut story = Story::new();
    story.author.doubt();
    let out = story.ask(Request::Write(put("v1")));
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::NotReady)));
    assert!(story.waiting.is_empty());
}

#[test]
fn an_owner_that_cannot_be_reached_is_noted_as_having_missed_the_write() {
    let mut story = Story::new();
    story.peers.gone.push(C);
    under_way(&mut story, put("v1"));
    assert_eq!(story.missed, [(C, Slot::of_key(&key()))]);
}

#[test]
fn a_coordinator_that_has_missed_what_the_client_saw_asks_a_majority_first() {
    let mut story = Story::new();
    let seen = written(7, Some("v1"));
    let context = Some(story.context(&seen));
    story.ask(Request::Write(Write { context: context.clone(), ..put("v2") }));
    let out = story.execute();
    assert_eq!(out, [story.fetch(B)], "its own disk is asked again, too");
    story.execute();
    assert_eq!(story.fetched_from(B, Some(&seen)), []);
    story.execute();
    let record = story.stored();
    assert_eq!(record.values(), ["v2"]);
    // The mark of the operation that v1 came from is what a second attempt of it will be recognised by.
    assert!(mark(&record, seen.operations().iter().next().unwrap().operation).is_some());

    // Nobody can be asked: a client that wants one copy gets it.
    let mut story = Story::new();
    story.peers.gone = vec![B, C];
    story.ask(Request::Write(Write { context, w: Level::One, ..put("v2") }));
    story.execute();
    story.execute();
    assert_eq!(written_answer(&story.sync()).outcome, Outcome::Committed);
}

#[test]
fn a_coordinator_that_has_missed_something_goes_on_when_those_whom_it_asked_go_away() {
    let mut story = Story::new();
    let seen = written(7, Some("v1"));
    let context = Some(story.context(&seen));
    story.ask(Request::Write(Write { context, w: Level::One, ..put("v2") }));
    story.execute();
    story.execute();
    story.peers.gone = vec![B, C];
    story.pass(story.config.resend_after);
    story.execute();
    assert_eq!(written_answer(&story.sync()).outcome, Outcome::Committed);
}

#[test]
fn a_put_whose_record_is_older_than_a_round_that_an_owner_has_completed_sends_what_its_own_store_holds_now() {
    let mut story = Story::new();
    story.ask(Request::Write(put("v1")));
    story.execute();
    let sent = story.stored();
    // Its own store has not been part of that round yet, and would say the same again.
    assert_eq!(story.refused_by(B, PeerRefusal::Reaped), []);
    assert_eq!(story.execute(), []);

    let standing = Standing { raised: ReapEpoch(1), ..Standing::default() };
    story.epochs.became_durable(Slot::of_key(&key()), standing);
    assert_eq!(story.refused_by(B, PeerRefusal::Reaped), []);
    story.execute();
    let out = story.sync();
    let replicated = |to| {
        out.iter().any(|output| {
            matches!(output, Output::Send { to: Destination::Node { id, .. },
                message: PeerMessage::Replicate { epoch: ReapEpoch(1), record, .. } } if *id == to && *record == sent)
        })
    };
    assert!(replicated(B) && replicated(C), "{out:?}");
}
