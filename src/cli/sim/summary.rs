//! What a campaign came to: a table for people, an object for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::super::output::Columns;
use super::progress::span;
use crate::sim::campaign::Totals;
use crate::sim::faults::Kind;
use crate::sim::report::Counts;
use crate::sim::{Report, judged};

/// One seed, for programs.
#[derive(Serialize)]
pub(super) struct ReportJson {
    seed: u64,
    ok: bool,
    nodes: usize,
    clients: u32,
    keys: u32,
    trace_hash: String,
    simulated_seconds: f64,
    operations: u64,
    faults: u64,
    crashes: u64,
    messages: u64,
    violations: Vec<String>,
    command: String,
    /// The command of the small run that fails in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    shrunk: Option<String>,
}

impl ReportJson {
    pub(super) fn of(report: &Report, shrunk: Option<&Report>) -> ReportJson {
        ReportJson {
            seed: report.options.seed,
            ok: report.is_ok(),
            nodes: report.nodes,
            clients: report.clients,
            keys: report.keys,
            trace_hash: format!("{:016x}", report.trace_hash),
            simulated_seconds: report.simulated.as_secs_f64(),
            operations: report.counts.operations,
            faults: report.counts.faults,
            crashes: report.counts.crashes,
            messages: report.counts.messages,
            violations: report.violations.iter().map(ToString::to_string).collect(),
            command: report.options.command(),
            shrunk: shrunk.map(|report| report.options.command()),
        }
    }
}

/// All seeds together, for programs.
#[derive(Serialize)]
pub(super) struct TotalsJson<'a> {
    totals: bool,
    ok: bool,
    seeds: u64,
    failed: &'a [u64],
    simulated_seconds: f64,
    operations: u64,
    committed: u64,
    unknown: u64,
    not_applied: u64,
    answered: u64,
    unavailable: u64,
    messages: u64,
    lost: u64,
    duplicated: u64,
    crashes: u64,
    faults: u64,
    faults_by_kind: BTreeMap<&'static str, u64>,
    seeds_by_condition: BTreeMap<&'static str, u64>,
    judged: BTreeMap<String, u64>,
    wall_seconds: f64,
    simulated_seconds_per_core_second: f64,
}

/// How long a campaign took, and how fast it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) elapsed: Duration,
    pub(super) simulated_per_core_second: f64,
}

pub(super) fn json(totals: &Totals, pace: Pace) -> TotalsJson<'_> {
    let Counts { operations, committed, unknown, not_applied, answered, unavailable, .. } = totals.counts;
    let Counts { messages, lost, duplicated, crashes, faults, .. } = totals.counts;
    let named =
        |kinds: &BTreeMap<Kind, u64>| kinds.iter().map(|(kind, count)| (kind.name(), *count)).collect();
    TotalsJson {
        totals: true,
        ok: totals.failed.is_empty(),
        seeds: totals.seeds,
        failed: &totals.failed,
        simulated_seconds: totals.simulated.as_secs_f64(),
        operations,
        committed,
        unknown,
        not_applied,
        answered,
        unavailable,
        messages,
        lost,
        duplicated,
        crashes,
        faults,
        faults_by_kind: named(&totals.struck),
        seeds_by_condition: named(&totals.held),
        judged: totals
            .judged
            .iter()
            .map(|(invariant, count)| (format!("{} {}", invariant.number(), invariant.name()), *count))
            .collect(),
        wall_seconds: pace.elapsed.as_secs_f64(),
        simulated_seconds_per_core_second: pace.simulated_per_core_second,
    }
}

/// The table for people.
pub(super) fn table(totals: &Totals, pace: Pace) -> String {
    let Counts { operations, committed, unknown, not_applied, answered, unavailable, .. } = totals.counts;
    let Counts { messages, lost, duplicated, crashes, starts, faults, .. } = totals.counts;
    let mut columns = Columns::new(&["", ">", ""]);
    let mut row = |what: &str, count: u64, more: String| {
        columns.row([what.to_owned(), thousands(count), more]);
    };
    let failed = match totals.failed.len() {
        0 => "none failed".to_owned(),
        failed => format!("{failed} failed"),
    };
    row("seeds", totals.seeds, failed);
    let speed = format!(
        "{}; {:.1} seeds a second, {:.0} simulated seconds per core-second",
        span(totals.simulated),
        totals.seeds as f64 / pace.elapsed.as_secs_f64().max(1e-3),
        pace.simulated_per_core_second,
    );
    row("simulated seconds", totals.simulated.as_secs(), speed);
    row(
        "operations",
        operations,
        format!(
            "{} committed, {} unknown, {} not applied; {} answered, {} unavailable",
            thousands(committed),
            thousands(unknown),
            thousands(not_applied),
            thousands(answered),
            thousands(unavailable)
        ),
    );
    let fates = format!("{} lost, {} delivered twice", thousands(lost), thousands(duplicated));
    row("messages", messages, fates);
    row("faults", faults, format!("{} crashes, {} starts", thousands(crashes), thousands(starts)));
    for (kind, count) in &totals.struck {
        row(&format!("  {}", kind.name()), *count, String::new());
    }
    for (kind, count) in &totals.held {
        row(&format!("  {}", kind.name()), *count, "seeds throughout".to_owned());
    }
    row("judged by invariant", totals.judged.values().sum(), String::new());
    for (invariant, count) in &totals.judged {
        let what = format!("{}: {}", judged::unit(*invariant), invariant.name());
        row(&format!("  {}", invariant.number()), *count, what);
    }
    // The headings are empty: a table of three columns explains itself.
    columns.text().trim_start().to_owned()
}

/// A number in groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("?")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Options, run};

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(thousands), ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn a_summary_says_what_was_injected_and_what_was_judged() {
        let mut totals = Totals::default();
        let mut options = Options::new(3);
        options.duration = Duration::from_secs(5);
        totals.add(&run(&options));
        let pace = Pace { elapsed: Duration::from_secs(2), simulated_per_core_second: 400.0 };
        let table = table(&totals, pace);
        for word in
            ["seeds", "none failed", "committed", "delivered twice", "answered reads", "keys compared"]
        {
            assert!(table.contains(word), "{word} is missing:\n{table}");
        }
        let json = serde_json::to_value(json(&totals, pace)).unwrap();
        assert_eq!((json["seeds"].as_u64(), json["ok"].as_bool()), (Some(1), Some(true)));
        assert!(json["judged"]["8 strict quorums are regular"].as_u64() > Some(0));
    }
}
