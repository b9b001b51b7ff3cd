//! Invariant 18: a seed has one trace.

use super::{Invariant, Violation};

/// Compares the hashes of everything that happened in two runs of one seed.
#[must_use]
pub fn judge(first: u64, second: u64) -> Option<Violation> {
    (first != second).then(|| {
        let evidence = format!("the first run has the trace {first:016x}, the second one {second:016x}");
        Violation::general(Invariant::Determinism, evidence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_traces_of_one_seed_are_reported() {
        assert_eq!(judge(1, 1), None);
        assert!(judge(1, 2).is_some());
    }
}
