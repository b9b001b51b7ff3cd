//! Invariant 17: everything stays under its cap, and a cap answers with an error.
//!
//! Siblings and context entries are bounded by what coordinators refuse; merges are exempt, so that a record can reach
//! the limit of each of its owners at once. Queues are bounded by the number of requests that a node takes. Some seeds
//! give the nodes limits so small that clients run into them all the time.

use super::Record;
use crate::protocol::config::NodeConfig;
use crate::protocol::node::Gauges;
use crate::protocol::wire::client::{Answer, Code, Outcome};

/// What a node may have on its hands, and what a record may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    owners: usize,
    siblings: usize,
    context_entries: usize,
    requests: usize,
    disk_waiters: usize,
    members: usize,
    hint_bytes: u64,
    outputs: usize,
}

/// What waits for the disk for each request that a node may have under way: four before it takes no more, and each
/// request that it had taken until then may add a read, a write and a repair.
const DISK_WAITERS_PER_REQUEST: usize = 4 + 3;

/// What each may add besides: the entries of two stand-ins for each other owner in the register of hints.
const REGISTERED_PER_OWNER: usize = 2;

/// What the membership may have waiting for the disk besides, and may want to say at once.
const BELIEFS_MAX: usize = 64;

/// What exchanges may have waiting for the disk: the records of others that they let in, and one question or so for each
/// fellow owner.
const EXCHANGES_MAX: usize = 512 + 64;

impl Caps {
    /// The caps of a node with this configuration, where each key has so many owners.
    #[must_use]
    pub fn of(config: &NodeConfig, owners: usize) -> Caps {
        let requests = config.replication.requests_max;
        let per_request = DISK_WAITERS_PER_REQUEST + REGISTERED_PER_OWNER * owners.saturating_sub(1);
        // Hints are read to be replayed a batch at a time, and those of the batch before may be on their way out.
        let disk_waiters =
            per_request * requests + BELIEFS_MAX + EXCHANGES_MAX + 2 * config.hints.replay_batch;
        Caps {
            owners,
            siblings: config.limits.siblings_max,
            context_entries: config.limits.context_entries_max,
            requests,
            disk_waiters,
            // Whoever left and died is kept, so many of them, beside those who are there.
            members: config.membership.book_max + usize::from(u16::MAX),
            hint_bytes: config.hints.bytes_max,
            // Each request, and each that waits for the disk, may have a word for every owner.
            outputs: (requests + disk_waiters) * (owners + 1) + BELIEFS_MAX,
        }
    }

    /// Judges what a node has on its hands after an input, and how much it wanted done at once.
    #[must_use]
    pub fn judge(&self, gauges: Gauges, outputs: usize) -> Option<String> {
        if gauges.hint_bytes > self.hint_bytes {
            let (amount, cap) = (gauges.hint_bytes, self.hint_bytes);
            return Some(format!("it has {amount} bytes of hints; at most {cap} are allowed"));
        }
        let amounts = [
            ("requests under way", gauges.requests, self.requests),
            ("requests to the disk and replies that wait for it", gauges.disk_waiters, self.disk_waiters),
            ("members in its book", gauges.members, self.members),
            ("outputs of one input", outputs, self.outputs),
        ];
        let (what, amount, cap) = amounts.into_iter().find(|(_, amount, cap)| amount > cap)?;
        Some(format!("it has {amount} {what}; at most {cap} are allowed"))
    }

    /// Judges a record that a replica holds.
    #[must_use]
    pub fn judge_record(&self, record: &Record) -> Option<String> {
        let amounts = [
            ("siblings", record.siblings().len(), self.siblings),
            ("context entries", record.context().len(), self.context_entries),
        ];
        let is_beyond = |(_, amount, cap): &(&str, usize, usize)| *amount > *cap * self.owners;
        let (what, amount, cap) = amounts.into_iter().find(is_beyond)?;
        Some(format!(
            "its record has {amount} {what}; each of {} coordinators refuses to go beyond {cap}",
            self.owners
        ))
    }

    /// Judges whether a request that found the node with so many under way was answered at once. Gives back what is
    /// wrong.
    #[must_use]
    pub fn judge_admission(&self, under_way: usize, was_answered: bool) -> Option<String> {
        (under_way >= self.requests && !was_answered).then(|| {
            format!(
                "it had {under_way} requests under way, of {} allowed, and took one more or dropped it",
                self.requests
            )
        })
    }
}

/// Judges an answer that names a cap: nothing was done, and nothing is handed out that would let the client erase what
/// it was never shown.
#[must_use]
pub fn judge_answer(answer: &Answer) -> Option<String> {
    let Answer::Written(written) = answer else { return None };
    let code = written.problem.as_ref()?.code;
    let is_cap = matches!(
        code,
        Code::TooManySiblings
            | Code::RecordTooLarge
            | Code::ContextTooLong
            | Code::ValueTooLarge
            | Code::BadKey
            | Code::Overloaded
            | Code::DiskFull
    );
    let is_clean =
        written.outcome == Outcome::NotApplied && written.context.is_none() && written.dot.is_none();
    (is_cap && !is_clean).then(|| {
        format!(
            "a write was refused for {}, yet answered as {:?} with the dot {:?} and {} context",
            code.name(),
            written.outcome,
            written.dot,
            if written.context.is_some() { "a" } else { "no" }
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{dot, record};
    use super::*;
    use crate::protocol::causality::{ContextToken, VersionVector};
    use crate::protocol::wire::client::{Problem, Written};
    use crate::sim::host;

    fn caps() -> Caps {
        let mut config = host::config(0, 3).unwrap();
        config.limits.siblings_max = 2;
        config.replication.requests_max = 3;
        Caps::of(&config, 2)
    }

    #[test]
    fn queues_beyond_their_caps_are_reported() {
        let full = Gauges { requests: 3, disk_waiters: 1_179, members: 9, hint_bytes: 256 << 20 };
        assert_eq!(caps().judge(full, 10), None);
        for beyond in [
            Gauges { requests: 4, ..full },
            Gauges { disk_waiters: 1_180, ..full },
            Gauges { hint_bytes: (256 << 20) + 1, ..full },
            Gauges { members: 100_000, ..full },
        ] {
            assert!(caps().judge(beyond, 10).is_some(), "{beyond:?}");
        }
        assert!(caps().judge(full, 5_000).is_some_and(|told| told.contains("outputs of one input")));
    }

    #[test]
    fn a_record_beyond_what_its_owners_allow_together_is_reported() {
        let siblings: Vec<_> = (1..=5).map(|number| (number, number)).collect();
        assert_eq!(caps().judge_record(&record(&siblings[..4])), None);
        assert!(caps().judge_record(&record(&siblings)).is_some_and(|told| told.contains("5 siblings")));
    }

    #[test]
    fn a_request_too_many_that_is_not_answered_at_once_is_reported() {
        assert_eq!(caps().judge_admission(2, false), None);
        assert_eq!(caps().judge_admission(3, true), None);
        assert!(caps().judge_admission(3, false).is_some());
    }

    #[test]
    fn a_cap_that_answers_with_anything_but_a_clean_refusal_is_reported() {
        let refused = Written {
            outcome: Outcome::NotApplied,
            context: None,
            dot: None,
            siblings: 0,
            acks: Vec::new(),
            hinted: Vec::new(),
            problem: Some(Problem::new(Code::TooManySiblings, "")),
        };
        assert_eq!(judge_answer(&Answer::Written(refused.clone())), None);
        let secret =
            crate::protocol::causality::ClusterSecret::draw(&mut crate::protocol::rng::Rng::from_number(1));
        let token = ContextToken::seal(&VersionVector::new(), b"k", &secret);
        for wrong in [
            Written { outcome: Outcome::Unknown, ..refused.clone() },
            Written { dot: Some(dot(1)), ..refused.clone() },
            Written { context: Some(token), ..refused.clone() },
        ] {
            assert!(judge_answer(&Answer::Written(wrong)).is_some());
        }
    }
}
