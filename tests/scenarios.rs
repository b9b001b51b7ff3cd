//! The scenarios of `tests/scenarios`: each tells its golden story in the simulator, and some run on real processes.
//!
//! `STARLING_BLESS=1 cargo test --test scenarios` rewrites the golden traces; look at the difference before you keep it.
//! `STARLING_SCENARIOS=all cargo test --test scenarios` runs all of them on labs, which takes some minutes.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests wait with real deadlines and may panic"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use starling::sim::Recording;
use starling::sim::scenario::Scenario;

#[path = "support/program.rs"]
mod program;

use program::Place;

/// Run on a lab every time: quick ones that break different things.
const ON_A_LAB: [&str; 4] = ["w_one_promises_little", "coordinator_crash", "stale_context", "sloppy_quorum"];

/// How many labs at once.
const LABS: usize = 2;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// All scenarios, by name.
fn scenarios() -> Vec<(String, PathBuf)> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let scenarios = files.filter(|path| path.extension().is_some_and(|extension| extension == "scenario"));
    let named = scenarios.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path));
    let mut all: Vec<_> = named.collect();
    all.sort();
    all
}

fn parse(path: &Path) -> Scenario {
    let text = std::fs::read_to_string(path).unwrap();
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Does something with each of them, a few at a time; gives back what went wrong.
fn each<T: Sync>(items: &[T], at_once: usize, what: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut failed = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            failed.extend(what(item).err());
        }
        failed
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn every_scenario_tells_its_golden_story_in_the_simulator() {
    let scenarios = scenarios();
    assert!(scenarios.len() >= 16, "only {} scenarios found", scenarios.len());
    let bless = std::env::var_os("STARLING_BLESS").is_some();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let failed = each(&scenarios, cores, |(name, path)| {
        let outcome = parse(path).simulate(Recording::Nothing, &mut |_| {});
        let story = outcome.story.join("\n") + "\n";
        if !outcome.is_ok() {
            return Err(format!("{name} fails:\n{story}"));
        }
        let golden = path.with_extension("trace");
        if bless {
            return std::fs::write(&golden, story).map_err(|error| error.to_string());
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        let differing = || {
            let lines = expected.lines().zip(story.lines()).position(|(one, other)| one != other);
            let at = lines.unwrap_or(expected.lines().count().min(story.lines().count()));
            let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
            format!(
                "{name} tells another story from line {} on; STARLING_BLESS=1 rewrites it\nwas: {}\nnow: {}",
                at + 1,
                line(&expected),
                line(&story)
            )
        };
        if expected == story { Ok(()) } else { Err(differing()) }
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_golden_story_belongs_to_a_scenario() {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "trace")) {
        assert!(path.with_extension("scenario").exists(), "{} has no scenario", path.display());
    }
}

#[test]
fn every_scenario_says_what_to_look_for_and_is_in_the_documents() {
    let list = std::fs::read_to_string(folder().join("../../docs/scenarios.md")).unwrap();
    for (name, path) in scenarios() {
        let text = std::fs::read_to_string(&path).unwrap();
        let heading = text.lines().take_while(|line| line.starts_with('#')).count();
        assert!(heading >= 4, "{name} has no comment at its top that explains it");
        assert!(list.contains(&format!("`{name}`")), "{name} is not in docs/scenarios.md");
    }
}

#[test]
fn scenarios_come_out_the_same_on_real_processes() {
    let is_all = std::env::var("STARLING_SCENARIOS").is_ok_and(|which| which == "all");
    let mut chosen = scenarios();
    chosen.retain(|(name, path)| match is_all {
        true => parse(path).only_in_sim.is_none(),
        false => ON_A_LAB.contains(&name.as_str()),
    });
    assert!(chosen.len() >= ON_A_LAB.len());
    let failed = each(&chosen, LABS, |(name, path)| {
        let place = Place::new();
        let ran = place.run(&["lab", "--scenario", path.to_str().unwrap(), "--dir", &place.text("lab")]);
        match ran.code {
            Some(0) => Ok(()),
            _ => Err(format!("{name} fails on a lab:\n{}\n{}", ran.out, ran.err)),
        }
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_program_runs_a_script_and_says_by_its_exit_code_how_it_went() {
    let place = Place::new();
    let good = place.write("good", b"nodes 3\nat 1s put k v\nexpect committed\n");
    let ran = place.run(&["sim", "--scenario", &good]).ok();
    assert!(ran.out.contains("1 expectations held; the judges found nothing"), "{ran:#?}");
    let ran = place.run(&["sim", "--scenario", &good, "--trace", "key=k"]).ok();
    assert!(ran.out.contains("replicate #"), "{ran:#?}");
    let json = place.run(&["sim", "--scenario", &good, "--json"]).ok().json();
    assert_eq!((&json["ok"], &json["held"]), (&true.into(), &1.into()));
    let bad = place.write("bad", b"nodes 3\nat 1s put k v\nexpect unknown\n");
    place.run(&["sim", "--scenario", &bad]).failed(1, "line 3: expect unknown, but it was: committed by 2");
    let wrong = place.write("wrong", b"at 1s put k v\nat 1s fly n1\n");
    place
        .run(&["sim", "--scenario", &wrong])
        .failed(1, "wrong: line 2, column 7: \"fly\" is nothing that can be done");
    let clocks = place.write("clocks", b"# x\nonly in sim\nat 1s clock n1 +1h\n");
    place.run(&["lab", "--scenario", &clocks]).failed(1, "only for the simulator, as its line 2 says");
}
