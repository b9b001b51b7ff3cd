//! How far a node has got in one of its lives, and what it can show for coming after an earlier one.
//!
//! ```text
//!  directory 1   life 1 ──────▶ 120   life 2 ──────▶ 300            life 3 ──▶ 340     what n1 has done
//!                                  └─ copied                        └─ heard by n2: life 3, at 340
//!  the copy                        life 2' begins at 120: it comes after life 1, and not after what n2 has heard
//! ```
//!
//! A restored backup, or a second process on a copy of a directory, has a new incarnation and a new actor like any other
//! start, so it reuses no dot. But it lacks what was acknowledged since the copy was made, and cannot know that. The
//! others can: they remember the latest [`Life`] of each other, which every [`Milestone`] of it carries on, and a node that
//! starts shows its [`Claim`] to the other members before it votes for its slots.
//!
//! Everything that is compared here rises within one directory: its position in the log, and its incarnation. A node
//! that comes back without its disk begins a directory of its own, whose number is above all earlier ones.

use serde::{Deserialize, Serialize};

use super::lineage::Lineage;
use crate::protocol::id::Incarnation;
use crate::protocol::storage::op::Lsn;

/// How far a node had got in one of its lives: what others remember of it. A Generation Clock (*Patterns of Distributed
/// Systems*) that is kept by others, for one that cannot know that it was set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// The incarnation in which its directory began: that of the node's first start, or of its latest recovery.
    pub directory: Incarnation,
    /// Of this life.
    pub incarnation: Incarnation,
    /// Drawn at random at every start: it names this life and no other.
    pub nonce: u64,
    /// The nonce of the first start since the node last had asked the others. They may have heard of any of the starts
    /// since then.
    pub chain: u64,
    /// The position of the last durable entry of the log that says more than what the node knows of other members.
    pub position: Lsn,
}

/// How far a node has got, in an answer to whoever has been shown where that life comes from: what is acknowledged
/// lies at this position of its log at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// Names the life.
    pub nonce: u64,
    /// As in [`Life`]: durable, so that a crash never takes it back.
    pub position: Lsn,
}

impl Life {
    /// What the node says of it as it goes on.
    #[must_use]
    pub fn milestone(&self) -> Milestone {
        Milestone { nonce: self.nonce, position: self.position }
    }
}

/// What a node shows of itself, so that another one can tell whether it comes after what that one remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The life in which it is.
    pub now: Life,
    /// Where its log ended when this life began.
    pub began: Lsn,
    /// The last life in which it had asked the others, and how far that had got; `None` if its directory begins with
    /// this chain.
    pub last: Option<Life>,
    /// Its starts since then, and where each of them ended in this directory.
    pub lineage: Lineage,
}

impl Claim {
    /// Whether a process that can show this has all that was durable in a life that somebody `remembers`. If not, it
    /// runs from an older copy of the directory, or beside another process of the same identity.
    #[must_use]
    pub fn comes_after(&self, remembers: &Life) -> bool {
        let Claim { now, last, lineage, .. } = self;
        if remembers.directory != now.directory {
            return remembers.directory < now.directory;
        }
        if remembers.nonce == now.nonce {
            return true;
        }
        if remembers.chain == now.chain {
            return lineage.holds(remembers);
        }
        last.is_some_and(|last| {
            let is_not_later = remembers.nonce == last.nonce || remembers.incarnation < last.incarnation;
            is_not_later && remembers.position <= last.position
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(incarnation: u64, nonce: u64, position: u64) -> Life {
        let directory = Incarnation(1);
        Life {
            directory,
            incarnation: Incarnation(incarnation),
            nonce,
            chain: nonce,
            position: Lsn(position),
        }
    }

    /// In its third life, which began where the second one had ended.
    fn claim() -> Claim {
        Claim {
            now: life(3, 33, 310),
            began: Lsn(300),
            last: Some(life(2, 22, 300)),
            lineage: Lineage::default(),
        }
    }

    #[test]
    fn a_node_comes_after_what_it_was_itself() {
        for earlier in
            [life(1, 11, 120), life(2, 22, 130), life(2, 22, 300), life(3, 33, 305), life(3, 33, 900)]
        {
            assert!(claim().comes_after(&earlier), "{earlier:?}");
        }
    }

    #[test]
    fn a_copy_does_not_come_after_what_was_done_since_it_was_made() {
        for missed in [
            // The copy was made in the middle of a life that went on.
            life(2, 22, 301),
            // It was made after a life of which more was heard; that one was another process' then.
            life(1, 11, 301),
            // A later life, of which the copy knows nothing.
            life(3, 34, 310),
            life(4, 44, 400),
            // Another process with the same past.
            life(2, 23, 200),
        ] {
            assert!(!claim().comes_after(&missed), "{missed:?}");
        }
    }

    #[test]
    fn starts_that_asked_nobody_are_one_life_until_somebody_was_asked() {
        let of_chain =
            |incarnation, nonce, position| Life { chain: 33, ..life(incarnation, nonce, position) };
        let lineage =
            Lineage::default().ended(&of_chain(3, 33, 0), Lsn(315)).ended(&of_chain(4, 44, 0), Lsn(320));
        let again = Claim { now: of_chain(5, 55, 330), began: Lsn(320), lineage, ..claim() };
        assert!(again.comes_after(&of_chain(3, 33, 315)) && again.comes_after(&of_chain(4, 44, 320)));
        assert!(again.comes_after(&life(2, 22, 300)) && !again.comes_after(&life(2, 22, 310)));
        assert!(!again.comes_after(&of_chain(4, 44, 321)), "a copy from before the end of the one before");
        assert!(!again.comes_after(&of_chain(3, 33, 316)), "a copy from before its end that went on");
        assert!(!again.comes_after(&of_chain(5, 56, 320)), "a copy of the same start");
        assert!(!again.comes_after(&of_chain(6, 66, 320)), "a later start of the same chain");
    }

    #[test]
    fn a_directory_of_its_own_comes_after_all_earlier_ones_whatever_their_positions() {
        let directory = Incarnation(1_000);
        let reborn = Life { directory, incarnation: directory, nonce: 5, chain: 5, position: Lsn(2) };
        let claim = Claim { now: reborn, began: Lsn(0), last: None, lineage: Lineage::default() };
        assert!(claim.comes_after(&life(7, 77, 5_000)));
        assert!(!self::claim().comes_after(&reborn), "what was put aside does not come back");
        let another = Life { nonce: 6, chain: 6, ..reborn };
        assert!(!claim.comes_after(&another));
    }
}
