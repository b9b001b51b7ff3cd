//! What became of an operation, as one JSON object or as one line for people.
//!
//! The field names and their order are a contract: programs and test suites read them.

use serde::Serialize;

use super::names::Names;
use super::operation::{Action, Operation};
use super::reaping::{self, ReapingJson};
use super::text::{self, Text};
use crate::protocol::causality::Record;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::{Code, Explanation, Outcome, Problem, ReadAnswer, Written};

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a put or a delete.
    Written(Written),
    /// To a get.
    Read(ReadAnswer),
    /// To an explain.
    Explained(Result<Explanation, Problem>),
}

/// An error in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorJson {
    code: &'static str,
    message: String,
}

impl From<&Problem> for ErrorJson {
    fn from(problem: &Problem) -> ErrorJson {
        ErrorJson { code: problem.code.name(), message: problem.message.clone() }
    }
}

#[derive(Serialize)]
struct WriteJson {
    op: &'static str,
    key: Text,
    outcome: &'static str,
    context: Option<String>,
    dot: Option<String>,
    siblings: u32,
    acks: Vec<String>,
    hinted: Vec<String>,
    error: Option<ErrorJson>,
}

#[derive(Serialize)]
struct ReadJson {
    op: &'static str,
    key: Text,
    outcome: &'static str,
    values: Vec<Text>,
    deleted: bool,
    context: Option<String>,
    replies: Vec<String>,
    error: Option<ErrorJson>,
}

#[derive(Serialize)]
struct ExplainJson {
    op: &'static str,
    key: Text,
    outcome: &'static str,
    slot: Option<u16>,
    replicas: Vec<ReplicaJson>,
    reaping: Option<ReapingJson>,
    error: Option<ErrorJson>,
}

#[derive(Serialize)]
struct ReplicaJson {
    node: String,
    reachable: bool,
    siblings: Vec<SiblingJson>,
    context: Vec<String>,
    error: Option<ErrorJson>,
}

#[derive(Serialize)]
struct SiblingJson {
    dot: String,
    value: Option<Text>,
    deleted: bool,
}

#[derive(Serialize)]
struct BadLineJson {
    op: Option<&'static str>,
    line: u64,
    outcome: &'static str,
    error: ErrorJson,
}

/// A line of `shell --json` that is no operation.
pub(crate) fn bad_line_json(line: u64, message: &str) -> String {
    let error = ErrorJson { code: Code::BadRequest.name(), message: message.to_owned() };
    to_line(&BadLineJson { op: None, line, outcome: "not_applied", error })
}

/// One object on one line.
pub(crate) fn to_line(object: &impl Serialize) -> String {
    // Serializing fails for maps whose keys are no strings; nothing here has maps.
    serde_json::to_string(object).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

impl Answer {
    /// The answer to an operation that could not even be sent.
    pub(crate) fn failed(operation: &Operation, problem: Problem) -> Answer {
        match operation.action {
            Action::Put(_) | Action::Delete => Answer::Written(Written {
                outcome: Outcome::NotApplied,
                context: operation.options.context.clone(),
                dot: None,
                siblings: 0,
                acks: Vec::new(),
                hinted: Vec::new(),
                problem: Some(problem),
            }),
            Action::Get => Answer::Read(ReadAnswer {
                available: false,
                values: Vec::new(),
                deleted: false,
                context: None,
                replies: Vec::new(),
                problem: Some(problem),
            }),
            Action::Explain => Answer::Explained(Err(problem)),
        }
    }

    /// Whether the operation did what it was to do. An absent key is an answer too.
    pub(crate) fn is_success(&self) -> bool {
        match self {
            Answer::Written(written) => written.outcome == Outcome::Committed,
            Answer::Read(read) => read.available,
            Answer::Explained(explained) => explained.is_ok(),
        }
    }

    /// The answer as the contract has it.
    pub(crate) fn json(&self, operation: &Operation, names: &Names, base64: bool) -> String {
        let key = Text::of(&operation.key, base64);
        let op = operation.action.name();
        match self {
            Answer::Written(written) => to_line(&WriteJson {
                op,
                key,
                outcome: outcome_name(written.outcome),
                context: written.context.as_ref().map(text::context_text),
                dot: written.dot.map(|dot| dot.to_string()),
                siblings: written.siblings,
                acks: names.all(&written.acks),
                hinted: names.all(&written.hinted),
                error: written.problem.as_ref().map(ErrorJson::from),
            }),
            Answer::Read(read) => to_line(&ReadJson {
                op,
                key,
                outcome: if read.available { "ok" } else { "unavailable" },
                values: shown_values(read, operation).iter().map(|value| Text::of(value, base64)).collect(),
                deleted: read.deleted,
                context: read.context.as_ref().map(text::context_text),
                replies: names.all(&read.replies),
                error: read.problem.as_ref().map(ErrorJson::from),
            }),
            Answer::Explained(explained) => to_line(&explained_json(explained, op, key, names, base64)),
        }
    }

    /// The answer on one line for people.
    pub(crate) fn line(&self, operation: &Operation, names: &Names, base64: bool) -> String {
        let key = text::shown(&operation.key, base64);
        match self {
            Answer::Written(written) => written_line(written, &key, operation, names),
            Answer::Read(read) => {
                let values = shown_values(read, operation);
                let what = match (values.as_slice(), read.available) {
                    (_, false) => return format!("{key}: unavailable: {}", why(read.problem.as_ref())),
                    ([], _) if read.deleted => "deleted".to_owned(),
                    ([], _) => "absent".to_owned(),
                    (values, _) => {
                        let shown: Vec<_> = values.iter().map(|value| text::shown(value, base64)).collect();
                        shown.join(" | ")
                    }
                };
                format!("{key}: {what}{}", read_note(read, values.len(), names))
            }
            Answer::Explained(Ok(explained)) => {
                let replicas: Vec<_> = explained
                    .replicas
                    .iter()
                    .map(|replica| {
                        let held = held(&replica.record, base64);
                        format!("{} {held}", names.of(replica.node))
                    })
                    .collect();
                let mut line = format!("{key}: slot {}; {}", explained.slot, replicas.join("; "));
                if let Some(reaping) = &explained.reaping {
                    line += &format!("; {}", reaping::sentence(reaping, names));
                }
                line
            }
            Answer::Explained(Err(problem)) => format!("{key}: {problem}"),
        }
    }
}

/// What people need beside the values of a get: who replied, and the context.
pub(crate) fn read_note(read: &ReadAnswer, values: usize, names: &Names) -> String {
    let mut note = format!("  ({} replied", list(names, &read.replies));
    if values > 1 {
        note += &format!("; {values} concurrent values: put one back with this context to resolve them");
    }
    note += ")";
    if let Some(context) = &read.context {
        note += &format!("  context={}", text::context_text(context));
    }
    note
}

/// What a replica holds, in a few words.
pub(crate) fn held(record: &Result<Option<Record>, Problem>, base64: bool) -> String {
    match record {
        Err(problem) => format!("not known: {problem}"),
        Ok(None) => "nothing".to_owned(),
        Ok(Some(record)) => {
            let siblings: Vec<_> = record
                .siblings()
                .iter()
                .map(|sibling| match &sibling.value {
                    Some(value) => format!("{} by {}", text::shown(&abridged(value), base64), sibling.dot),
                    None => format!("a deletion by {}", sibling.dot),
                })
                .collect();
            siblings.join(" | ")
        }
    }
}

/// Values can be a mebibyte long; a table shows their beginning.
fn abridged(value: &[u8]) -> Vec<u8> {
    const BYTES_MAX: usize = 48;
    match std::str::from_utf8(value) {
        Ok(text) if text.chars().count() > BYTES_MAX => {
            text.chars().take(BYTES_MAX).chain("...".chars()).collect::<String>().into_bytes()
        }
        _ => value[..value.len().min(4 * BYTES_MAX)].to_vec(),
    }
}

/// The values to show: all, or the newest one under `latest`.
///
/// Newest is by the timestamps of the writes, of whichever actor: the one place where they are compared, because the
/// user asked for it. If the newest write is a deletion, there is no value.
pub(crate) fn shown_values<'a>(read: &'a ReadAnswer, operation: &Operation) -> Vec<&'a [u8]> {
    if operation.options.latest {
        let newest = read.values.iter().max_by_key(|sibling| (sibling.dot.at, sibling.dot.actor));
        newest.and_then(|sibling| sibling.value.as_deref()).into_iter().collect()
    } else {
        read.values.iter().filter_map(|sibling| sibling.value.as_deref()).collect()
    }
}

/// The contract's name of an outcome.
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "committed",
        Outcome::Unknown => "unknown",
        Outcome::NotApplied => "not_applied",
    }
}

fn written_line(written: &Written, key: &str, operation: &Operation, names: &Names) -> String {
    let done = if operation.action == Action::Delete { "deleted" } else { "committed" };
    let mut line = match written.outcome {
        Outcome::Committed => format!("{key}: {done} at {}", list(names, &written.acks)),
        Outcome::Unknown => {
            let why = why(written.problem.as_ref());
            format!(
                "{key}: unknown, some replica may hold it: {why}; on disk at {}",
                list(names, &written.acks)
            )
        }
        Outcome::NotApplied => {
            return format!("{key}: not applied, nothing was changed: {}", why(written.problem.as_ref()));
        }
    };
    if !written.hinted.is_empty() {
        line += &format!(", hinted at {}", list(names, &written.hinted));
    }
    if written.siblings > 1 {
        let concurrent =
            format!("; {} concurrent values now, read the key to resolve them", written.siblings);
        line += &concurrent;
    }
    if let Some(context) = &written.context {
        line += &format!("  context={}", text::context_text(context));
    }
    line
}

fn explained_json(
    explained: &Result<Explanation, Problem>,
    op: &'static str,
    key: Text,
    names: &Names,
    base64: bool,
) -> ExplainJson {
    let explanation = match explained {
        Ok(explanation) => explanation,
        Err(problem) => {
            let error = Some(ErrorJson::from(problem));
            let (replicas, reaping) = (Vec::new(), None);
            return ExplainJson { op, key, outcome: "unavailable", slot: None, replicas, reaping, error };
        }
    };
    let replicas = explanation.replicas.iter().map(|replica| {
        let record = replica.record.as_ref().ok().and_then(Option::as_ref);
        let siblings =
            record.map(|record| record.siblings()).unwrap_or_default().iter().map(|sibling| SiblingJson {
                dot: sibling.dot.to_string(),
                value: sibling.value.as_deref().map(|value| Text::of(value, base64)),
                deleted: sibling.value.is_none(),
            });
        let context = record.map(|record| record.context().iter().map(|dot| dot.to_string()).collect());
        ReplicaJson {
            node: names.of(replica.node),
            reachable: replica.reachable,
            siblings: siblings.collect(),
            context: context.unwrap_or_default(),
            error: replica.record.as_ref().err().map(ErrorJson::from),
        }
    });
    let (slot, replicas) = (Some(explanation.slot), replicas.collect());
    let reaping = explanation.reaping.as_ref().map(|reaping| reaping::json(reaping, names));
    ExplainJson { op, key, outcome: "ok", slot, replicas, reaping, error: None }
}

fn list(names: &Names, nodes: &[NodeId]) -> String {
    if nodes.is_empty() { "nobody".to_owned() } else { names.all(nodes).join(", ") }
}

fn why(problem: Option<&Problem>) -> String {
    problem.map_or_else(|| "no reason was given".to_owned(), Problem::to_string)
}

#[cfg(test)]
mod tests;
