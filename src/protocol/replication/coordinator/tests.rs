use std::time::Duration;

use crate::protocol::id::RequestId;
use crate::protocol::output::Output;
use crate::protocol::replication::fixture::*;
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Code, Outcome, ReapCause, ReapWait, Request, Write};
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};
use crate::protocol::wire::reap::Reap;

fn explain() -> Request {
    Request::Explain { key: key() }
}

#[test]
fn more_requests_than_may_be_under_way_are_answered_at_once() {
    let mut story = Story::new();
    story.config.requests_max = 1;
    story.ask(Request::Read(get()));
    let out = story.ask(Request::Write(put("v1")));
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::Overloaded)));
    let answer = read_answer(&story.ask(Request::Read(get())));
    assert_eq!(answer.problem.map(|problem| problem.code), Some(Code::Overloaded));
    assert_eq!(story.coordinator.len(), 1);
}

#[test]
fn a_disk_that_owes_too_much_takes_no_more_even_if_nobody_waits_for_it() {
    let mut story = Story::new();
    story.config.requests_max = 1;
    for number in 1..=4 {
        let write = Write { operation: operation(number), ..put("v1") };
        story.ask_within(Duration::from_millis(10), Request::Write(write));
        story.pass(Duration::from_millis(10));
        assert!(story.coordinator.is_empty(), "its client was told that the outcome is unknown");
    }
    let out = story.ask(Request::Write(Write { operation: operation(5), ..put("v1") }));
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::Overloaded)));
    let answer = read_answer(&story.ask(Request::Read(get())));
    assert_eq!(answer.problem.map(|problem| problem.code), Some(Code::Overloaded));
}

#[test]
fn what_has_no_time_left_is_not_begun() {
    let mut story = Story::new();
    let out = story.ask_within(Duration::ZERO, Request::Write(put("v1")));
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::Timeout)));
    assert!(story.waiting.is_empty());
}

#[test]
fn nobody_waits_for_ever() {
    let mut story = Story::new();
    story.ask_within(Duration::from_secs(4_000_000), Request::Write(put("v1")));
    let out = story.pass(Duration::from_secs(60));
    assert_eq!(outcome(&out), (Outcome::Unknown, Some(Code::Timeout)));
    assert_eq!(story.coordinator.next_deadline(), Moment::NEVER);
}

#[test]
fn an_answer_to_a_former_life_is_no_answer_to_this_one() {
    let mut story = Story::new();
    story.ask(Request::Read(get()));
    story.execute();
    let ours = story.request();
    assert!(ours.0 > 1 << 32, "numbers begin where they began in every life");
    for request in [RequestId(0), RequestId(1), RequestId(ours.0 - 1), RequestId(ours.0 + 1)] {
        assert_eq!(story.hear(B, fetched(request, Some(&written(5, Some("old"))))), []);
    }
    assert_eq!(read_answer(&story.fetched_from(B, None)).values, []);
}

#[test]
fn explain_tells_what_each_owner_holds_and_changes_nothing() {
    let mut story = Story::new();
    let (old, new) = (written(5, Some("v1")), overwritten(&written(5, Some("v1")), 6, Some("v2")));
    story.disk.insert(key(), old.clone());
    let asked = story.ask(explain());
    assert_eq!(asked.len(), 2);
    story.execute();
    story.fetched_from(B, Some(&new));
    let out = story.refused_by(C, PeerRefusal::Lost);
    let [crate::protocol::output::Output::Respond { answer: Answer::Explained(told), .. }] = &out[..] else {
        panic!("{out:?}")
    };
    let owners = story.view.ring().owners_of_key(&key());
    assert_eq!(told.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>(), owners);
    for replica in &told.replicas {
        let record = replica.record.clone().map_err(|problem| problem.code);
        let expected = match replica.node {
            OWN => Ok(Some(old.clone())),
            B => Ok(Some(new.clone())),
            _ => Err(Code::RecordLost),
        };
        assert_eq!(record, expected);
    }
    assert!(story.waiting.is_empty() && story.stored() == old);
}

#[test]
fn explain_asks_the_driver_of_the_slot_why_a_deletion_is_still_there() {
    let told = |out: &[Output]| match out {
        [Output::Respond { answer: Answer::Explained(told), .. }] => told.reaping.clone(),
        _ => panic!("{out:?}"),
    };
    let mut story = Story::new();
    let driver = story.view.ring().owners_of_key(&key())[0];
    let slot = Slot::of_key(&key());
    story.disk.insert(key(), written(5, None));
    let wait = ReapWait { cause: ReapCause::Unreachable(C), again_in_ms: 900 };
    for is_answered in [true, false] {
        story.ask(explain());
        let mut out = story.execute();
        out.extend(story.fetched_from(B, None));
        out.extend(story.fetched_from(C, Some(&written(5, None))));
        if driver == OWN {
            assert_eq!(told(&out).unwrap().wait.unwrap().cause, ReapCause::Young, "as its own rounds say");
            continue;
        }
        let request = story.last_request();
        assert_eq!(out, [send(driver, PeerMessage::Reap(Reap::Ask { request, slot }))]);
        let stranger = PeerMessage::Reap(Reap::Told { request, wait: wait.clone() });
        let other = if driver == B { C } else { B };
        assert_eq!(story.hear(other, stranger.clone()), [], "that is not its business");
        let reaping = match is_answered {
            true => told(&story.hear(driver, stranger)).unwrap(),
            false => told(&story.pass(Duration::from_secs(2))).unwrap(),
        };
        assert_eq!(reaping.driver, driver);
        assert_eq!(
            reaping.wait.map_err(|problem| problem.code),
            match is_answered {
                true => Ok(wait.clone()),
                false => Err(Code::Timeout),
            }
        );
    }
}

#[test]
fn explain_says_what_the_driver_waits_for_while_an_owner_is_away() {
    let mut story = Story::new();
    let driver = story.view.ring().owners_of_key(&key())[0];
    story.disk.insert(key(), written(5, None));
    story.peers.gone = vec![if driver == C { B } else { C }];
    story.ask(explain());
    story.execute();
    let wait = ReapWait { cause: ReapCause::Unreachable(C), again_in_ms: 900 };
    let request = story.last_request();
    story.hear(driver, PeerMessage::Reap(Reap::Told { request, wait }));
    let out = story.pass(Duration::from_secs(2));
    let [Output::Respond { answer: Answer::Explained(told), .. }] = &out[..] else { panic!("{out:?}") };
    let reaping = told.reaping.clone().unwrap();
    assert!(reaping.driver == driver && reaping.wait.is_ok(), "{reaping:?}");
}

#[test]
fn explain_does_not_wait_for_the_silent_beyond_the_clients_deadline() {
    let mut story = Story::new();
    story.peers.gone = vec![C];
    story.ask_within(Duration::from_millis(800), explain());
    story.execute();
    assert_eq!(story.pass(Duration::from_millis(699)), []);
    let out = story.pass(Duration::from_millis(1));
    let [crate::protocol::output::Output::Respond { answer: Answer::Explained(told), .. }] = &out[..] else {
        panic!("{out:?}")
    };
    for replica in &told.replicas {
        let code = replica.record.as_ref().err().map(|problem| problem.code);
        assert_eq!(code, (replica.node != OWN).then_some(Code::Timeout));
        assert_eq!(replica.reachable, replica.node != C);
    }
}

#[test]
fn what_is_about_no_key_cannot_be_passed_on() {
    let mut story = Story::new();
    let out = story.forwarded(STRANGER, 1, Request::Topology);
    let [crate::protocol::output::Output::Send { message, .. }] = &out[..] else { panic!("{out:?}") };
    assert!(matches!(
        message,
        PeerMessage::Forwarded { answer: Answer::Refused(problem), .. } if problem.code == Code::BadRequest
    ));
}
