//! Random small histories of one key: legal ones, and mutants of them.

use std::collections::BTreeSet;

use bytes::Bytes;
use starling::protocol::causality::Dot;
use starling::protocol::id::Actor;
use starling::protocol::rng::Rng;
use starling::protocol::time::{Moment, Timestamp};
use starling::protocol::wire::client::Level;
use starling::sim::history::{Action, Basis, Ending, History, Operation, Seen, WriteId};

/// What kind of history to make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The writes form a chain and every read is atomic.
    Chain,
    /// Blind writes, several writers, plain and atomic reads.
    Siblings,
}

type Set = BTreeSet<WriteId>;

/// A write while the history is made.
struct Made {
    id: WriteId,
    deletes: bool,
    /// The write itself and all that it has seen.
    past: Set,
}

/// What a client does at the moment.
enum Doing {
    Nothing,
    Write { index: usize, made: usize },
    Read { index: usize, past: Set },
}

/// Makes a legal history of at most `operations`.
///
/// It is made forwards: whoever reads draws its past among the writes that have begun, with what it must know, and is
/// shown what is left of it. On a chain all see one register that a write enters at one moment.
pub(crate) fn legal(kind: Kind, operations: usize, rng: &mut Rng) -> History {
    let clients = rng.between(2, 4) as usize;
    let (writes_per_mille, unknown_per_mille) = (rng.between(200, 600) as u32, rng.between(0, 600) as u32);
    let mut history = History { owners: 3, retries_are_exact: true, ..History::default() };
    let mut made: Vec<Made> = Vec::new();
    let mut doing: Vec<Doing> = (0..clients).map(|_| Doing::Nothing).collect();
    // What each client was shown last, and the past that its context covers.
    let mut held: Vec<(Set, Set)> = vec![Default::default(); clients];
    // What everybody who begins now must know, and what may be known.
    let (mut known, mut begun) = (Set::new(), Set::new());
    // Writes that nobody may know yet. On a chain they are at nobody's.
    let mut pending: Vec<usize> = Vec::new();
    let mut now = 0;
    while history.operations.len() < operations || doing.iter().any(|doing| !matches!(doing, Doing::Nothing))
    {
        now += 1;
        assert!(now < 10_000, "a history without an end");
        if !pending.is_empty() && rng.chance(300) {
            let past = made[pending.swap_remove(rng.index(pending.len()))].past.clone();
            begun.extend(past);
        }
        let client = rng.index(clients);
        match std::mem::replace(&mut doing[client], Doing::Nothing) {
            Doing::Nothing if history.operations.len() == operations => {}
            Doing::Nothing if rng.chance(writes_per_mille) => {
                let newest = made.last().map(|write| write.id);
                let may_write =
                    kind == Kind::Siblings || newest.is_none_or(|id| held[client].1.contains(&id));
                if !may_write {
                    continue;
                }
                let id = WriteId(made.len() as u64 + 1);
                let is_blind = kind == Kind::Siblings && rng.chance(400);
                let (shown, mut past) = if is_blind { Default::default() } else { held[client].clone() };
                past.insert(id);
                let deletes = rng.chance(150);
                made.push(Made { id, deletes, past });
                pending.push(made.len() - 1);
                let index = history.operations.len();
                doing[client] = Doing::Write { index, made: made.len() - 1 };
                let action = Action::Write {
                    id,
                    deletes,
                    basis: Basis::Shown(shown),
                    w: Level::Majority,
                    sloppy: false,
                };
                history.operations.push(begin(client, action, now));
            }
            Doing::Nothing => {
                let index = history.operations.len();
                let atomic = kind == Kind::Chain || rng.chance(500);
                history.operations.push(begin(client, Action::Read { r: Level::Majority, atomic }, now));
                doing[client] = Doing::Read { index, past: known.clone() };
            }
            Doing::Write { index, made: at } => {
                let operation = &mut history.operations[index];
                operation.ended = Moment(now);
                if rng.chance(unknown_per_mille) {
                    operation.ending = Ending::Unknown;
                    continue;
                }
                pending.retain(|pending| *pending != at);
                begun.extend(made[at].past.iter().copied());
                known.extend(made[at].past.iter().copied());
                operation.ending = Ending::Committed(Some(dot(made[at].id)));
                if kind == Kind::Chain || held[client].1.is_subset(&made[at].past) {
                    let Action::Write { id, deletes, basis: Basis::Shown(shown), .. } = &operation.action
                    else {
                        continue;
                    };
                    let shown = if *deletes { shown.clone() } else { [*id].into() };
                    held[client] = (shown, made[at].past.clone());
                }
            }
            Doing::Read { index, mut past } => {
                // One register for all on a chain; else each write that has begun may be known or not.
                match kind {
                    Kind::Chain => past.extend(begun.iter().copied()),
                    Kind::Siblings => {
                        let chosen: Vec<&Made> = made
                            .iter()
                            .filter(|write| begun.contains(&write.id) && rng.chance(400))
                            .collect();
                        past.extend(chosen.into_iter().flat_map(|write| write.past.iter().copied()));
                    }
                }
                let shown = left(&made, &past);
                let operation = &mut history.operations[index];
                let is_atomic = matches!(operation.action, Action::Read { atomic: true, .. });
                operation.ended = Moment(now);
                operation.ending = Ending::Answered(seen(&shown));
                if is_atomic {
                    known.extend(past.iter().copied());
                }
                held[client] = (shown, past);
            }
        }
    }
    history
}

/// What is left of a past: the values in it that no write of it has seen.
fn left(made: &[Made], past: &Set) -> Set {
    let in_past = || made.iter().filter(|write| past.contains(&write.id));
    let is_seen = |id: WriteId| in_past().any(|write| write.id != id && write.past.contains(&id));
    in_past().filter(|write| !write.deletes && !is_seen(write.id)).map(|write| write.id).collect()
}

/// Changes the result of one read, or swaps those of two; nothing if there is no read, or no change.
pub(crate) fn mutate(history: &History, rng: &mut Rng) -> Option<History> {
    let mut mutant = history.clone();
    let is_read = |at: &usize| history.operations[*at].as_answered().is_some();
    let reads: Vec<usize> = (0..history.operations.len()).filter(is_read).collect();
    let ids: Vec<WriteId> = (0..history.operations.len())
        .filter_map(|at| Some(history.operations[at].as_write(at)?.id))
        .collect();
    let at = *rng.pick(&reads)?;
    let (_, before) = history.operations[at].as_answered()?;
    let mut shown = before.ids();
    match rng.index(4) {
        // A value is dropped.
        0 => {
            let dropped = *rng.pick(&shown.iter().copied().collect::<Vec<_>>())?;
            shown.remove(&dropped);
        }
        // Another one is shown as well, perhaps an old one.
        1 => {
            shown.insert(*rng.pick(&ids)?);
        }
        // Another one is shown instead.
        2 => shown = [*rng.pick(&ids)?].into(),
        // Two reads are swapped.
        _ => {
            let other = *rng.pick(&reads)?;
            let ending = mutant.operations[other].ending.clone();
            mutant.operations[other].ending = mutant.operations[at].ending.clone();
            mutant.operations[at].ending = ending;
            return (mutant.operations != history.operations).then_some(mutant);
        }
    }
    let mut showed = seen(&shown);
    // Under the dot under which others saw it.
    for (id, dot) in &mut showed.values {
        let known =
            history.operations.iter().find_map(|operation| match (&operation.action, &operation.ending) {
                (Action::Write { id: of, .. }, Ending::Committed(Some(dot))) if of == id => Some(*dot),
                (_, Ending::Answered(seen)) => {
                    seen.values.iter().find(|(of, _)| of == id).map(|(_, dot)| *dot)
                }
                _ => None,
            });
        *dot = known.unwrap_or(*dot);
    }
    mutant.operations[at].ending = Ending::Answered(showed);
    (mutant.operations != history.operations).then_some(mutant)
}

/// Whether every client had been shown what its writes claim: by a read, or by a write of its own, that had ended.
///
/// A mutant that changes the read by which a client learned of a value is no history of that client any more.
pub(crate) fn is_honest(history: &History) -> bool {
    history.operations.iter().all(|write| {
        let Action::Write { basis: Basis::Shown(shown), .. } = &write.action else { return true };
        shown.iter().all(|id| {
            history.operations.iter().filter(|other| other.ended < write.invoked).any(|other| {
                let is_own = matches!(&other.action, Action::Write { id: own, .. } if own == id);
                let has_read = other.as_answered().is_some_and(|(_, seen)| seen.ids().contains(id));
                other.client == write.client
                    && (has_read || is_own && matches!(other.ending, Ending::Committed(_)))
            })
        })
    })
}

/// What a read is shown, under one dot for each value.
pub(crate) fn seen(shown: &Set) -> Seen {
    Seen { values: shown.iter().map(|id| (*id, dot(*id))).collect(), ..Seen::default() }
}

fn dot(id: WriteId) -> Dot {
    Dot { actor: Actor(1), at: Timestamp(id.0) }
}

/// An operation that has not ended.
pub(crate) fn begin(client: usize, action: Action, now: u64) -> Operation {
    Operation {
        client: client as u32,
        key: Bytes::from_static(b"k"),
        action,
        invoked: Moment(now),
        ended: Moment::NEVER,
        ending: Ending::Open,
        attempts: 1,
        owed_by: None,
    }
}
