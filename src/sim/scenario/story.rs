//! What is told of a performance: a few lines for every step, in order.
//!
//! ```text
//!   10.0 s  put cart apple via n1 w=one as alice
//!           ->      committed by 1
//!           ok      expect committed
//!           cart    n1 apple | n2 nothing | n3 nothing
//! ```
//!
//! Nothing in it hangs on ids, on the order of messages or on microseconds, so that a story changes only when something
//! happens that a reader of it would call different.

use std::time::Duration;

use super::expectation::Finding;
use super::script::Begins;
use super::stage::Holding;
use crate::protocol::wire::client::{Health, Outcome};

/// An answer that took less than this is told without its time; longer times are told to half a second.
const AT_ONCE: Duration = Duration::from_millis(900);

/// A step that begins later than it should by less than this begins in time.
const IN_TIME: Duration = Duration::from_millis(500);

/// The line of a step.
pub(super) fn step(begins: Begins, began: Duration, text: &str) -> String {
    let when = match begins {
        Begins::Then => "then".to_owned(),
        Begins::At(at) if began < at + IN_TIME => format!("{} s", tenths(at)),
        Begins::At(_) => format!("{} s", tenths(began)),
    };
    format!("{when:>8}  {text}")
}

/// Seconds with a tenth.
fn tenths(at: Duration) -> String {
    let tenths = (at.as_millis() + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Seconds, to the half.
fn halves(span: Duration) -> String {
    let halves = (span.as_millis() + 250) / 500;
    format!("{}.{}", halves / 2, halves % 2 * 5)
}

/// A line below a step.
pub(super) fn below(label: &str, text: &str) -> String {
    format!("          {label:<7} {text}").trim_end().to_owned()
}

/// What was answered, and how long it took.
pub(super) fn answer(found: &Finding, took: Duration) -> String {
    let mut text = if let Some(outcome) = found.outcome {
        written(outcome, found)
    } else if let Some(values) = &found.values {
        match values.len() {
            0 if found.deleted => "no value: it was deleted".to_owned(),
            0 => "no value".to_owned(),
            1 => quoted(values.iter()),
            count => format!("{count} values: {}", quoted(values.iter())),
        }
    } else if !found.holdings.is_empty() {
        let show = |(name, held): &(String, Option<Holding>)| match held {
            Some(held) => format!("{name} {}", holding(held)),
            None => format!("{name} does not say"),
        };
        found.holdings.iter().map(show).collect::<Vec<_>>().join(" | ")
    } else if !found.members.is_empty() {
        let show = |(name, health, reachable): &(String, Health, bool)| {
            let health = match health {
                Health::Alive => "alive",
                Health::Stopped => "stopped",
                Health::Suspect => "suspect",
                Health::Down => "down",
            };
            format!("{name} {health}{}", if *reachable { "" } else { ", unreachable" })
        };
        found.members.iter().map(show).collect::<Vec<_>>().join(" | ")
    } else {
        format!("unavailable{}", because(found))
    };
    if took >= AT_ONCE {
        text += &format!(", after {} s", halves(took));
    }
    text
}

fn written(outcome: Outcome, found: &Finding) -> String {
    let siblings = match found.siblings {
        Some(count @ 2..) => format!(", now one of {count} values"),
        _ => String::new(),
    };
    match outcome {
        Outcome::Committed if !found.hinted.is_empty() => {
            let hinted: Vec<&str> = found.hinted.iter().map(String::as_str).collect();
            let acks = found.acks.len();
            format!("committed by {acks}, with a hint at {}{siblings}", hinted.join(", "))
        }
        Outcome::Committed => format!("committed by {}{siblings}", found.acks.len()),
        Outcome::Unknown if found.acks.is_empty() => format!("unknown{}", because(found)),
        Outcome::Unknown => format!("unknown{}; on disk at {}", because(found), found.acks.len()),
        Outcome::NotApplied => format!("not applied{}", because(found)),
    }
}

fn because(found: &Finding) -> String {
    found.problem.map_or(String::new(), |problem| format!(" ({problem})"))
}

fn quoted<'a>(values: impl Iterator<Item = &'a String>) -> String {
    values.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What a node holds.
pub(super) fn holding(held: &Holding) -> String {
    match held {
        Holding::Nothing => "nothing".to_owned(),
        Holding::Deletion => "deletion".to_owned(),
        Holding::Values(values) => quoted(values.iter()),
        Holding::Down => "(down)".to_owned(),
    }
}
