//! The clients of a run: what they ask, how they retry, and what they remember having been shown.

mod profile;
mod staged;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::history::{Action, Basis, Ending, History, Operation, Remains, Seen, WriteId};
use crate::protocol::causality::{ContextToken, OperationId};
use crate::protocol::rng::Rng;
use crate::protocol::time::{Moment, WallTime};
use crate::protocol::wire::client::{
    Answer, Code, Explanation, Level, Outcome, Read, ReadAnswer, Request, Write, Written,
};

pub(super) use profile::Profile;
use staged::Route;
pub(super) use staged::{CorePart, Task};

/// What a client wants the world to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Send a request to the node on a host.
    Ask { client: usize, host: usize, id: u64, deadline_ms: u32, request: Request },
    /// Call [`Workload::wake`].
    Wake { client: usize, at: Moment },
}

/// What the clients know of the world when they act.
pub(super) struct Sight<'a> {
    pub(super) now: Moment,
    /// The time that each node tells; real clients learn it when they connect.
    pub(super) times: &'a [WallTime],
}

/// All clients, and the history of what they did and saw.
pub(super) struct Workload {
    profile: Profile,
    clients: Vec<Client>,
    pub(super) history: History,
    writes: u64,
    is_over: bool,
    /// Before then nobody begins anything by its own choice.
    rests_until: Moment,
    /// A bug to be found: the outcome of an operation is that of its last attempt.
    #[cfg(test)]
    pub(super) forgets_attempts: bool,
}

struct Client {
    rng: Rng,
    requests: u64,
    ongoing: Option<Ongoing>,
    held: BTreeMap<Bytes, Held>,
    /// The next operation, if it is settled already.
    next: Option<(Bytes, Step)>,
    script: VecDeque<(Bytes, Step)>,
    /// By when the operations of its script have to succeed.
    owed_by: Option<Moment>,
    /// How soon each of them has to, if each has a deadline of its own.
    owed_within: Option<Duration>,
    /// It does what it is told and nothing else.
    is_staged: bool,
    /// From how many owners it reads and to how many it writes, if that is settled.
    level: Option<Level>,
    route: Route,
    wakes_at: Moment,
}

/// A context, and what the client was shown with it.
#[derive(Clone)]
struct Held {
    token: ContextToken,
    shown: BTreeSet<WriteId>,
}

/// One operation to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Read(Level),
    /// With the context at hand.
    Put,
    PutBlind,
    Delete,
    Sweep,
    /// With a context that has to be refused.
    PutWrong,
    Compare,
}

struct Ongoing {
    /// Its place in the history.
    index: usize,
    request: Request,
    step: Step,
    attempts: u32,
    /// The numbers of the attempts that have no answer.
    awaited: BTreeSet<u64>,
    /// Whether an attempt may have had an effect.
    in_doubt: bool,
    attempt_until: Moment,
    until: Moment,
    /// What the client had been shown with the context that it sends.
    sent: Option<Held>,
}

impl Workload {
    pub(super) fn new(profile: Profile, clients: u32, history: History, rng: &mut Rng) -> Workload {
        let clients = (0..clients).map(|_| Client::new(rng.fork())).collect();
        Workload {
            profile,
            clients,
            history,
            writes: 0,
            is_over: false,
            rests_until: Moment::default(),
            #[cfg(test)]
            forgets_attempts: false,
        }
    }

    /// Everybody begins.
    pub(super) fn begin(&mut self, now: Moment, wishes: &mut Vec<Wish>) {
        for client in 0..self.clients.len() {
            let think = self.think(client);
            self.wake_at(client, now + think, wishes);
        }
    }

    /// Nobody begins anything new.
    pub(super) fn stop(&mut self) {
        self.is_over = true;
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.clients.iter().all(|client| client.ongoing.is_none() && client.script.is_empty())
    }

    /// The key of the operation that a client waits for under this number.
    pub(super) fn key_of(&self, client: usize, id: u64) -> Option<&Bytes> {
        let ongoing = self.clients.get(client)?.ongoing.as_ref()?;
        ongoing.awaited.contains(&id).then(|| &self.history.operations[ongoing.index].key)
    }

    /// The last part of a run: for every key a client of its own that writes it once, reads it from all owners until
    /// they have converged, and compares what they hold. All of it has to succeed. If they have to heal alone, their
    /// records are compared before anybody has read them, again and again until they are equal: a read would repair.
    pub(super) fn begin_last_part(
        &mut self,
        now: Moment,
        owed_by: Moment,
        heals_alone: bool,
        rng: &mut Rng,
        wishes: &mut Vec<Wish>,
    ) {
        let keys: BTreeSet<Bytes> = self.history.operations.iter().map(|op| op.key.clone()).collect();
        for key in keys {
            let mut script = VecDeque::new();
            // Not every key: a write that resolves all siblings would hide some of what went wrong before.
            if rng.chance(500) {
                script.extend([Step::Read(Level::Majority), Step::Put].map(|step| (key.clone(), step)));
            }
            if heals_alone {
                script.push_back((key.clone(), Step::Compare));
            }
            let last = [Step::Read(Level::All), Step::Read(Level::All), Step::Compare];
            script.extend(last.map(|step| (key.clone(), step)));
            let mut client = Client::new(rng.fork());
            client.script = script;
            client.owed_by = Some(owed_by);
            self.clients.push(client);
            self.wake_at(self.clients.len() - 1, now + Duration::from_millis(rng.between(1, 500)), wishes);
        }
    }

    /// A client's time has come.
    pub(super) fn wake(&mut self, client: usize, sight: &Sight<'_>, wishes: &mut Vec<Wish>) {
        let now = sight.now;
        if self.clients[client].wakes_at > now {
            return;
        }
        self.clients[client].wakes_at = Moment::NEVER;
        let Some(ongoing) = &self.clients[client].ongoing else {
            return self.begin_operation(client, sight, wishes);
        };
        if now >= ongoing.until {
            return self.give_up(client, now, wishes);
        }
        if now >= ongoing.attempt_until && ongoing.attempts < self.attempts_max(client) {
            self.attempt(client, sight, wishes);
        }
        self.wake_when_due(client, wishes);
    }

    /// An answer has come.
    pub(super) fn answer(
        &mut self,
        client: usize,
        id: u64,
        answer: Answer,
        sight: &Sight<'_>,
        wishes: &mut Vec<Wish>,
    ) {
        let Some(ongoing) = &mut self.clients[client].ongoing else { return };
        if !ongoing.awaited.remove(&id) {
            return;
        }
        match answer {
            Answer::Written(written) => match written.outcome {
                Outcome::Committed => self.committed(client, written, sight.now, wishes),
                Outcome::Unknown => {
                    ongoing.in_doubt = true;
                    let code = written.problem.map(|problem| problem.code);
                    if code == Some(Code::OperationExpired) && self.clients[client].owed_by.is_some() {
                        self.start_over(client, sight.now, wishes);
                    } else {
                        self.failed(client, sight, wishes);
                    }
                }
                Outcome::NotApplied => {
                    let code = written.problem.map(|problem| problem.code);
                    if code == Some(Code::BadRequest) && self.is_time_disputed(client, sight) {
                        self.start_over(client, sight.now, wishes);
                    } else if code.is_some_and(|code| self.is_full(client, code)) {
                        self.excuse(client, sight.now, wishes);
                    } else {
                        self.failed(client, sight, wishes);
                    }
                }
            },
            Answer::Read(read) if read.available => self.was_shown(client, read, sight.now, wishes),
            Answer::Explained(explanation) => self.compared(client, explanation, sight, wishes),
            _ => self.failed(client, sight, wishes),
        }
    }

    fn give_up(&mut self, client: usize, now: Moment, wishes: &mut Vec<Wish>) {
        let Some(ongoing) = &self.clients[client].ongoing else { return };
        let ending = match self.history.operations[ongoing.index].action {
            Action::Write { .. } => Ending::Unknown,
            _ => Ending::Unavailable,
        };
        self.end(client, ending, now, wishes);
    }

    fn begin_operation(&mut self, client: usize, sight: &Sight<'_>, wishes: &mut Vec<Wish>) {
        let scripted = self.clients[client].script.front().cloned();
        if scripted.is_none() && sight.now < self.rests_until && !self.is_over {
            let think = self.think(client);
            return self.wake_at(client, self.rests_until + think, wishes);
        }
        let settled = self.clients[client].next.take();
        let (key, step) = match (scripted, settled) {
            (Some(next), _) => next,
            (None, Some(next)) if !self.is_over => next,
            (None, _) if self.is_over => return,
            _ => self.choose(client),
        };
        if let Some(span) = self.clients[client].owed_within {
            self.clients[client].owed_by = Some(sight.now + span);
        }
        let owed_by = self.clients[client].owed_by;
        let Profile { odd_level_per_mille: odd_level, atomic_per_mille, sloppy_per_mille, .. } = self.profile;
        let actor = &mut self.clients[client];
        let held = actor.held.get(&key).cloned();
        let settled = actor.level;
        let drawn = |rng: &mut Rng| match rng.chance(odd_level) && owed_by.is_none() {
            true => *rng.pick(&[Level::One, Level::All, Level::Count(2)]).unwrap_or(&Level::All),
            false => Level::Majority,
        };
        let level = |rng: &mut Rng| settled.unwrap_or_else(|| drawn(rng));
        let mut sent = None;
        let (action, request) = match step {
            Step::Read(r) => {
                let r = if r == Level::Majority { level(&mut actor.rng) } else { r };
                let atomic = owed_by.is_none() && actor.rng.chance(atomic_per_mille);
                (Action::Read { r, atomic }, Request::Read(Read { key: key.clone(), r, atomic }))
            }
            Step::Compare => (Action::Compare, Request::Explain { key: key.clone() }),
            Step::Put | Step::PutBlind | Step::Delete | Step::Sweep | Step::PutWrong => {
                self.writes += 1;
                let id = WriteId(self.writes);
                let deletes = matches!(step, Step::Delete | Step::Sweep);
                sent = if matches!(step, Step::Put | Step::Delete) { held } else { None };
                let wrong = (step == Step::PutWrong).then(|| actor.wrong_token(&key));
                let basis = match &sent {
                    _ if wrong.is_some() => Basis::Nothing,
                    Some(held) => Basis::Shown(held.shown.clone()),
                    None if deletes => Basis::WhateverIsThere,
                    None => Basis::Shown(BTreeSet::new()),
                };
                let w = level(&mut actor.rng);
                let sloppy = owed_by.is_none() && actor.rng.chance(sloppy_per_mille);
                let write = Write {
                    key: key.clone(),
                    value: (!deletes).then(|| id.to_value()),
                    context: wrong.or_else(|| sent.as_ref().map(|held| held.token.clone())),
                    // The start is set with the first attempt: it is the time of the node that it goes to.
                    operation: OperationId { started: WallTime(0), nonce: actor.rng.bits() },
                    attempt: 0,
                    w,
                    sloppy,
                };
                (Action::Write { id, deletes, basis, w, sloppy }, Request::Write(write))
            }
        };
        let index = self.history.operations.len();
        self.history.operations.push(Operation {
            client: client as u32 + 1,
            key,
            action,
            invoked: sight.now,
            ended: Moment::NEVER,
            ending: Ending::Open,
            attempts: 0,
            owed_by,
        });
        let until = owed_by.unwrap_or(sight.now + self.profile.patience);
        self.clients[client].ongoing = Some(Ongoing {
            index,
            request,
            step,
            attempts: 0,
            awaited: BTreeSet::new(),
            in_doubt: false,
            attempt_until: sight.now,
            until,
            sent,
        });
        self.attempt(client, sight, wishes);
        self.wake_when_due(client, wishes);
    }

    fn choose(&mut self, client: usize) -> (Bytes, Step) {
        let Profile { keys, weights, .. } = self.profile;
        let actor = &mut self.clients[client];
        // The smaller of two draws, twice: low keys are hot.
        let bound = actor.rng.below(u64::from(keys)) + 1;
        let key = Bytes::from(format!("k{}", actor.rng.below(bound)));
        let mut drawn = actor.rng.below(weights.iter().sum());
        let choice = weights.iter().position(|weight| match drawn.checked_sub(*weight) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        });
        let knows = actor.held.contains_key(&key);
        let step = match choice {
            Some(1) => {
                actor.next = Some((key.clone(), Step::Put));
                Step::Read(Level::Majority)
            }
            Some(2) => Step::PutBlind,
            Some(3) if knows => Step::Put,
            Some(4) if knows => Step::Delete,
            Some(4) => {
                actor.next = Some((key.clone(), Step::Delete));
                Step::Read(Level::Majority)
            }
            Some(5) => Step::Sweep,
            Some(6) => Step::PutWrong,
            _ => Step::Read(Level::Majority),
        };
        (key, step)
    }

    fn attempt(&mut self, client: usize, sight: &Sight<'_>, wishes: &mut Vec<Wish>) {
        let attempt_span = self.profile.attempt;
        let actor = &mut self.clients[client];
        let Some(ongoing) = &mut actor.ongoing else { return };
        let host = actor.route.host(ongoing.attempts, sight.times.len(), &mut actor.rng);
        ongoing.attempts += 1;
        ongoing.attempt_until = sight.now + attempt_span;
        self.history.operations[ongoing.index].attempts = ongoing.attempts;
        if let Request::Write(write) = &mut ongoing.request {
            write.attempt = ongoing.attempts;
            if ongoing.attempts == 1 {
                write.operation.started = sight.times[host];
            }
        }
        actor.requests += 1;
        ongoing.awaited.insert(actor.requests);
        let wait = ongoing.until.since(sight.now).min(Duration::from_secs(5)).as_millis();
        wishes.push(Wish::Ask {
            client,
            host,
            id: actor.requests,
            deadline_ms: u32::try_from(wait).unwrap_or(u32::MAX).max(1),
            request: ongoing.request.clone(),
        });
    }

    /// An attempt was answered without success.
    fn failed(&mut self, client: usize, sight: &Sight<'_>, wishes: &mut Vec<Wish>) {
        let attempts_max = self.attempts_max(client);
        let actor = &mut self.clients[client];
        let Some(ongoing) = &mut actor.ongoing else { return };
        let tries_again =
            ongoing.attempts < attempts_max && (actor.owed_by.is_some() || actor.rng.chance(600));
        #[cfg(test)]
        if self.forgets_attempts && !tries_again && !ongoing.in_doubt {
            ongoing.awaited.clear();
        }
        if tries_again {
            // Not at once, or a node that refuses everybody would be asked without end.
            // Owners that heal alone take their time.
            let longer = if ongoing.step == Step::Compare { 5 } else { 1 };
            let pause = Duration::from_millis(longer * actor.rng.between(20, 200));
            ongoing.attempt_until = sight.now + pause;
            self.wake_when_due(client, wishes);
        } else if ongoing.awaited.is_empty() {
            let ending = match self.history.operations[ongoing.index].action {
                Action::Write { .. } if ongoing.in_doubt => Ending::Unknown,
                Action::Write { .. } => Ending::NotApplied,
                _ => Ending::Unavailable,
            };
            self.end(client, ending, sight.now, wishes);
        } else {
            // An earlier attempt may still be answered: until then nothing can be said of the operation.
            ongoing.attempt_until = Moment::NEVER;
            self.wake_when_due(client, wishes);
        }
    }

    /// The clocks of the nodes disagree so much that an operation which one of them began has expired for the others: what
    /// the cluster owes is owed to a new operation.
    fn start_over(&mut self, client: usize, now: Moment, wishes: &mut Vec<Wish>) {
        let Some(ongoing) = self.clients[client].ongoing.take() else { return };
        let operation = &mut self.history.operations[ongoing.index];
        operation.ending = Ending::Unknown;
        operation.ended = now;
        operation.owed_by = None;
        self.wake_at(client, now + Duration::from_millis(20), wishes);
    }

    fn committed(&mut self, client: usize, written: Written, now: Moment, wishes: &mut Vec<Wish>) {
        let actor = &mut self.clients[client];
        let Some(ongoing) = &actor.ongoing else { return };
        let operation = &self.history.operations[ongoing.index];
        if let (Action::Write { id, deletes, .. }, Some(token)) = (&operation.action, written.context) {
            // Its own value is the only one: then the client has seen everything that this context covers. Otherwise
            // it is the context that was sent, and covers what had been shown with it.
            let mut shown = ongoing.sent.as_ref().map(|held| held.shown.clone()).unwrap_or_default();
            if written.siblings == 1 && !deletes {
                shown.insert(*id);
            }
            actor.held.insert(operation.key.clone(), Held { token, shown });
        }
        self.history.acknowledged(ongoing.index, written.acks.len());
        self.end(client, Ending::Committed(written.dot), now, wishes);
    }

    fn was_shown(&mut self, client: usize, read: ReadAnswer, now: Moment, wishes: &mut Vec<Wish>) {
        let actor = &mut self.clients[client];
        let Some(ongoing) = &actor.ongoing else { return };
        let key = self.history.operations[ongoing.index].key.clone();
        let seen = Seen::of(&read.values, read.deleted);
        match read.context {
            Some(token) => actor.held.insert(key.clone(), Held { token, shown: seen.ids() }),
            None => actor.held.remove(&key),
        };
        if ongoing.step == Step::Read(Level::All) && actor.owed_by.is_some() {
            self.history.remains.insert(key, Remains { read: ongoing.index, owners: Vec::new() });
        }
        self.end(client, Ending::Answered(seen), now, wishes);
    }

    fn compared(
        &mut self,
        client: usize,
        explanation: Explanation,
        sight: &Sight<'_>,
        wishes: &mut Vec<Wish>,
    ) {
        let Some(ongoing) = &self.clients[client].ongoing else { return };
        let key = &self.history.operations[ongoing.index].key;
        let owners: Vec<_> =
            explanation.replicas.into_iter().map(|replica| (replica.node, replica.record.ok())).collect();
        let is_equal = owners.len() == self.history.owners
            && owners.iter().all(|(_, record)| record.is_some() && *record == owners[0].1);
        let read = ongoing.index;
        let remains = self.history.remains.entry(key.clone());
        remains.or_insert(Remains { read, owners: Vec::new() }).owners = owners;
        match is_equal {
            true => self.end(client, Ending::Equal, sight.now, wishes),
            false => self.failed(client, sight, wishes),
        }
    }

    fn end(&mut self, client: usize, ending: Ending, now: Moment, wishes: &mut Vec<Wish>) {
        let went_well = matches!(ending, Ending::Committed(_) | Ending::Answered(_) | Ending::Equal);
        let Some(ongoing) = self.clients[client].ongoing.take() else { return };
        let operation = &mut self.history.operations[ongoing.index];
        operation.ending = ending;
        operation.ended = now;
        let actor = &mut self.clients[client];
        if !went_well {
            // Without its first half a read-modify-write makes no sense.
            actor.next = None;
            actor.script.clear();
        }
        actor.script.pop_front();
        if (actor.owed_by.is_some() || actor.is_staged) && actor.script.is_empty() {
            return;
        }
        let think = if actor.next.is_some() { Duration::from_millis(2) } else { self.think(client) };
        self.wake_at(client, now + think, wishes);
    }

    fn attempts_max(&self, client: usize) -> u32 {
        match &self.clients[client] {
            Client { owed_by: Some(_), .. } => u32::MAX,
            Client { route: Route::InOrder(order), .. } => order.len() as u32,
            _ => self.profile.attempts_max,
        }
    }

    fn think(&mut self, client: usize) -> Duration {
        let longest = self.profile.think_max.as_micros() as u64;
        Duration::from_micros(self.clients[client].rng.between(1_000, longest.max(1_000)))
    }

    fn wake_when_due(&mut self, client: usize, wishes: &mut Vec<Wish>) {
        let Some(ongoing) = &self.clients[client].ongoing else { return };
        let may_retry = ongoing.attempts < self.attempts_max(client);
        let at = if may_retry { ongoing.until.min(ongoing.attempt_until) } else { ongoing.until };
        self.wake_at(client, at, wishes);
    }

    fn wake_at(&mut self, client: usize, at: Moment, wishes: &mut Vec<Wish>) {
        self.clients[client].wakes_at = at;
        wishes.push(Wish::Wake { client, at });
    }
}

impl Client {
    fn new(rng: Rng) -> Client {
        Client {
            rng,
            requests: 0,
            ongoing: None,
            held: BTreeMap::new(),
            next: None,
            script: VecDeque::new(),
            owed_by: None,
            owed_within: None,
            is_staged: false,
            level: None,
            route: Route::Anywhere,
            wakes_at: Moment::NEVER,
        }
    }

    /// A context that no node may accept for this key: one of another key, or one with a flipped bit.
    fn wrong_token(&mut self, key: &Bytes) -> ContextToken {
        let others: Vec<&Bytes> = self.held.keys().filter(|other| *other != key).collect();
        if self.rng.chance(500)
            && let Some(held) = self.rng.pick(&others).and_then(|other| self.held.get(*other))
        {
            return held.token.clone();
        }
        let mut bytes = self.held.get(key).map_or(vec![1; 40], |held| held.token.as_bytes().to_vec());
        let at = self.rng.index(bytes.len());
        bytes[at] ^= 1 << self.rng.below(8);
        ContextToken::from(Bytes::from(bytes))
    }
}
