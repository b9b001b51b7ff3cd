use bytes::Bytes;

use super::*;
use crate::protocol::causality::{ContextToken, Dot, Sibling};
use crate::protocol::id::Actor;
use crate::protocol::time::Timestamp;
use crate::protocol::time::WallTime;

fn names() -> Names {
    [(NodeId(1), "n1".to_owned()), (NodeId(2), "n2".to_owned())].into_iter().collect()
}

fn dot(actor: u64, millis: u64) -> Dot {
    Dot { actor: Actor(actor), at: Timestamp::at(WallTime(millis)) }
}

fn context() -> Option<ContextToken> {
    Some(ContextToken::from(Bytes::from_static(&[0xfb, 0xff, 1])))
}

fn operation(line: &str) -> Operation {
    Operation::parse_line(line, false).unwrap()
}

fn written() -> Answer {
    Answer::Written(Written {
        outcome: Outcome::Committed,
        context: context(),
        dot: Some(dot(10, 5)),
        siblings: 1,
        acks: vec![NodeId(2), NodeId(1)],
        hinted: vec![],
        problem: None,
    })
}

fn read(values: Vec<Sibling>) -> ReadAnswer {
    ReadAnswer {
        available: true,
        values,
        deleted: false,
        context: context(),
        replies: vec![NodeId(1), NodeId(0xff)],
        problem: None,
    }
}

fn sibling(actor: u64, millis: u64, value: Option<&'static [u8]>) -> Sibling {
    Sibling { dot: dot(actor, millis), value: value.map(Bytes::from_static) }
}

fn unavailable() -> Problem {
    Problem::new(Code::Unavailable, "1 of 2 owners replied")
}

/// The contract of design: names and order of all fields. Programs read these lines.
#[test]
fn the_json_of_a_put() {
    assert_eq!(
        written().json(&operation("put k v"), &names(), false),
        r#"{"op":"put","key":"k","outcome":"committed","context":"-_8B","dot":"000000000000000a@5.0","siblings":1,"acks":["n1","n2"],"hinted":[],"error":null}"#
    );
    let failed = Answer::failed(&operation("delete k"), unavailable());
    assert_eq!(
        failed.json(&operation("delete k"), &names(), false),
        r#"{"op":"delete","key":"k","outcome":"not_applied","context":null,"dot":null,"siblings":0,"acks":[],"hinted":[],"error":{"code":"unavailable","message":"1 of 2 owners replied"}}"#
    );
}

#[test]
fn the_json_of_a_get() {
    let two = Answer::Read(read(vec![sibling(1, 9, Some(b"new")), sibling(2, 5, Some(&[0xff]))]));
    assert_eq!(
        two.json(&operation("get k"), &names(), false),
        r#"{"op":"get","key":"k","outcome":"ok","values":["new",{"base64":"/w=="}],"deleted":false,"context":"-_8B","replies":["00000000000000ff","n1"],"error":null}"#
    );
    let absent = Answer::Read(ReadAnswer { context: None, replies: vec![], ..read(vec![]) });
    assert_eq!(
        absent.json(&operation("get k"), &names(), false),
        r#"{"op":"get","key":"k","outcome":"ok","values":[],"deleted":false,"context":null,"replies":[],"error":null}"#
    );
    let failed = Answer::failed(&operation("get k"), unavailable());
    assert_eq!(
        failed.json(&operation("get k"), &names(), true),
        r#"{"op":"get","key":{"base64":"aw=="},"outcome":"unavailable","values":[],"deleted":false,"context":null,"replies":[],"error":{"code":"unavailable","message":"1 of 2 owners replied"}}"#
    );
}

#[test]
fn latest_shows_the_newest_write_of_all_actors_or_its_deletion() {
    let latest = operation("get k latest");
    let newest_value = read(vec![sibling(1, 9, Some(b"new")), sibling(2, 5, Some(b"old"))]);
    assert_eq!(shown_values(&newest_value, &latest), [b"new"]);
    let newest_deletion = read(vec![sibling(1, 5, Some(b"old")), sibling(2, 9, None)]);
    assert!(shown_values(&newest_deletion, &latest).is_empty());
    assert_eq!(shown_values(&newest_deletion, &operation("get k")), [b"old"]);
}

#[test]
fn the_json_of_an_explain() {
    let explanation = Explanation {
        slot: 7,
        replicas: vec![
            crate::protocol::wire::client::ReplicaView { node: NodeId(1), reachable: true, record: Ok(None) },
            crate::protocol::wire::client::ReplicaView {
                node: NodeId(2),
                reachable: false,
                record: Err(unavailable()),
            },
        ],
        reaping: None,
    };
    assert_eq!(
        Answer::Explained(Ok(explanation)).json(&operation("explain k"), &names(), false),
        r#"{"op":"explain","key":"k","outcome":"ok","slot":7,"replicas":[{"node":"n1","reachable":true,"siblings":[],"context":[],"error":null},{"node":"n2","reachable":false,"siblings":[],"context":[],"error":{"code":"unavailable","message":"1 of 2 owners replied"}}],"reaping":null,"error":null}"#
    );
}

#[test]
fn a_bad_line_is_answered_by_an_object_too() {
    assert_eq!(
        bad_line_json(3, "usage: get KEY"),
        r#"{"op":null,"line":3,"outcome":"not_applied","error":{"code":"bad_request","message":"usage: get KEY"}}"#
    );
}

#[test]
fn people_get_one_line_that_says_what_to_do() {
    let put = operation("put 'a key' v");
    assert_eq!(written().line(&put, &names(), false), r#""a key": committed at n1, n2  context=-_8B"#);
    let get = operation("get k");
    let two = Answer::Read(read(vec![sibling(1, 9, Some(b"a")), sibling(2, 5, Some(b"b"))]));
    let line = two.line(&get, &names(), false);
    assert!(line.starts_with("k: a | b  (00000000000000ff, n1 replied; 2 concurrent values"), "{line}");
    let failed = Answer::failed(&get, unavailable());
    assert_eq!(failed.line(&get, &names(), false), "k: unavailable: 1 of 2 owners replied");
    let absent = Answer::Read(ReadAnswer { context: None, ..read(vec![]) });
    assert!(absent.line(&get, &names(), false).starts_with("k: absent"));
}

#[test]
fn success_is_what_exit_codes_say() {
    assert!(written().is_success());
    assert!(Answer::Read(read(vec![])).is_success());
    assert!(!Answer::failed(&operation("get k"), unavailable()).is_success());
    assert!(!Answer::failed(&operation("put k v"), unavailable()).is_success());
    assert!(!Answer::failed(&operation("explain k"), unavailable()).is_success());
}
