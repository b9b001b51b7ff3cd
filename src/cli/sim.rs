//! `starling sim`: whole clusters in virtual time, judged.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::answer::to_line;
use super::failure::{Done, Failure};
use super::output;
use crate::protocol::ring::replicas::Replicas;
use crate::sim::faults::{KINDS, Kind};
use crate::sim::{self, Options, Recording, Report};

/// Run whole clusters in virtual time and judge them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A seed decides everything: faults, timing, operations. The same seed gives the same trace hash on every machine. The exit \
code is 1 if any run violated an invariant; the report then says how to repeat it.

Examples:
  starling sim --seed 7
  starling sim --seed 1 --count 200
  starling sim --seed 7 --trace faults
  starling sim --seed 7 --trace key=k3")]
pub(crate) struct SimArgs {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
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
    /// The same in seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Which kinds of faults, such as crash,partition,loss; or none [default: drawn from the seed]
    #[arg(long, value_name = "KINDS", value_parser = parse_kinds)]
    faults: Option<Kinds>,
    /// Run every seed twice and compare the traces
    #[arg(long)]
    twice: bool,
    /// Print what happened: faults, all, or key=KEY
    #[arg(long, value_name = "WHAT", value_parser = parse_recording)]
    trace: Option<Recording>,
    /// Print one JSON object per seed
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

fn parse_recording(text: &str) -> Result<Recording, String> {
    match text.split_once('=') {
        None if text == "faults" => Ok(Recording::Faults),
        None if text == "all" => Ok(Recording::Everything),
        Some(("key", key)) => Ok(Recording::Key(bytes::Bytes::copy_from_slice(key.as_bytes()))),
        _ => Err("write faults, all, or key=KEY".to_owned()),
    }
}

#[derive(Serialize)]
struct ReportJson {
    seed: u64,
    ok: bool,
    nodes: usize,
    trace_hash: String,
    operations: u64,
    faults: u64,
    crashes: u64,
    messages: u64,
    violations: Vec<String>,
    command: String,
}

impl ReportJson {
    fn of(report: &Report) -> ReportJson {
        ReportJson {
            seed: report.options.seed,
            ok: report.is_ok(),
            nodes: report.nodes,
            trace_hash: format!("{:016x}", report.trace_hash),
            operations: report.counts.operations,
            faults: report.counts.faults,
            crashes: report.counts.crashes,
            messages: report.counts.messages,
            violations: report.violations.iter().map(ToString::to_string).collect(),
            command: report.options.command(),
        }
    }
}

impl SimArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let mut failed = 0;
        for seed in self.seed..self.seed.saturating_add(self.count) {
            let report = sim::run(&self.options(seed)?);
            failed += u64::from(!report.is_ok());
            output::line(&if self.json {
                to_line(&ReportJson::of(&report))
            } else {
                let mut text = report.to_string().trim_end().to_owned();
                // A report shows its lines by itself only when something went wrong.
                if report.is_ok() && self.trace.is_some() {
                    for line in &report.timeline {
                        text += &format!("\n{line}");
                    }
                }
                text
            });
        }
        if failed == 0 {
            return Ok(());
        }
        eprintln!("starling: {failed} of {} seeds violated an invariant", self.count);
        Err(Failure::Said)
    }

    fn options(&self, seed: u64) -> Result<Options, Failure> {
        let mut options = Options::new(seed);
        options.nodes = self.nodes;
        options.clients = self.clients;
        options.keys = self.keys;
        options.rate = self.rate;
        options.replicas = Replicas::new(self.replicas).map_err(|error| Failure::Usage(error.to_string()))?;
        let seconds = self.seconds.or(self.minutes.map(|minutes| minutes.saturating_mul(60)));
        if let Some(seconds) = seconds {
            options.duration = Duration::from_secs(seconds);
        }
        options.faults = self.faults.clone().map(|Kinds(kinds)| kinds);
        options.twice = self.twice;
        options.recording = self.trace.clone().unwrap_or_default();
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_command_in_a_report_repeats_its_run() {
        let line = "starling sim --seed 9 --nodes 3 --clients 2 --keys 5 --rate 50 --replicas 1 --minutes 2 --faults crash,loss";
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
    fn recordings_are_named() {
        assert_eq!(parse_recording("faults"), Ok(Recording::Faults));
        assert_eq!(parse_recording("key=a=b"), Ok(Recording::Key("a=b".into())));
        assert!(parse_recording("some").is_err());
    }
}
