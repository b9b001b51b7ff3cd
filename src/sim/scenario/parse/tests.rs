use super::super::expectation::{Belief, Fact};
use super::super::links::Faults;
use super::super::script::{DiskState, Trouble};
use super::super::stage::{Holding, Where};
use super::*;
use crate::protocol::wire::client::{Health, Outcome};

fn parse(text: &str) -> Scenario {
    Scenario::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn fails(text: &str) -> String {
    Scenario::parse(text).expect_err("the script is wrong").to_string()
}

const WHOLE: &str = "\
# A title.
# More.

only in sim   # a comment
nodes 3
replicas 2
key cart owned by n2, n1
at 500ms  put cart 'two # words' w=all via n3 as alice  # why
          expect in lab committed or not applied
          expect acks n1,n2
then   get cart r=2 atomic via=n1 deadline=1.5s as bob
       expect values apple 'two # words' or absent
at 2s  delete cart with alice's context blind
at 2s  explain cart
       expect n3 holds nothing
       expect n1 holds deletion or n1 holds apple
then   members n2
       expect n1 down or n1 unreachable
at 1m  clock n1 n2 -1h
       # nothing
then   disk n3 slow
then   cut n1 > n2
then   rot n2 cart
then   echo 90s n1 > n2 n3
then   put hat red with alice's context of cart as bob
";

#[test]
fn a_script_says_everything_that_can_be_said() {
    let scenario = parse(WHOLE);
    assert_eq!((scenario.title.as_str(), scenario.only_in_sim, scenario.nodes), ("A title.", Some(4), 3));
    assert_eq!(scenario.owners(), 2);
    assert_eq!(scenario.keys, [KeyOwners { key: "cart".into(), owners: vec!["n2".into(), "n1".into()] }]);
    let steps = &scenario.steps;
    assert_eq!(steps.len(), 11);
    assert_eq!(steps[0].begins, Begins::At(Duration::from_millis(500)));
    assert_eq!(steps[0].text, "put cart 'two # words' w=all via n3 as alice");
    let (key, value) = ("cart".into(), "two # words".into());
    let put = What::Put { key, value, w: Level::All, sloppy: false, basis: BasisOf::Own };
    let (alice, n3) = (Some("alice".to_owned()), Some("n3".to_owned()));
    assert_eq!(steps[0].deed, Deed::Ask(Ask { client: alice, via: n3, deadline: DEADLINE, what: put }));
    let expected = &steps[0].expectations;
    assert_eq!((expected[0].place, expected[1].place), (Some(Where::Lab), None));
    assert_eq!(expected[0].any_of, [Fact::Outcome(Outcome::Committed), Fact::Outcome(Outcome::NotApplied)]);
    assert_eq!(expected[1].any_of, [Fact::Acks(["n1".to_owned(), "n2".to_owned()].into())]);
    let Deed::Ask(get) = &steps[1].deed else { panic!() };
    assert_eq!(get.what, What::Get { key: "cart".into(), r: Level::Count(2), atomic: true });
    assert_eq!((get.deadline, get.via.as_deref()), (Duration::from_millis(1_500), Some("n1")));
    let values = ["apple".to_owned(), "two # words".to_owned()];
    assert_eq!(steps[1].expectations[0].any_of, [Fact::Values(values.into()), Fact::Absent]);
    let holds = |held| Fact::Holds("n1".into(), held);
    let apple = Holding::Values(vec!["apple".into()]);
    assert_eq!(steps[3].expectations[1].any_of, [holds(Holding::Deletion), holds(apple)]);
    let beliefs = [Belief::Health(Health::Down), Belief::Reachable(false)];
    assert_eq!(steps[4].expectations[0].any_of, beliefs.map(|belief| Fact::Member("n1".into(), belief)));
    assert_eq!(steps[5].deed, Deed::Trouble(Trouble::Clock(vec!["n1".into(), "n2".into()], -3_600_000)));
    assert_eq!(steps[6].deed, Deed::Trouble(Trouble::Disk(vec!["n3".into()], DiskState::Slow)));
    assert_eq!(steps[8].deed, Deed::Trouble(Trouble::Rot(vec!["n2".into()], "cart".into())));
    let echo = Trouble::Echo(Duration::from_secs(90), vec!["n1".into()], vec!["n2".into(), "n3".into()]);
    assert_eq!(steps[9].deed, Deed::Trouble(echo));
    let Deed::Ask(Ask { what: What::Put { basis, .. }, .. }) = &steps[10].deed else { panic!() };
    assert_eq!(*basis, BasisOf::OfKey("alice".into(), "cart".into()));
    assert!(scenario.check_for_lab().unwrap_err().contains("line 4"));
}

#[test]
fn faults_are_those_of_the_lab_and_a_cut_with_groups_is_a_partition() {
    let scenario = parse("at 1s cut n1,n2 | n3,n4,n5\nat 1s partition n1 n2 | n3 n4 n5\nat 2s heal");
    assert_eq!(scenario.steps[0].deed, scenario.steps[1].deed);
    let Deed::Command(Command::Partition(groups)) = &scenario.steps[0].deed else { panic!() };
    let mut faults = Faults::default();
    faults.partition(groups);
    assert!(faults.of("n1", "n3").cut && faults.of("n5", "n2").cut && !faults.of("n1", "n2").cut);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
    for (text, reason) in [
        ("", "line 1, column 1: nothing is done"),
        ("at 1s fly n1", "line 1, column 7: \"fly\" is nothing that can be done; there are put, get"),
        ("at soon heal", "line 1, column 4: \"soon\" is no span of time"),
        ("at 2s heal\nat 1s heal", "line 2, column 4: \"1s\" is before the step above"),
        ("at 1s heal now", "line 1, column 7: \"now\" is too much"),
        ("at 1s kill n6", "there is no node \"n6\""),
        ("at 1s put k v via n6", "line 1, column 19: \"n6\" is no node; there are n1, n2"),
        ("at 1s put k", "line 1, column 13: here a value is missing"),
        ("at 1s get k w=one", "line 1, column 13: \"w=one\" is unknown to get: it knows via, as, r"),
        ("at 1s get k r=most", "\"most\" is no number of owners"),
        ("at 1s get k r", "\"r\" needs a value: r=..."),
        ("at 1s put k 'open", "line 1, column 13: a quote is not closed"),
        ("at 1s put k v with alice context", "\"alice\" is nobody's"),
        ("at 1s put k v\nthen put k v", "line 2, column 6: \"v\" is put to k in line 1 already"),
        ("at 1s clock n1 +1h", "say `only in sim` at the top"),
        ("only in sim\nat 1s clock n1 1h", "\"1h\" has no sign"),
        ("only in sim\nat 1s echo soon n1 > n2", "\"soon\" is no span of time"),
        ("only in sim\nat 1s echo 5s n1 n2", "here the word > is missing"),
        ("only in sim\nat 1s rot n1", "here a key is missing"),
        ("only in sim\nat 1s disk n1 full", "\"full\" is no state of a disk"),
        ("only in lab\nat 1s heal", "line 1, column 9: \"lab\" should be sim"),
        ("expect committed", "stands behind no step"),
        ("at 1s heal\nexpect committed", "cannot be expected of a fault, only of put, delete"),
        (
            "at 1s put k v\nexpect values v",
            "line 2, column 8: \"values\" cannot be expected of put, only of get",
        ),
        ("at 1s put k v\nexpect success", "\"success\" cannot be expected; what can is committed"),
        ("at 1s put k v\nexpect", "here what is expected (committed"),
        ("at 1s get k\nexpect values", "names no value"),
        ("at 1s get k\nexpect absent indeed", "\"indeed\" is too much"),
        ("at 1s explain k\nexpect n1 has v", "\"has\" cannot be said of a node"),
        ("key k owned by n1,n2\nat 1s get k", "k has 2 owners, but keys have 3 here"),
        ("key k owned by n1,n2,n3\nnodes 7\nat 1s get k", "stands behind the owners of k"),
        ("at 1s heal\nnodes 5", "behind the first step a line begins with at, then or expect"),
        ("nodes many\nat 1s heal", "\"many\" is no number of nodes"),
        ("at 1s stop", "is for people at the prompt of a lab"),
        ("begin", "\"begin\" is unknown: a line begins with only, nodes"),
    ] {
        let error = fails(text);
        assert!(error.contains(reason), "{text}: {error}");
    }
}
