//! The laws of records, attacked.
//!
//! * Here: the laws of [`Record::merge`], for all runs of a small scope and for random longer ones.
//! * [`naive`]: the oracle that takes every step of those runs beside the real record.
//! * [`reachable`]: the runs themselves.
//! * [`observed`]: what clients see; a value may vanish only by a write of someone who was shown it.

mod naive;
mod observed;
mod reachable;

use std::collections::BTreeSet;

use proptest::prelude::*;

use self::reachable::{CLIENTS, REPLICAS, Step, World};
use super::{Dot, OPERATIONS_MAX, Record};
use crate::protocol::codec;

/// What holds for one record by itself: its bytes are canonical.
fn assert_is_canonical(record: &Record) {
    let bytes = codec::encode(record);
    assert_eq!(record.encoded_len(), bytes.len() as u64, "the predicted size");
    assert_eq!(&codec::decode::<Record>(&bytes).unwrap(), record, "there and back");
    assert!(record.includes(record), "idempotence");
    assert!(!record.clone().merge(record), "idempotence");
    assert!(record.includes(&Record::default()), "the empty record is the bottom");
    assert_eq!(&Record::default().merged(record), record, "the empty record is the bottom");
}

/// What holds for every two records, however many operations were forgotten: commutativity, absorption, monotony, and
/// one form of bytes.
fn assert_pair_laws(a: &Record, b: &Record, issued: &BTreeSet<Dot>) {
    let equal = a == b;
    assert_eq!(codec::encode(a) == codec::encode(b), equal, "equal records have equal bytes");
    assert_eq!(a.hash(b"key") == b.hash(b"key"), equal, "and equal hashes");

    let join = a.merged(b);
    assert_eq!(join, b.merged(a), "commutativity");
    assert_eq!(a.clone().merge(b), join != *a, "merging says whether it changed anything");
    assert_eq!(a.includes(b), join == *a, "to include is to be unchanged by");
    assert!(join.includes(a) && join.includes(b), "absorption");
    assert_eq!(b.merged(&join), join, "absorption: an exchange both ways ends equal");

    assert!(join.context().dominates(a.context()) && join.context().dominates(b.context()), "monotony");
    assert!(join.context().iter().all(|dot| a.context().covers(dot) || b.context().covers(dot)));
    for &dot in issued {
        let dead_before = a.is_dead(dot) || b.is_dead(dot);
        assert!(!dead_before || join.is_dead(dot), "what died stays dead");
        if join.is_dead(dot) && !dead_before {
            // Only a second attempt of an operation whose other attempt was dead on one side may die of a merge.
            let of = |dot| a.operations().of(dot).or(b.operations().of(dot));
            let operation = of(dot).expect("a dot that died of a merge belongs to an operation");
            let other_died =
                |&other: &Dot| of(other) == Some(operation) && (a.is_dead(other) || b.is_dead(other));
            assert!(issued.iter().any(other_died), "{dot} died for no reason");
        }
    }
    assert_is_canonical(&join);
}

/// What holds as long as nothing is forgotten.
fn assert_is_associative(a: &Record, b: &Record, c: &Record) {
    assert_eq!(a.merged(b).merged(c), a.merged(&b.merged(c)), "associativity");
}

/// Checks everything about the records of a run; for long runs, about an even selection of them.
fn assert_laws(world: &World, within_window: bool) {
    const MOST: usize = 10;
    let records = world.snapshots();
    let chosen: Vec<&Record> = records.iter().step_by(records.len().div_ceil(MOST)).collect();
    for a in &chosen {
        assert_is_canonical(a);
        for b in &chosen {
            assert_pair_laws(a, b, world.issued());
            for c in &chosen {
                if within_window {
                    assert_is_associative(a, b, c);
                } else {
                    assert_nearly_associative(a, b, c);
                }
            }
        }
    }
}

/// What is left of associativity when operations were forgotten: everything but the burial of second attempts.
fn assert_nearly_associative(a: &Record, b: &Record, c: &Record) {
    let (left, right) = (a.merged(b).merged(c), a.merged(&b.merged(c)));
    assert_eq!(left.context(), right.context());
    assert_eq!(left.operations(), right.operations());
    assert_eq!(left.merged(&right), right.merged(&left));
    let plainly_dead = |dot| [a, b, c].iter().any(|record| record.is_dead(dot));
    for sibling in left.siblings().iter().chain(right.siblings()) {
        assert!(!plainly_dead(sibling.dot), "what died stays dead in every order");
    }
}

#[test]
fn the_laws_hold_for_every_run_of_up_to_six_events() {
    // Two replicas coordinate, the third only merges; one client reads and writes, others write blindly.
    let mut alphabet = Vec::new();
    for replica in 0..2 {
        alphabet.push(Step::Blind { replica });
        alphabet.push(Step::Write { client: 0, replica });
        alphabet.push(Step::Retry { back: 0, replica, base: None });
    }
    for a in 0..3 {
        alphabet.push(Step::Read { client: 0, replicas: [a, a] });
        alphabet.extend((0..3).filter(|b| *b != a).map(|b| Step::Merge { from: a, to: b }));
    }
    let mut frontier = vec![World::new()];
    let mut known = BTreeSet::new();
    for _ in 0..6 {
        let mut next = Vec::new();
        for world in &frontier {
            for &step in &alphabet {
                let mut after = world.clone();
                after.step(step);
                if !known.insert(after.fingerprint()) {
                    continue;
                }
                // All but the newest record were compared with each other one step earlier.
                let records = after.snapshots();
                if let Some(newest) = records.last().filter(|_| records.len() > world.snapshots().len()) {
                    assert_is_canonical(newest);
                    for a in records {
                        assert_pair_laws(a, newest, after.issued());
                        for b in records {
                            assert_is_associative(a, b, newest);
                            assert_is_associative(a, newest, b);
                            assert_is_associative(newest, a, b);
                        }
                    }
                }
                next.push(after);
            }
        }
        frontier = next;
    }
    assert!(known.len() > 50_000, "only {} different runs: the scope has become too small", known.len());
}

fn step() -> impl Strategy<Value = Step> {
    let (replica, client) = (0..REPLICAS, 0..CLIENTS);
    prop_oneof![
        2 => (client.clone(), replica.clone(), replica.clone())
            .prop_map(|(client, a, b)| Step::Read { client, replicas: [a, b] }),
        3 => (client, replica.clone()).prop_map(|(client, replica)| Step::Write { client, replica }),
        1 => replica.clone().prop_map(|replica| Step::Blind { replica }),
        3 => (0..4_usize, replica.clone(), proptest::option::of(replica.clone()))
            .prop_map(|(back, replica, base)| Step::Retry { back, replica, base }),
        4 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Merge { from, to }),
        1 => replica.prop_map(|replica| Step::Restart { replica }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_for_random_runs(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(*step));
        assert_laws(&world, true);
    }

    #[test]
    fn beyond_the_window_all_but_associativity_remains(steps in proptest::collection::vec(step(), 40..120)) {
        // Four seconds apart, sixteen operations fill the window.
        let mut world = World::at_pace(4_000);
        steps.iter().for_each(|step| world.step(*step));
        assert_laws(&world, false);

        // Replicas that exchange until nothing changes end equal.
        let mut records: Vec<Record> = (0..REPLICAS).map(|replica| world.record(replica).clone()).collect();
        let mut changed = true;
        while changed {
            changed = false;
            for from in 0..REPLICAS {
                for to in 0..REPLICAS {
                    let shipped = records[from].clone();
                    changed |= records[to].merge(&shipped);
                }
            }
        }
        prop_assert!(records.iter().all(|record| *record == records[0]));
    }
}

/// The counterexample that bounds associativity, so that the documents cannot promise more than holds.
#[test]
fn beyond_the_window_the_order_of_merges_can_decide_about_a_forgotten_retry() {
    // Operation 0 goes to the first replica and is retried at the second, where a client reads and overwrites it.
    let mut world = World::new();
    world.step(Step::Blind { replica: 0 });
    world.step(Step::Retry { back: 0, replica: 1, base: None });
    world.step(Step::Read { client: 0, replicas: [1, 1] });
    world.step(Step::Write { client: 0, replica: 1 });
    let (first_attempt, overwritten) = (world.record(0).clone(), world.record(1).clone());
    // Meanwhile a third replica takes so many writes of other clients that the window is full without them.
    let mut busy = World::at_pace(2);
    for _ in 0..3 + OPERATIONS_MAX {
        busy.step(Step::Read { client: 0, replicas: [2, 2] });
        busy.step(Step::Write { client: 0, replica: 2 });
    }
    let busy = busy.record(2);

    let buried = first_attempt.merged(&overwritten).merged(busy);
    let surfaced = first_attempt.merged(&busy.merged(&overwritten));
    let dot = first_attempt.siblings()[0].dot;
    assert!(buried.is_dead(dot), "the attempts met before they were forgotten");
    assert!(!surfaced.is_dead(dot), "they were forgotten before they met");
    assert_ne!(buried, surfaced);
    // When the two meet, burial wins, on both sides; though their contexts and marks are equal.
    assert!(buried.includes(&surfaced) && !surfaced.includes(&buried));
    assert_eq!(buried.merged(&surfaced), buried);
    assert_eq!(surfaced.merged(&buried), buried);
}
