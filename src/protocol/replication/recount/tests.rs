use std::time::Duration;

use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::output::{Destination, Output};
use crate::protocol::replication::fixture::*;
use crate::protocol::replication::hints::Hints;
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::Timestamp;
use crate::protocol::wire::peer::PeerMessage;

/// A node that has just started and holds a record of a key that others own.
fn restarted() -> Story {
    let mut story = Story::among(&[B, C, STRANGER]);
    story.disk.insert(key(), written(7, Some("v1")));
    story.restart_hints();
    story
}

fn asked_for(story: &mut Story) -> Vec<Output> {
    story.hear(B, PeerMessage::AskHints { request: RequestId(9), slots: vec![Slot::of_key(&key())] })
}

fn targets(out: &[Output]) -> Vec<(NodeId, RequestId)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Send {
                to: Destination::Node { id, .. },
                message: PeerMessage::Replicate { request, .. },
            } => Some((*id, *request)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_hint_of_a_former_life_is_found_and_brought_to_all_owners() {
    let mut story = restarted();
    assert_eq!(asked_for(&mut story), [], "nobody knows yet what lies here");
    assert_eq!(story.look_at_hints(Duration::ZERO), []);
    assert_eq!(story.execute(), []);
    assert_eq!((story.hints.len(), story.hints.is_counted()), (1, true));
    assert_eq!(asked_for(&mut story), [], "it keeps one");

    story.look_at_hints(Duration::from_millis(100));
    let sent = targets(&story.execute());
    let mut nodes: Vec<NodeId> = sent.iter().map(|(node, _)| *node).collect();
    nodes.sort();
    assert_eq!(nodes, [B, C, STRANGER]);
    for (node, request) in sent {
        story.hear(node, stored(request, Timestamp(0)));
    }
    story.execute();
    story.sync();
    assert_eq!((story.hints.len(), story.disk.len()), (0, 0));
    let slots = vec![Slot::of_key(&key())];
    assert_eq!(asked_for(&mut story), [send(B, PeerMessage::NoHints { request: RequestId(9), slots })]);
}

#[test]
fn what_an_owner_holds_is_no_hint() {
    let mut story = Story::new();
    story.disk.insert(key(), written(7, Some("v1")));
    story.restart_hints();
    story.look_at_hints(Duration::ZERO);
    story.execute();
    assert_eq!((story.hints.len(), story.hints.is_counted()), (0, true));
}

#[test]
fn a_slot_that_is_not_trusted_is_asked_about_until_it_is() {
    let mut story = restarted();
    story.is_trusted = false;
    story.look_at_hints(Duration::ZERO);
    story.execute();
    assert_eq!((story.hints.len(), story.hints.is_counted()), (0, false));
    assert_eq!(asked_for(&mut story), []);
    story.is_trusted = true;
    story.look_at_hints(Duration::from_millis(500));
    story.execute();
    assert!(!story.hints.is_counted(), "not yet");
    story.look_at_hints(Duration::from_millis(500));
    story.execute();
    assert_eq!((story.hints.len(), story.hints.is_counted()), (1, true));
}

#[test]
fn what_the_own_disk_doubts_is_looked_at_again_when_it_has_dropped_what_it_cannot_read() {
    let mut story = restarted();
    story.lost.push(key());
    for _ in 0..3 {
        story.look_at_hints(Duration::from_secs(1));
        story.execute();
        assert_eq!((story.hints.len(), story.hints.is_counted()), (0, false));
    }
    story.lost.clear();
    story.disk.remove(&key());
    story.look_at_hints(Duration::from_secs(1));
    story.execute();
    assert_eq!((story.hints.len(), story.hints.is_counted()), (0, true));
}

#[test]
fn a_first_start_has_to_look_too() {
    // It cannot know that it is the first.
    assert!(!Hints::parse(&Default::default()).unwrap().is_counted());
}
