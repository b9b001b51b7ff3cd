//! Planted bugs shrink to runs that a person can follow.

use super::super::planted::{Planted, Planting};
use super::*;

/// A run in which the bug shows, and how. A wrong outcome has to show as one, before anything that follows from it.
fn failing(planted: Planted) -> (Options, Invariant) {
    let is_it = |invariant| planted != Planted::UnknownAsNotApplied || invariant == Invariant::Outcomes;
    let mut seeds =
        (0..50).map(|seed| Options { planted: Some(Planting::Alone(planted)), ..Options::new(seed) });
    let found = seeds.find_map(|options| {
        let report = super::super::judged(&options);
        report.violations.first().filter(|v| is_it(v.invariant)).map(|v| (options, v.invariant))
    });
    found.unwrap_or_else(|| panic!("{planted:?} does not show"))
}

fn shrunk(planted: Planted) -> Shrunk {
    let (options, invariant) = failing(planted);
    let mut weights = Vec::new();
    let shrunk = shrink(&options, RUNS_MAX, &mut |progress| {
        weights.push(progress.size.weight());
        ControlFlow::Continue(())
    })
    .expect("it fails");
    assert!(weights.is_sorted_by(|before, after| after <= before), "progress never goes back");
    println!("{} -> {} in {} runs\n{}", shrunk.before, shrunk.after, shrunk.runs, shrunk.report);
    // What is printed repeats it.
    let again = super::super::judged(&shrunk.report.options);
    assert!(again.violations.iter().any(|violation| violation.invariant == invariant));
    assert_eq!(again.trace_hash, shrunk.report.trace_hash);
    shrunk
}

#[test]
fn a_bare_write_shrinks_to_a_few_things() {
    let Size { nodes, clients, faults, .. } = shrunk(Planted::BareWrite).after;
    assert!(nodes <= 3 && clients <= 2 && faults <= 2, "{nodes} nodes, {clients} clients, {faults} faults");
}

#[test]
fn an_unknown_outcome_answered_as_not_applied_shrinks_to_a_few_things() {
    let Size { nodes, clients, faults, .. } = shrunk(Planted::UnknownAsNotApplied).after;
    assert!(nodes <= 3 && clients <= 2 && faults <= 2, "{nodes} nodes, {clients} clients, {faults} faults");
}

#[test]
fn the_same_way_is_taken_every_time_and_the_runs_are_bounded() {
    let (options, _) = failing(Planted::UnknownAsNotApplied);
    let twice = [(); 2].map(|()| shrink(&options, 25, &mut |_| ControlFlow::Continue(())).expect("it fails"));
    assert_eq!(twice[0].report.options, twice[1].report.options);
    assert_eq!(twice[0].runs, twice[1].runs);
    assert!(twice[0].runs <= 25 + 5, "{} runs: those asked for, and the tidying", twice[0].runs);
}

#[test]
fn a_search_that_is_broken_off_keeps_what_it_has() {
    let (options, _) = failing(Planted::UnknownAsNotApplied);
    let mut runs = 0;
    let shrunk = shrink(&options, RUNS_MAX, &mut |progress| {
        runs = progress.runs;
        ControlFlow::Break(())
    });
    assert_eq!(runs, 2, "one run to see it fail, one candidate");
    assert!(!shrunk.expect("it fails").report.is_ok());
}

#[test]
fn a_run_that_passes_says_so() {
    let options = Options { duration: Duration::from_secs(2), ..Options::new(1) };
    assert!(shrink(&options, RUNS_MAX, &mut |_| ControlFlow::Continue(())).is_none());
}

#[test]
fn delta_debugging_finds_the_items_that_matter() {
    for wanted in [vec![], vec![5], vec![0, 99], vec![3, 4, 50], vec![1, 20, 40, 60, 80]] {
        let mut asked = 0;
        let found = minimize((0..100).collect(), &mut |rest: &[i32]| {
            asked += 1;
            wanted.iter().all(|item| rest.contains(item))
        });
        assert_eq!(found, wanted);
        assert!(asked < 400, "{asked} questions for {wanted:?}");
    }
}
