//! The verdict: what a soak came to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::chronicle::Counts;
use super::evidence::Evidence;
use super::storm::Calamities;
use super::story::Story;
use crate::protocol::time::Moment;
use crate::sim::history::{Ending, History};
use crate::sim::invariants::{self, Violation};

/// What a soak came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What clients did and saw, and what was done to the cluster.
    pub evidence: Evidence,
    /// What came of the storm.
    pub calamities: Calamities,
    /// Operations under load by their ending; the reads at the end are not among them.
    pub counts: Counts,
    /// How long the clients worked.
    pub loaded: Duration,
    /// How long clients had to do without.
    pub gaps: Gaps,
    /// What was violated.
    pub violations: Vec<Violation>,
}

/// How long clients had to do without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// The longest time in which no operation of any client succeeded.
    pub of_all: Duration,
    /// The longest time in which no operation of some client succeeded.
    pub of_one: Duration,
}

impl Verdict {
    /// Judges.
    #[must_use]
    pub fn of(evidence: Evidence, calamities: Calamities, loaded: Moment) -> Verdict {
        let history = &evidence.history;
        let mut violations = calamities.violations.clone();
        violations.extend(invariants::judge(history));
        let under_load = history.operations.partition_point(|operation| operation.invoked < loaded);
        let counts = Counts::of(&history.operations[..under_load]);
        let gaps = Gaps::of(history, loaded);
        let loaded = loaded.since(Moment(0));
        Verdict { evidence, calamities, counts, loaded, gaps, violations }
    }

    /// Judges evidence again.
    #[must_use]
    pub fn again(evidence: Evidence) -> Verdict {
        let last = evidence.history.operations.last().map_or(Moment(0), |operation| operation.ended);
        Verdict::of(evidence, Calamities::default(), last)
    }

    /// Whether nothing was violated.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }

    /// The story of each violation.
    #[must_use]
    pub fn stories(&self) -> Vec<Story> {
        let Evidence { history, events, .. } = &self.evidence;
        self.violations.iter().map(|violation| Story::of(violation, history, events)).collect()
    }
}

impl Gaps {
    /// Of a history until then.
    #[must_use]
    pub fn of(history: &History, until: Moment) -> Gaps {
        let went_well = |ending: &Ending| matches!(ending, Ending::Committed(_) | Ending::Answered(_));
        let mut ended: Vec<(Moment, u32)> = history
            .operations
            .iter()
            .filter(|operation| went_well(&operation.ending) && operation.ended <= until)
            .map(|operation| (operation.ended, operation.client))
            .collect();
        ended.sort_unstable();
        let mut gaps = Gaps::default();
        let mut last = Moment(0);
        let mut last_of: BTreeMap<u32, Moment> =
            history.operations.iter().filter(|o| o.invoked < until).map(|o| (o.client, Moment(0))).collect();
        for (at, client) in ended {
            gaps.of_all = gaps.of_all.max(at.since(last));
            let before = last_of.insert(client, at).unwrap_or(at);
            gaps.of_one = gaps.of_one.max(at.since(before));
            last = at;
        }
        gaps.of_all = gaps.of_all.max(until.since(last));
        let waiting = last_of.values().map(|last| until.since(*last)).max().unwrap_or_default();
        gaps.of_one = gaps.of_one.max(waiting);
        gaps
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::wire::client::Level;
    use crate::sim::history::{Action, Operation, Seen};

    #[test]
    fn gaps_are_between_successes_and_at_both_ends() {
        let read = |client, ended, went_well| Operation {
            client,
            key: Bytes::from_static(b"k"),
            action: Action::Read { r: Level::Majority, atomic: false },
            invoked: Moment(ended - 1),
            ended: Moment(ended),
            ending: if went_well { Ending::Answered(Seen::default()) } else { Ending::Unavailable },
            attempts: 1,
            owed_by: None,
        };
        let of = |operations| {
            let gaps = Gaps::of(&History { operations, ..History::default() }, Moment(100));
            (gaps.of_all.as_micros(), gaps.of_one.as_micros())
        };
        assert_eq!(of(vec![read(1, 10, true), read(2, 30, true), read(1, 40, false)]), (70, 90));
        assert_eq!(of(vec![read(1, 60, true), read(2, 90, true), read(1, 100, true)]), (60, 90));
        assert_eq!(of(vec![read(1, 50, false)]), (100, 100));
    }
}
