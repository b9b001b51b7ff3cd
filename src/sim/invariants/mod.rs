//! What must never happen, one file each.
//!
//! ```text
//! History (what clients saw) ─▶ judge()                                          when all is over
//! World   (what passes)      ─▶ Dots, Starts, the witness's judges, Caps, views   while the run goes on
//! two trace hashes           ─▶ determinism::judge
//! ```
//!
//! What takes a [`History`] alone judges real clusters too. The numbers are those of the project's list and appear in
//! every report.
//!
//! | # | file | judges | waits for |
//! | --- | --- | --- | --- |
//! | 1 | [`no_lost_write`] | the history | certified reaps (a reaped dot is in no context) |
//! | 2 | [`exact_siblings`], its `reads` | the history; each read against what its repliers held | |
//! | 3 | [`one_dot_one_value`] | the history; every issue, merge, reply and record on a disk | |
//! | 4 | [`honest_contexts`] | every record that a disk holds | certified reaps (the one way to shrink) |
//! | 5 | [`canonical`] | messages and the owners' last records; the laws are property tests | |
//! | 6 | [`convergence`] | the history; in half of the seeds nobody reads before | |
//! | 7 | [`no_resurrection`] | the history | reaps: nodes away for longer than any timer |
//! | 8 | [`regular_reads`], [`atomic_reads`] | the history | |
//! | 9 | [`outcomes`] | the history, contexts that must be refused among it | |
//! | 10 | [`hints_drain`] | every removal of a hint, and what is left in the end | |
//! | 11 | [`repair_only_adds`] | every change of a record, exchanges and hints among them, every issue | handoffs: they merge too |
//! | 12 | [`views_agree`] | the nodes' views and rings, during the run and after healing | removals |
//! | 13 | none | | ring changes |
//! | 14 | [`incarnations`] | every start, message and issue | removals (a removed identity never returns) |
//! | 15 | [`durable_reads`] | the history | lost disks (owed for committed writes and atomic reads then) |
//! | 16 | [`liveness`] | the history | |
//! | 17 | [`bounds`] | every record on a disk, every answer, every node's queues and hints | |
//! | 18 | [`determinism`] | two traces | |
//!
//! A judge that cannot fail is worthless, so each file ends with histories in which its invariant is broken.

use std::fmt;

use bytes::Bytes;

use super::history::History;
use crate::protocol::causality::Record;
use crate::protocol::time::Moment;

pub mod atomic_reads;
pub mod bounds;
pub mod canonical;
pub mod circles;
pub mod convergence;
pub mod determinism;
pub mod durable_reads;
pub mod exact_siblings;
pub mod hints_drain;
pub mod honest_contexts;
pub mod incarnations;
pub mod liveness;
pub mod no_lost_write;
pub mod no_resurrection;
pub mod one_dot_one_value;
pub mod outcomes;
pub mod regular_reads;
pub mod repair_only_adds;
mod supersession;
pub mod views_agree;

/// An invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Not on the list: a node panicked, refused to start from its own disk or spun without end.
    Sane,
    /// 1: no acknowledged write is lost.
    NoLostWrite,
    /// 2: exact siblings, no more and no fewer.
    ExactSiblings,
    /// 3: one dot names one value.
    OneDotOneValue,
    /// 4: contexts cover what was merged or seen superseded, and never shrink.
    HonestContexts,
    /// 5: equal records have equal bytes.
    Canonical,
    /// 6: owners converge.
    Convergence,
    /// 7: what was superseded or deleted stays so.
    NoResurrection,
    /// 8: strict quorums are regular.
    RegularReads,
    /// 8 as well: after an atomic read nobody sees less.
    AtomicReads,
    /// 9: unknown is not failed, and not applied is nowhere.
    Outcomes,
    /// 10: hints drain, and none is dropped early.
    HintsDrain,
    /// 11: repair only adds.
    RepairOnlyAdds,
    /// 12: views agree.
    ViewsAgree,
    /// 14: incarnations rise, durably, before the first dot or message.
    Incarnations,
    /// 15: what was read is durable.
    DurableReads,
    /// 16: a healthy cluster serves.
    Liveness,
    /// 17: everything stays under its cap, and a cap answers with an error.
    Bounds,
    /// 18: a seed has one trace.
    Determinism,
}

impl Invariant {
    /// Its number on the project's list; 0 for what is not on it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Invariant::Sane => 0,
            Invariant::NoLostWrite => 1,
            Invariant::ExactSiblings => 2,
            Invariant::OneDotOneValue => 3,
            Invariant::HonestContexts => 4,
            Invariant::Canonical => 5,
            Invariant::Convergence => 6,
            Invariant::NoResurrection => 7,
            Invariant::RegularReads | Invariant::AtomicReads => 8,
            Invariant::Outcomes => 9,
            Invariant::HintsDrain => 10,
            Invariant::RepairOnlyAdds => 11,
            Invariant::ViewsAgree => 12,
            Invariant::Incarnations => 14,
            Invariant::DurableReads => 15,
            Invariant::Liveness => 16,
            Invariant::Bounds => 17,
            Invariant::Determinism => 18,
        }
    }

    /// What it says, in a few words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Invariant::Sane => "a node neither panics nor spins and starts from its own disk",
            Invariant::NoLostWrite => "no acknowledged write is lost",
            Invariant::ExactSiblings => "exact siblings",
            Invariant::HonestContexts => "a context covers only what was merged or seen superseded",
            Invariant::Canonical => "equal records have equal bytes",
            Invariant::HintsDrain => "hints drain",
            Invariant::RepairOnlyAdds => "repair only adds",
            Invariant::ViewsAgree => "views agree",
            Invariant::DurableReads => "what was read is durable",
            Invariant::Bounds => "everything stays under its cap",
            Invariant::OneDotOneValue => "one dot names one value",
            Invariant::Convergence => "owners converge",
            Invariant::NoResurrection => "what was superseded stays superseded",
            Invariant::RegularReads => "strict quorums are regular",
            Invariant::AtomicReads => "after an atomic read nobody sees less",
            Invariant::Outcomes => "what was not applied is nowhere",
            Invariant::Incarnations => "incarnations rise before the first dot or message",
            Invariant::Liveness => "a healthy cluster serves",
            Invariant::Determinism => "a seed has one trace",
        }
    }
}

/// An invariant that was broken, and the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// The key, if it is about one.
    pub key: Option<Bytes>,
    /// From when to when it took shape, if that is known.
    pub span: Option<(Moment, Moment)>,
    /// What was seen, for people.
    pub evidence: String,
}

impl Violation {
    /// A violation that is about no single key.
    pub fn general(invariant: Invariant, evidence: impl Into<String>) -> Violation {
        Violation { invariant, key: None, span: None, evidence: evidence.into() }
    }

    /// A violation on one key.
    pub fn of_key(
        invariant: Invariant,
        key: &Bytes,
        span: (Moment, Moment),
        evidence: impl Into<String>,
    ) -> Violation {
        Violation { invariant, key: Some(key.clone()), span: Some(span), evidence: evidence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} ({}) is broken", self.invariant.number(), self.invariant.name())?;
        if let Some(key) = &self.key {
            write!(f, " on key {}", String::from_utf8_lossy(key))?;
        }
        write!(f, ": {}", self.evidence)
    }
}

/// Looks for violations of one invariant.
pub type Judge = fn(&History) -> Vec<Violation>;

/// The invariants that clients can see, each with its judge. Each judge reports at most one violation of each key.
pub const JUDGES: [(Invariant, Judge); 12] = [
    (Invariant::NoLostWrite, no_lost_write::judge),
    (Invariant::OneDotOneValue, one_dot_one_value::judge),
    (Invariant::NoResurrection, no_resurrection::judge),
    (Invariant::ExactSiblings, exact_siblings::judge),
    (Invariant::RegularReads, regular_reads::judge),
    (Invariant::AtomicReads, atomic_reads::judge),
    (Invariant::DurableReads, durable_reads::judge),
    (Invariant::Outcomes, outcomes::judge),
    (Invariant::Canonical, canonical::judge),
    (Invariant::Convergence, convergence::judge),
    (Invariant::HintsDrain, hints_drain::judge),
    (Invariant::Liveness, liveness::judge),
];

/// Judges everything that client-visible facts can show.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let history = &history.owed();
    JUDGES.iter().flat_map(|(_, judge)| judge(history)).collect()
}

/// A moment for people: seconds with milliseconds.
fn seconds(at: Moment) -> String {
    match at {
        Moment::NEVER => "never".to_owned(),
        at => format!("{}.{:03} s", at.0 / 1_000_000, at.0 / 1_000 % 1_000),
    }
}

#[cfg(test)]
pub(super) mod fixture;
