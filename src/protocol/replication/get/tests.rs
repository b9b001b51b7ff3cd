use std::time::Duration;

use crate::protocol::causality::{Record, Refusal};
use crate::protocol::id::{NodeId, ReapEpoch};
use crate::protocol::replication::fixture::*;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::epochs::Standing;
use crate::protocol::time::Timestamp;
use crate::protocol::wire::client::{Answer, Code, Level, Read, ReadAnswer, Request};
use crate::protocol::wire::peer::PeerRefusal;

fn shown(story: &Story, record: &Record, replies: &[NodeId]) -> Answer {
    Answer::Read(ReadAnswer {
        available: true,
        values: record.siblings().iter().filter(|sibling| sibling.value.is_some()).cloned().collect(),
        deleted: record.is_tombstone(),
        context: Some(story.context(record)),
        replies: replies.to_vec(),
        problem: None,
    })
}

fn atomic() -> Request {
    Request::Read(Read { atomic: true, ..get() })
}

#[test]
fn a_get_asks_as_many_as_it_needs_merges_what_they_say_and_repairs_them_behind_the_answer() {
    let mut story = Story::new();
    let mine = written(5, Some("v1"));
    let theirs = overwritten(&mine, 6, Some("v2"));
    story.disk.insert(key(), mine.clone());
    assert_eq!(story.ask(Request::Read(get())), [story.fetch(B)]);
    assert_eq!(story.execute(), []);
    let out = story.fetched_from(B, Some(&theirs));
    assert_eq!(out, [story.respond(shown(&story, &theirs, &[OWN, B]))]);
    assert_eq!(story.stored(), mine);
    story.execute();
    assert_eq!(story.stored(), theirs);
}

#[test]
fn concurrent_values_are_all_shown_and_each_replier_gets_what_it_lacks() {
    let mut story = Story::new();
    story.ask(Request::Write(put("mine")));
    story.execute();
    story.pass(PATIENCE);
    story.sync();
    let (mine, theirs) = (story.stored(), written(5, Some("theirs")));
    story.ask(Request::Read(get()));
    story.execute();
    let out = story.fetched_from(B, Some(&theirs));
    let merged = mine.merged(&theirs);
    let answer = read_answer(&out);
    assert_eq!(
        answer.values.iter().map(|s| s.value.clone().unwrap()).collect::<Vec<_>>(),
        ["theirs", "mine"]
    );
    assert_eq!(answer.context, Some(story.context(&merged)));
    assert_eq!(out[..1], [story.repair(B, &merged)]);
    story.execute();
    assert_eq!(story.stored(), merged);
}

#[test]
fn a_deletion_is_repaired_like_a_value() {
    let mut story = Story::new();
    let old = written(5, Some("v1"));
    let deleted = overwritten(&old, 6, None);
    story.disk.insert(key(), deleted.clone());
    story.ask(Request::Read(get()));
    story.execute();
    let out = story.fetched_from(B, Some(&old));
    assert_eq!(out, [story.repair(B, &deleted), story.respond(shown(&story, &deleted, &[OWN, B]))]);
    assert!(read_answer(&out).deleted && read_answer(&out).values.is_empty());
}

#[test]
fn a_reply_from_before_a_round_that_another_owner_has_completed_does_not_count_and_is_asked_for_once_more() {
    let mut story = Story::new();
    let (old, new) = (written(5, Some("reaped long ago")), written(9, Some("v2")));
    story.disk.insert(key(), new.clone());
    let standing = Standing { raised: ReapEpoch(1), committed: ReapEpoch(1), ..Standing::default() };
    let _ = story.epochs.ask(Slot::of_key(&key()), standing);
    story.epochs.became_durable(Slot::of_key(&key()), standing);
    story.ask(Request::Read(get()));
    story.execute();
    let fetch = story.fetch(B);
    assert_eq!(story.fetched_from(B, Some(&old)), [fetch], "B had not even promised to take part");
    // Whoever replies from before it once more has lost what it promised; another owner is asked.
    let fetch = story.fetch(C);
    assert_eq!(story.fetched_from(B, Some(&old)), [fetch]);
    let out = story.hear(C, fetched_under(story.request(), ReapEpoch(1), Some(&new)));
    assert_eq!(out, [story.respond(shown(&story, &new, &[OWN, C]))]);
}

#[test]
fn an_absent_key_has_no_values_and_no_context() {
    let mut story = Story::new();
    story.ask(Request::Read(get()));
    story.execute();
    let answer = read_answer(&story.fetched_from(B, None));
    assert_eq!((answer.available, answer.deleted, answer.context), (true, false, None));
}

#[test]
fn equal_bytes_are_shown_once_under_the_oldest_dot() {
    let twice = written(9, Some("same"));
    let mut story = Story::new();
    story.ask(Request::Write(put("same")));
    story.execute();
    story.sync();
    let mine = story.stored();
    let merged = mine.merged(&twice);
    assert_eq!(merged.siblings().len(), 2);
    let shown = super::shown(&merged);
    assert_eq!(shown.iter().map(|sibling| sibling.dot.at).collect::<Vec<_>>(), [Timestamp(9)]);
}

#[test]
fn the_own_replica_does_not_reply_before_what_it_read_is_durable() {
    let mut story = Story::new();
    story.ask(Request::Write(put("v1")));
    story.execute();
    story.ask(Request::Read(get()));
    story.execute();
    let mine = story.stored();
    assert_eq!(story.fetched_from(B, Some(&mine)), []);
    let out = story.sync();
    assert_eq!(read_answer(&out).replies, [B, OWN]);
}

#[test]
fn levels_ask_as_many_as_they_say() {
    let mut story = Story::new();
    assert_eq!(story.ask(Request::Read(Read { r: Level::One, ..get() })), []);
    assert_eq!(read_answer(&story.execute()).replies, [OWN]);

    let out = story.ask(Request::Read(Read { r: Level::All, ..get() }));
    assert_eq!(out, [story.fetch(B), story.fetch(C)]);
    story.execute();
    assert_eq!(story.fetched_from(B, None), []);
    assert_eq!(read_answer(&story.fetched_from(C, None)).replies, [OWN, B, C]);
}

#[test]
fn a_slow_owner_is_hedged_after_the_usual_time() {
    let mut story = Story::new();
    let usual = story.latency.p95();
    story.ask(Request::Read(get()));
    story.execute();
    assert_eq!(story.pass(usual - Duration::from_micros(1)), []);
    assert_eq!(story.pass(Duration::from_micros(1)), [story.fetch(C)]);
    assert_eq!(read_answer(&story.fetched_from(C, None)).replies, [OWN, C]);
    // The hedge answered at once: it says nothing about the time that the first one takes.
    assert!(story.latency.p95() < usual);
}

#[test]
fn silent_owners_are_asked_again_and_the_own_disk_is_not() {
    let mut story = Story::new();
    story.ask(Request::Read(Read { r: Level::All, ..get() }));
    let asked = story.waiting.len();
    assert_eq!(story.pass(Duration::from_millis(250)), [story.fetch(B), story.fetch(C)]);
    assert_eq!(story.waiting.len(), asked);
    story.fetched_from(B, None);
    assert_eq!(story.pass(Duration::from_millis(500)), [story.fetch(C)]);
}

#[test]
fn a_refusal_is_made_up_for_by_the_next_owner() {
    let mut story = Story::new();
    story.ask(Request::Read(get()));
    story.execute();
    assert_eq!(story.refused_by(B, PeerRefusal::NotReady), [story.fetch(C)]);
    assert_eq!(read_answer(&story.fetched_from(C, None)).replies, [OWN, C]);
}

#[test]
fn a_lost_record_is_no_reply() {
    let mut story = Story::new();
    story.lost.push(key());
    let record = written(5, Some("v1"));
    story.ask(Request::Read(get()));
    assert_eq!(story.execute(), [story.fetch(C)]);
    assert_eq!(story.fetched_from(B, Some(&record)), []);
    let out = story.refused_by(C, PeerRefusal::Lost);
    let answer = read_answer(&out);
    assert_eq!((answer.available, answer.problem.map(|p| p.code)), (false, Some(Code::RecordLost)));
}

#[test]
fn nobody_is_heard_who_was_not_asked() {
    let mut story = Story::new();
    let lie = written(5, Some("lie"));
    story.ask(Request::Read(get()));
    story.execute();
    assert_eq!(story.fetched_from(STRANGER, Some(&lie)), []);
    assert_eq!(story.fetched_from(C, Some(&lie)), []);
    assert_eq!(read_answer(&story.fetched_from(B, None)).values, []);
}

#[test]
fn a_get_without_a_quorum_in_reach_asks_nobody() {
    let mut story = Story::new();
    story.peers.gone = vec![B, C];
    let answer = read_answer(&story.ask(Request::Read(get())));
    assert_eq!((answer.available, answer.problem.map(|p| p.code)), (false, Some(Code::Unavailable)));
    assert!(story.waiting.is_empty());
}

#[test]
fn a_get_that_nobody_answers_ends_at_its_deadline() {
    let mut story = Story::new();
    story.ask(Request::Read(get()));
    let answer = read_answer(&story.pass(PATIENCE));
    assert_eq!((answer.available, answer.problem.map(|p| p.code)), (false, Some(Code::Timeout)));
    assert!(story.coordinator.is_empty());
}

#[test]
fn an_atomic_get_that_found_a_majority_equal_writes_nothing_back() {
    let mut story = Story::new();
    let record = written(5, Some("v1"));
    story.disk.insert(key(), record.clone());
    story.ask(atomic());
    story.execute();
    let out = story.fetched_from(B, Some(&record));
    assert_eq!(out, [story.respond(shown(&story, &record, &[OWN, B]))]);
}

#[test]
fn an_atomic_get_answers_when_a_majority_holds_what_it_shows() {
    let mut story = Story::new();
    let newer = written(5, Some("v1"));
    story.disk.insert(key(), newer.clone());
    story.ask(atomic());
    story.execute();
    let out = story.fetched_from(B, None);
    assert_eq!(out, [story.replicate_of_another(B, &newer), story.replicate_of_another(C, &newer)]);
    let again = [story.replicate_of_another(B, &newer), story.replicate_of_another(C, &newer)];
    assert_eq!(story.pass(Duration::from_millis(250)), again);
    // Whoever has less than the write that is shown has not merged what it was sent.
    assert_eq!(story.stored_by(C, Timestamp(4)), []);
    let out = story.stored_by(C, Timestamp(5));
    assert_eq!(out, [story.respond(shown(&story, &newer, &[OWN, B]))]);
}

#[test]
fn an_atomic_get_counts_its_own_replica_once_its_log_is_synced() {
    let mut story = Story::new();
    let newer = written(5, Some("v1"));
    story.ask(atomic());
    story.execute();
    let out = story.fetched_from(B, Some(&newer));
    assert_eq!(out, [story.replicate_of_another(C, &newer)]);
    assert_eq!(story.execute(), []);
    assert_eq!(story.stored(), newer);
    let out = story.sync();
    assert_eq!(out, [story.respond(shown(&story, &newer, &[OWN, B]))]);
}

#[test]
fn an_atomic_get_that_too_few_can_take_over_shows_nothing() {
    let mut story = Story::new();
    story.refusing = Some(Refusal::DiskFull);
    story.ask(atomic());
    story.execute();
    story.fetched_from(B, Some(&written(5, Some("v1"))));
    assert_eq!(story.execute(), []);
    let answer = read_answer(&story.refused_by(C, PeerRefusal::DiskFull));
    assert_eq!((answer.available, answer.values.len()), (false, 0));
}

#[test]
fn a_get_begins_anew_under_another_digest_unless_its_coordinator_is_no_owner_any_more() {
    let mut story = Story::new();
    story.ask(Request::Read(get()));
    let before = story.last_request();
    assert_eq!(story.change_ring(&[OWN, B, C]), [story.fetch(B)]);
    assert_eq!(story.hear(B, fetched(before, None)), []);
    story.execute();
    let answer = read_answer(&story.fetched_from(B, Some(&written(5, Some("v1")))));
    assert_eq!((answer.available, answer.values.len()), (true, 1));

    let mut story = Story::new();
    story.ask(Request::Read(get()));
    let answer = read_answer(&story.change_ring(&[B, C, NodeId(8), NodeId(9)]));
    assert_eq!(answer.problem.map(|p| p.code), Some(Code::RingChanged));
}

#[test]
fn a_repair_that_the_account_does_not_cover_is_left_to_the_exchange_with_that_owner() {
    let older = written(5, Some("v1"));
    let newer = overwritten(&older, 6, None);
    let slot = crate::protocol::ring::slot::Slot::of_key(&key());
    for (mine, theirs) in [(&newer, &older), (&older, &newer)] {
        let mut story = Story::new();
        story.disk.insert(key(), mine.clone());
        // Exchanges, say, have spent what a second brings.
        story.ledger.charge(story.now.monotonic, 10_000, 0);
        story.ask(Request::Read(get()));
        story.execute();
        let out = story.fetched_from(B, Some(theirs));
        assert_eq!(out, [story.respond(shown(&story, &newer, &[OWN, B]))]);
        assert!(story.waiting.is_empty(), "nor is the own replica repaired");
        assert_eq!(story.missed, [(B, slot)]);
        assert_eq!((story.ledger.read_repairs().done, story.ledger.read_repairs().left), (0, 1));
        // A second later there is room again.
        story.pass(Duration::from_secs(2));
        story.ask(Request::Read(get()));
        story.execute();
        let out = story.fetched_from(B, Some(theirs));
        assert_eq!(out.len() + story.waiting.len(), 2, "an answer and a repair");
        assert_eq!((story.ledger.read_repairs().done, story.ledger.read_repairs().left), (1, 1));
    }
}

#[test]
fn what_an_atomic_get_writes_back_waits_for_no_account() {
    let mut story = Story::new();
    let newer = written(5, Some("v1"));
    story.disk.insert(key(), newer.clone());
    story.ledger.charge(story.now.monotonic, 1_000_000, 0);
    story.ask(atomic());
    story.execute();
    let out = story.fetched_from(B, None);
    assert_eq!(out, [story.replicate_of_another(B, &newer), story.replicate_of_another(C, &newer)]);
    assert_eq!(story.ledger.read_repairs(), Default::default());
}

#[test]
fn an_atomic_get_writes_back_again_under_another_digest() {
    let mut story = Story::new();
    let newer = written(5, Some("v1"));
    story.ask(atomic());
    story.execute();
    story.fetched_from(B, Some(&newer));
    story.execute();
    let before = story.last_request();
    let out = story.change_ring(&[OWN, B, C]);
    assert_eq!(out, [story.replicate_of_another(B, &newer), story.replicate_of_another(C, &newer)]);
    assert_eq!(story.hear(C, stored(before, Timestamp(5))), []);
    story.execute();
    story.sync();
    assert_eq!(read_answer(&story.stored_by(C, Timestamp(5))).values.len(), 1);
}

#[test]
fn an_owner_without_a_vote_reads_from_the_others_and_one_of_them_is_not_enough() {
    let mut story = Story::new();
    story.lose(false);
    let out = story.ask(Request::Read(get()));
    assert_eq!(out, [story.fetch(B), story.fetch(C)]);
    assert!(story.waiting.is_empty(), "the own copy is not asked");
    assert_eq!(story.fetched_from(B, None), []);
    let answer = read_answer(&story.refused_by(C, PeerRefusal::Refilling));
    assert_eq!((answer.available, answer.problem.map(|p| p.code)), (false, Some(Code::RecordLost)));
}

#[test]
fn a_vote_that_is_lost_while_the_disk_reads_is_not_cast() {
    let mut story = Story::new();
    story.ask(Request::Read(get()));
    story.lose(true);
    let out = story.execute();
    assert_eq!(out, [story.fetch(C)]);
}
