//! Why a deletion is still there, in words and in JSON.

use std::time::Duration;

use serde::Serialize;

use super::answer::ErrorJson;
use super::names::Names;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{Obstacle, ReapCause, Reaping};

/// The same for programs.
#[derive(Serialize)]
pub(super) struct ReapingJson {
    driver: String,
    waits_for: Option<&'static str>,
    nodes: Vec<String>,
    again_in_ms: Option<u64>,
    error: Option<ErrorJson>,
}

/// One sentence for people.
pub(super) fn sentence(reaping: &Reaping, names: &Names) -> String {
    let wait = match &reaping.wait {
        Ok(wait) => wait,
        Err(problem) => return format!("why the deletion is kept is not known: {problem}"),
    };
    let driver = names.of(reaping.driver);
    let name = |node: &NodeId| names.of(*node);
    let why = match &wait.cause {
        ReapCause::UnderWay => {
            return "the deletion is being forgotten: a round of reaping is under way".to_owned();
        }
        ReapCause::Due => "its round of reaping is due".to_owned(),
        ReapCause::Young => "a retry of an operation on the key may still come".to_owned(),
        ReapCause::Unnoticed => format!("{driver} has not met it since its start"),
        ReapCause::Unreachable(node) => format!("{}, an owner, cannot be reached", name(node)),
        ReapCause::Silent(node) => format!("{}, an owner, did not answer in time", name(node)),
        ReapCause::Unequal => "the owners do not hold it alike".to_owned(),
        ReapCause::Declined(node, obstacle) => match obstacle {
            Obstacle::OtherRing(_) => format!("{} believes in another ring", name(node)),
            Obstacle::Raised(_) => format!("{} has agreed to a newer round", name(node)),
            Obstacle::Hints(holders) => {
                let holders: Vec<String> = holders.iter().map(name).collect();
                format!("{} may keep hints of the slot for {}", holders.join(", "), name(node))
            }
            Obstacle::Untrusted => format!("{} has no vote for the slot", name(node)),
            Obstacle::Busy => format!("{} is starting, stopping or too busy", name(node)),
        },
    };
    format!("the deletion is kept: {why}; {driver} looks again in {}", rounded(wait.again_in_ms))
}

/// What programs read.
pub(super) fn json(reaping: &Reaping, names: &Names) -> ReapingJson {
    let driver = names.of(reaping.driver);
    let wait = match &reaping.wait {
        Ok(wait) => wait,
        Err(problem) => {
            let error = Some(ErrorJson::from(problem));
            return ReapingJson { driver, waits_for: None, nodes: Vec::new(), again_in_ms: None, error };
        }
    };
    let (waits_for, nodes) = match &wait.cause {
        ReapCause::UnderWay => ("round", Vec::new()),
        ReapCause::Due => ("due", Vec::new()),
        ReapCause::Young => ("retries", Vec::new()),
        ReapCause::Unnoticed => ("sweep", Vec::new()),
        ReapCause::Unreachable(node) => ("unreachable", vec![*node]),
        ReapCause::Silent(node) => ("silent", vec![*node]),
        ReapCause::Unequal => ("unequal", Vec::new()),
        ReapCause::Declined(_, Obstacle::Hints(holders)) => ("hints", holders.clone()),
        ReapCause::Declined(node, Obstacle::OtherRing(_)) => ("other_ring", vec![*node]),
        ReapCause::Declined(node, Obstacle::Raised(_)) => ("newer_round", vec![*node]),
        ReapCause::Declined(node, Obstacle::Untrusted) => ("no_vote", vec![*node]),
        ReapCause::Declined(node, Obstacle::Busy) => ("busy", vec![*node]),
    };
    let again_in_ms = Some(wait.again_in_ms);
    ReapingJson { driver, waits_for: Some(waits_for), nodes: names.all(&nodes), again_in_ms, error: None }
}

fn rounded(ms: u64) -> String {
    match Duration::from_millis(ms).as_secs() {
        0 => format!("{ms} ms"),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire::client::{Code, Problem, ReapWait};

    fn names() -> Names {
        [(NodeId(1), "n1".to_owned()), (NodeId(4), "n4".to_owned())].into_iter().collect()
    }

    fn told(cause: ReapCause, again_in_ms: u64) -> (String, String) {
        let reaping = Reaping { driver: NodeId(1), wait: Ok(ReapWait { cause, again_in_ms }) };
        let json = serde_json::to_string(&json(&reaping, &names())).unwrap();
        (sentence(&reaping, &names()), json)
    }

    #[test]
    fn it_says_who_or_what_is_waited_for_and_when_the_driver_looks_again() {
        let (text, json) = told(ReapCause::Unreachable(NodeId(4)), 900);
        assert_eq!(text, "the deletion is kept: n4, an owner, cannot be reached; n1 looks again in 900 ms");
        assert_eq!(
            json,
            r#"{"driver":"n1","waits_for":"unreachable","nodes":["n4"],"again_in_ms":900,"error":null}"#
        );
        let hints = ReapCause::Declined(NodeId(1), Obstacle::Hints(vec![NodeId(4)]));
        let (text, json) = told(hints, 5_000);
        assert_eq!(text, "the deletion is kept: n4 may keep hints of the slot for n1; n1 looks again in 5 s");
        assert!(json.contains(r#""waits_for":"hints","nodes":["n4"]"#), "{json}");
        let (text, _) = told(ReapCause::Young, 61_000);
        assert_eq!(
            text,
            "the deletion is kept: a retry of an operation on the key may still come; n1 looks again in 61 s"
        );
        assert!(told(ReapCause::UnderWay, 0).0.contains("is being forgotten"));
        assert!(told(ReapCause::Unnoticed, 1_800_000).0.ends_with("n1 looks again in 30 min"));
    }

    #[test]
    fn a_driver_that_did_not_say_is_named() {
        let problem = Problem::new(Code::Timeout, "n1 did not say");
        let reaping = Reaping { driver: NodeId(1), wait: Err(problem) };
        assert!(sentence(&reaping, &names()).contains("n1 did not say"));
        let json = serde_json::to_string(&json(&reaping, &names())).unwrap();
        assert!(json.contains(r#""waits_for":null"#) && json.contains(r#""code":"timeout""#), "{json}");
    }
}
