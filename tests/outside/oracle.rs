//! What a read may show, by brute force from the definition.
//!
//! *There is an assignment* of a set of writes to every read, its **past**, such that
//!
//! 1. the past holds writes only that may have happened and had begun when the read ended;
//! 2. it holds every committed write that had ended when the read began and whose quorum the read must meet (Lamport's
//!    regularity: for the others, which are concurrent or of unknown outcome, the read may choose);
//! 3. it holds the whole past of every atomic read that had ended when the read began, if the read meets majorities;
//! 4. what the read showed is what is left of its past: the values that no write of it had been shown, directly or
//!    through others.
//!
//! There is one exemption. Each attempt of a write may have a dot of its own, and who was shown one of them supersedes
//! only that one until the owners have met; so a value that was seen under two dots, or that was committed under an
//! unknown one, may be shown although something in the past took its place.
//!
//! All assignments are tried. Nothing here is shared with the judges, and nothing is clever.

use std::collections::{BTreeMap, BTreeSet};

use starling::protocol::causality::Dot;
use starling::protocol::wire::client::Level;
use starling::sim::history::{Action, Basis, Ending, History, WriteId};

/// A set of writes, as bits.
type Set = u32;

/// Which reads the oracle looks at as atomic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// None: the reads are judged one by one.
    Regular,
    /// Those that are.
    Atomic,
}

struct Read {
    /// Index in the history.
    index: usize,
    is_atomic: bool,
    meets_majorities: bool,
    must: Set,
    may: Set,
    shown: Option<Set>,
}

/// Whether a history of one key, without deletes that look for themselves, is legal.
pub(crate) fn is_legal(history: &History, ask: Ask) -> bool {
    let operations = &history.operations;
    let majority = history.owners / 2 + 1;
    let mut bit_of: BTreeMap<WriteId, usize> = BTreeMap::new();
    for operation in operations {
        if let Action::Write { id, .. } = operation.action {
            let next = bit_of.len();
            bit_of.insert(id, next);
        }
    }
    // What each write covers, through others too.
    let mut covers: Vec<Set> = vec![0; bit_of.len()];
    let mut values: Set = 0;
    for operation in operations {
        let Action::Write { id, deletes, basis: Basis::Shown(shown), .. } = &operation.action else {
            continue;
        };
        covers[bit_of[id]] = shown.iter().filter_map(|id| bit_of.get(id)).fold(0, |set, bit| set | 1 << bit);
        values |= if *deletes { 0 } else { 1 << bit_of[id] };
    }
    for _ in 0..covers.len() {
        for at in 0..covers.len() {
            let further = bits(covers[at]).fold(0, |set, bit| set | covers[bit]);
            covers[at] |= further;
        }
    }
    let meets = |r: Level, w: usize| r.of(history.owners) + w > history.owners;
    let mut reads = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let (Action::Read { r, atomic }, Ending::Answered(seen)) = (&operation.action, &operation.ending)
        else {
            continue;
        };
        let (mut must, mut may) = (0, 0);
        for write in operations {
            let Action::Write { id, w, .. } = &write.action else { continue };
            let bit = 1 << bit_of[id];
            if write.ending != Ending::NotApplied && write.invoked <= operation.ended {
                may |= bit;
            }
            let is_committed = matches!(write.ending, Ending::Committed(_));
            if is_committed && write.ended < operation.invoked && meets(*r, w.of(history.owners)) {
                must |= bit;
            }
        }
        let shown = seen.ids().iter().map(|id| bit_of.get(id).map(|bit| 1 << bit)).sum::<Option<Set>>();
        let is_atomic = *atomic && ask == Ask::Atomic;
        reads.push(Read { index, is_atomic, meets_majorities: meets(*r, majority), must, may, shown });
    }
    reads.sort_by_key(|read| operations[read.index].invoked);
    let late = values_of_many_dots(history)
        .iter()
        .filter_map(|id| bit_of.get(id))
        .fold(0, |set, bit| set | 1 << bit);
    let left = |past: Set| values & past & !bits(past).fold(0, |set, bit| set | covers[bit]);
    let fits = |read: &Read, past: Set| {
        let Some(shown) = read.shown else { return false };
        // What is shown beyond what is left has to be in the past, and of many dots.
        left(past) & !shown == 0 && shown & !past == 0 && shown & !left(past) & !late == 0
    };
    let fits: Vec<Vec<Set>> = reads
        .iter()
        .map(|read| {
            let pasts = subsets(read.may & !read.must).map(|chosen| chosen | read.must);
            pasts.filter(|past| fits(read, *past)).collect()
        })
        .collect();
    assign(history, &reads, &fits, &mut Vec::new())
}

/// The values that were seen under several dots, or committed under an unknown one.
pub(crate) fn values_of_many_dots(history: &History) -> BTreeSet<WriteId> {
    let mut dots: BTreeMap<WriteId, BTreeSet<Option<Dot>>> = BTreeMap::new();
    for operation in &history.operations {
        match (&operation.action, &operation.ending) {
            (Action::Write { id, .. }, Ending::Committed(dot)) => {
                dots.entry(*id).or_default().insert(*dot);
            }
            (_, Ending::Answered(seen)) => {
                for (id, dot) in &seen.values {
                    dots.entry(*id).or_default().insert(Some(*dot));
                }
            }
            _ => {}
        }
    }
    dots.into_iter().filter(|(_, dots)| dots.len() > 1 || dots.contains(&None)).map(|(id, _)| id).collect()
}

/// Gives a past to one read after the other, in the order in which they began.
fn assign(history: &History, reads: &[Read], fits: &[Vec<Set>], pasts: &mut Vec<Set>) -> bool {
    let at = pasts.len();
    let Some(read) = reads.get(at) else { return true };
    let began = history.operations[read.index].invoked;
    let must = (reads.iter().zip(pasts.iter()))
        .filter(|(before, _)| {
            before.is_atomic && read.meets_majorities && history.operations[before.index].ended < began
        })
        .fold(0, |set, (_, past)| set | past);
    fits[at].iter().any(|past| {
        if past & must != must {
            return false;
        }
        pasts.push(*past);
        let is_legal = assign(history, reads, fits, pasts);
        pasts.pop();
        is_legal
    })
}

fn bits(set: Set) -> impl Iterator<Item = usize> {
    (0..Set::BITS as usize).filter(move |bit| set & 1 << bit != 0)
}

/// All subsets, the empty one first.
fn subsets(of: Set) -> impl Iterator<Item = Set> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let set: Set = next?;
        next = (set != of).then(|| set.wrapping_sub(of) & of);
        Some(set)
    })
}
