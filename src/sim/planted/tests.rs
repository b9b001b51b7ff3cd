//! Every planted bug is found, by the judge that should, within a stated number of seeds.

use super::super::invariants::Invariant;
use super::super::options::Options;
use super::super::run;
use super::Planted;

/// Looks for a bug under as many seeds as it may take.
fn hunt(planted: Planted, seeds: u64, judges: &[Invariant]) {
    for seed in 0..seeds {
        let options = Options { planted: Some(planted), ..Options::new(seed) };
        let report = run(&options);
        if let Some(found) = report.violations.iter().find(|found| judges.contains(&found.invariant)) {
            println!("{planted:?} was found under seed {seed}: {found}");
            return;
        }
    }
    panic!("{planted:?} was not found within {seeds} seeds");
}

#[test]
fn an_actor_that_survives_is_found() {
    hunt(
        Planted::ActorSurvives,
        100,
        &[Invariant::NoLostWrite, Invariant::RegularReads, Invariant::OneDotOneValue],
    );
}

#[test]
fn a_bare_write_is_found() {
    hunt(
        Planted::BareWrite,
        50,
        &[Invariant::NoLostWrite, Invariant::RegularReads, Invariant::NoResurrection],
    );
}

#[test]
fn a_disk_that_lies_is_found() {
    hunt(
        Planted::DurableBeforeTheSync,
        50,
        &[
            Invariant::NoLostWrite,
            Invariant::RegularReads,
            Invariant::OneDotOneValue,
            Invariant::Incarnations,
        ],
    );
}

#[test]
fn an_unknown_outcome_answered_as_not_applied_is_found() {
    hunt(Planted::UnknownAsNotApplied, 20, &[Invariant::Outcomes]);
}

#[test]
fn an_incarnation_that_stays_is_found() {
    hunt(Planted::IncarnationStays, 200, &[Invariant::Incarnations]);
}

#[test]
fn an_operation_that_is_judged_by_its_last_attempt_is_found() {
    hunt(Planted::LastAttemptDecides, 50, &[Invariant::Outcomes]);
}

#[test]
fn a_lost_record_answered_as_absent_is_found() {
    hunt(Planted::LostAsAbsent, 50, &[Invariant::NoLostWrite, Invariant::RegularReads]);
}
