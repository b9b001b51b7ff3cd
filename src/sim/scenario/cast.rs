//! The clients of a scenario: what they remember having been shown, and the history of what they did and saw.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::super::history::{Action, Basis, Ending, History, Operation, Remains, Seen, WriteId};
use super::command::Command;
use super::expectation::Finding;
use super::script::{Ask, BasisOf, Deed, Scenario, Step, Trouble, What};
use super::stage::{Holding, Order, Reply, Stage, Wanted, names};
use crate::protocol::causality::{ContextToken, Record, Sibling};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Level, Outcome, Problem, ReadAnswer, Written};

/// How many keys are looked at for one that has the wanted owners. With five nodes one in sixty has.
const CANDIDATES_MAX: u32 = 100_000;

/// All clients, and the history.
pub(super) struct Cast {
    /// The words of the script, and the keys that they stand for.
    keys: BTreeMap<String, Bytes>,
    clients: BTreeMap<String, Client>,
    /// What the writes put.
    values: BTreeMap<WriteId, String>,
    writes: u64,
    asked: BTreeMap<usize, Asked>,
    pub(super) history: History,
}

/// A client that has a name, and thus a memory.
#[derive(Default)]
struct Client {
    number: u32,
    held: BTreeMap<String, Held>,
}

/// A context, and what was shown with it.
#[derive(Clone)]
struct Held {
    token: ContextToken,
    shown: BTreeSet<WriteId>,
}

/// A request that is under way.
struct Asked {
    /// Its place in the history, if it has one.
    index: Option<usize>,
    ask: Ask,
    sent: Option<Held>,
}

/// The moment of a history.
pub(super) fn moment(at: Duration) -> Moment {
    Moment::default() + at
}

impl Cast {
    /// Finds a key for every word of the script.
    pub(super) fn new(scenario: &Scenario, stage: &mut dyn Stage) -> Result<Cast, String> {
        let mut keys = BTreeMap::new();
        for word in scenario.used_keys() {
            let key = match scenario.keys.iter().find(|owned| owned.key == word) {
                Some(owned) => key_owned_by(word, &owned.owners, stage)?,
                None => Bytes::copy_from_slice(word.as_bytes()),
            };
            keys.insert(word.to_owned(), key);
        }
        let jumps = |step: &Step| matches!(step.deed, Deed::Trouble(Trouble::Clock(..)));
        let wiped = scenario.steps.iter().filter_map(|step| match &step.deed {
            Deed::Command(Command::Wipe(names) | Command::Restore(names)) => Some(names),
            _ => None,
        });
        let wiped: BTreeSet<&String> = wiped.flatten().collect();
        let history = History {
            owners: scenario.owners(),
            retries_are_exact: !scenario.steps.iter().any(jumps),
            // When is not known before it is played.
            lost_disks: (0..wiped.len()).map(|machine| (Moment::NEVER, machine)).collect(),
            ..History::default()
        };
        let (clients, values, asked) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Cast { keys, clients, values, writes: 0, asked, history })
    }

    /// The key that a word stands for.
    pub(super) fn key(&self, word: &str) -> Bytes {
        self.keys.get(word).cloned().unwrap_or_default()
    }

    /// The words of the script with their keys.
    pub(super) fn keys(&self) -> Vec<(String, Bytes)> {
        self.keys.iter().map(|(word, key)| (word.clone(), key.clone())).collect()
    }

    /// Whether a client waits for an answer.
    pub(super) fn is_busy(&self, client: &str) -> bool {
        self.asked.values().any(|asked| asked.ask.client.as_deref() == Some(client))
    }

    /// What the writes of the script put, for those who read of them by their numbers.
    pub(super) fn values(&self) -> Vec<String> {
        self.values.iter().map(|(id, value)| format!("{id} is {value}")).collect()
    }

    /// Begins an operation.
    pub(super) fn order(&mut self, number: usize, ask: &Ask, now: Duration) -> Order {
        let next = self.clients.len() as u32 + 1;
        let client = match &ask.client {
            Some(name) => {
                let client = self.clients.entry(name.clone());
                client.or_insert_with(|| Client { number: next, ..Client::default() }).number
            }
            // Nobody in particular is somebody else every time.
            None => 1_000 + number as u32,
        };
        let mut sent = None;
        let mut index = None;
        let key = ask.what.key().map(|word| self.key(word)).unwrap_or_default();
        let request = match &ask.what {
            What::Put { key: word, w, sloppy, basis, .. } | What::Delete { key: word, w, sloppy, basis } => {
                sent = self.held(ask.client.as_deref(), basis, word);
                let value = match &ask.what {
                    What::Put { value, .. } => Some(value),
                    _ => None,
                };
                self.writes += 1;
                let id = WriteId(self.writes);
                if let Some(value) = value {
                    self.values.insert(id, value.clone());
                }
                let basis = match &sent {
                    Some(held) => Basis::Shown(held.shown.clone()),
                    None if value.is_none() => Basis::WhateverIsThere,
                    None => Basis::Shown(BTreeSet::new()),
                };
                let action = Action::Write { id, deletes: value.is_none(), basis, w: *w, sloppy: *sloppy };
                index = Some(self.begin(client, &key, action, now));
                Wanted::Write {
                    key,
                    value: value.map(|value| id.to_value_with(value)),
                    context: sent.as_ref().map(|held| held.token.clone()),
                    w: *w,
                    sloppy: *sloppy,
                }
            }
            What::Get { r, atomic, .. } => {
                index = Some(self.begin(client, &key, Action::Read { r: *r, atomic: *atomic }, now));
                Wanted::Read { key, r: *r, atomic: *atomic }
            }
            What::Explain { .. } => Wanted::Explain { key },
            What::Members => Wanted::Members,
        };
        self.asked.insert(number, Asked { index, ask: ask.clone(), sent });
        Order { via: ask.via.clone(), deadline: ask.deadline, request }
    }

    /// Ends an operation: the client remembers what it was shown, the history what it saw.
    pub(super) fn answered(&mut self, number: usize, reply: &Reply, stage: &mut dyn Stage) -> Finding {
        let Some(Asked { index, ask, sent }) = self.asked.remove(&number) else { return Finding::default() };
        let word = ask.what.key().unwrap_or_default().to_owned();
        let client = ask.client.as_deref();
        match &reply.answer {
            Answer::Written(written) => {
                self.remember_written(client, &word, index, written, sent);
                let ending = match written.outcome {
                    Outcome::Committed => Ending::Committed(written.dot),
                    Outcome::Unknown => Ending::Unknown,
                    Outcome::NotApplied => Ending::NotApplied,
                };
                self.end(index, ending, reply);
                if let Some(index) = index {
                    self.history.acknowledged(index, written.acks.len());
                }
                Finding {
                    outcome: Some(written.outcome),
                    acks: names(stage, &written.acks).into_iter().collect(),
                    hinted: names(stage, &written.hinted).into_iter().collect(),
                    siblings: Some(written.siblings as usize).filter(|count| *count > 0),
                    problem: written.problem.as_ref().map(name_of),
                    ..Finding::default()
                }
            }
            Answer::Read(read) if read.available => {
                self.remember_read(client, &word, read);
                self.end(index, Ending::Answered(Seen::of(&read.values, read.deleted)), reply);
                let found = values_of(&read.values);
                Finding {
                    siblings: Some(found.len()),
                    values: Some(found),
                    latest: latest_of(&read.values),
                    deleted: read.deleted,
                    replies: names(stage, &read.replies).into_iter().collect(),
                    ..Finding::default()
                }
            }
            Answer::Explained(explanation) => {
                let mut holdings = Vec::new();
                for replica in &explanation.replicas {
                    let held = replica.record.as_ref().ok().map(|record| holding_of(record.as_ref()));
                    holdings.push((stage.name(replica.node), held));
                }
                let first = explanation.replicas.first().map(|replica| &replica.record);
                let equal = explanation.replicas.iter().all(|replica| Some(&replica.record) == first);
                Finding { holdings, equal, ..Finding::default() }
            }
            Answer::Topology(topology) => {
                let view = |member: &crate::protocol::wire::client::MemberView| {
                    (member.entry.name.as_str().to_owned(), member.health, member.reachable)
                };
                let mut members: Vec<_> = topology.members.iter().map(view).collect();
                members.sort_by(|one, other| one.0.cmp(&other.0));
                Finding { members, ..Finding::default() }
            }
            other => {
                let is_write = matches!(ask.what, What::Put { .. } | What::Delete { .. });
                self.end(index, if is_write { Ending::NotApplied } else { Ending::Unavailable }, reply);
                let problem = match other {
                    Answer::Refused(problem) => Some(problem),
                    Answer::Read(read) => read.problem.as_ref(),
                    _ => None,
                };
                Finding {
                    outcome: is_write.then_some(Outcome::NotApplied),
                    unavailable: !is_write,
                    problem: problem.map(name_of),
                    ..Finding::default()
                }
            }
        }
    }

    /// Begins a read of all owners at the end.
    pub(super) fn begin_last_read(&mut self, key: &Bytes, now: Duration) -> usize {
        self.begin(0, key, Action::Read { r: Level::All, atomic: false }, now)
    }

    /// The cluster owed an operation success by then.
    pub(super) fn was_owed(&mut self, index: usize, by: Duration) {
        self.history.operations[index].owed_by = Some(moment(by));
    }

    /// What came of it.
    pub(super) fn end_last_read(&mut self, index: usize, reply: &Reply) {
        let ending = match &reply.answer {
            Answer::Read(read) if read.available => Ending::Answered(Seen::of(&read.values, read.deleted)),
            _ => Ending::Unavailable,
        };
        if matches!(ending, Ending::Answered(_)) {
            let key = self.history.operations[index].key.clone();
            self.history.remains.insert(key, Remains { read: index, owners: Vec::new() });
        }
        self.end(Some(index), ending, reply);
    }

    /// What every owner holds at the end. Returns whether that is the same.
    pub(super) fn compared(&mut self, key: &Bytes, reply: &Reply) -> bool {
        let Answer::Explained(explanation) = &reply.answer else { return false };
        let owners: Vec<_> = explanation
            .replicas
            .iter()
            .map(|replica| (replica.node, replica.record.as_ref().ok().cloned()))
            .collect();
        let first = owners.first().map(|(_, record)| record.clone());
        let is_equal = owners.iter().all(|(_, record)| record.is_some() && Some(record) == first.as_ref());
        if let Some(remains) = self.history.remains.get_mut(key) {
            remains.owners = owners;
        }
        is_equal
    }

    fn held(&self, client: Option<&str>, basis: &BasisOf, word: &str) -> Option<Held> {
        let (whose, word) = match basis {
            BasisOf::Own => (client?, word),
            BasisOf::Nobody => return None,
            BasisOf::Of(name) => (name.as_str(), word),
            BasisOf::OfKey(name, other) => (name.as_str(), other.as_str()),
        };
        self.clients.get(whose)?.held.get(word).cloned()
    }

    fn begin(&mut self, client: u32, key: &Bytes, action: Action, now: Duration) -> usize {
        self.history.operations.push(Operation {
            client,
            key: key.clone(),
            action,
            invoked: moment(now),
            ended: Moment::NEVER,
            ending: Ending::Open,
            attempts: 1,
            owed_by: None,
        });
        self.history.operations.len() - 1
    }

    fn end(&mut self, index: Option<usize>, ending: Ending, reply: &Reply) {
        let Some(operation) = index.and_then(|index| self.history.operations.get_mut(index)) else { return };
        operation.ending = ending;
        operation.ended = moment(reply.at);
        operation.attempts = reply.attempts;
    }

    fn remember_written(
        &mut self,
        client: Option<&str>,
        word: &str,
        index: Option<usize>,
        written: &Written,
        sent: Option<Held>,
    ) {
        let Some(client) = client.and_then(|name| self.clients.get_mut(name)) else { return };
        let (Outcome::Committed, Some(token)) = (written.outcome, written.context.clone()) else { return };
        // The own value is the only one: then the client has seen all that this context covers. Otherwise it is the
        // context that was sent.
        let mut shown = sent.map(|held| held.shown).unwrap_or_default();
        let action = index.and_then(|index| self.history.operations.get(index)).map(|known| &known.action);
        if let Some(Action::Write { id, deletes: false, .. }) = action
            && written.siblings == 1
        {
            shown.insert(*id);
        }
        client.held.insert(word.to_owned(), Held { token, shown });
    }

    fn remember_read(&mut self, client: Option<&str>, word: &str, read: &ReadAnswer) {
        let shown = Seen::of(&read.values, read.deleted).ids();
        let Some(client) = client.and_then(|name| self.clients.get_mut(name)) else { return };
        match read.context.clone() {
            Some(token) => client.held.insert(word.to_owned(), Held { token, shown }),
            None => client.held.remove(word),
        };
    }
}

/// A key that these nodes own, in this order.
fn key_owned_by(word: &str, owners: &[String], stage: &mut dyn Stage) -> Result<Bytes, String> {
    for number in 1..=CANDIDATES_MAX {
        let candidate = if number == 1 { word.to_owned() } else { format!("{word}~{number}") };
        let found = stage.owners(candidate.as_bytes());
        let is_it = found.len() == owners.len()
            && found.iter().zip(owners).all(|(node, name)| stage.name(*node) == *name);
        if is_it {
            return Ok(Bytes::from(candidate));
        }
    }
    Err(format!("no key like {word} is owned by {}, in this order", owners.join(", ")))
}

fn name_of(problem: &Problem) -> &'static str {
    problem.code.name()
}

fn values_of(siblings: &[Sibling]) -> BTreeSet<String> {
    siblings
        .iter()
        .filter_map(|sibling| sibling.value.as_ref())
        .map(|value| WriteId::word_of(value))
        .collect()
}

fn latest_of(siblings: &[Sibling]) -> Option<String> {
    let newest = siblings.iter().max_by_key(|sibling| (sibling.dot.at, sibling.dot.actor))?;
    newest.value.as_ref().map(|value| WriteId::word_of(value))
}

/// What a record is in the words of the script.
pub(crate) fn holding_of(record: Option<&Record>) -> Holding {
    let Some(record) = record else { return Holding::Nothing };
    let values = values_of(record.siblings());
    if values.is_empty() { Holding::Deletion } else { Holding::Values(values.into_iter().collect()) }
}
