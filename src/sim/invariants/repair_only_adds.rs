//! Invariant 11: read repair, write-back and every other merge issue no dots and make nothing up.
//!
//! * A change of a record leaves what its sources held and no more: the record as it was, the one that was merged, and
//!   for a put its own dot and the context that its client sent.
//! * A dot is issued for a write that was asked for: each attempt that reaches a node is executed there once, or passed
//!   on, never both. A write that is coordinated twice makes a second sibling of itself (Riak kv#1046).

use std::collections::{BTreeMap, BTreeSet};

use super::honest_contexts::{Birth, Holding};
use crate::protocol::causality::{Dot, OperationId, VersionVector};
use crate::protocol::id::{NodeId, RequestId};

/// Judges the record that a change made out of these sources; a put adds its own `birth`. Gives back what is wrong.
#[must_use]
pub fn judge(sources: &[&Holding], birth: Option<&Birth>, after: &Holding) -> Option<String> {
    let is_known = |dot: Dot| sources.iter().any(|source| source.holds(dot));
    let made_up = |dot: &&Dot| !is_known(**dot) && birth.is_none_or(|birth| birth.dot != **dot);
    if let Some(dot) = after.dots.iter().find(made_up) {
        return Some(format!("a change of its record made the sibling {dot}, which no side of it had held"));
    }
    let mut context = VersionVector::new();
    sources.iter().for_each(|source| context.join(&source.context));
    if let Some(birth) = birth {
        context.join(&birth.sent);
        context.note(birth.dot);
    }
    (context != after.context).then(|| {
        format!(
            "a change of its record made the context {}, although both sides together had seen {}",
            list(&after.context),
            list(&context)
        )
    })
}

fn list(context: &VersionVector) -> String {
    let entries: Vec<String> = context.iter().map(|dot| dot.to_string()).collect();
    format!("[{}]", entries.join(" "))
}

/// What one node was asked to write, and what it did.
#[derive(Clone, Debug, Default)]
pub struct Duties {
    tallies: BTreeMap<OperationId, Tally>,
    /// Issued, and not yet in a change.
    idle: Option<Dot>,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    by_clients: usize,
    by_nodes: BTreeSet<(NodeId, RequestId, u32)>,
    executed: usize,
    passed_on: BTreeSet<RequestId>,
}

impl Duties {
    /// A client asked the node for an attempt of an operation.
    pub fn asked(&mut self, operation: OperationId) {
        self.tallies.entry(operation).or_default().by_clients += 1;
    }

    /// Another node passed an attempt on to this one. A copy of the message is no further one.
    pub fn asked_by(&mut self, node: NodeId, request: RequestId, attempt: u32, operation: OperationId) {
        self.tallies.entry(operation).or_default().by_nodes.insert((node, request, attempt));
    }

    /// The node passes an attempt on, perhaps several times.
    pub fn passed_on(&mut self, request: RequestId, operation: OperationId) -> Option<String> {
        self.tallies.entry(operation).or_default().passed_on.insert(request);
        self.overdone(operation)
    }

    /// The node issued a dot.
    pub fn issued(&mut self, dot: Dot) -> Option<String> {
        self.idle.replace(dot).map(|idle| format!("it issued {idle} without a write to use it for"))
    }

    /// The node hands a write to its disk.
    pub fn executed(&mut self, dot: Dot, operation: OperationId) -> Option<String> {
        if self.idle.take() != Some(dot) {
            return Some(format!("it writes under {dot}, which it did not issue for that"));
        }
        self.tallies.entry(operation).or_default().executed += 1;
        self.overdone(operation)
    }

    /// The disk refused a write since the node has to ask the others first, or once more: it wrote nothing, and the node may
    /// try again.
    pub fn undone(&mut self, operation: OperationId) {
        let executed = &mut self.tallies.entry(operation).or_default().executed;
        *executed = executed.saturating_sub(1);
    }

    fn overdone(&self, operation: OperationId) -> Option<String> {
        let tally = self.tallies.get(&operation)?;
        let asked = tally.by_clients + tally.by_nodes.len();
        (tally.executed + tally.passed_on.len() > asked).then(|| {
            format!(
                "it was asked for {asked} attempts of {operation:?}, but executed {} and passed on {}",
                tally.executed,
                tally.passed_on.len()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{dot, put, record, written};
    use super::*;
    use crate::protocol::time::WallTime;

    #[test]
    fn a_merge_that_adds_what_neither_side_had_is_reported() {
        let (a, b) = (record(&[(1, 1)]), record(&[(102, 2)]));
        let (one, other) = (Holding::of(&a), Holding::of(&b));
        let merged = Holding::of(&a.merged(&b));
        assert_eq!(judge(&[&one, &other], None, &merged), None);
        let more = Holding::of(&a.merged(&b).merged(&record(&[(203, 3)])));
        assert!(
            judge(&[&one, &other], None, &more).is_some_and(|told| told.contains("no side of it had held"))
        );
        let mut wider = merged.clone();
        wider.context.note(dot(203));
        assert!(judge(&[&one, &other], None, &wider).is_some_and(|told| told.contains("made the context")));
        assert!(judge(&[&one, &other], None, &one).is_some(), "and one that forgets a side");
    }

    #[test]
    fn a_put_adds_its_dot_and_what_its_client_had_seen_and_nothing_else() {
        let before = record(&[(1, 1)]);
        let change = put(102, Some(2), 2, &[1, 203]);
        let after = Holding::of(&written(&before, &change));
        let before = Holding::of(&before);
        assert_eq!(judge(&[&before], Some(&Birth::from(&change)), &after), None);
        assert!(judge(&[&before], None, &after).is_some(), "a repair issues no dots");
        let other = put(104, Some(2), 2, &[1]);
        assert!(judge(&[&before], Some(&Birth::from(&other)), &after).is_some());
    }

    const OPERATION: OperationId = OperationId { started: WallTime(1), nonce: 1 };

    #[test]
    fn an_attempt_is_executed_once_or_passed_on() {
        let mut duties = Duties::default();
        duties.asked(OPERATION);
        assert_eq!(duties.issued(dot(1)), None);
        assert_eq!(duties.executed(dot(1), OPERATION), None);
        duties.asked_by(NodeId(2), RequestId(5), 1, OPERATION);
        assert_eq!(duties.passed_on(RequestId(9), OPERATION), None);
        assert_eq!(duties.passed_on(RequestId(9), OPERATION), None, "to the next owner");
        duties.asked_by(NodeId(2), RequestId(5), 1, OPERATION);
        assert_eq!(duties.issued(dot(2)), None);
        let told = duties.executed(dot(2), OPERATION).unwrap_or_default();
        assert!(told.contains("asked for 2 attempts") && told.contains("executed 2"), "{told}");
    }

    #[test]
    fn what_the_disk_refused_is_executed_once_more_and_no_more_than_that() {
        let mut duties = Duties::default();
        duties.asked(OPERATION);
        assert_eq!((duties.issued(dot(1)), duties.executed(dot(1), OPERATION)), (None, None));
        duties.undone(OPERATION);
        assert_eq!((duties.issued(dot(2)), duties.executed(dot(2), OPERATION)), (None, None));
        assert_eq!(duties.issued(dot(3)), None);
        assert!(duties.executed(dot(3), OPERATION).is_some_and(|told| told.contains("executed 2")));
    }

    #[test]
    fn a_dot_without_a_write_and_a_write_without_its_dot_are_reported() {
        let mut duties = Duties::default();
        duties.asked(OPERATION);
        assert_eq!(duties.issued(dot(1)), None);
        assert!(duties.issued(dot(2)).is_some_and(|told| told.contains("without a write")));
        assert!(duties.executed(dot(1), OPERATION).is_some());
        let mut duties = Duties::default();
        assert_eq!(duties.issued(dot(1)), None);
        assert!(duties.executed(dot(1), OPERATION).is_some_and(|told| told.contains("asked for 0")));
    }
}
