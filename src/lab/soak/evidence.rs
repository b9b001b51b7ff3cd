//! The evidence: a history and what was done to the cluster, as JSON lines, to be read by people and judged again.
//!
//! ```text
//! {"what":"run","options":"starling soak --seed 7 ...","owners":3,"retries_are_exact":true}
//! {"what":"fault","at":3120448,"text":"kill n2, for 1.4s"}
//! {"what":"operation","at":3200100,"until":3204250,"client":4,"key":"k17","asks":"put","write":812,"shown":[790],"level":"majority","ending":"committed","dot":"5f..:3a.."}
//! {"what":"operation","at":3210000,"until":3212300,"client":1,"key":"k17","asks":"get","level":"all","ending":"answered","values":[[812,"5f..:3a.."]]}
//! {"what":"remains","key":"k17","read":90211,"held":[["8c..",{"record":"base64"}],["11..","absent"]]}
//! ```
//!
//! Times are microseconds since the clients began. `remains` names the last read of a key by its place among the
//! operations, from 0.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::chronicle::Event;
use super::story;
use crate::protocol::causality::Dot;
use crate::protocol::codec;
use crate::protocol::id::{Actor, NodeId};
use crate::protocol::time::{Moment, Timestamp};
use crate::protocol::wire::client::Level;
use crate::sim::history::{Action, Basis, Ending, History, Operation, Remains, Seen, WriteId};

/// The name of the file in the directory of a soak.
pub const FILE: &str = "history.jsonl";

/// A history as it was kept, and what was done to the cluster meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The command of the run.
    pub options: String,
    /// What clients did and saw.
    pub history: History,
    /// What was done to the cluster.
    pub events: Vec<Event>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Line {
    Run { options: String, owners: usize, retries_are_exact: bool },
    Fault { at: u64, text: String },
    Operation(Box<OperationLine>),
    Remains { key: String, read: usize, held: Vec<(String, Held)> },
}

/// What an owner held: nothing said, nothing there, or a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Held {
    Silent,
    Absent,
    Record(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct OperationLine {
    at: u64,
    until: u64,
    client: u32,
    key: String,
    asks: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<u64>,
    /// What a write may supersede; none if it is whatever is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    shown: Option<Vec<u64>>,
    /// Whether the context that was sent is none, so that the write must be refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    must_be_refused: bool,
    level: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    atomic: bool,
    ending: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dot: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<(u64, String)>,
    /// Values of nobody, as base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    foreign: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    owed_by: Option<u64>,
}

impl Evidence {
    /// Writes it into a directory.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(dir.join(FILE))?);
        let mut write = |line: &Line| -> io::Result<()> {
            serde_json::to_writer(&mut out, line)?;
            out.write_all(b"\n")
        };
        let History { owners, retries_are_exact, .. } = self.history;
        write(&Line::Run { options: self.options.clone(), owners, retries_are_exact })?;
        let mut events = self.events.iter().peekable();
        let told = |event: &Event| Line::Fault { at: event.at.0, text: event.what.clone() };
        for operation in &self.history.operations {
            while let Some(event) = events.next_if(|event| event.at <= operation.invoked) {
                write(&told(event))?;
            }
            write(&Line::Operation(Box::new(OperationLine::of(operation))))?;
        }
        for event in events {
            write(&told(event))?;
        }
        for (key, remains) in &self.history.remains {
            write(&remains_line(key, remains))?;
        }
        out.flush()
    }

    /// Reads it back.
    pub fn load(dir: &Path) -> io::Result<Evidence> {
        let mut evidence = Evidence::default();
        for (number, line) in BufReader::new(File::open(dir.join(FILE))?).lines().enumerate() {
            let wrong = |why: String| {
                let text = format!("line {} of {FILE} is no evidence: {why}", number + 1);
                io::Error::new(io::ErrorKind::InvalidData, text)
            };
            let line: Line = serde_json::from_str(&line?).map_err(|error| wrong(error.to_string()))?;
            evidence.add(line).ok_or_else(|| wrong("a value is out of range".to_owned()))?;
        }
        let count = evidence.history.operations.len();
        if let Some((key, _)) = evidence.history.remains.iter().find(|(_, remains)| remains.read >= count) {
            let text = format!("{FILE} lacks the last read of {key:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(evidence)
    }

    fn add(&mut self, line: Line) -> Option<()> {
        match line {
            Line::Run { options, owners, retries_are_exact } => {
                self.options = options;
                self.history.owners = owners;
                self.history.retries_are_exact = retries_are_exact;
            }
            Line::Fault { at, text } => self.events.push(Event { at: Moment(at), what: text }),
            Line::Operation(line) => self.history.operations.push(line.into_operation()?),
            Line::Remains { key, read, held } => {
                let owners = held.into_iter().map(|(node, held)| {
                    let record = match held {
                        Held::Silent => None,
                        Held::Absent => Some(None),
                        Held::Record(text) => Some(Some(codec::decode(&STANDARD.decode(text).ok()?).ok()?)),
                    };
                    Some((NodeId(u64::from_str_radix(&node, 16).ok()?), record))
                });
                let remains = Remains { read, owners: owners.collect::<Option<_>>()? };
                self.history.remains.insert(Bytes::from(key), remains);
            }
        }
        Some(())
    }
}

fn remains_line(key: &Bytes, remains: &Remains) -> Line {
    let held = remains.owners.iter().map(|(node, record)| {
        let held = match record {
            None => Held::Silent,
            Some(None) => Held::Absent,
            Some(Some(record)) => Held::Record(STANDARD.encode(codec::encode(record))),
        };
        (node.to_string(), held)
    });
    Line::Remains { key: text(key), read: remains.read, held: held.collect() }
}

impl OperationLine {
    fn of(operation: &Operation) -> OperationLine {
        let mut line = OperationLine {
            at: operation.invoked.0,
            until: operation.ended.0,
            client: operation.client,
            key: text(&operation.key),
            attempts: operation.attempts,
            owed_by: operation.owed_by.map(|at| at.0),
            ..OperationLine::default()
        };
        line.asks = match &operation.action {
            Action::Write { id, deletes, basis, w, .. } => {
                line.write = Some(id.0);
                line.level = story::level(*w);
                line.shown = match basis {
                    Basis::Shown(shown) => Some(shown.iter().map(|id| id.0).collect()),
                    Basis::WhateverIsThere => None,
                    Basis::Nothing => {
                        line.must_be_refused = true;
                        None
                    }
                };
                if *deletes { "delete" } else { "put" }
            }
            Action::Read { r, atomic } => {
                line.level = story::level(*r);
                line.atomic = *atomic;
                "get"
            }
            Action::Compare => "compare",
        }
        .to_owned();
        line.ending = match &operation.ending {
            Ending::Open => "open",
            Ending::Committed(dot) => {
                line.dot = dot.map(dot_text);
                "committed"
            }
            Ending::Unknown => "unknown",
            Ending::NotApplied => "not_applied",
            Ending::Answered(seen) => {
                line.values = seen.values.iter().map(|(id, dot)| (id.0, dot_text(*dot))).collect();
                line.foreign = seen.foreign.iter().map(|value| STANDARD.encode(value)).collect();
                line.deleted = seen.deleted;
                "answered"
            }
            Ending::Unavailable => "unavailable",
            Ending::Equal => "equal",
        }
        .to_owned();
        line
    }

    fn into_operation(self) -> Option<Operation> {
        let level = level(&self.level);
        let action = match self.asks.as_str() {
            "get" => Action::Read { r: level?, atomic: self.atomic },
            "compare" => Action::Compare,
            asks @ ("put" | "delete") => Action::Write {
                id: WriteId(self.write?),
                deletes: asks == "delete",
                basis: match self.shown {
                    None if self.must_be_refused => Basis::Nothing,
                    Some(shown) => Basis::Shown(shown.into_iter().map(WriteId).collect()),
                    None => Basis::WhateverIsThere,
                },
                w: level?,
                // Nobody writes so in a soak.
                sloppy: false,
            },
            _ => return None,
        };
        let ending = match self.ending.as_str() {
            "open" => Ending::Open,
            "committed" => Ending::Committed(match self.dot {
                Some(dot) => Some(dot_of(&dot)?),
                None => None,
            }),
            "unknown" => Ending::Unknown,
            "not_applied" => Ending::NotApplied,
            "answered" => {
                let value = |(id, dot): &(u64, String)| Some((WriteId(*id), dot_of(dot)?));
                let foreign = |text: &String| STANDARD.decode(text).ok().map(Bytes::from);
                Ending::Answered(Seen {
                    values: self.values.iter().map(value).collect::<Option<_>>()?,
                    foreign: self.foreign.iter().map(foreign).collect::<Option<_>>()?,
                    deleted: self.deleted,
                })
            }
            "unavailable" => Ending::Unavailable,
            "equal" => Ending::Equal,
            _ => return None,
        };
        Some(Operation {
            client: self.client,
            key: Bytes::from(self.key),
            action,
            invoked: Moment(self.at),
            ended: Moment(self.until),
            ending,
            attempts: self.attempts,
            owed_by: self.owed_by.map(Moment),
        })
    }
}

/// The keys of a soak are text.
fn text(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn dot_text(dot: Dot) -> String {
    format!("{:016x}:{:016x}", dot.actor.0, dot.at.0)
}

fn dot_of(text: &str) -> Option<Dot> {
    let (actor, at) = text.split_once(':')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Dot { actor: Actor(number(actor)?), at: Timestamp(number(at)?) })
}

fn level(text: &str) -> Option<Level> {
    match text {
        "one" => Some(Level::One),
        "majority" => Some(Level::Majority),
        "all" => Some(Level::All),
        count => count.parse().ok().map(Level::Count),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::causality::Record;

    #[test]
    fn evidence_comes_back_as_it_was() {
        let dot = Dot { actor: Actor(u64::MAX), at: Timestamp(7) };
        let write = |id, deletes, basis, ending| {
            (Action::Write { id: WriteId(id), deletes, basis, w: Level::All, sloppy: false }, ending)
        };
        let shown = Basis::Shown([WriteId(1), WriteId(2)].into());
        let seen = Seen {
            values: vec![(WriteId(2), dot)],
            foreign: vec![Bytes::from_static(b"\xff")],
            deleted: true,
        };
        let told = [
            write(1, false, Basis::Shown(Default::default()), Ending::Committed(Some(dot))),
            write(2, true, Basis::WhateverIsThere, Ending::Unknown),
            write(3, true, shown, Ending::NotApplied),
            write(4, false, Basis::Nothing, Ending::NotApplied),
            (Action::Read { r: Level::Count(2), atomic: true }, Ending::Answered(seen)),
            (Action::Read { r: Level::One, atomic: false }, Ending::Unavailable),
        ];
        let operation = |(at, (action, ending)): (u64, (Action, Ending))| Operation {
            client: at as u32,
            key: Bytes::from_static(b"k1"),
            action,
            invoked: Moment(at * 10),
            ended: Moment(at * 10 + 5),
            ending,
            attempts: 2,
            owed_by: (at == 4).then_some(Moment(1_000)),
        };
        let owners =
            vec![(NodeId(1), None), (NodeId(2), Some(None)), (NodeId(3), Some(Some(Record::default())))];
        let history = History {
            hints: Vec::new(),
            owners: 3,
            operations: (0..).zip(told).map(operation).collect(),
            lost_disks: Vec::new(),
            retries_are_exact: true,
            reaped: None,
            remains: BTreeMap::from([(Bytes::from_static(b"k1"), Remains { read: 4, owners })]),
        };
        let event = |at, what: &str| Event { at: Moment(at), what: what.to_owned() };
        let events = vec![event(3, "kill n1"), event(900, "n1 answers again\nafter a while")];
        let evidence = Evidence { options: "starling soak".to_owned(), history, events };

        let dir = tempfile::tempdir().unwrap();
        evidence.save(dir.path()).unwrap();
        let loaded = Evidence::load(dir.path()).unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{evidence:?}"));

        let file = dir.path().join(FILE);
        let damaged = std::fs::read_to_string(&file).unwrap().replace("not_applied", "applied");
        std::fs::write(&file, damaged).unwrap();
        assert!(Evidence::load(dir.path()).unwrap_err().to_string().contains("line 5"));
    }
}
