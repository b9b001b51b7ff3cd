//! `starling soak`: a real cluster under load and under faults, judged.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::answer::to_line;
use super::failure::{Done, Failure};
use super::lab::{Temporary, catch_signals};
use super::output::{self, Columns};
use crate::lab::soak::Soak;
use crate::lab::soak::chronicle::{Chronicle, Counts};
use crate::lab::soak::evidence::{Evidence, FILE};
use crate::lab::soak::options::SoakOptions;
use crate::lab::soak::strike::Kind;
use crate::lab::soak::verdict::Verdict;
use crate::sim::invariants;

/// Break a real cluster under load and judge what its clients saw
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts real node processes, lets clients read, write and delete through the client library, and meanwhile kills nodes \
(again while they start, and majorities too), stops and pauses them, cuts the network between them both ways and one way, \
delays and loses datagrams. Then everything heals, every key is read from all of its owners, and the judges of the \
simulator look for lost writes, values that came back, reads that missed something and outcomes that lied.

The seed draws the faults and what clients ask, but a run cannot be repeated exactly: the evidence is kept instead. A \
violation is told as a story, in order, and the exit code is 1. Ctrl-C ends the load and still judges; a second one ends \
everything.

Examples:
  starling soak                                        five minutes, five nodes, every kind of fault
  starling soak --minutes 60 --dir ./soak              an hour; the history and the nodes' logs stay in ./soak
  starling soak --seed 7 --seconds 30 --faults kill    only kill -9
  starling soak --faults none --clients 32             no faults at all
  starling soak --judge ./soak                         judge the evidence of an earlier run again")]
pub(crate) struct SoakArgs {
    /// Draws the faults and what clients ask [default: a new one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// For how many minutes faults go on [default: 5]
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// The same in seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// How many nodes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    nodes: u16,
    /// How many clients work at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// How many keys they share
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    keys: u64,
    /// The size of a value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_size: u32,
    /// What goes wrong: kill, stop, pause, cut, oneway, delay, loss, or none [default: all]
    #[arg(long, value_name = "KINDS", value_parser = parse_faults)]
    faults: Option<Faults>,
    /// Where the cluster lives; the history and the nodes' logs stay there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Judge the evidence in a directory again and run nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["seed", "minutes", "seconds", "faults", "dir"])]
    judge: Option<PathBuf>,
    /// Print JSON objects: the run first, its result last
    #[arg(long)]
    json: bool,
}

/// Kinds of faults, as one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Faults(Vec<Kind>);

fn parse_faults(text: &str) -> Result<Faults, String> {
    if text == "none" {
        return Ok(Faults(Vec::new()));
    }
    let mut kinds = text.split(',').map(str::parse).collect::<Result<Vec<Kind>, _>>()?;
    kinds.sort_unstable();
    kinds.dedup();
    Ok(Faults(kinds))
}

impl SoakArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        if let Some(dir) = &self.judge {
            return self.judge_again(dir);
        }
        let options = self.options()?;
        self.announce(&options);
        let mut temporary = None;
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => temporary.insert(Temporary::new("starling-soak")?).path().to_owned(),
        };
        let stop = catch_signals()?;
        let spinner = output::spinner("starting");
        let soak = Soak::start(options, &dir, &mut |message| spinner.set_message(message.to_owned()));
        spinner.finish_and_clear();
        let soak = soak.map_err(Failure::failed)?;
        let watch = Watch::begin(soak.chronicle(), soak.options().duration);
        let verdict = soak.run(&stop);
        watch.end();

        let is_kept = self.dir.is_some() || !verdict.is_ok();
        if is_kept {
            let saved = verdict.evidence.save(&dir);
            saved.map_err(|error| Failure::Failed(format!("{}: {error}", dir.display())))?;
            if let Some(temporary) = temporary {
                temporary.keep();
            }
        }
        self.tell(&verdict, is_kept.then_some(dir.as_path()));
        if verdict.is_ok() { Ok(()) } else { Err(Failure::Said) }
    }

    fn options(&self) -> Result<SoakOptions, Failure> {
        let seed = match self.seed {
            Some(seed) => seed,
            // Short enough to be told to somebody else.
            None => u64::from(getrandom::u32().map_err(Failure::failed)?),
        };
        let mut options = SoakOptions::new(seed);
        let seconds = self.seconds.or(self.minutes.map(|minutes| minutes.saturating_mul(60)));
        if let Some(seconds) = seconds {
            options.duration = Duration::from_secs(seconds);
        }
        (options.nodes, options.clients, options.keys) = (self.nodes, self.clients, self.keys);
        options.value_size = self.value_size as usize;
        if let Some(Faults(kinds)) = &self.faults {
            options.faults.clone_from(kinds);
        }
        Ok(options)
    }

    fn announce(&self, options: &SoakOptions) {
        output::line(&if self.json {
            to_line(&RunJson { event: "run", command: options.to_string(), seed: options.seed })
        } else {
            options.to_string()
        });
    }

    fn tell(&self, verdict: &Verdict, kept: Option<&Path>) {
        if self.json {
            output::line(&to_line(&ResultJson::of(verdict, kept)));
            return;
        }
        output::line(&summary(verdict));
        for remark in &verdict.calamities.remarks {
            output::line(&format!("worth a look: {remark}"));
        }
        for story in verdict.stories() {
            output::line(&format!("\n{story}"));
        }
        if let Some(dir) = kept {
            let dir = dir.display();
            output::line(&format!(
                "the history is in {dir}/{}, the nodes' logs in {dir}/n1/log and beside",
                FILE
            ));
        }
        if !verdict.is_ok() {
            eprintln!("starling: {} violations", verdict.violations.len());
        }
    }

    fn judge_again(&self, dir: &Path) -> Done {
        let failed = |error| Failure::Failed(format!("{}: {error}", dir.display()));
        let verdict = Verdict::again(Evidence::load(dir).map_err(failed)?);
        if self.json {
            output::line(&to_line(&ResultJson::of(&verdict, Some(dir))));
        } else {
            output::line(&verdict.evidence.options);
            let operations = verdict.evidence.history.operations.len();
            let violations = verdict.violations.len();
            output::line(&format!("{operations} operations, {violations} violations"));
            for story in verdict.stories() {
                output::line(&format!("\n{story}"));
            }
        }
        if verdict.is_ok() { Ok(()) } else { Err(Failure::Said) }
    }
}

fn summary(verdict: &Verdict) -> String {
    let Verdict { counts, calamities, gaps, evidence, loaded, .. } = verdict;
    let share = |count: u64| format!("{:.1}%", 100.0 * count as f64 / counts.operations().max(1) as f64);
    let mut operations = Columns::new(&["operations", ">count", ">share"]);
    for (name, count) in [
        ("writes committed", counts.committed),
        ("writes of unknown outcome", counts.unknown),
        ("writes not applied", counts.not_applied),
        ("reads answered", counts.answered),
        ("reads unavailable", counts.unavailable),
        ("all", counts.operations()),
    ] {
        operations.row([name.to_owned(), count.to_string(), share(count)]);
    }
    let mut faults = Columns::new(&["faults", ">count"]);
    for (kind, count) in &calamities.strikes {
        faults.row([kind.name().to_owned(), count.to_string()]);
    }
    faults.row(["killed again while starting".to_owned(), calamities.killed_as_they_started.to_string()]);
    faults.row(["no majority left".to_owned(), calamities.majorities_lost.to_string()]);
    let mut rest = Columns::new(&["seen by clients", ""]);
    let seconds = loaded.as_secs_f64().max(0.001);
    rest.row([
        "under load".to_owned(),
        format!("{loaded:.0?}, {:.0} operations/s", counts.operations() as f64 / seconds),
    ]);
    rest.row(["longest without any success".to_owned(), format!("{:.1?}", gaps.of_all)]);
    rest.row(["longest of one client".to_owned(), format!("{:.1?}", gaps.of_one)]);
    rest.row(["keys read from all owners at the end".to_owned(), evidence.history.remains.len().to_string()]);
    let judged: Vec<String> =
        invariants::JUDGES.iter().map(|(invariant, _)| invariant.name().to_owned()).collect();
    let result = match verdict.violations.len() {
        0 => "nothing was violated".to_owned(),
        1 => "1 VIOLATION".to_owned(),
        many => format!("{many} VIOLATIONS"),
    };
    format!(
        "{}\n\n{}\n\n{}\n\njudged: {}\n{result}",
        operations.text(),
        faults.text(),
        rest.text(),
        judged.join("; ")
    )
}

/// Shows what goes on, on a terminal.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn begin(chronicle: &Arc<Chronicle>, duration: Duration) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        if !std::io::stderr().is_terminal() {
            return Watch { over, thread: None };
        }
        let (chronicle, is_over) = (Arc::clone(chronicle), Arc::clone(&over));
        let show = move || {
            let bar = output::time_bar(duration);
            let begun = Instant::now();
            let (mut before, mut since) = (Counts::default(), Instant::now());
            let mut rate = 0;
            while !is_over.load(Ordering::Relaxed) {
                let counts = chronicle.counts();
                if since.elapsed() >= Duration::from_secs(1) {
                    let more = counts.operations() - before.operations();
                    rate = (more as f64 / since.elapsed().as_secs_f64()) as u64;
                    (before, since) = (counts, Instant::now());
                }
                bar.set_position(begun.elapsed().min(duration).as_secs());
                let Counts { committed, unknown, not_applied, unavailable, .. } = counts;
                let failed = not_applied + unavailable;
                let now = chronicle.what_is_now();
                bar.set_message(format!(
                    "{rate}/s  {committed} committed, {unknown} unknown, {failed} failed  {now}"
                ));
                std::thread::sleep(Duration::from_millis(200));
            }
            bar.finish_and_clear();
        };
        Watch { over, thread: Some(std::thread::spawn(show)) }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            // It only draws: if it panicked, nothing is lost.
            let _ = thread.join();
        }
    }
}

#[derive(Serialize)]
struct RunJson {
    event: &'static str,
    command: String,
    seed: u64,
}

#[derive(Serialize)]
struct ResultJson {
    event: &'static str,
    ok: bool,
    seconds: f64,
    operations: Counts,
    faults: std::collections::BTreeMap<&'static str, u64>,
    killed_while_starting: u64,
    majorities_lost: u64,
    longest_without_success_ms: u64,
    longest_of_one_client_ms: u64,
    keys_read_at_the_end: usize,
    judged: Vec<&'static str>,
    remarks: Vec<String>,
    violations: Vec<ViolationJson>,
    evidence: Option<String>,
}

#[derive(Serialize)]
struct ViolationJson {
    invariant: u8,
    name: &'static str,
    key: Option<String>,
    evidence: String,
    story: Vec<String>,
}

impl ResultJson {
    fn of(verdict: &Verdict, kept: Option<&Path>) -> ResultJson {
        let violation = |story: crate::lab::soak::story::Story| ViolationJson {
            invariant: story.violation.invariant.number(),
            name: story.violation.invariant.name(),
            key: story.violation.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned()),
            evidence: story.violation.evidence.clone(),
            story: story.lines.iter().map(ToString::to_string).collect(),
        };
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        ResultJson {
            event: "result",
            ok: verdict.is_ok(),
            seconds: verdict.loaded.as_secs_f64(),
            operations: verdict.counts,
            faults: verdict.calamities.strikes.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
            killed_while_starting: verdict.calamities.killed_as_they_started,
            majorities_lost: verdict.calamities.majorities_lost,
            longest_without_success_ms: millis(verdict.gaps.of_all),
            longest_of_one_client_ms: millis(verdict.gaps.of_one),
            keys_read_at_the_end: verdict.evidence.history.remains.len(),
            judged: invariants::JUDGES.iter().map(|(invariant, _)| invariant.name()).collect(),
            remarks: verdict.calamities.remarks.clone(),
            violations: verdict.stories().into_iter().map(violation).collect(),
            evidence: kept.map(|dir| dir.display().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<SoakArgs, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| match cli.command {
            Command::Soak(args) => *args,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_command_that_is_printed_repeats_the_options() {
        for line in [
            "starling soak --seed 9 --seconds 30 --nodes 3 --clients 2 --keys 5 --value-size 0 --faults kill,cut",
            "starling soak --seed 1 --seconds 300 --nodes 5 --clients 8 --keys 200 --value-size 100 --faults none",
        ] {
            assert_eq!(parse(line).unwrap().options().unwrap().to_string(), line);
        }
        let options = parse("starling soak --minutes 2").unwrap().options().unwrap();
        assert_eq!(
            options,
            SoakOptions { duration: Duration::from_secs(120), ..SoakOptions::new(options.seed) }
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "starling soak --faults fire",
            "starling soak --nodes 0",
            "starling soak --seconds 1 --minutes 1",
            "starling soak --judge a --dir b",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
