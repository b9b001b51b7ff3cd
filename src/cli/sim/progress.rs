//! How far a campaign is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};

use super::super::output;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(20);

/// The wall and CPU time of a campaign, and who is told of it.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    count: u64,
    begun: Instant,
    cpu_before: Duration,
    last_line: Instant,
    seeds: u64,
    simulated: Duration,
    failed: u64,
}

impl Progress {
    #[expect(clippy::disallowed_methods, reason = "wall time is for people; no run depends on it")]
    pub(super) fn new(count: u64) -> Progress {
        let bar = (count > 1 && std::io::stderr().is_terminal()).then(|| ProgressBar::new(count));
        if let (Some(bar), Ok(style)) =
            (&bar, ProgressStyle::with_template("{bar:30} {pos}/{len} seeds  {msg}  {eta} left"))
        {
            bar.set_style(style);
        }
        Progress {
            bar,
            count,
            begun: Instant::now(),
            cpu_before: cpu(),
            last_line: Instant::now(),
            seeds: 0,
            simulated: Duration::ZERO,
            failed: 0,
        }
    }

    /// A seed was run.
    pub(super) fn ran(&mut self, simulated: Duration) {
        self.seeds += 1;
        self.simulated += simulated;
        self.show("");
    }

    /// A seed failed.
    pub(super) fn failed(&mut self) {
        self.failed += 1;
    }

    /// Something other than running seeds goes on.
    pub(super) fn says(&mut self, what: &str) {
        self.show(what);
    }

    /// Shows where it stands, if that is due.
    #[expect(clippy::disallowed_methods, reason = "wall time is for people; no run depends on it")]
    fn show(&mut self, what: &str) {
        let is_due = self.count > 1 && self.last_line.elapsed() > LINE_EVERY;
        if self.bar.is_none() && !is_due {
            return;
        }
        let speed = self.simulated_per_core_second();
        let mut text = format!("{} simulated, {speed:.0} s per core-second", span(self.simulated));
        if self.failed > 0 {
            text += &format!(", {} failed", self.failed);
        }
        if !what.is_empty() {
            text += &format!(", {what}");
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.seeds);
                bar.set_message(text);
            }
            None => {
                self.last_line = Instant::now();
                eprintln!("starling: {} of {} seeds, {text}", self.seeds, self.count);
            }
        }
    }

    /// Writes a line to standard output without tearing the bar.
    pub(super) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::line(text)),
            None => output::line(text),
        }
    }

    /// The bar goes.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Wall time so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Seconds of virtual time for each second that a core worked.
    pub(super) fn simulated_per_core_second(&self) -> f64 {
        self.simulated.as_secs_f64() / (cpu() - self.cpu_before).as_secs_f64().max(1e-3)
    }
}

/// The CPU time of this process so far.
fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(u64::try_from(value.tv_sec()).unwrap_or(0), value.tv_usec() as u32 * 1_000)
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// A span of virtual time for people.
pub(super) fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{}.{} h", seconds / 3_600, seconds % 3_600 / 360),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_a_unit_that_fits() {
        let told = [0, 119, 120, 7_199, 7_200, 9_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2.0 h", "2.5 h"]);
    }
}
