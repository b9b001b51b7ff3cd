//! Every planted bug is found, by a judge that should, within its budget of seeds; and without it nothing is.
//!
//! `cargo test --lib planted` looks for each until it is found. `STARLING_BANK=full cargo test --lib planted --
//! --nocapture` looks for each from [`STARTS`] first seeds, and prints the table of `docs/planted-bugs.md`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::super::invariants::Invariant;
use super::super::judged;
use super::super::options::Options;
use super::super::report::Report;
use super::bank::{BANK, Entry, WAITING, entry};
use super::profiles::Profile;
use super::{Planted, Planting};

/// From how many first seeds each bug is looked for in a full run.
const STARTS: u64 = 10;

/// So far lie the first seeds apart: farther than any budget.
const APART: u64 = 1_000_000;

/// What a full run measured so far.
static MEASURED: Mutex<BTreeMap<Planted, Measured>> = Mutex::new(BTreeMap::new());

struct Measured {
    median: u64,
    worst: u64,
    judges: Vec<u8>,
}

struct Find {
    /// How many seeds it took.
    seeds: u64,
    judge: Invariant,
}

/// One run with the profile of a bug.
fn try_seed(planting: Planting, profile: &Profile, seed: u64) -> Report {
    judged(&Options {
        planted: Some(planting),
        nodes: profile.nodes,
        clients: profile.crowd,
        keys: profile.keys,
        duration: Duration::from_secs(profile.seconds),
        ..Options::new(seed)
    })
}

/// Looks for a bug from a first seed on, and makes sure that the seed which shows it is clean without it.
fn look(entry: &Entry, first: u64) -> Find {
    for seeds in 1..=entry.budget {
        let seed = first + seeds - 1;
        let Some(found) =
            try_seed(Planting::Favoured(entry.bug), &entry.profile, seed).violations.into_iter().next()
        else {
            continue;
        };
        assert!(entry.judges.contains(&found.invariant), "{:?}, seed {seed}: {found}", entry.bug);
        assert_clean(entry, seed);
        println!("{:?} was found with {seeds} seeds, under seed {seed}: {found}", entry.bug);
        return Find { seeds, judge: found.invariant };
    }
    panic!("{:?} was not found within {} seeds from seed {first} on", entry.bug, entry.budget);
}

fn assert_clean(entry: &Entry, seed: u64) {
    let control = try_seed(Planting::Control(entry.bug), &entry.profile, seed);
    let what = control.violations.first().map(ToString::to_string).unwrap_or_default();
    assert!(what.is_empty(), "without {:?} its profile finds something under seed {seed}: {what}", entry.bug);
}

fn hunt(bug: Planted) {
    let entry = entry(bug);
    // Before the bug is looked for: that its profile and scaffold alone are survived.
    if std::env::var_os("STARLING_BANK").is_none_or(|value| value != "full") {
        assert_clean(entry, APART);
        look(entry, 0);
        return;
    }
    (1..=STARTS).for_each(|seed| assert_clean(entry, seed));
    let mut finds: Vec<Find> = (0..STARTS).map(|start| look(entry, start * APART)).collect();
    finds.sort_by_key(|find| find.seeds);
    let (median, worst) = (finds[finds.len() / 2].seeds, finds[finds.len() - 1].seeds);
    let mut judges: Vec<u8> = finds.iter().map(|find| find.judge.number()).collect();
    judges.sort_unstable();
    judges.dedup();
    let mut measured = MEASURED.lock().unwrap();
    measured.insert(bug, Measured { median, worst, judges });
    if measured.len() == BANK.len() {
        print_table(&measured);
    }
}

fn print_table(measured: &BTreeMap<Planted, Measured>) {
    println!("\n| # | planted bug | seen in | profile | found by | median | worst | budget |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut medians = Vec::new();
    for entry in BANK {
        let Some(Measured { median, worst, judges }) = measured.get(&entry.bug) else { continue };
        medians.push(*median);
        let judges: Vec<String> = judges.iter().map(ToString::to_string).collect();
        let Entry { number, name, seen_in, profile, budget, .. } = entry;
        let judges = judges.join(", ");
        println!(
            "| {number} | {name} | {seen_in} | {} | {judges} | {median} | {worst} | {budget} |",
            profile.says
        );
    }
    medians.sort_unstable();
    println!("\nThe median over the bank is {} seeds.", medians[medians.len() / 2]);
}

/// One test for each bug, so that they run beside each other.
macro_rules! hunts {
    ($($name:ident: $bug:ident,)*) => {
        $(#[test] fn $name() { hunt(Planted::$bug); })*

        #[test]
        fn every_bug_of_the_bank_is_looked_for() {
            let looked_for = [$(Planted::$bug),*];
            let bank: Vec<Planted> = BANK.iter().map(|entry| entry.bug).collect();
            assert_eq!(looked_for[..], bank[..]);
        }
    };
}

hunts! {
    an_actor_that_survives: ActorSurvives,
    an_actor_in_a_backup: ActorInTheBackup,
    a_bare_write: BareWrite,
    a_disk_that_lies: DurableBeforeTheSync,
    a_read_before_it_is_durable: ReadBeforeDurable,
    a_hint_for_a_strict_quorum: HintForStrict,
    a_hint_that_is_tried_once: HintTriedOnce,
    a_put_that_is_coordinated_twice: PutCoordinatedTwice,
    a_retry_that_is_a_new_put: RetryIsANewPut,
    an_unknown_outcome_as_not_applied: UnknownAsNotApplied,
    sums_that_outlive_a_crash: SumsOutliveACrash,
    a_limit_on_repairs: LimitOnRepairs,
    a_future_that_is_refused: FutureRefused,
    one_dot_for_two_puts: OneDotForTwoPuts,
    equal_dots_that_are_dropped: EqualDotsDropped,
    the_dead_who_are_forgotten: DeadForgotten,
    an_incarnation_that_stays: IncarnationStays,
    hearsay_that_routes: HearsayRoutes,
    a_later_clock_that_wins: LaterClockWins,
    a_context_that_covers_siblings: ContextOfSiblings,
    a_context_of_another_key: ContextOfAnotherKey,
    a_forged_context: ForgedContext,
    a_last_attempt_that_decides: LastAttemptDecides,
    a_lost_record_as_absent: LostAsAbsent,
    a_clock_that_follows_the_wall: ClockFollowsTheWall,
    an_unchecked_acknowledgement: AckUnchecked,
    a_circle_of_forwards: ForwardedAgain,
    strangers_that_answer: StrangersAnswer,
    a_logged_write_as_not_applied: LoggedAsNotApplied,
    an_atomic_read_in_name_only: AtomicInNameOnly,
    a_reap_without_all: ReapWithoutAll,
    a_reap_despite_hints: HintsAreNoObstacle,
    a_late_record_for_a_new_key: LateMeetsRecreated,
    a_late_record_after_a_reap: LateAccepted,
    a_feed_that_merges: FeedMerges,
    a_log_that_is_cut: LogCutInTheMiddle,
    an_actor_that_is_kept: ActorKept,
    the_voteless_who_answer: VotelessAnswers,
    a_vote_before_the_refill: VoteBeforeTheRefill,
    a_copy_that_nobody_notices: BackupsUnnoticed,
    an_acknowledgement_that_says_nothing_more: SilentAcks,
}

#[test]
fn budgets_are_within_what_is_promised() {
    let mut budgets: Vec<u64> = BANK.iter().map(|entry| entry.budget).collect();
    budgets.sort_unstable();
    assert!(budgets[budgets.len() - 1] <= 2_000);
    assert!(budgets[budgets.len() / 2] <= 200);
}

/// The document is what people read; its measurements are pasted from a full run, the rest is held to the table.
#[test]
fn the_document_lists_the_bank() {
    let document = include_str!("../../../docs/planted-bugs.md");
    let rows: Vec<Vec<&str>> =
        document.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let is_there = |wanted: &[&str]| rows.iter().any(|row| wanted.iter().all(|cell| row.contains(cell)));
    for Entry { number, name, seen_in, profile, budget, .. } in BANK {
        assert!(is_there(&[number, name, seen_in, profile.says, &budget.to_string()]), "{number} {name}");
    }
    for waiting in WAITING {
        assert!(is_there(&[waiting.number, waiting.name, waiting.waits_for]), "{waiting:?}");
    }
}
