//! A short soak: real nodes are killed, stopped, paused and cut apart under clients of every habit, and the judges of the
//! simulator judge what these were told.
//!
//! `STARLING_SEED` draws another storm. The long run: `cargo run --release -- soak --minutes 60 --dir DIR`
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

#[path = "support/program.rs"]
mod program;

use std::process::Stdio;

use program::{Place, eventually, signal};
use starling::lab::soak::evidence::Evidence;
use starling::protocol::wire::client::Level;
use starling::sim::history::{Action, Basis, Ending, History, Seen};
use starling::sim::invariants::{self, Invariant};

fn count(history: &History, wanted: impl Fn(&Action, &Ending) -> bool) -> usize {
    history.operations.iter().filter(|operation| wanted(&operation.action, &operation.ending)).count()
}

#[test]
fn nothing_is_lost_in_a_storm() {
    let place = Place::new();
    let dir = place.text("soak");
    let seed = std::env::var("STARLING_SEED").unwrap_or_else(|_| "3".to_owned());
    let ran =
        place.run(&["soak", "--seed", &seed, "--seconds", "20", "--nodes", "4", "--json", "--dir", &dir]);
    println!("{}{}", ran.out, ran.err);
    let ran = ran.ok();
    let [run, result] = ran.json_lines().try_into().unwrap();
    assert_eq!(run["seed"].to_string(), seed);
    assert_eq!(result["ok"], true);
    let faults = result["faults"].as_object().unwrap();
    assert!(faults.len() >= 3, "a storm of a single kind is none: {faults:?}");
    assert_eq!(result["judged"].as_array().unwrap().len(), invariants::JUDGES.len());

    // What was kept says the same again, to the library and to the program.
    let history = Evidence::load(dir.as_ref()).unwrap().history;
    assert_eq!(invariants::judge(&history), []);
    place.run(&["soak", "--judge", &dir]).ok();
    every_habit_was_tried(&history);
    a_loss_would_have_shown(&history);
    the_program_tells_a_violation(&place, &dir);
}

/// The judges only see what clients tried.
fn every_habit_was_tried(history: &History) {
    let committed = |ending: &Ending| matches!(ending, Ending::Committed(_));
    assert!(count(history, |_, ending| committed(ending)) > 200);
    assert!(count(history, |_, ending| matches!(ending, Ending::Unknown | Ending::Unavailable)) > 0);
    for (habit, tried) in [
        (
            "updates",
            count(history, |a, e| {
                committed(e)
                    && matches!(a, Action::Write { deletes: false, basis: Basis::Shown(s), .. } if !s.is_empty())
            }),
        ),
        (
            "blind puts",
            count(history, |a, e| {
                committed(e)
                    && matches!(a, Action::Write { deletes: false, basis: Basis::Shown(s), .. } if s.is_empty())
            }),
        ),
        (
            "deletes of what was seen",
            count(history, |a, e| {
                committed(e) && matches!(a, Action::Write { deletes: true, basis: Basis::Shown(_), .. })
            }),
        ),
        (
            "deletes without a look",
            count(history, |a, e| {
                committed(e) && matches!(a, Action::Write { basis: Basis::WhateverIsThere, .. })
            }),
        ),
        (
            "writes to one",
            count(history, |a, e| committed(e) && matches!(a, Action::Write { w: Level::One, .. })),
        ),
        (
            "writes to all",
            count(history, |a, e| committed(e) && matches!(a, Action::Write { w: Level::All, .. })),
        ),
        (
            "reads of one",
            count(history, |a, e| {
                matches!((a, e), (Action::Read { r: Level::One, .. }, Ending::Answered(_)))
            }),
        ),
        (
            "reads of a majority",
            count(history, |a, e| {
                matches!((a, e), (Action::Read { r: Level::Majority, .. }, Ending::Answered(_)))
            }),
        ),
    ] {
        assert!(tried > 0, "no {habit}");
    }
}

/// A judge that was given the wrong papers acquits everybody: a value that is missing in the end has to be found.
fn a_loss_would_have_shown(history: &History) {
    let judged = |history: &History, key: &[u8]| -> Vec<Invariant> {
        let violations = invariants::judge(history).into_iter();
        violations.filter(|v| v.key.as_ref().is_some_and(|k| k == key)).map(|v| v.invariant).collect()
    };
    let mut planted = 0;
    for (key, remains) in history.remains.iter().take(20) {
        let answered = &history.operations[remains.read].ending;
        let acknowledged =
            |o: &starling::sim::history::Operation| o.key == *key && matches!(o.ending, Ending::Committed(_));
        let has_value = matches!(answered, Ending::Answered(seen) if !seen.values.is_empty());
        if !has_value || !history.operations.iter().any(acknowledged) {
            continue;
        }
        let mut lost = history.clone();
        lost.operations[remains.read].ending = Ending::Answered(Seen::default());
        let found = judged(&lost, key);
        planted += usize::from(found.contains(&Invariant::NoLostWrite));
    }
    assert!(planted >= 10, "only {planted} of some 20 planted losses were found");
}

/// The program itself convicts, tells the story and ends with 1.
fn the_program_tells_a_violation(place: &Place, dir: &str) {
    let mut evidence = Evidence::load(dir.as_ref()).unwrap();
    let history = &mut evidence.history;
    // Of a key that was written once, whose only value vanishes: nothing else can explain that.
    let is_committed = |key: &[u8]| {
        history.operations.iter().any(|o| o.key == key && matches!(o.ending, Ending::Committed(_)))
    };
    let mut fresh = history.remains.iter().filter(|(key, _)| key.starts_with(b"c") && is_committed(key));
    let (key, read) = fresh.next().map(|(key, remains)| (key.clone(), remains.read)).unwrap();
    history.operations[read].ending = Ending::Answered(Seen::default());
    let lost = place.path("lost");
    std::fs::create_dir(&lost).unwrap();
    evidence.save(&lost).unwrap();
    let ran = place.run(&["soak", "--judge", lost.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let key = String::from_utf8(key.to_vec()).unwrap();
    for told in [
        format!("no acknowledged write is lost) is broken on key {key}"),
        "put v".to_owned(),
        "shown nothing".to_owned(),
    ] {
        assert!(ran.out.contains(&told), "{told:?} is not in {}", ran.out);
    }
}

#[test]
fn a_soak_that_is_interrupted_judges_and_leaves_nothing_behind() {
    let place = Place::new();
    let said = std::fs::File::create(place.path("said")).unwrap();
    std::fs::create_dir(place.path("tmp")).unwrap();
    let mut soak = place
        .command(&["soak", "--seed", "1", "--minutes", "10", "--nodes", "3", "--faults", "none"])
        .env("TMPDIR", place.path("tmp"))
        .stdin(Stdio::null())
        .stdout(said)
        .spawn()
        .unwrap();
    // It has founded its cluster when the nodes write their logs; a signal before that is none to judge.
    let lab = || std::fs::read_dir(place.path("tmp")).unwrap().flatten().next();
    eventually("the nodes run", || lab().is_some_and(|lab| lab.path().join("n3/log").exists()));
    signal(u64::from(soak.id()), "-INT");
    assert!(soak.wait().unwrap().success());
    let said = std::fs::read_to_string(place.path("said")).unwrap();
    assert!(said.starts_with("starling soak --seed 1 --seconds 600 --nodes 3"), "{said}");
    assert!(said.contains("nothing was violated"), "{said}");
    assert!(lab().is_none(), "the temporary directory is gone");
}
