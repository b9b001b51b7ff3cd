//! `starling sim`: whole clusters in virtual time, judged.

mod progress;
mod summary;
mod workers;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::answer::to_line;
use super::failure::{Done, Failure};
use crate::protocol::ring::replicas::Replicas;
use crate::sim::campaign::Totals;
use crate::sim::faults::{KINDS, Kind};
use crate::sim::invariants::Invariant;
use crate::sim::shrink::{self, Shrunk};
use crate::sim::{Options, Recording, Report};
use progress::Progress;
use summary::{Pace, ReportJson};
use workers::News;

/// Run whole clusters in virtual time and judge them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A seed decides everything: faults, timing, operations. The same seed gives the same trace hash on every machine. If a run \
violates an invariant, a small run is looked for that does the same, and its story is told together with the command \
that repeats it; the exit code is 1.

Examples:
  starling sim --seed 7
  starling sim --seed 1 --count 10000
  starling sim --seed 1 --count 500 --faults crash,partition --stop-after 1
  starling sim --seed 7 --trace faults
  starling sim --seed 7 --trace key=k3
  starling sim --seed 7 --trace run7.txt
  starling sim --scenario tests/scenarios/split_brain.scenario")]
pub(crate) struct SimArgs {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How many seeds at once [default: one on each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// How many nodes [default: drawn from the seed]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: Option<u16>,
    /// How many clients [default: drawn from the seed]
    #[arg(long)]
    clients: Option<u32>,
    /// How many keys [default: drawn from the seed]
    #[arg(long)]
    keys: Option<u32>,
    /// Operations a second of all clients together [default: drawn from the seed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// Replicas of every key
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: u8,
    /// For how many virtual minutes faults go on [default: 1]
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// The same in seconds, such as 90 or 2.5
    #[arg(long, value_parser = parse_seconds)]
    seconds: Option<Duration>,
    /// Which kinds of faults, such as crash,partition,loss; or none [default: drawn from the seed]
    #[arg(long, value_name = "KINDS", value_parser = parse_kinds)]
    faults: Option<Kinds>,
    /// Only the faults with these numbers, as a trace shows them; or none [default: all that come up]
    #[arg(long, value_name = "NUMBERS", value_parser = parse_numbers)]
    only_faults: Option<Numbers>,
    /// Run every seed twice and compare the traces
    #[arg(long)]
    twice: bool,
    /// Run the scenario in this file instead of seeds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["count", "nodes", "clients", "keys", "twice"])]
    scenario: Option<PathBuf>,
    /// Tell what happened: faults, all, or key=KEY. A file name writes all of it there, WHAT:FILE a part
    #[arg(long, value_name = "WHAT or FILE", value_parser = parse_trace)]
    trace: Option<Trace>,
    /// Tell of a failing run as it is, and look for no smaller one
    #[arg(long)]
    no_shrink: bool,
    /// End after this many failing seeds [default: run all]
    #[arg(long, value_name = "FAILURES", value_parser = clap::value_parser!(u64).range(1..))]
    stop_after: Option<u64>,
    /// Print one JSON object per seed and, if there are several, a last one with the totals
    #[arg(long)]
    json: bool,
}

/// Kinds of faults, in one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kinds(BTreeSet<Kind>);

fn parse_kinds(text: &str) -> Result<Kinds, String> {
    if text == "none" {
        return Ok(Kinds(BTreeSet::new()));
    }
    let kind = |name: &str| {
        Kind::of_name(name).ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|(_, name)| *name).collect();
            format!("there is no fault {name:?}; write none, or some of {}", names.join(","))
        })
    };
    text.split(',').map(kind).collect::<Result<_, _>>().map(Kinds)
}

/// Numbers of faults, in one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Numbers(BTreeSet<u32>);

fn parse_numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" {
        return Ok(Numbers(BTreeSet::new()));
    }
    let number =
        |text: &str| text.parse().map_err(|_| format!("{text:?} is no number; write none, or such as 3,7,9"));
    text.split(',').map(number).collect::<Result<_, _>>().map(Numbers)
}

/// Whole milliseconds: a run that is cut short in the middle of one would not be the same everywhere.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = match (is_number(seconds) && is_number(fraction) && fraction.len() <= 3, seconds.parse()) {
        (true, Ok(seconds)) => format!("{fraction:0<3}").parse().ok().map(|millis| (seconds, millis)),
        _ => None,
    };
    let (seconds, millis): (u64, u64) =
        parsed.ok_or("write seconds such as 90 or 2.5, with at most three digits")?;
    Ok(Duration::from_secs(seconds) + Duration::from_millis(millis))
}

/// What to tell of a run, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trace {
    recording: Recording,
    file: Option<PathBuf>,
}

fn parse_trace(text: &str) -> Result<Trace, String> {
    let what = |what: &str| match what.split_once('=') {
        None if what == "faults" => Some(Recording::Faults),
        None if what == "all" => Some(Recording::Everything),
        Some(("key", key)) => Some(Recording::Key(bytes::Bytes::copy_from_slice(key.as_bytes()))),
        _ => None,
    };
    if let Some((before, file)) = text.split_once(':')
        && let Some(recording) = what(before)
        && !file.is_empty()
    {
        return Ok(Trace { recording, file: Some(file.into()) });
    }
    match what(text) {
        Some(recording) => Ok(Trace { recording, file: None }),
        None if text.is_empty() => Err("write faults, all, key=KEY or the name of a file".to_owned()),
        None => Ok(Trace { recording: Recording::Everything, file: Some(text.into()) }),
    }
}

impl SimArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        if let Some(script) = &self.scenario {
            let trace = self.trace.map(|trace| (trace.recording, trace.file));
            return super::scenario::simulate(script, trace, self.json);
        }
        if self.count > 1 && self.trace.as_ref().is_some_and(|trace| trace.file.is_some()) {
            return Err(Failure::Usage("a trace file tells of one seed; leave out --count".to_owned()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        // The first Ctrl-C ends the campaign in good order, the second one the program.
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
                .map_err(Failure::failed)?;
        }
        let jobs = self.jobs.map_or_else(workers::cores, usize::from);
        let first = self.options(self.seed)?;
        let mut campaign = Campaign {
            args: &self,
            stop: &stop,
            progress: Progress::new(self.count),
            totals: Totals::default(),
            told: BTreeSet::new(),
            again: None,
            trouble: None,
        };
        if !self.json {
            // Before anything runs: should it never come back, this is what has to be known.
            let many = if self.count > 1 { format!(" --count {}", self.count) } else { String::new() };
            campaign.progress.line(&format!("{}{many}", first.command()));
        }
        let seeds = self.seed..self.seed.saturating_add(self.count);
        let options = |seed| {
            let mut options = first.clone();
            options.seed = seed;
            options
        };
        workers::run_all(seeds, jobs, &stop, options, |news| match news {
            News::Ran(simulated) => campaign.progress.ran(simulated),
            News::Next(report) => campaign.take(&report),
            News::Tick => campaign.progress.says(""),
        });
        campaign.end()
    }

    fn options(&self, seed: u64) -> Result<Options, Failure> {
        let mut options = Options::new(seed);
        options.nodes = self.nodes;
        options.clients = self.clients;
        options.keys = self.keys;
        options.rate = self.rate;
        options.replicas = Replicas::new(self.replicas).map_err(|error| Failure::Usage(error.to_string()))?;
        let minutes = |minutes: u64| Duration::from_secs(minutes.saturating_mul(60));
        if let Some(duration) = self.seconds.or(self.minutes.map(minutes)) {
            options.duration = duration;
        }
        options.faults = self.faults.clone().map(|Kinds(kinds)| kinds);
        options.only_faults = self.only_faults.clone().map(|Numbers(numbers)| numbers);
        options.twice = self.twice;
        options.recording = self.trace.clone().map(|trace| trace.recording).unwrap_or_default();
        Ok(options)
    }
}

/// A campaign under way: what is told of it, and what it adds up to.
struct Campaign<'a> {
    args: &'a SimArgs,
    stop: &'a AtomicBool,
    progress: Progress,
    totals: Totals,
    /// The invariants whose violation was told in full; of others that break the same one only the command is of use.
    told: BTreeSet<Invariant>,
    /// The command that repeats the first failure, the small one if there is one.
    again: Option<String>,
    trouble: Option<Failure>,
}

impl Campaign<'_> {
    /// The next seed in order.
    fn take(&mut self, report: &Report) {
        let failures = self.totals.failed.len() as u64;
        if self.args.stop_after.is_some_and(|limit| failures >= limit) {
            return;
        }
        self.totals.add(report);
        let shrunk = report.violations.first().and_then(|violation| {
            self.progress.failed();
            self.told.insert(violation.invariant).then(|| self.shrink(report)).flatten()
        });
        if self.args.json {
            self.progress
                .line(&to_line(&ReportJson::of(report, shrunk.as_ref().map(|shrunk| &shrunk.report))));
        } else {
            self.tell(report, shrunk.as_ref());
        }
        if !report.is_ok() {
            let smallest = shrunk.as_ref().map_or(report, |shrunk| &shrunk.report);
            self.again.get_or_insert_with(|| smallest.options.command());
            if self.args.stop_after.is_some_and(|limit| failures + 1 >= limit) {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        self.write_trace(report);
    }

    /// Looks for a small run that fails in the same way.
    fn shrink(&mut self, report: &Report) -> Option<Shrunk> {
        if self.args.no_shrink {
            return None;
        }
        let (stop, progress, seed) = (self.stop, &mut self.progress, report.options.seed);
        if !self.args.json {
            progress.line(&format!("seed {seed} failed; looking for a small run that fails in the same way"));
        }
        shrink::shrink(&report.options, shrink::RUNS_MAX, &mut |search| {
            progress.says(&format!(
                "seed {seed}: {} after {} runs of {}",
                search.size, search.runs, search.runs_max
            ));
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// For people: a single seed in any case, of many the failing ones.
    fn tell(&self, report: &Report, shrunk: Option<&Shrunk>) {
        let mut text = String::new();
        match (shrunk, report.violations.first()) {
            (Some(shrunk), Some(violation)) => {
                text += &format!("seed {}: {violation}\n", report.options.seed);
                text += &format!("        {}\n", report.options.command());
                text += &format!("shrunk in {} runs\n", shrunk.runs);
                text += &format!("  from  {}\n  to    {}\n\n{}", shrunk.before, shrunk.after, shrunk.report);
            }
            // Of what was told in full before, the command is enough.
            (None, Some(violation)) if self.args.count > 1 && !self.args.no_shrink => {
                let command = report.options.command();
                text += &format!("seed {}: {violation}\n        {command}", report.options.seed);
            }
            (_, None) if self.args.count > 1 => {}
            _ => text += &report.to_string(),
        }
        if self.args.trace.as_ref().is_some_and(|trace| trace.file.is_none()) {
            for line in &report.timeline {
                text += &format!("\n{line}");
            }
        }
        if !text.is_empty() {
            self.progress.line(text.trim_end());
        }
    }

    fn write_trace(&mut self, report: &Report) {
        let Some(file) = self.args.trace.as_ref().and_then(|trace| trace.file.as_ref()) else { return };
        let mut text = report.to_string();
        for line in &report.timeline {
            text += &format!("{line}\n");
        }
        if let Err(error) = std::fs::write(file, text) {
            self.trouble = Some(Failure::failed(format!("cannot write {}: {error}", file.display())));
        }
    }

    /// The summary, and how it ended.
    fn end(self) -> Done {
        self.progress.end();
        let pace = Pace {
            elapsed: self.progress.elapsed(),
            simulated_per_core_second: self.progress.simulated_per_core_second(),
        };
        let (totals, count) = (&self.totals, self.args.count);
        if count > 1 && self.args.json {
            self.progress.line(&to_line(&summary::json(totals, pace)));
        } else if count > 1 {
            self.progress.line(&format!("\n{}", summary::table(totals, pace)));
        }
        if totals.seeds < count {
            eprintln!("starling: ended after {} of {count} seeds", totals.seeds);
        }
        if let Some(again) = self.again {
            let failed = totals.failed.len();
            eprintln!("starling: {failed} of {} seeds violated an invariant; again: {again}", totals.seeds);
            return Err(Failure::Said);
        }
        self.trouble.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_command_in_a_report_repeats_its_run() {
        let line = "starling sim --seed 9 --nodes 3 --clients 2 --keys 5 --rate 50 --replicas 1 --seconds 2.050 --faults crash,loss --only-faults 3,11";
        let Command::Sim(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
        assert_eq!(args.options(9).unwrap().command(), line);
    }

    #[test]
    fn kinds_of_faults_are_named() {
        assert_eq!(parse_kinds("none"), Ok(Kinds(BTreeSet::new())));
        assert_eq!(parse_kinds("loss,crash"), Ok(Kinds(BTreeSet::from([Kind::Crash, Kind::Loss]))));
        assert!(parse_kinds("crash,earthquake").unwrap_err().contains("one-way"));
    }

    #[test]
    fn single_faults_and_seconds_are_told() {
        assert_eq!(parse_numbers("none"), Ok(Numbers(BTreeSet::new())));
        assert_eq!(parse_numbers("3,11"), Ok(Numbers(BTreeSet::from([3, 11]))));
        assert!(parse_numbers("3,x").is_err());
        assert_eq!(parse_seconds("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_seconds("2.05"), Ok(Duration::from_millis(2_050)));
        for wrong in ["", ".5", "1.", "1.2345", "-1", "a", "1e3"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_trace_has_a_content_and_perhaps_a_file() {
        let trace = |recording, file: Option<&str>| Ok(Trace { recording, file: file.map(PathBuf::from) });
        assert_eq!(parse_trace("faults"), trace(Recording::Faults, None));
        assert_eq!(parse_trace("key=a=b"), trace(Recording::Key("a=b".into()), None));
        assert_eq!(parse_trace("run.txt"), trace(Recording::Everything, Some("run.txt")));
        assert_eq!(parse_trace("key=k1:./run.txt"), trace(Recording::Key("k1".into()), Some("./run.txt")));
        assert!(parse_trace("").is_err());
    }
}
