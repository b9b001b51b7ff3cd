//! What became of an operation, judged from all of its attempts.
//!
//! An attempt through one node times out, the next one through another node is refused. Was the operation applied?
//! Nobody here can know: the first node may still commit it. *Not applied* is a statement about the operation, not
//! about its last attempt, so it takes an unbroken chain of attempts that each ended in an explicit "nothing was
//! changed".

/// What is known of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Sent, and not answered so far.
    Pending,
    /// It never left this process: no connection could be opened for it.
    NotSent,
    /// The node said that nothing was changed and nothing will be.
    NotApplied,
    /// The node said that it does not know, or the connection broke, or the answer made no sense.
    Unknown,
    /// The node said that it is on as many disks as were asked for.
    Committed,
}

/// What may be said of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Committed,
    Unknown,
    NotApplied,
}

/// All attempts of one operation, in the order in which they were begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Vec<Fate>);

impl Attempts {
    /// Begins the next attempt and gives its number: 1, 2, 3, ...
    pub(super) fn begin(&mut self) -> u32 {
        self.0.push(Fate::Pending);
        self.count()
    }

    /// How many were begun.
    pub(super) fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// Whether some attempt may still be answered.
    pub(super) fn any_pending(&self) -> bool {
        self.0.contains(&Fate::Pending)
    }

    /// Notes how an attempt ended. What was settled once stays: an attempt has one end.
    pub(super) fn settle(&mut self, attempt: u32, fate: Fate) {
        let slot = (attempt as usize).checked_sub(1).and_then(|index| self.0.get_mut(index));
        if let Some(known @ Fate::Pending) = slot {
            *known = fate;
        }
    }

    /// What may be said if nothing more is heard.
    pub(super) fn verdict(&self) -> Verdict {
        if self.0.contains(&Fate::Committed) {
            return Verdict::Committed;
        }
        let nothing_changed = |fate: &Fate| matches!(fate, Fate::NotSent | Fate::NotApplied);
        if self.0.iter().all(nothing_changed) { Verdict::NotApplied } else { Verdict::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FATES: [Fate; 5] = [Fate::Pending, Fate::NotSent, Fate::NotApplied, Fate::Unknown, Fate::Committed];

    fn judged(fates: &[Fate]) -> Verdict {
        let mut attempts = Attempts::default();
        for fate in fates {
            let number = attempts.begin();
            attempts.settle(number, *fate);
        }
        attempts.verdict()
    }

    /// Whether the operation can be in the store, given that each attempt behaved as its fate allows: the set of
    /// possible truths, against which the verdict is checked.
    fn possible_truths(fates: &[Fate]) -> Vec<bool> {
        let of = |fate: &Fate| match fate {
            Fate::Committed => vec![true],
            Fate::NotSent | Fate::NotApplied => vec![false],
            Fate::Pending | Fate::Unknown => vec![false, true],
        };
        fates.iter().map(of).fold(vec![false], |sofar, one| {
            sofar.iter().flat_map(|a| one.iter().map(move |b| *a || *b)).collect()
        })
    }

    #[test]
    fn no_verdict_lies_over_any_three_attempts() {
        let mut sequences: Vec<Vec<Fate>> = vec![vec![]];
        for length in 0..3 {
            let longer: Vec<Vec<Fate>> = sequences
                .iter()
                .filter(|fates| fates.len() == length)
                .flat_map(|fates| FATES.iter().map(|fate| [fates.as_slice(), &[*fate]].concat()))
                .collect();
            sequences.extend(longer);
        }
        assert_eq!(sequences.len(), 1 + 5 + 25 + 125);
        for fates in sequences {
            let truths = possible_truths(&fates);
            let expected = match (truths.contains(&true), truths.contains(&false)) {
                (true, false) => Verdict::Committed,
                (true, true) => Verdict::Unknown,
                (false, _) => Verdict::NotApplied,
            };
            assert_eq!(judged(&fates), expected, "{fates:?}");
        }
    }

    #[test]
    fn an_attempt_has_one_end() {
        let mut attempts = Attempts::default();
        let first = attempts.begin();
        attempts.settle(first, Fate::Unknown);
        attempts.settle(first, Fate::NotApplied);
        attempts.settle(7, Fate::Committed);
        assert_eq!(attempts.verdict(), Verdict::Unknown);
    }

    #[test]
    fn a_late_answer_settles_an_attempt_that_was_given_up() {
        let mut attempts = Attempts::default();
        let (first, second) = (attempts.begin(), attempts.begin());
        attempts.settle(second, Fate::NotApplied);
        assert_eq!(attempts.verdict(), Verdict::Unknown);
        attempts.settle(first, Fate::NotApplied);
        assert!(!attempts.any_pending());
        assert_eq!(attempts.verdict(), Verdict::NotApplied);
    }
}
