use super::super::command::Command;
use super::super::script::Trouble;
use super::super::stage::Where;
use super::*;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{
    Answer, Explanation, Outcome as Verdict, ReadAnswer, ReplicaView, Written,
};
use crate::sim::Recording;
use crate::sim::invariants::Invariant;

fn run(text: &str) -> Outcome {
    let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let mut told = Vec::new();
    let outcome = scenario.simulate(Recording::Nothing, &mut |line| told.push(line.to_owned()));
    assert_eq!(told, outcome.story);
    outcome
}

#[test]
fn what_is_expected_and_does_not_come_fails_and_is_told() {
    let outcome = run(
        "key k owned by n1,n2,n3\nat 1s put k v via n1\nexpect not applied\nthen get k\nexpect values v w",
    );
    assert!(!outcome.is_ok());
    assert_eq!(
        outcome.failures,
        [
            "line 3: expect not applied, but it was: committed by 2",
            "line 5: expect values v w, but it was: v"
        ]
    );
    assert!(outcome.story.iter().any(|line| line.contains("FAILED  expect values v w")), "{outcome:#?}");
    assert!(outcome.violations.is_empty());
}

#[test]
fn the_same_script_tells_the_same_story() {
    let text = "at 1s put k v as a\nat 1s put k w as b\nat 2s loss 30%\nat 3s get k atomic\nexpect siblings 2\nat 4s heal";
    let outcome = run(text);
    assert!(outcome.is_ok(), "{outcome:#?}");
    assert_eq!(outcome.story, run(text).story);
}

#[test]
fn what_is_meant_for_the_other_world_is_passed_over() {
    let outcome = run("at 1s put k v\nexpect in lab not applied\nexpect in sim committed");
    assert!(outcome.is_ok() && outcome.held == 1, "{outcome:#?}");
}

#[test]
fn a_step_that_cannot_be_done_ends_the_story() {
    let outcome = run("at 1s kill n1\nat 2s kill n1\nat 3s put k v");
    assert_eq!(outcome.failures, ["line 2: kill n1: n1 does not run"]);
    assert!(!outcome.story.iter().any(|line| line.contains("put k v")));
}

#[test]
fn a_client_does_one_thing_at_a_time_and_then_waits_for_all() {
    let outcome = run("\
key k owned by n1,n2,n3
at 1s   pause n1
at 1s   get k via n1 deadline=2s as a
        expect unavailable
at 1s   put k v via n2 as a
        expect committed
then    get k via n3
        expect values v
at 3s   resume n1");
    assert!(outcome.is_ok(), "{outcome:#?}");
    let put = outcome.story.iter().find(|line| line.contains("put k v")).map(String::as_str);
    assert_eq!(put, Some("   3.0 s  put k v via n2 as a"), "{outcome:#?}");
}

#[test]
fn a_context_of_somebody_else_replaces_what_that_one_was_shown() {
    let outcome = run("\
at 1s put k old as alice
then  put k new with alice's context as bob
then  get k
      expect values new");
    assert!(outcome.is_ok(), "{outcome:#?}");
}

/// A cluster that says that it stored everything, and has nothing.
struct Forgetful(VecDeque<(usize, Reply)>);

impl Stage for Forgetful {
    fn place(&self) -> Where {
        Where::Sim
    }

    fn now(&mut self) -> Duration {
        Duration::ZERO
    }

    fn owners(&mut self, _key: &[u8]) -> Vec<NodeId> {
        vec![NodeId(1)]
    }

    fn name(&mut self, node: NodeId) -> String {
        format!("n{}", node.0)
    }

    fn command(&mut self, _command: &Command) -> Result<(), String> {
        Ok(())
    }

    fn trouble(&mut self, _trouble: &Trouble, _key: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn ask(&mut self, number: usize, order: Order) {
        let answer = match order.request {
            Wanted::Write { .. } => Answer::Written(Written {
                outcome: Verdict::Committed,
                context: None,
                dot: None,
                siblings: 1,
                acks: vec![NodeId(1)],
                hinted: Vec::new(),
                problem: None,
            }),
            Wanted::Explain { .. } => {
                let replicas = vec![ReplicaView { node: NodeId(1), reachable: true, record: Ok(None) }];
                Answer::Explained(Explanation { slot: 0, replicas, reaping: None })
            }
            _ => Answer::Read(ReadAnswer {
                available: true,
                values: Vec::new(),
                deleted: false,
                context: None,
                replies: vec![NodeId(1)],
                problem: None,
            }),
        };
        self.0.push_back((number, Reply { answer, at: Duration::from_millis(1), attempts: 1 }));
    }

    fn next_reply(&mut self, _until: Option<Duration>) -> Option<(usize, Reply)> {
        self.0.pop_front()
    }

    fn holdings(&mut self, _key: &[u8], _owners: &[NodeId]) -> Option<Vec<Holding>> {
        None
    }

    fn recover(&mut self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_lost_write_fails_a_scenario_that_expects_nothing_of_it() {
    let text = "nodes 1\nreplicas 1\nkey k owned by n1\nat 0s put k v\nexpect committed";
    let scenario = Scenario::parse(text).unwrap();
    let outcome = perform(&scenario, &mut Forgetful(VecDeque::new()), &mut |_| {});
    assert!(outcome.failures.is_empty() && !outcome.is_ok(), "{outcome:#?}");
    assert_eq!(outcome.violations[0].invariant, Invariant::NoLostWrite);
    assert!(outcome.story.contains(&"where v1 is v".to_owned()), "{outcome:#?}");
}
