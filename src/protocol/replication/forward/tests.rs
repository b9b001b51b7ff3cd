use std::time::Duration;

use super::refusal;
use crate::protocol::id::NodeId;
use crate::protocol::replication::fixture::*;
use crate::protocol::wire::client::{Answer, Code, Outcome, Problem, Request, Write, Written};
use crate::protocol::wire::peer::PeerRefusal;

const D: NodeId = NodeId(4);
const PAUSE: Duration = Duration::from_secs(1);

/// A node that owns nothing, and the owners in the order in which it turns to them.
fn story() -> (Story, [NodeId; 3]) {
    let story = Story::among(&[B, C, D]);
    let owners = story.view.ring().owners_of_key(&key()).to_vec();
    (story, [owners[0], owners[1], owners[2]])
}

fn refused(code: Code) -> Answer {
    refusal(&write(), Problem::new(code, "no"))
}

fn write() -> Request {
    Request::Write(put("v1"))
}

fn attempt(attempt: u32) -> Request {
    Request::Write(Write { attempt, ..put("v1") })
}

fn committed() -> Answer {
    Answer::Written(Written {
        outcome: Outcome::Committed,
        context: None,
        dot: None,
        siblings: 1,
        acks: vec![],
        hinted: vec![],
        problem: None,
    })
}

#[test]
fn an_operation_goes_to_the_first_owner_and_its_answer_to_the_client() {
    let (mut story, owners) = story();
    let out = story.ask(write());
    assert_eq!(out, [story.forward(owners[0], PATIENCE * 7 / 8, write())]);
    let out = story.answered_by(owners[0], committed());
    assert_eq!(out, [story.respond(committed())]);
    assert_eq!(story.answered_by(owners[0], committed()), []);
}

#[test]
fn owners_that_cannot_be_reached_are_passed_over() {
    let (mut story, owners) = story();
    story.peers.gone = vec![owners[0]];
    let out = story.ask(write());
    assert_eq!(out, [story.forward(owners[1], PATIENCE * 7 / 8, write())]);
    story.peers.gone = owners.to_vec();
    assert_eq!(outcome(&story.ask(write())), (Outcome::NotApplied, Some(Code::Unavailable)));
}

#[test]
fn what_was_passed_on_is_executed_once_and_never_passed_on_again() {
    let mut story = Story::new();
    assert_eq!(story.forwarded(STRANGER, 7, write()), []);
    assert_eq!(story.waiting.len(), 1);
    assert_eq!(story.forwarded(STRANGER, 7, write()), []);
    assert_eq!((story.waiting.len(), story.coordinator.len()), (1, 1));

    let (mut story, _) = self::story();
    let out = story.forwarded(STRANGER, 7, write());
    let [crate::protocol::output::Output::Send { to, message }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(*to, crate::protocol::output::Destination::Node { id: STRANGER, address: None });
    let crate::protocol::wire::peer::PeerMessage::Forwarded { answer: Answer::Written(written), .. } =
        message
    else {
        panic!("{message:?}")
    };
    assert_eq!(written.outcome, Outcome::NotApplied);
    assert_eq!(written.problem.as_ref().map(|p| p.code), Some(Code::RingChanged));
}

#[test]
fn whether_an_operation_may_have_started_is_asked_by_the_node_that_takes_it_and_by_no_other() {
    let an_hour_ahead = |attempt| {
        let started = crate::protocol::time::WallTime(WALL.0 + 3_600_000);
        let operation = crate::protocol::causality::OperationId { started, nonce: 1 };
        Request::Write(Write { operation, attempt, ..put("v1") })
    };
    // The node that took it hears other clocks than this one, and told the client the time.
    for attempt in [1, 2] {
        let mut story = Story::new();
        assert_eq!(story.forwarded(STRANGER, 7, an_hour_ahead(attempt)).len(), attempt as usize - 1);
        assert_eq!(story.coordinator.len(), 1);
    }
    // A node that passes on asks just like one that owns the key, before anything leaves it.
    for mut story in [self::story().0, Story::new()] {
        let out = story.ask(an_hour_ahead(1));
        assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::BadRequest)));
        assert!(story.coordinator.is_empty());
    }
}

#[test]
fn a_late_copy_of_a_write_that_was_refused_is_not_done() {
    let mut story = Story::new();
    story.peers.gone = vec![B, C];
    assert_eq!(story.forwarded(STRANGER, 7, write()).len(), 1);
    story.peers.gone = vec![];
    assert_eq!(story.forwarded(STRANGER, 7, write()), []);
    assert!(story.waiting.is_empty() && story.coordinator.is_empty());
    story.forwarded(STRANGER, 7, attempt(2));
    assert_eq!(story.coordinator.len(), 1);
}

#[test]
fn silence_sends_a_further_attempt_to_the_next_owner_and_then_round_again() {
    let (mut story, owners) = story();
    story.ask_within(Duration::from_secs(40), write());
    let mut left = Duration::from_secs(40);
    for (number, pause, owner) in [(2, PAUSE, 1), (3, PAUSE * 2, 2), (4, PAUSE * 4, 0), (5, PAUSE * 8, 1)] {
        left -= pause;
        let out = story.pass(pause);
        assert_eq!(out, [story.forward(owners[owner], left * 7 / 8, attempt(number))]);
    }
    let out = story.answered_by(owners[2], committed());
    assert_eq!(out, [story.respond(committed())]);
}

#[test]
fn a_clients_own_further_attempt_stays_one() {
    let (mut story, owners) = story();
    let out = story.ask(attempt(3));
    assert_eq!(out, [story.forward(owners[0], PATIENCE * 7 / 8, attempt(3))]);
    let out = story.pass(PAUSE);
    assert_eq!(out, [story.forward(owners[1], Duration::from_secs(4) * 7 / 8, attempt(4))]);
}

#[test]
fn not_applied_is_said_only_when_every_owner_that_was_asked_has_said_it() {
    let (mut story, owners) = story();
    story.ask(write());
    story.pass(PAUSE);
    assert_eq!(story.answered_by(owners[1], refused(Code::TooManySiblings)), []);
    let out = story.answered_by(owners[0], refused(Code::TooManySiblings));
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::TooManySiblings)));
}

#[test]
fn one_refusal_while_another_owner_is_silent_is_unknown_in_the_end() {
    let (mut story, owners) = story();
    story.ask(write());
    story.pass(PAUSE);
    assert_eq!(story.answered_by(owners[1], refused(Code::TooManySiblings)), []);
    let out = story.pass(PATIENCE);
    assert_eq!(outcome(&out[out.len() - 1..]), (Outcome::Unknown, Some(Code::Timeout)));
}

#[test]
fn who_was_asked_twice_and_refuses_once_may_still_do_it() {
    let (mut story, owners) = story();
    story.peers.gone = vec![owners[1], owners[2]];
    story.ask(write());
    assert_eq!(story.pass(PAUSE).len(), 1);
    assert_eq!(story.answered_by(owners[0], refused(Code::TooManySiblings)), []);
    assert_eq!(story.coordinator.len(), 1);
}

#[test]
fn a_reason_of_one_owners_own_sends_the_operation_to_the_next() {
    for code in [Code::NotReady, Code::Overloaded, Code::DiskFull, Code::RecordLost, Code::Unavailable] {
        let (mut story, owners) = story();
        story.ask(write());
        let next = story.forward(owners[1], PATIENCE * 7 / 8, attempt(2));
        assert_eq!(story.answered_by(owners[0], refused(code)), [next]);
    }
}

#[test]
fn when_no_owner_is_ready_nothing_was_applied() {
    let (mut story, owners) = story();
    story.ask(write());
    assert_eq!(story.refused_by(owners[0], PeerRefusal::NotReady).len(), 1);
    assert_eq!(story.refused_by(owners[1], PeerRefusal::NotReady).len(), 1);
    let out = story.refused_by(owners[2], PeerRefusal::NotReady);
    assert_eq!(outcome(&out), (Outcome::NotApplied, Some(Code::NotReady)));
}

#[test]
fn a_stranger_answers_nothing() {
    let (mut story, _) = story();
    story.ask(write());
    assert_eq!(story.answered_by(STRANGER, committed()), []);
    assert_eq!(story.coordinator.len(), 1);
}

#[test]
fn a_read_that_nobody_answers_is_unavailable() {
    let (mut story, _) = story();
    story.ask(Request::Read(get()));
    let out = story.pass(PATIENCE);
    let answer = read_answer(&out);
    assert_eq!((answer.available, answer.problem.map(|p| p.code)), (false, Some(Code::Timeout)));
}

#[test]
fn a_node_whose_clock_is_off_passes_writes_on_if_it_can_and_reads_never() {
    let mut story = Story::new();
    story.peers.clock_offset = -501;
    let [first, _] = {
        let owners = story.view.ring().owners_of_key(&key());
        let others: Vec<NodeId> = owners.iter().copied().filter(|node| *node != OWN).collect();
        [others[0], others[1]]
    };
    let out = story.ask(write());
    assert_eq!(out, [story.forward(first, PATIENCE * 7 / 8, write())]);
    story.ask(Request::Read(get()));
    assert_eq!(story.waiting.len(), 1, "the read was not passed on");
    story.forwarded(B, 5, write());
    assert_eq!(story.waiting.len(), 2, "what was passed on was passed on again");
    story.peers.gone = vec![B, C];
    story.ask(Request::Write(Write { w: crate::protocol::wire::client::Level::One, ..put("v") }));
    assert_eq!(story.waiting.len(), 3, "there was nobody to pass it on to");
}
