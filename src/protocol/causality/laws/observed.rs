//! Causality as clients observe it.
//!
//! The merge laws say that replicas agree; they do not say that they agree on the right thing. This explorer does: it
//! plays three replicas, a network that drops, doubles and reorders, and clients that hold the contexts and know the
//! values that they were *shown*.
//!
//! 1. At no time does any replica take a value for dead unless a write with a context was applied whose client had
//!    been shown it. (The promise to clients is about committed values; replicas keep it for all.)
//! 2. When replicas have heard everything, no value lives that such a write has superseded, however many attempts its
//!    operation had.
//! 3. And then they are equal.
//!
//! It proves its power by finding what is wrong with three plausible rules that are not ours ([`Rule`]).

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::protocol::causality::{
    Age, Applied, Change, Dot, OperationId, Put, Record, Refusal, VersionVector,
};
use crate::protocol::config::Limits;
use crate::protocol::id::Actor;
use crate::protocol::rng::Rng;
use crate::protocol::time::{Timestamp, WallTime};

const REPLICAS: usize = 3;
const CLIENTS: usize = 3;
const STEPS: usize = 60;

/// What the explorer plays: our rules, or ours with one of them replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The rules as they are.
    Sound,
    /// Every put returns the context of the record, also of siblings that its client was never shown.
    AlwaysReturnTheContext,
    /// Coordinators ship the new sibling with a context that covers its actor's earlier writes, but not those writes.
    ShipBareDeltas,
    /// A record does not know which dots are attempts of one operation. Coordinators still recognise an attempt that
    /// they hold.
    ForgetOperations,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation {
    /// Law 1.
    Vanished,
    /// Law 2.
    Resurrected,
    /// Law 3.
    Diverged,
    /// The amnesia alarm rang though nothing was forgotten.
    FalseAlarm,
}

struct Replica {
    actor: Actor,
    clock: u64,
    record: Record,
}

/// A context in the hands of a client, and the operations whose values it was shown together with it.
#[derive(Clone, Default)]
struct Held {
    context: VersionVector,
    shown: BTreeSet<usize>,
}

#[derive(Default)]
struct Client {
    held: Held,
    /// The replies to a read that is under way.
    replies: Vec<Record>,
}

/// One logical write over all of its attempts.
struct Operation {
    id: OperationId,
    client: usize,
    value: Option<Bytes>,
    sent: Held,
    dots: BTreeSet<Dot>,
}

/// A later attempt between the majority read that it starts with and its coordinator's disk.
struct Retry {
    operation: usize,
    replica: usize,
    actor: Actor,
    base: Record,
}

struct Explorer {
    rule: Rule,
    rng: Rng,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    operations: Vec<Operation>,
    retries: Vec<Retry>,
    network: Vec<(usize, Record)>,
    actors: u64,
}

impl Explorer {
    fn new(rule: Rule, seed: u64) -> Explorer {
        let replica = |n| Replica { actor: Actor(n), clock: 0, record: Record::default() };
        Explorer {
            rule,
            rng: Rng::from_number(seed),
            replicas: (1..=REPLICAS as u64).map(replica).collect(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            operations: Vec::new(),
            retries: Vec::new(),
            network: Vec::new(),
            actors: REPLICAS as u64,
        }
    }

    /// One run: random steps, then everybody hears everything.
    fn run(mut self) -> Result<(), Violation> {
        for _ in 0..STEPS {
            self.step()?;
        }
        for _ in 0..2 {
            for from in 0..REPLICAS {
                for to in 0..REPLICAS {
                    let record = self.replicas[from].record.clone();
                    self.receive(to, record)?;
                }
            }
        }
        let record = &self.replicas[0].record;
        if self.replicas.iter().any(|replica| replica.record != *record) {
            return Err(Violation::Diverged);
        }
        let lives = |operation: &Operation| record.siblings().iter().any(|s| operation.dots.contains(&s.dot));
        let resurrected = (0..self.operations.len())
            .any(|number| self.is_superseded(number) && lives(&self.operations[number]));
        if resurrected { Err(Violation::Resurrected) } else { Ok(()) }
    }

    fn step(&mut self) -> Result<(), Violation> {
        match self.rng.below(100) {
            0..20 => self.read(),
            20..45 => return self.write(),
            45..55 => self.start_retry(),
            55..65 => return self.finish_retry(),
            65..97 => return self.deliver(),
            _ => {
                let replica = self.rng.index(REPLICAS);
                self.actors += 1;
                self.replicas[replica].actor = Actor(self.actors);
            }
        }
        Ok(())
    }

    /// A client gets one more reply to its read; with the second it is shown the merged record.
    fn read(&mut self) {
        let reply = self.replicas[self.rng.index(REPLICAS)].record.clone();
        let client = &mut self.clients[self.rng.index(CLIENTS)];
        client.replies.push(reply);
        if let [a, b] = &client.replies[..] {
            let record = a.merged(b);
            let is_shown =
                |operation: &Operation| record.siblings().iter().any(|s| operation.dots.contains(&s.dot));
            let shown = (0..self.operations.len()).filter(|&n| is_shown(&self.operations[n])).collect();
            client.held = Held { context: record.context().clone(), shown };
            client.replies.clear();
        }
    }

    /// A client starts an operation, sometimes blindly, sometimes a deletion.
    fn write(&mut self) -> Result<(), Violation> {
        let client = self.rng.index(CLIENTS);
        let sent = if self.rng.chance(300) { Held::default() } else { self.clients[client].held.clone() };
        let number = self.operations.len();
        let value = (!self.rng.chance(250)).then(|| Bytes::from(format!("value {number}")));
        let id = OperationId { started: WallTime(number as u64), nonce: self.rng.bits() };
        self.operations.push(Operation { id, client, value, sent, dots: BTreeSet::new() });
        let replica = self.rng.index(REPLICAS);
        self.attempt(number, replica, None)
    }

    /// The answer to one of the last operations is taken for lost. Its next attempt begins with a majority read: the
    /// coordinator's own record and another.
    fn start_retry(&mut self) {
        let recent = self.operations.len().saturating_sub(3);
        if recent < self.operations.len() {
            let operation = self.rng.between(recent as u64, self.operations.len() as u64 - 1) as usize;
            let (replica, other) = (self.rng.index(REPLICAS), self.rng.index(REPLICAS));
            let base = self.replicas[replica].record.merged(&self.replicas[other].record);
            self.retries.push(Retry { operation, replica, actor: self.replicas[replica].actor, base });
        }
    }

    fn finish_retry(&mut self) -> Result<(), Violation> {
        if self.retries.is_empty() {
            return Ok(());
        }
        let retry = self.retries.swap_remove(self.rng.index(self.retries.len()));
        // A coordinator that was restarted meanwhile has lost the request.
        if retry.actor != self.replicas[retry.replica].actor {
            return Ok(());
        }
        self.attempt(retry.operation, retry.replica, Some(retry.base))
    }

    /// A message arrives, or is lost; sometimes it stays in the network and arrives again.
    fn deliver(&mut self) -> Result<(), Violation> {
        if self.network.is_empty() {
            return Ok(());
        }
        let at = self.rng.index(self.network.len());
        let (to, record) =
            if self.rng.chance(200) { self.network[at].clone() } else { self.network.swap_remove(at) };
        if self.rng.chance(150) { Ok(()) } else { self.receive(to, record) }
    }

    fn receive(&mut self, to: usize, record: Record) -> Result<(), Violation> {
        let replica = &mut self.replicas[to];
        match Record::apply(
            &Change::Merge { record, own: replica.actor, age: Age::default() },
            Some(&replica.record),
        ) {
            Applied::Changed { amnesia: true, .. } => return Err(Violation::FalseAlarm),
            Applied::Changed { record, .. } => replica.record = record,
            Applied::Unchanged { .. } => {}
            other => panic!("a merge came out as {other:?}"),
        }
        self.judge(to)
    }

    /// One attempt of an operation at its coordinator: apply, fan out, answer.
    fn attempt(&mut self, number: usize, replica: usize, base: Option<Record>) -> Result<(), Violation> {
        let operation = &self.operations[number];
        let at = &mut self.replicas[replica];
        at.clock += 1;
        let dot = Dot { actor: at.actor, at: Timestamp(at.clock) };
        let id = match self.rule {
            Rule::ForgetOperations => OperationId { nonce: self.rng.bits(), ..operation.id },
            _ => operation.id,
        };
        let put = Put {
            context: operation.sent.context.clone(),
            dot,
            value: operation.value.clone(),
            operation: id,
            base: Some(base.unwrap_or_default()),
            age: Age::default(),
            limits: Limits { siblings_max: 6, ..Limits::default() },
        };
        if self.rule == Rule::ForgetOperations {
            let known = at.record.merged(put.base.as_ref().unwrap_or(&at.record));
            if let Some(&dot) = operation.dots.iter().find(|dot| known.context().covers(**dot)) {
                return self.answer(number, replica, known, dot);
            }
        }
        match Record::apply(&Change::Put(put.clone()), Some(&at.record)) {
            Applied::Changed { record, .. } => {
                self.operations[number].dots.insert(dot);
                self.replicas[replica].record = record;
                let shipped = match self.rule {
                    Rule::ShipBareDeltas => {
                        match Record::apply(&Change::Put(Put { base: Some(Record::default()), ..put }), None)
                        {
                            Applied::Changed { record, .. } => record,
                            other => panic!("a put on nothing came out as {other:?}"),
                        }
                    }
                    _ => self.replicas[replica].record.clone(),
                };
                let others = (0..REPLICAS).filter(|other| *other != replica);
                self.network.extend(others.map(|other| (other, shipped.clone())));
                let record = self.replicas[replica].record.clone();
                self.answer(number, replica, record, dot)
            }
            Applied::Adopted { amnesia: true, .. } => Err(Violation::FalseAlarm),
            Applied::Adopted { record, dot, .. } => {
                let others = (0..REPLICAS).filter(|other| *other != replica);
                self.network.extend(others.map(|other| (other, record.clone())));
                self.answer(number, replica, record, dot)
            }
            Applied::Refused(Refusal::Amnesia) => Err(Violation::FalseAlarm),
            // No context is handed out, see the limit on siblings.
            Applied::Refused(_) => Ok(()),
            Applied::Unchanged { .. } => panic!("a put without effect"),
        }
    }

    /// The client learns what its put did, if the answer is not lost.
    fn answer(&mut self, number: usize, replica: usize, record: Record, dot: Dot) -> Result<(), Violation> {
        let only = matches!(record.siblings(), [sibling] if sibling.dot == dot);
        let operation = &self.operations[number];
        if !self.rng.chance(300) && (only || self.rule == Rule::AlwaysReturnTheContext) {
            let mut shown = operation.sent.shown.clone();
            shown.insert(number);
            self.clients[operation.client].held = Held { context: record.context().clone(), shown };
        }
        self.replicas[replica].record = record;
        self.judge(replica)
    }

    /// Law 1, after a change of one replica.
    fn judge(&self, replica: usize) -> Result<(), Violation> {
        let record = &self.replicas[replica].record;
        let explained = |number| self.applied().any(|write| write.sent.shown.contains(&number));
        let vanished = (0..self.operations.len()).any(|number| {
            self.operations[number].dots.iter().any(|dot| record.is_dead(*dot)) && !explained(number)
        });
        if vanished { Err(Violation::Vanished) } else { Ok(()) }
    }

    /// Whether some write was applied whose context covers an attempt of the operation.
    fn is_superseded(&self, number: usize) -> bool {
        let dots = &self.operations[number].dots;
        self.applied().any(|write| dots.iter().any(|dot| write.sent.context.covers(*dot)))
    }

    fn applied(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| !operation.dots.is_empty())
    }
}

/// The first of `seeds` runs that ends in a violation.
fn first_violation(rule: Rule, seeds: u64) -> Option<(u64, Violation)> {
    (0..seeds).find_map(|seed| Explorer::new(rule, seed).run().err().map(|violation| (seed, violation)))
}

#[test]
fn a_value_vanishes_only_by_a_write_of_someone_who_was_shown_it() {
    assert_eq!(first_violation(Rule::Sound, 2_000), None);
}

#[test]
fn returning_the_context_with_every_put_erases_values_that_nobody_was_shown() {
    let found = first_violation(Rule::AlwaysReturnTheContext, 50);
    assert!(matches!(found, Some((_, Violation::Vanished))), "{found:?}");
}

#[test]
fn shipping_bare_deltas_erases_values_that_nobody_was_shown() {
    let found = first_violation(Rule::ShipBareDeltas, 50);
    assert!(matches!(found, Some((_, Violation::Vanished))), "{found:?}");
}

#[test]
fn without_remembered_operations_a_retry_brings_an_overwritten_value_back() {
    let found = first_violation(Rule::ForgetOperations, 500);
    assert!(matches!(found, Some((_, Violation::Resurrected))), "{found:?}");
}
