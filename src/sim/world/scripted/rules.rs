//! The rules that scenarios are about: each of these holds, and fails without its rule.

use std::path::Path;

use super::super::super::planted::{Planted, Planting, number_of};
use super::*;

/// A file of `tests/scenarios`, and the bug that is the absence of its rule.
const RULES: &[(&str, Planted)] = &[
    ("unseen_siblings", Planted::ContextOfSiblings),
    ("rotten_record", Planted::ActorKept),
    ("rotten_record", Planted::VotelessAnswers),
    ("clean_backup", Planted::ActorInTheBackup),
    ("clock_jump", Planted::FutureRefused),
    ("owner_away_for_long", Planted::ReapWithoutAll),
    ("late_message", Planted::LateAccepted),
    ("lost_register", Planted::HintsAreNoObstacle),
    ("retry_does_not_double", Planted::PutCoordinatedTwice),
    ("late_attempt", Planted::PutCoordinatedTwice),
    ("context_of_another_key", Planted::ContextOfAnotherKey),
    ("restored_backup", Planted::BackupsUnnoticed),
    ("put_back_at_once", Planted::SilentAcks),
    ("unknown_is_not_failed", Planted::LoggedAsNotApplied),
    ("unknown_is_not_failed", Planted::UnknownAsNotApplied),
    ("read_waits_for_the_log", Planted::ReadBeforeDurable),
    ("sloppy_quorum", Planted::HintForStrict),
    ("hinted_handoff", Planted::HintTriedOnce),
    ("stale_context", Planted::LaterClockWins),
    ("split_brain", Planted::LaterClockWins),
];

fn outcome(name: &str, bug: Planted) -> Outcome {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(name).with_extension("scenario");
    let scenario = Scenario::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    let options = Options { planted: Some(Planting::Alone(bug)), ..options(&scenario, Recording::Nothing) };
    Theatre::new(&scenario, &options).perform(&scenario, &mut |_| {})
}

#[test]
fn a_scenario_fails_without_the_rule_that_it_is_about() {
    for (name, bug) in RULES {
        assert!(!outcome(name, *bug).is_ok(), "{name} does not notice {bug:?}");
    }
}

/// What docs/findings.md says of a scenario, ``name` (26, 32b)`, is what the test above has seen.
#[test]
fn the_document_claims_no_more_than_that() {
    let document = include_str!("../../../../docs/findings.md");
    let rows = document.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut claims = 0;
    for cell in rows.filter_map(|row| row.rsplit(" | ").nth(1)) {
        for claim in cell.split('`').collect::<Vec<_>>()[1..].chunks(2) {
            let &[name, after] = claim else { panic!("{cell}") };
            let Some(numbers) = after.strip_prefix(" (").and_then(|rest| rest.split(')').next()) else {
                continue;
            };
            for number in numbers.split(", ") {
                claims += 1;
                let is_shown = RULES.iter().any(|(file, bug)| *file == name && number_of(*bug) == number);
                assert!(is_shown, "nobody has seen {name} notice {number}");
            }
        }
    }
    assert!(claims > 10, "only {claims} claims found: the check would prove nothing");
}
