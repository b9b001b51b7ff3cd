//! The story of a violation: what all clients did to the key, and what was done to the cluster meanwhile, in order.

use std::fmt;
use std::time::Duration;

use super::chronicle::Event;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::Level;
use crate::sim::history::{Action, Basis, Ending, History, Operation, WriteId};
use crate::sim::invariants::Violation;

/// What happened this long before and after counts too.
const AROUND: Duration = Duration::from_secs(5);

/// The most lines of a story; the evidence has them all.
const LINES_MAX: usize = 120;

/// A violation, and what happened around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// What was violated.
    pub violation: Violation,
    /// What happened, in order.
    pub lines: Vec<Line>,
    /// How many lines were left out of the middle.
    pub left_out: usize,
}

/// One line of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it began.
    pub at: Moment,
    /// When it ended, if it took time.
    pub until: Option<Moment>,
    /// What.
    pub text: String,
}

impl Story {
    /// Of a violation. One without a key is told by what was done to the cluster before it was found.
    #[must_use]
    pub fn of(violation: &Violation, history: &History, events: &[Event]) -> Story {
        let (from, to) = match violation.span {
            Some((from, to)) => (from - AROUND, to + AROUND),
            None => (Moment(0), Moment::NEVER),
        };
        let mut lines: Vec<Line> = history
            .operations
            .iter()
            .filter(|operation| Some(&operation.key) == violation.key.as_ref())
            .filter(|operation| operation.invoked <= to && operation.ended >= from)
            .map(Line::of)
            .collect();
        let events = events.iter().filter(|event| (from..=to).contains(&event.at));
        lines.extend(events.map(|event| {
            let text = format!("── {}", event.what.replace('\n', "\n      "));
            Line { at: event.at, until: None, text }
        }));
        lines.sort_by_key(|line| line.at);
        let left_out = lines.len().saturating_sub(LINES_MAX);
        if left_out > 0 {
            lines.drain(LINES_MAX / 2..LINES_MAX / 2 + left_out);
        }
        Story { violation: violation.clone(), lines, left_out }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        for (number, line) in self.lines.iter().enumerate() {
            if self.left_out > 0 && number == LINES_MAX / 2 {
                writeln!(f, "  ... {} lines, which are in the evidence ...", self.left_out)?;
            }
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |at: Moment| format!("{}.{:03}", at.0 / 1_000_000, at.0 / 1_000 % 1_000);
        let until = self.until.map(|until| format!("- {}", seconds(until))).unwrap_or_default();
        write!(f, "{:>9} {until:<10} {}", seconds(self.at), self.text)
    }
}

impl Line {
    fn of(operation: &Operation) -> Line {
        let text = format!("c{} {}: {}", operation.client, asked(&operation.action), ended(operation));
        Line { at: operation.invoked, until: Some(operation.ended), text }
    }
}

fn asked(action: &Action) -> String {
    match action {
        Action::Write { id, deletes, basis, w, .. } => {
            let verb = if *deletes { "delete" } else { "put" };
            let basis = match basis {
                Basis::Shown(shown) if shown.is_empty() => "having seen nothing".to_owned(),
                Basis::Shown(shown) => format!("in place of {}", ids(shown)),
                Basis::WhateverIsThere => "of whatever is there".to_owned(),
                Basis::Nothing => "with a context that is none".to_owned(),
            };
            format!("{verb} {id} {basis}, w={}", level(*w))
        }
        Action::Read { r, atomic } => format!("{}get, r={}", if *atomic { "atomic " } else { "" }, level(*r)),
        Action::Compare => "compare".to_owned(),
    }
}

fn ended(operation: &Operation) -> String {
    let mut text = match &operation.ending {
        Ending::Open => "open".to_owned(),
        Ending::Committed(Some(dot)) => format!("committed as {dot}"),
        Ending::Committed(None) => "committed".to_owned(),
        Ending::Unknown => "unknown".to_owned(),
        Ending::NotApplied => "not applied".to_owned(),
        Ending::Answered(seen) => {
            let mut text = format!("shown {}", ids(&seen.ids()));
            if seen.deleted {
                text += ", deleted";
            }
            if !seen.foreign.is_empty() {
                text += &format!(" and {:?}", seen.foreign);
            }
            text
        }
        Ending::Unavailable => "unavailable".to_owned(),
        Ending::Equal => "equal".to_owned(),
    };
    if operation.attempts > 1 {
        text += &format!(" ({} attempts)", operation.attempts);
    }
    text
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a WriteId>) -> String {
    let ids: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    if ids.is_empty() { "nothing".to_owned() } else { ids.join(",") }
}

/// A level as the command line has it.
pub(super) fn level(level: Level) -> String {
    match level {
        Level::One => "one".to_owned(),
        Level::Majority => "majority".to_owned(),
        Level::All => "all".to_owned(),
        Level::Count(count) => count.to_string(),
    }
}
