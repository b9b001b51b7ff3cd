//! The story of a violation: a time line that a person can follow.
//!
//! From everything that touched the key, and every fault, the story keeps what leads to the violation. A message is told once, when
//! it is sent, unless it arrives late; what is sent again and again is told once with a count; what says nothing of
//! the write in question is folded away if there is too much of it. The lines that decide are marked: the write that
//! the evidence names first, and the read at which the violation shows.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::clock;
use super::history::{Action, History, Operation, WriteId};
use super::host;
use super::invariants::{Invariant, Violation};
use super::report::{Line, Report, Topic, counted};
use crate::protocol::time::Moment;

/// The most lines that a story tells; the trace has them all.
const LINES_MAX: usize = 60;

/// If there are more faults, starts and stops than this, only those around the violation are told.
const FAULTS_MAX: usize = 30;

/// The last lines are told whatever they say: a run that is stopped at a violation ends with it.
const LAST: usize = 8;

/// The last reads of the key that are listed.
const READS_MAX: usize = 8;

/// The story of a violation.
#[derive(Clone, Debug)]
pub struct Story {
    told: Vec<Told>,
    /// What each node held, by name.
    held: Vec<(String, String)>,
    /// Which clients were shown what.
    shown: Vec<String>,
}

/// A line of a story.
#[derive(Clone, Debug)]
struct Told {
    line: Line,
    /// Whether it decides, and how.
    mark: Option<&'static str>,
    /// How often it was repeated, and until when.
    again: Option<(u32, Moment)>,
}

/// What a story is about.
struct Plot<'a> {
    violation: &'a Violation,
    history: &'a History,
    /// The writes that the evidence names, the decisive one first.
    named: Vec<WriteId>,
}

impl Story {
    /// Tells of a violation from the report of the same run with everything on its key recorded.
    pub(super) fn of(violation: &Violation, recorded: &Report) -> Story {
        let named = named_in(&violation.evidence);
        let plot = Plot { violation, history: &recorded.history, named };
        let lines = plot.around(&recorded.timeline, recorded.begun);
        let mut told = plot.once(lines);
        plot.mark(&mut told);
        if told.len() > LINES_MAX {
            told = plot.fold(told);
        }
        shorten(&mut told);
        let held = recorded.holdings.iter().map(|(index, holding)| {
            let durable = holding.durable.as_deref().unwrap_or("nothing");
            let text = match &holding.applied {
                Some(applied) if applied == durable => applied.clone(),
                Some(applied) => format!("{applied}; durable {durable}"),
                None => format!("{durable}, when it was last running"),
            };
            (host::name(*index), text)
        });
        Story { told, held: held.collect(), shown: plot.shown() }
    }
}

impl Plot<'_> {
    /// The lines that matter for when they were: those of the time in which the violation took shape, and the faults before.
    /// How the cluster was founded before the clients began is left out.
    fn around(&self, lines: &[Line], begun: Moment) -> Vec<Line> {
        let (from, until) = self.violation.span.unwrap_or((Moment::default(), Moment::NEVER));
        let from = from - Duration::from_secs(1);
        let until = if until == Moment::NEVER { until } else { until + Duration::from_millis(20) };
        let faults = lines.iter().filter(|line| line.topic == Topic::Fault && line.at <= until).count();
        let is_in = |line: &&Line| {
            let is_start = ["starts", "says Started", "says Serving"].contains(&line.text.as_str());
            if is_start && (line.at < begun || line.text == "says Started") {
                return false;
            }
            let from = match line.topic {
                Topic::Fault if faults <= FAULTS_MAX => Moment::default(),
                _ => from,
            };
            line.at >= from && line.at <= until
        };
        lines.iter().filter(is_in).cloned().collect()
    }

    /// Tells every message once, and what is repeated once with a count.
    fn once(&self, lines: Vec<Line>) -> Vec<Told> {
        let late: BTreeSet<String> = lines
            .iter()
            .filter(|line| line.topic == Topic::Sent)
            .filter_map(|line| line.text.split_once(", under way").map(|(text, _)| text.to_owned()))
            .collect();
        let mut told: Vec<Told> = Vec::new();
        for line in lines {
            if line.topic == Topic::Received && !late.contains(&line.text) {
                continue;
            }
            let is_numbered = line.topic == Topic::Sent && line.text.contains('#');
            let before = told
                .iter_mut()
                .rev()
                .find(|before| is_numbered && before.line.who == line.who && before.line.text == line.text);
            match before {
                Some(before) => {
                    let count = before.again.map_or(0, |(count, _)| count) + 1;
                    before.again = Some((count, line.at));
                }
                None => told.push(Told { line, mark: None, again: None }),
            }
        }
        told
    }

    /// Marks what the clients did that decides.
    fn mark(&self, told: &mut [Told]) {
        let (from, until) = self.violation.span.unzip();
        let of_key = self.history.operations.iter().filter(|op| Some(&op.key) == self.violation.key.as_ref());
        for operation in of_key {
            let (asked, answered) = match &operation.action {
                Action::Write { id, .. } if self.named.first() == Some(id) => roles(self.violation.invariant),
                Action::Write { id, .. } if self.named.contains(id) => ("", ""),
                Action::Read { .. } | Action::Compare if Some(operation.ended) == until => {
                    ("", "here it shows")
                }
                // Where a violation begins that is about no single write.
                _ if self.named.is_empty() && Some(operation.invoked) == from => ("", ""),
                _ => continue,
            };
            let client = format!("c{}", operation.client);
            let is_within = |at: Moment| at >= operation.invoked && at <= operation.ended;
            let mut lines: Vec<&mut Told> = told
                .iter_mut()
                .filter(|told| is_within(told.line.at))
                .filter(|told| match told.line.topic {
                    Topic::Asked => told.line.who.split(' ').next() == Some(client.as_str()),
                    Topic::Answered => told.line.who.split(' ').next_back() == Some(client.as_str()),
                    _ => false,
                })
                .collect();
            if let Some(first) = lines.iter_mut().find(|told| told.line.topic == Topic::Asked) {
                first.mark = Some(asked);
            }
            if let Some(last) = lines.iter_mut().rev().find(|told| told.line.topic == Topic::Answered) {
                last.mark = Some(answered);
            }
        }
    }

    /// Folds away what says nothing of the decisive write.
    fn fold(&self, told: Vec<Told>) -> Vec<Told> {
        let mut kept: Vec<Told> = Vec::new();
        let mut away: Vec<Told> = Vec::new();
        // A violation that is about no single write is best explained by what came right before it.
        let last = told.len().saturating_sub(if self.named.is_empty() { LINES_MAX * 2 / 3 } else { LAST });
        for (index, one) in told.into_iter().enumerate() {
            let says =
                self.named.first().is_some_and(|id| words(&one.line.text).any(|word| word == id.to_string()));
            if one.mark.is_some() || one.line.topic == Topic::Fault || says || index >= last {
                kept.extend(folded(&mut away));
                kept.push(one);
            } else {
                away.push(one);
            }
        }
        kept.extend(folded(&mut away));
        kept
    }

    /// What clients were shown of the key, the last times.
    fn shown(&self) -> Vec<String> {
        let reads = self.history.operations.iter().filter(|op| Some(&op.key) == self.violation.key.as_ref());
        let mut shown: Vec<(&Operation, String)> = reads
            .filter_map(|operation| {
                let (_, seen) = operation.as_answered()?;
                let values: Vec<String> = seen.ids().iter().map(ToString::to_string).collect();
                let deleted = if seen.deleted { " deleted" } else { "" };
                let client = operation.client;
                Some((operation, format!("c{client:<8} [{}]{deleted}", values.join(" "))))
            })
            .collect();
        shown.sort_by_key(|(operation, _)| operation.ended);
        let surplus = shown.len().saturating_sub(READS_MAX);
        shown.drain(..surplus);
        shown
            .into_iter()
            .map(|(operation, text)| format!("{}  {text}", clock::show(operation.ended)))
            .collect()
    }
}

/// What the decisive write is to an invariant: when it is asked for, and when it is answered.
fn roles(invariant: Invariant) -> (&'static str, &'static str) {
    match invariant {
        Invariant::NoLostWrite => ("the write that is going to be lost", "committed, and so to be kept"),
        Invariant::RegularReads => ("the write that is going to be missed", "committed, and so to be read"),
        Invariant::Outcomes => ("the write that never happened", "so it has to be nowhere"),
        Invariant::NoResurrection => ("the value that is going to come back", ""),
        _ => ("", ""),
    }
}

/// The writes that a text names, each once, in order.
fn named_in(text: &str) -> Vec<WriteId> {
    let mut named = Vec::new();
    for id in words(text).filter_map(|word| WriteId::of_value(word.as_bytes())) {
        if !named.contains(&id) {
            named.push(id);
        }
    }
    named
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
}

/// A line that stands for those that were folded away, or the line itself if it is only one.
fn folded(away: &mut Vec<Told>) -> Option<Told> {
    if away.len() < 2 {
        return away.pop();
    }
    let count = |topics: &[Topic]| away.iter().filter(|told| topics.contains(&told.line.topic)).count();
    let parts = [
        (count(&[Topic::Sent, Topic::Received]), "message"),
        (count(&[Topic::Asked]), "request"),
        (count(&[Topic::Answered]), "answer"),
        (count(&[Topic::Disk]), "disk event"),
        (count(&[Topic::Fault]), "fault"),
        (count(&[Topic::Other]), "other"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| counted(*count as u64, what)).collect();
    let at = away.first().map(|told| told.line.at)?;
    let text = format!("... {} more: {} ...", away.len(), parts.join(", "));
    away.clear();
    Some(Told { line: Line { at, who: String::new(), topic: Topic::Other, text }, mark: None, again: None })
}

/// Cuts the middle out of what is still too long: the beginning shows where it came from, the end what came of it.
fn shorten(told: &mut Vec<Told>) {
    let surplus = told.len().saturating_sub(LINES_MAX);
    if surplus > 0 {
        let head = LINES_MAX / 3;
        // What decides is told wherever it is.
        let middle: Vec<Told> = told.drain(head..=head + surplus).collect();
        let mut kept = Vec::new();
        let mut away = Vec::new();
        for one in middle {
            if one.mark.is_some() {
                kept.extend(folded(&mut away));
                kept.push(one);
            } else {
                away.push(one);
            }
        }
        kept.extend(folded(&mut away));
        told.splice(head..head, kept);
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Told { line, mark, again } in &self.told {
            let sign = if mark.is_some() { '>' } else { ' ' };
            write!(f, "{sign} {line}")?;
            if let Some((count, until)) = again {
                let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
                write!(f, " (again {times}, until {})", clock::show(*until).trim_start())?;
            }
            match mark {
                Some(mark) if !mark.is_empty() => writeln!(f, "   <== {mark}")?,
                _ => writeln!(f)?,
            }
        }
        if !self.held.is_empty() {
            writeln!(f, "\nheld in the end:")?;
            for (node, text) in &self.held {
                writeln!(f, "  {node:<4} {text}")?;
            }
        }
        if !self.shown.is_empty() {
            writeln!(f, "\nlast shown to clients:")?;
            for line in &self.shown {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
