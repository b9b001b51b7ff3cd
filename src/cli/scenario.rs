//! `starling sim --scenario FILE` and `starling lab --scenario FILE`: one script, in virtual time or on real processes.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::answer::to_line;
use super::failure::{Done, Failure};
use super::output;
use crate::lab::cluster::Lab;
use crate::lab::scenario::play;
use crate::sim::Recording;
use crate::sim::scenario::{Outcome, Scenario};

/// What a program is told of a scenario.
#[derive(Serialize)]
struct OutcomeJson {
    ok: bool,
    held: usize,
    failures: Vec<String>,
    violations: Vec<String>,
    story: Vec<String>,
}

/// Reads the script in a file.
pub(crate) fn read(file: &Path) -> Result<Scenario, Failure> {
    let named = |why: &dyn std::fmt::Display| Failure::Failed(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    Scenario::parse(&text).map_err(|error| named(&error))
}

/// Runs a script in the simulator. With a recording, what the nodes did follows the story, or is written to a file.
pub(crate) fn simulate(file: &Path, trace: Option<(Recording, Option<PathBuf>)>, json: bool) -> Done {
    let scenario = read(file)?;
    let recording = trace.as_ref().map(|(recording, _)| recording.clone()).unwrap_or_default();
    let outcome = scenario.simulate(recording, &mut |line| tell(line, json));
    let lines = outcome.timeline.iter().map(ToString::to_string);
    match trace {
        Some((_, Some(file))) => {
            let text = lines.collect::<Vec<_>>().join("\n") + "\n";
            std::fs::write(&file, text)
                .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", file.display())))?;
        }
        Some((_, None)) if !json => {
            output::line("");
            lines.for_each(|line| output::line(&line));
        }
        _ => {}
    }
    ended(&outcome, json)
}

/// Runs a script on a lab that has just been started.
pub(crate) fn play_in(lab: &mut Lab, scenario: &Scenario, json: bool) -> Done {
    let outcome = play(scenario, lab, &mut |line| tell(line, json)).map_err(Failure::Failed)?;
    ended(&outcome, json)
}

fn tell(line: &str, json: bool) {
    if !json {
        output::line(line);
    }
}

fn ended(outcome: &Outcome, json: bool) -> Done {
    if json {
        output::line(&to_line(&OutcomeJson {
            ok: outcome.is_ok(),
            held: outcome.held,
            failures: outcome.failures.clone(),
            violations: outcome.violations.iter().map(ToString::to_string).collect(),
            story: outcome.story.clone(),
        }));
    }
    if outcome.is_ok() {
        return Ok(());
    }
    for failure in &outcome.failures {
        eprintln!("starling: {failure}");
    }
    Err(Failure::Said)
}
