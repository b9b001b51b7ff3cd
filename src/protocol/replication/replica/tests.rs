use crate::protocol::causality::Refusal;
use crate::protocol::id::{ReapEpoch, RequestId};
use crate::protocol::output::Output;
use crate::protocol::replication::fixture::*;
use crate::protocol::ring::view::SlotDigest;
use crate::protocol::time::{Timestamp, WallTime};
use crate::protocol::wire::client::Request;
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

const REQUEST: RequestId = RequestId(77);

fn replicate(story: &Story, record: &crate::protocol::causality::Record) -> PeerMessage {
    PeerMessage::Replicate {
        request: REQUEST,
        digest: story.digest(),
        epoch: ReapEpoch(0),
        actor: OTHER,
        key: key(),
        record: record.clone(),
    }
}

fn fetch(story: &Story) -> PeerMessage {
    PeerMessage::Fetch { request: REQUEST, digest: story.digest(), key: key() }
}

fn refused(reason: PeerRefusal) -> Output {
    send(B, PeerMessage::Refused { request: REQUEST, reason })
}

#[test]
fn a_record_is_acknowledged_when_it_is_in_the_synced_log_and_not_before() {
    let mut story = Story::new();
    let record = written(5, Some("v1"));
    assert_eq!(story.hear(B, replicate(&story, &record)), []);
    assert_eq!(story.execute(), []);
    let stored = [send(B, stored(REQUEST, Timestamp(5)))];
    assert_eq!(story.sync(), stored);
    // What is repeated is answered again, and at once, as it is on disk already.
    story.hear(B, replicate(&story, &record));
    assert_eq!(story.execute(), stored);
}

#[test]
fn a_repeated_record_that_is_not_durable_yet_is_not_acknowledged_either() {
    let mut story = Story::new();
    let record = written(5, Some("v1"));
    story.hear(B, replicate(&story, &record));
    story.execute();
    story.hear(B, replicate(&story, &record));
    assert_eq!(story.execute(), []);
    assert_eq!(story.sync().len(), 2);
}

#[test]
fn a_record_from_the_future_is_merged_like_any_other() {
    let mut story = Story::new();
    let ahead = Timestamp::at(WallTime(WALL.0 + 3_600_000));
    let record = written(ahead.0, Some("v1"));
    story.hear(B, replicate(&story, &record));
    story.execute();
    assert_eq!(story.stored(), record);
    let issued = story.author.issue(story.now.wall).unwrap();
    assert!(issued.at < Timestamp::at(WallTime(WALL.0 + 500)));
    assert!(story.author.issue(story.now.wall).is_some());
}

#[test]
fn a_repair_is_merged_and_nobody_is_told() {
    let mut story = Story::new();
    let record = written(5, Some("v1"));
    let PeerMessage::Replicate { digest, epoch, actor, key, record, .. } = replicate(&story, &record) else {
        unreachable!()
    };
    let repair = PeerMessage::Replicate { request: RequestId(0), digest, epoch, actor, key, record };
    story.hear(B, repair);
    story.execute();
    assert_eq!(story.sync(), []);
    assert_eq!(story.stored().values(), ["v1"]);
    assert!(story.desk.is_empty());
}

#[test]
fn a_fetch_is_answered_as_the_record_stood_once_that_is_durable() {
    let mut story = Story::new();
    story.ask(Request::Write(put("v1")));
    story.execute();
    let stood = story.stored();
    story.hear(B, fetch(&story));
    assert_eq!(story.execute(), []);
    story.ask(Request::Write(crate::protocol::wire::client::Write { operation: operation(2), ..put("v2") }));
    story.execute();
    assert_eq!(story.sync(), [send(B, fetched(REQUEST, Some(&stood)))]);
}

#[test]
fn an_absent_key_is_answered_and_a_lost_one_is_refused() {
    let mut story = Story::new();
    story.hear(B, fetch(&story));
    assert_eq!(story.execute(), [send(B, fetched(REQUEST, None))]);
    story.lost.push(key());
    story.hear(B, fetch(&story));
    assert_eq!(story.execute(), [refused(PeerRefusal::Lost)]);
    story.hear(B, replicate(&story, &written(5, None)));
    assert_eq!(story.execute(), [refused(PeerRefusal::Lost)]);
}

#[test]
fn what_the_disk_refuses_is_refused() {
    for (refusal, reason) in
        [(Refusal::DiskFull, PeerRefusal::DiskFull), (Refusal::Overloaded, PeerRefusal::Overloaded)]
    {
        let mut story = Story::new();
        story.refusing = Some(refusal);
        story.hear(B, replicate(&story, &written(5, None)));
        assert_eq!(story.execute(), [refused(reason)]);
    }
}

#[test]
fn who_believes_in_another_ring_is_refused_with_the_entries_of_this_one() {
    let mut story = Story::new();
    let owners = story.view.ring().owners_of_key(&key()).to_vec();
    let reason = PeerRefusal::OtherRing(owners.into_iter().map(entry).collect());
    let digest = SlotDigest(story.digest().0 + 1);
    let out = story.hear(B, PeerMessage::Fetch { request: REQUEST, digest, key: key() });
    assert_eq!(out, [refused(reason.clone())]);
    let record = written(5, Some("v1"));
    let (epoch, actor) = (ReapEpoch(0), OTHER);
    let other = PeerMessage::Replicate { request: REQUEST, digest, epoch, actor, key: key(), record };
    assert_eq!(story.hear(B, other), [refused(reason)]);
    assert!(story.waiting.is_empty());
}

#[test]
fn who_owns_nothing_stores_nothing() {
    let mut story = Story::among(&[B, C, STRANGER]);
    let out = story.hear(B, replicate(&story, &written(5, Some("v1"))));
    assert!(matches!(
        &out[..],
        [Output::Send {
            message: PeerMessage::Refused { reason: PeerRefusal::OtherRing(entries), .. },
            ..
        }] if entries.len() == 3
    ));
    assert!(story.waiting.is_empty());
}

#[test]
fn more_than_the_disk_may_owe_is_refused_at_once() {
    let mut story = Story::new();
    story.config.requests_max = 1;
    for _ in 0..4 {
        assert_eq!(story.hear(B, fetch(&story)), []);
    }
    assert_eq!(story.hear(B, fetch(&story)), [refused(PeerRefusal::Overloaded)]);
    story.execute();
    assert_eq!(story.hear(B, fetch(&story)), []);
}
