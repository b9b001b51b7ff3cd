//! What a read shows, against what its repliers held when they answered.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::Record;
use crate::protocol::causality::{Dot, OperationId, Sibling, VersionVector};
use crate::protocol::id::{NodeId, ReapEpoch};
use crate::protocol::wire::client::ReadAnswer;

/// The replies that one read has got, each replier's first one.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    /// How many owners must reply.
    pub needed: usize,
    records: BTreeMap<NodeId, (ReapEpoch, Option<Record>)>,
}

impl Replies {
    /// Of a read that needs so many.
    #[must_use]
    pub fn new(needed: usize) -> Replies {
        Replies { needed, records: BTreeMap::new() }
    }

    /// An owner replied. A copy of the message, or a second answer, changes nothing, but for one that was read in a later
    /// round of reaping: then the first was from before a round that another owner had completed.
    pub fn came(&mut self, from: NodeId, record: Option<&Record>, raised: ReapEpoch) {
        let reply = self.records.entry(from).or_insert_with(|| (raised, record.cloned()));
        if reply.0 < raised {
            *reply = (raised, record.cloned());
        }
    }

    /// Judges the answer; `context` is what the token in it says when it is opened. Gives back what is wrong with it.
    #[must_use]
    pub fn judge(&self, answer: &ReadAnswer, context: Option<&VersionVector>) -> Option<String> {
        let names: BTreeSet<NodeId> = answer.replies.iter().copied().collect();
        if names.len() != answer.replies.len() || names.len() < self.needed {
            return Some(format!("{} replies are needed and {:?} are counted", self.needed, answer.replies));
        }
        let mut records = Vec::new();
        for name in names {
            match self.records.get(&name) {
                Some((_, record)) => records.extend(record),
                None => return Some(format!("a reply of {name} is counted that never came")),
            }
        }
        let found = Merged::of(&records);
        let seen: VersionVector = records.iter().flat_map(|record| record.context().iter()).collect();
        let (most, least) = (shown(found.surely.iter().chain(&found.perhaps)), shown(found.surely.iter()));
        let is_in_between = || {
            let holds = |all: &[Sibling], some: &[Sibling]| {
                some.iter().all(|s| all.iter().any(|o| o.value == s.value))
            };
            !found.perhaps.is_empty() && holds(&most, &answer.values) && holds(&answer.values, &least)
        };
        if answer.values != least && !is_in_between() {
            let held: Vec<String> =
                self.records.iter().map(|(node, (_, record))| held(*node, record.as_ref())).collect();
            return Some(format!(
                "the client is shown {}, but {} follows from what the repliers held: {}",
                list(&answer.values),
                list(&least),
                held.join("; ")
            ));
        }
        let is_deleted = least.is_empty() && !found.surely.is_empty();
        if found.perhaps.is_empty() && answer.deleted != is_deleted {
            return Some(format!(
                "deleted: {} is said, but the repliers held {}",
                answer.deleted,
                list(&least)
            ));
        }
        let expected = (!records.is_empty()).then_some(&seen);
        (context != expected).then(|| {
            format!("the client is given the context {context:?}, but its repliers had seen {expected:?}")
        })
    }
}

/// What several records together say, by sets.
struct Merged {
    /// What is alive in any case.
    surely: Vec<Sibling>,
    /// What is alive unless a mark buries it that some of the merges may have forgotten before: the promise about
    /// retries is for the newest operations of a key.
    perhaps: Vec<Sibling>,
}

impl Merged {
    /// A dot is alive if every record that has seen it holds it. An operation of which one attempt is dead is dead.
    fn of(records: &[&Record]) -> Merged {
        let Some((first, others)) = records.split_first() else {
            return Merged { surely: Vec::new(), perhaps: Vec::new() };
        };
        // Usually all hold the same.
        if others.iter().all(|other| other == first) {
            return Merged { surely: first.siblings().to_vec(), perhaps: Vec::new() };
        }
        let holds = |record: &Record, dot: Dot| record.siblings().iter().any(|sibling| sibling.dot == dot);
        let is_dead = |dot: Dot| records.iter().any(|r| r.context().covers(dot) && !holds(r, dot));
        let alive: BTreeMap<Dot, Option<Bytes>> = records
            .iter()
            .flat_map(|record| record.siblings())
            .filter(|sibling| !is_dead(sibling.dot))
            .map(|sibling| (sibling.dot, sibling.value.clone()))
            .collect();
        let mut attempts: BTreeMap<OperationId, BTreeSet<Dot>> = BTreeMap::new();
        for mark in records.iter().flat_map(|record| record.operations().iter()) {
            attempts.entry(mark.operation).or_default().insert(mark.dot);
        }
        let buried: BTreeSet<Dot> = attempts
            .values()
            .filter(|dots| dots.iter().any(|dot| !alive.contains_key(dot)))
            .flatten()
            .copied()
            .collect();
        let is_in_window = {
            let newest = attempts.keys().next_back().map_or(0, |operation| operation.started.0);
            let lifetime = crate::protocol::causality::OPERATION_LIFETIME.as_millis() as u64;
            let all = attempts.len() <= crate::protocol::causality::OPERATIONS_MAX;
            all && attempts.keys().all(|operation| operation.started.0 + lifetime >= newest)
        };
        let (mut surely, mut perhaps) = (Vec::new(), Vec::new());
        for (dot, value) in alive {
            match buried.contains(&dot) {
                false => surely.push(Sibling { dot, value }),
                true if !is_in_window => perhaps.push(Sibling { dot, value }),
                true => {}
            }
        }
        Merged { surely, perhaps }
    }
}

/// As clients see siblings: without deletions, the oldest first, equal bytes once.
fn shown<'a>(siblings: impl Iterator<Item = &'a Sibling>) -> Vec<Sibling> {
    let mut sorted: Vec<&Sibling> = siblings.filter(|sibling| sibling.value.is_some()).collect();
    sorted.sort_by_key(|sibling| (sibling.dot.at, sibling.dot.actor));
    let mut met = BTreeSet::new();
    sorted.into_iter().filter(|sibling| met.insert(&sibling.value)).cloned().collect()
}

fn held(node: NodeId, record: Option<&Record>) -> String {
    let Some(record) = record else { return format!("{node} nothing") };
    let seen: Vec<String> = record.context().iter().map(|dot| dot.to_string()).collect();
    format!("{node} {} having seen {}", list(record.siblings()), seen.join(" "))
}

fn list(siblings: &[Sibling]) -> String {
    let name = |sibling: &Sibling| match &sibling.value {
        Some(value) => format!("{}={}", sibling.dot, String::from_utf8_lossy(value)),
        None => format!("{} deleted", sibling.dot),
    };
    format!("[{}]", siblings.iter().map(name).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{put, record, record_of, written};
    use super::*;

    /// The answer that the real merge gives for these replies, and the context in it.
    fn answered(records: &[Option<Record>]) -> (Replies, ReadAnswer, Option<VersionVector>) {
        let mut replies = Replies::new(records.len());
        let mut merged: Option<Record> = None;
        for (node, record) in (1_u64..).zip(records) {
            replies.came(NodeId(node), record.as_ref(), ReapEpoch::default());
            if let Some(record) = record {
                merged = Some(merged.map_or(record.clone(), |merged| merged.merged(record)));
            }
        }
        let answer = ReadAnswer {
            available: true,
            values: merged.as_ref().map(|record| shown(record.siblings().iter())).unwrap_or_default(),
            deleted: merged.as_ref().is_some_and(Record::is_tombstone),
            context: None,
            replies: (1..=records.len() as u64).map(NodeId).collect(),
            problem: None,
        };
        (replies, answer, merged.map(|record| record.context().clone()))
    }

    #[test]
    fn what_follows_from_the_replies_is_in_order() {
        let old = record(&[(1, 1)]);
        let overwritten = written(&old, &put(2, Some(2), 2, &[1]));
        let deleted = written(&old, &put(3, None, 3, &[1]));
        let twins = [record_of(&[(1, 1, 7)]), record_of(&[(102, 1, 7)])];
        let buried = written(&twins[0], &put(203, Some(5), 9, &[1]));
        for records in [
            vec![None, None],
            vec![Some(old.clone()), None],
            vec![Some(old.clone()), Some(overwritten)],
            vec![Some(deleted), Some(old)],
            twins.clone().map(Some).to_vec(),
            vec![Some(twins[1].clone()), Some(buried)],
        ] {
            let (replies, answer, context) = answered(&records);
            assert_eq!(replies.judge(&answer, context.as_ref()), None, "{records:?}");
        }
    }

    #[test]
    fn more_or_less_than_that_is_reported() {
        let old = record(&[(1, 1)]);
        let new = written(&old, &put(2, Some(2), 2, &[1]));
        let (replies, right, context) = answered(&[Some(old.clone()), Some(new.clone())]);
        let wrong = |spoil: &dyn Fn(&mut ReadAnswer)| {
            let mut answer = right.clone();
            spoil(&mut answer);
            replies.judge(&answer, context.as_ref()).unwrap_or_default()
        };
        assert!(wrong(&|answer| answer.values.clear()).contains("is shown []"));
        assert!(wrong(&|answer| answer.values.extend(old.siblings().to_vec())).contains("=v1"));
        assert!(wrong(&|answer| answer.values = old.siblings().to_vec()).contains("=v1"));
        assert!(wrong(&|answer| answer.deleted = true).contains("deleted: true"));
        assert!(wrong(&|answer| answer.replies = vec![NodeId(1)]).contains("2 replies are needed"));
        assert!(wrong(&|answer| answer.replies[0] = NodeId(9)).contains("never came"));
        assert!(wrong(&|answer| answer.replies[0] = answer.replies[1]).contains("2 replies are needed"));
    }

    #[test]
    fn a_context_that_covers_more_or_less_than_the_repliers_had_seen_is_reported() {
        let (replies, answer, context) = answered(&[Some(record(&[(1, 1)])), Some(record(&[(1, 1)]))]);
        assert_eq!(replies.judge(&answer, context.as_ref()), None);
        assert!(replies.judge(&answer, None).is_some());
        let more: VersionVector = record(&[(5, 5)]).context().clone();
        assert!(replies.judge(&answer, Some(&more)).is_some());
    }

    #[test]
    fn the_naive_merge_shows_what_the_real_one_does_and_notices_when_it_does_not() {
        // A bare write claims to have seen what it does not hold: whoever merges it shows too little.
        let both = record(&[(1, 1), (2, 2)]);
        let (mut replies, answer, context) = answered(&[Some(both.clone()), Some(both)]);
        assert_eq!(replies.judge(&answer, context.as_ref()), None);
        replies = Replies::new(2);
        replies.came(NodeId(1), Some(&record(&[(1, 1)])), ReapEpoch::default());
        replies.came(NodeId(2), Some(&record(&[(1, 1)])), ReapEpoch::default());
        assert!(replies.judge(&answer, context.as_ref()).is_some());
        replies.came(NodeId(2), None, ReapEpoch::default());
        assert!(replies.judge(&answer, context.as_ref()).is_some(), "the first reply counts");
    }
}
