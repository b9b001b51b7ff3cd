//! The starts of a node since it last had asked the others, and how far each of them had got.
//!
//! ```text
//! life 6 ──▶ 107            copied; the original goes on to 111, which n1 hears
//!             └─ life 7 ──▶ 111            the copy crashes, and nobody has told it
//!                            └─ life 8     its log ends at 111, too; but of life 6 it has 107, and n1 knows better
//! ```

use serde::{Deserialize, Serialize};

use super::life::Life;
use crate::protocol::id::Incarnation;
use crate::protocol::storage::op::Lsn;

/// How many of the latest starts are told apart. A node starts more often than that in a row, with nobody to answer it, if
/// it crashes in a loop or is alone for long.
const TOLD_APART: usize = 8;

/// The starts of a chain before the present one. Somebody may have heard of any of them.
///
/// Where each of them ended *here* has to be known: a copy of the directory that crashes in a loop writes a few entries at
/// each start, and its log grows beyond what was heard of the life in which it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The latest last; at most [`TOLD_APART`].
    latest: Vec<Ended>,
    /// The newest of those before, which stands for all of them.
    before: Option<Ended>,
}

/// A life that is over, as the directory has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    incarnation: Incarnation,
    nonce: u64,
    end: Lsn,
}

impl Lineage {
    /// With one more start, whose log ends here.
    #[must_use]
    pub fn ended(mut self, life: &Life, end: Lsn) -> Lineage {
        if self.latest.len() == TOLD_APART {
            self.before = Some(self.latest.remove(0));
        }
        let Life { incarnation, nonce, .. } = *life;
        self.latest.push(Ended { incarnation, nonce, end });
        self
    }

    /// Whether the directory has all that was durable in a life of its chain that somebody `remembers`.
    #[must_use]
    pub fn holds(&self, remembers: &Life) -> bool {
        let named = self.latest.iter().find(|ended| ended.nonce == remembers.nonce);
        match named {
            Some(ended) => remembers.position <= ended.end,
            None => self.before.is_some_and(|before| {
                let is_not_later =
                    remembers.nonce == before.nonce || remembers.incarnation < before.incarnation;
                is_not_later && remembers.position <= before.end
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All starts of one chain, by their incarnations.
    fn life(incarnation: u64, position: u64) -> Life {
        Life {
            directory: Incarnation(1),
            incarnation: Incarnation(incarnation),
            nonce: incarnation * 11,
            chain: 11,
            position: Lsn(position),
        }
    }

    #[test]
    fn each_of_the_latest_starts_is_held_as_far_as_it_got_here_and_no_further() {
        let lineage = Lineage::default().ended(&life(1, 0), Lsn(107)).ended(&life(2, 0), Lsn(111));
        assert!(lineage.holds(&life(1, 107)) && lineage.holds(&life(2, 111)));
        assert!(!lineage.holds(&life(1, 108)), "the log ends beyond it, but this was another one's");
        assert!(!lineage.holds(&life(2, 112)) && !lineage.holds(&life(3, 0)));
        assert!(!Lineage::default().holds(&life(1, 0)));
    }

    #[test]
    fn however_many_starts_nobody_heard_of_one_that_somebody_heard_of_is_held() {
        let starts = 1..=50;
        let lineage = starts
            .fold(Lineage::default(), |lineage, start| lineage.ended(&life(start, 0), Lsn(100 + start)));
        for start in 1..=50 {
            assert!(lineage.holds(&life(start, 100 + start)), "{start}");
        }
        assert!(!lineage.holds(&life(45, 146)) && !lineage.holds(&life(51, 0)));
        assert!(!lineage.holds(&life(3, 143)), "more than the newest of those that are not told apart");
    }
}
