//! How much the judges looked at: a judge that was given nothing to judge has said nothing.

use std::collections::BTreeMap;

use super::history::{Action, Ending, History};
use super::invariants::Invariant;

/// How many of the things that it judges each judge was given in a run: see [`unit()`].
pub type Judged = BTreeMap<Invariant, u64>;

/// What the number of a judge counts.
#[must_use]
pub fn unit(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::NoLostWrite => "committed writes",
        Invariant::OneDotOneValue => "values written and shown",
        Invariant::ExactSiblings | Invariant::Convergence => "keys compared",
        Invariant::NoResurrection | Invariant::DurableReads => "reads of all owners",
        Invariant::AtomicReads => "atomic reads",
        Invariant::RegularReads => "answered reads",
        Invariant::HintsDrain => "hints dropped",
        Invariant::Outcomes => "writes not applied",
        Invariant::Incarnations => "starts",
        Invariant::Liveness => "operations owed",
        Invariant::Determinism => "runs compared",
        _ => "runs",
    }
}

/// What the judges of a run were given, those apart that compare runs: so many starts of nodes and hints dropped beside what
/// the history tells.
pub(super) fn count(history: &History, starts: u64, drops: u64) -> Judged {
    // These look at everything that passes.
    let mut judged = Judged::from(
        [
            Invariant::Sane,
            Invariant::HonestContexts,
            Invariant::Canonical,
            Invariant::RepairOnlyAdds,
            Invariant::ViewsAgree,
            Invariant::Bounds,
        ]
        .map(|invariant| (invariant, 1)),
    );
    judged.insert(Invariant::Incarnations, starts);
    judged.insert(Invariant::HintsDrain, drops);
    for invariant in [Invariant::ExactSiblings, Invariant::Convergence] {
        judged.insert(invariant, history.remains.len() as u64);
    }
    let mut add = |invariant: Invariant, count: usize| *judged.entry(invariant).or_default() += count as u64;
    for operation in &history.operations {
        if operation.owed_by.is_some() {
            add(Invariant::Liveness, 1);
        }
        if operation.as_atomic().is_some() {
            add(Invariant::AtomicReads, 1);
        }
        if let Some((r, seen)) = operation.as_answered() {
            add(Invariant::RegularReads, 1);
            add(Invariant::OneDotOneValue, seen.values.len());
            if history.retries_are_exact && r.of(history.owners) == history.owners {
                add(Invariant::NoResurrection, 1);
            }
            if r.of(history.owners) == history.owners {
                add(Invariant::DurableReads, 1);
            }
        }
        if let Action::Write { deletes, .. } = &operation.action {
            add(Invariant::OneDotOneValue, 1);
            match operation.ending {
                Ending::Committed(_) if !deletes && history.remains.contains_key(&operation.key) => {
                    add(Invariant::NoLostWrite, 1);
                }
                Ending::NotApplied => add(Invariant::Outcomes, 1),
                _ => {}
            }
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::options::Options;
    use super::*;

    #[test]
    fn a_few_runs_give_every_judge_something() {
        let mut judged = Judged::new();
        for seed in 0..6 {
            let options = Options { twice: true, duration: Duration::from_secs(10), ..Options::new(seed) };
            for (invariant, count) in super::super::judged(&options).judged {
                *judged.entry(invariant).or_default() += count;
            }
        }
        for invariant in [
            Invariant::Sane,
            Invariant::NoLostWrite,
            Invariant::ExactSiblings,
            Invariant::OneDotOneValue,
            Invariant::Convergence,
            Invariant::NoResurrection,
            Invariant::RegularReads,
            Invariant::Incarnations,
            Invariant::DurableReads,
            Invariant::Liveness,
            Invariant::HintsDrain,
            Invariant::Determinism,
        ] {
            assert!(judged.get(&invariant) > Some(&0), "{invariant:?} was given no {}", unit(invariant));
        }
    }
}
