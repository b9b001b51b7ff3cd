//! The judges of invariant 8, checked from outside.
//!
//! A judge that is wrong the same way as its own tests proves nothing, so three others look at the same histories: the
//! linearizability tester of the `stateright` crate, a brute-force oracle that tries every assignment that the
//! definition allows ([`oracle`]), and the simulator, which supplies real histories.
//!
//! **Why not simply linearizability?** An atomic read brings what it shows to a majority before it shows it. After it
//! has *ended* nobody sees less. But with siblings two reads that *overlap* may show sets of which neither holds the
//! other. With owners a, b, c and two blind writes, each on its way to one owner:
//!
//! ```text
//! put v1 ──▶ a           (the rest is delayed)      put v2 ──▶ c
//! R1 asks a, b: shows {v1} after it was written to b;  R2 asked b, c before that: shows {v2} after it was written to b
//! ```
//!
//! Both are regular, and whoever reads later sees {v1, v2}. A register with siblings that a single machine keeps is
//! {v1} or {v2} first, so one of the two reads would have had to show both: no order of the operations explains them
//! ([`overlapping_atomic_reads_may_differ`]). Where the writes form a **chain** (whoever writes had been shown the
//! newest write) pasts are prefixes of one another, so reads that are regular and monotone after their ends can be put
//! in order: this is Lamport's proposition that a regular register without new-old inversion is atomic. There the
//! judges and the tester must agree, and do.
//!
//! `STARLING_OUTSIDE=20 cargo test --release --test outside` looks at twenty times as many histories.

mod oracle;
mod stories;
mod tester;

use std::collections::BTreeMap;
use std::time::Duration;

use oracle::{Ask, is_legal, values_of_many_dots};
use starling::protocol::rng::Rng;
use starling::protocol::time::Moment;
use starling::protocol::wire::client::Level;
use starling::sim::history::{Action, Basis, Ending, History, Operation, WriteId};
use starling::sim::invariants::{self, Invariant};
use starling::sim::{Options, run};
use stories::{Kind, begin, is_honest, legal, mutate, seen};
use tester::is_linearizable;

/// How many histories to look at, for so many in a plain `cargo test`.
fn budget(plain: usize) -> usize {
    std::env::var("STARLING_OUTSIDE").ok().and_then(|times| times.parse().ok()).unwrap_or(1) * plain
}

/// The judges whose invariants the definition contains: what is shown is regular, and after atomic reads monotone; it was
/// written, was not refused and does not come back. Others ask for more, that what was read lasts for example.
const JUDGES: [Invariant; 5] = [
    Invariant::OneDotOneValue,
    Invariant::NoResurrection,
    Invariant::RegularReads,
    Invariant::AtomicReads,
    Invariant::Outcomes,
];

/// Which of them complain.
fn complaints(history: &History) -> Vec<Invariant> {
    let found = invariants::judge(history).into_iter().map(|violation| violation.invariant);
    found.filter(|invariant| JUDGES.contains(invariant)).collect()
}

/// The history as lines, for people.
fn tell(history: &History) -> String {
    let lines = history.operations.iter().map(|operation| {
        let (from, until) = (operation.invoked.0, operation.ended.0);
        format!("c{} {from}..{until}: {:?} -> {:?}", operation.client, operation.action, operation.ending)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How often two who judge agreed.
///
/// The judges never complain of what is legal. Of what is not they may let pass one history in a thousand: those in
/// which an atomic read can only have missed a value because it met some other write, which nobody saw. To infer that
/// takes a search such as the oracle's; the judges are linear.
#[derive(Debug, Default)]
struct Agreement {
    both_accept: usize,
    both_reject: usize,
    missed: usize,
}

impl Agreement {
    /// Takes in one history.
    fn expect(&mut self, judges: &[Invariant], other: bool, who: &str, history: &History) {
        match (judges.is_empty(), other) {
            (true, true) => self.both_accept += 1,
            (false, false) => self.both_reject += 1,
            (true, false) => {
                self.missed += 1;
                let few = 1 + (self.both_accept + self.both_reject) / 1_000;
                assert!(self.missed <= few, "only the {who} sees what is wrong:\n{}", tell(history));
            }
            (false, true) => {
                panic!("the judges say {judges:?} of what the {who} accepts:\n{}", tell(history))
            }
        }
    }
}

/// Compares the judges with the oracle, with and without the atomic half.
#[derive(Debug, Default)]
struct Comparison {
    atomic: Agreement,
    regular: Agreement,
}

impl Comparison {
    fn expect(&mut self, history: &History) {
        let mut judges = complaints(history);
        if !values_of_many_dots(history).is_empty() {
            // A read of all owners brings all attempts of a write together, which is beyond the oracle.
            judges.retain(|found| *found != Invariant::NoResurrection);
        }
        let regular: Vec<_> =
            judges.iter().copied().filter(|found| *found != Invariant::AtomicReads).collect();
        self.atomic.expect(&judges, is_legal(history, Ask::Atomic), "oracle", history);
        self.regular.expect(&regular, is_legal(history, Ask::Regular), "oracle", history);
    }
}

#[test]
fn on_chains_the_judges_agree_with_the_linearizability_tester_and_the_oracle() {
    let mut rng = Rng::from_number(8);
    let (mut tester, mut oracle) = (Agreement::default(), Comparison::default());
    let mut dishonest = 0;
    let stories = budget(6_000);
    for _ in 0..stories {
        let operations = rng.between(3, 8) as usize;
        let history = legal(Kind::Chain, operations, &mut rng);
        assert!(is_honest(&history), "{}", tell(&history));
        let mutants: Vec<History> = (0..3).filter_map(|_| mutate(&history, &mut rng)).collect();
        for history in [history].into_iter().chain(mutants) {
            if !is_honest(&history) {
                dishonest += 1;
                continue;
            }
            oracle.expect(&history);
            tester.expect(&complaints(&history), is_linearizable(&history), "tester", &history);
        }
    }
    println!("chains: tester {tester:?}; {oracle:?}; {dishonest} mutants that no client can have seen");
    assert!(tester.both_accept > stories && tester.both_reject > stories / 2, "{tester:?}");
}

#[test]
fn overlapping_atomic_reads_may_differ() {
    let mut history = History { owners: 3, retries_are_exact: true, ..History::default() };
    let blind = |id| Action::Write {
        id: WriteId(id),
        deletes: false,
        basis: Basis::Shown(Default::default()),
        w: Level::Majority,
        sloppy: false,
    };
    let read = Action::Read { r: Level::Majority, atomic: true };
    let showed = |ids: &[u64]| Ending::Answered(seen(&ids.iter().map(|id| WriteId(*id)).collect()));
    for (client, action, span, ending) in [
        (0, blind(1), 1..90, Ending::Unknown),
        (1, blind(2), 2..91, Ending::Unknown),
        (2, read.clone(), 10..30, showed(&[1])),
        (3, read.clone(), 20..40, showed(&[2])),
        (4, read.clone(), 50..60, showed(&[1, 2])),
    ] {
        let begun = begin(client, action, span.start);
        history.operations.push(Operation { ended: Moment(span.end), ending, ..begun });
    }
    assert_eq!(complaints(&history), []);
    assert!(is_legal(&history, Ask::Atomic) && !is_linearizable(&history));
    // Had the first of the two ended before, the other one would have had to show what it showed.
    history.operations[2].ended = Moment(15);
    assert_eq!(complaints(&history), [Invariant::AtomicReads]);
    assert!(!is_legal(&history, Ask::Atomic) && !is_linearizable(&history));
}

#[test]
fn with_siblings_the_judges_agree_with_the_oracle() {
    let mut rng = Rng::from_number(9);
    let mut comparison = Comparison::default();
    let stories = budget(6_000);
    for _ in 0..stories {
        let operations = rng.between(3, 8) as usize;
        let history = legal(Kind::Siblings, operations, &mut rng);
        assert!(is_legal(&history, Ask::Atomic), "{}", tell(&history));
        let mutants: Vec<History> = (0..3).filter_map(|_| mutate(&history, &mut rng)).collect();
        for history in [history].into_iter().chain(mutants).filter(is_honest) {
            comparison.expect(&history);
        }
    }
    println!("siblings: {comparison:?}");
    for agreement in [&comparison.atomic, &comparison.regular] {
        assert!(agreement.both_accept > stories && agreement.both_reject > stories / 2, "{agreement:?}");
    }
}

/// The histories of single keys from small worlds with faults, as far as the oracle can take them in.
fn real(worlds: usize) -> Vec<History> {
    let mut found = Vec::new();
    for seed in 0..worlds as u64 {
        let options = Options {
            nodes: Some(3),
            clients: Some(2 + (seed % 3) as u32),
            keys: Some(1 + (seed % 2) as u32),
            duration: Duration::from_millis(1_000 + 500 * (seed % 5)),
            ..Options::new(seed)
        };
        // What is judged here is the history; `tests/sim.rs` sees to the rest.
        found.extend(of_keys(&run(&options).history));
    }
    found
}

/// A history of its own for each key: its first operations, without what comes after them.
///
/// Writes that come later can only be left out if they began when every read that stays was over. Comparisons are no reads; deletes that
/// look for themselves are beyond the oracle.
fn of_keys(history: &History) -> Vec<History> {
    let keys = history.by_key().into_values();
    keys.filter_map(|places| {
        let mut operations: Vec<_> = places.iter().map(|&at| history.operations[at].clone()).collect();
        operations.retain(|operation| !matches!(operation.action, Action::Compare));
        let mut part = History { remains: BTreeMap::new(), operations, ..history.clone() };
        let end = (0..part.operations.len()).rev().map(|at| at + 1).find(|&end| is_small(&part, end))?;
        part.operations.truncate(end);
        part.operations.iter_mut().for_each(|operation| operation.owed_by = None);
        Some(part)
    })
    .collect()
}

/// Whether the first `end` operations are few, and a history by themselves.
fn is_small(history: &History, end: usize) -> bool {
    let (kept, rest) = history.operations.split_at(end);
    let writes = kept.iter().filter_map(|operation| operation.as_write(0));
    let later = rest.iter().filter(|operation| operation.as_write(0).is_some());
    let later = later.map(|operation| operation.invoked).min().unwrap_or(Moment::NEVER);
    let mut read = kept.iter().filter(|operation| operation.as_answered().is_some());
    writes.clone().count() <= 8
        && kept.len() - writes.clone().count() <= 10
        && !writes.clone().any(|write| matches!(write.basis, Basis::WhateverIsThere | Basis::Nothing))
        && read.all(|operation| operation.ended < later)
}

/// Whether the writes form a chain by what their clients had been shown, all quorums are majorities, and all reads atomic.
fn is_chain(history: &History) -> bool {
    let mut newest = None;
    history.operations.iter().all(|operation| match (&operation.action, operation.as_write(0)) {
        (_, Some(write)) => {
            let follows = match (write.basis, newest.replace(write.id)) {
                (Basis::Shown(shown), Some(before)) => shown.iter().eq([&before]),
                (Basis::Shown(shown), None) => shown.is_empty(),
                (Basis::WhateverIsThere | Basis::Nothing, _) => false,
            };
            follows && !write.deletes && 2 * write.w.of(history.owners) > history.owners
        }
        (Action::Read { r, atomic }, _) => *atomic && 2 * r.of(history.owners) > history.owners,
        (Action::Compare, _) => true,
        (Action::Write { .. }, None) => false,
    })
}

#[test]
fn what_the_simulator_accepts_is_legal_and_its_mutants_are_killed() {
    let mut rng = Rng::from_number(10);
    let histories = real(budget(150));
    let (mut chains, mut mutants, mut alive) = (Agreement::default(), Comparison::default(), 0);
    let mut killed: BTreeMap<Invariant, usize> = BTreeMap::new();
    let mut operations = 0;
    for history in &histories {
        operations += history.operations.len();
        assert_eq!(complaints(history), [], "{}", tell(history));
        assert!(is_legal(history, Ask::Atomic), "{}", tell(history));
        for mutant in (0..6).filter_map(|_| mutate(history, &mut rng)) {
            mutants.expect(&mutant);
            let judges = complaints(&mutant);
            alive += usize::from(judges.is_empty());
            for judge in judges {
                *killed.entry(judge).or_default() += 1;
            }
        }
        // As a chain: without the plain reads, up to the first write that does not follow from the one before.
        let mut chain = history.clone();
        chain
            .operations
            .retain(|operation| operation.as_answered().is_none() || operation.as_atomic().is_some());
        let ends = (1..=chain.operations.len()).rev();
        let prefix = |end: usize| History { operations: chain.operations[..end].to_vec(), ..chain.clone() };
        let Some(chain) =
            ends.map(prefix).find(|prefix| is_chain(prefix) && is_small(&chain, prefix.operations.len()))
        else {
            continue;
        };
        let of_chain: Vec<History> = (0..6).filter_map(|_| mutate(&chain, &mut rng)).collect();
        for mutant in of_chain.into_iter().filter(is_honest).chain([chain]) {
            if values_of_many_dots(&mutant).is_empty() {
                chains.expect(&complaints(&mutant), is_linearizable(&mutant), "tester", &mutant);
            }
        }
    }
    println!("{} real histories of {operations} operations; chains {chains:?}", histories.len());
    println!("mutants {mutants:?}; killed {killed:?}, alive and legal {alive}");
    assert!(operations > 5 * histories.len() && mutants.atomic.both_reject > histories.len(), "{mutants:?}");
    assert!(killed.contains_key(&Invariant::RegularReads) && killed.contains_key(&Invariant::AtomicReads));
}
