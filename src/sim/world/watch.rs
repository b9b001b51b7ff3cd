//! What is judged by a look at the nodes themselves: their queues and their views.

use std::time::Duration;

use super::super::host;
use super::super::invariants::views_agree::{self, View};
use super::super::invariants::{Invariant, Violation, bounds};
use super::World;
use crate::protocol::id::SessionId;
use crate::protocol::input::Input;
use crate::protocol::node::Gauges;
use crate::protocol::output::Output;
use crate::protocol::wire::client::Request;

/// How long after the last part of a run all views have to be equal.
const ONE_VIEW_MAX: Duration = Duration::from_secs(30);

/// How long after healing hints may be under way: the longest pause between two attempts, and the time that it takes.
const HINTS_DRAIN_MAX: Duration = Duration::from_secs(60);

/// The client and number of a request for a key.
pub(super) fn asked(input: &Input) -> Option<(SessionId, u64)> {
    match input {
        Input::Client {
            session,
            id,
            request: Request::Write(_) | Request::Read(_) | Request::Explain { .. },
            ..
        } => Some((*session, *id)),
        _ => None,
    }
}

impl World {
    /// Looks at what a node has on its hands after an input.
    pub(super) fn watch(
        &mut self,
        index: usize,
        before: Gauges,
        asked: Option<(SessionId, u64)>,
        outputs: &[Output],
    ) {
        let Some(process) = &self.hosts[index].process else { return };
        let caps = self.witness.caps(index);
        let admission = || {
            let (wanted, number) = asked?;
            let is_it = |output: &Output| matches!(output, Output::Respond { session, id, .. } if (*session, *id) == (wanted, number));
            caps.judge_admission(before.requests, outputs.iter().any(is_it))
        };
        let refusal = || {
            outputs.iter().find_map(|output| match output {
                Output::Respond { answer, .. } => bounds::judge_answer(answer),
                _ => None,
            })
        };
        let evidence = caps.judge(process.node.gauges(), outputs.len()).or_else(admission).or_else(refusal);
        if let Some(evidence) = evidence {
            let evidence = format!("{}: {evidence}", host::name(index));
            self.violations.push(Violation::general(Invariant::Bounds, evidence));
        }
    }

    /// All is healed: what was kept for others is brought to them. Whether all of it was is judged at the very end.
    pub(super) fn await_hints(&mut self) {
        self.run_until(self.now + HINTS_DRAIN_MAX, |world| world.hints().all(|(_, count)| count == 0));
    }

    /// How many hints each node keeps; one that still looks for those of former lives counts as keeping one.
    pub(super) fn hints(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let nodes = self.hosts.iter().enumerate();
        nodes.filter_map(|(index, host)| {
            let hints = host.process.as_ref()?.node.hints();
            Some((host::name(index), hints.len() as u64 + u64::from(!hints.is_counted())))
        })
    }

    fn views(&self) -> Vec<View> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .filter_map(|(index, host)| Some(View::of(host::name(index), &host.process.as_ref()?.node)))
            .collect()
    }

    /// Equal views give equal rings, at any time. Rings are large: they are compared when a node has got one and now and
    /// then, not at every step.
    pub(super) fn compare_views(&mut self) {
        self.violations.extend(views_agree::judge(&self.views()));
    }

    /// All is healed and nobody wants anything: the views become one, with no operator's help.
    pub(super) fn demand_one_view(&mut self) {
        let deadline = self.now + ONE_VIEW_MAX;
        while let Some(violation) = views_agree::judge_healed(&self.views()) {
            if !self.violations.is_empty() {
                return;
            }
            if self.now >= deadline {
                let evidence = format!("{ONE_VIEW_MAX:?} after the end of all work {}", violation.evidence);
                self.violations.push(Violation { evidence, ..violation });
                return;
            }
            self.run_until(self.now + Duration::from_secs(1), |_| false);
        }
        self.compare_views();
    }
}
