//! Which slots of its own a node may vote for.
//!
//! ```text
//!          doubted                   generation durable        mended            refilled
//!  votes ──────────▶ withdrawn ─────────────────────▶ unmended ─────▶ refilling ─────────▶ votes
//!                    └───────────── closed ─────────────────────┘         ▲
//!  a lost disk ────▶ unfenced: closed, until enough others have seen ─────┘
//!                    the new generation
//! ```
//!
//! A node that has lost a record no longer knows what it has acknowledged. It says so by a raised *amnesia generation*,
//! which goes into the digest of every slot that it owns; it does not vote for the slot, that is, it answers no read of
//! it; and it gets the contents back from the other owners. Meanwhile it merges and acknowledges what it is sent: what
//! it acknowledges it holds.
//!
//! *Closed* slots do not even do that. As long as the generation is not durable, or the slot may still contain what
//! cannot be read, an acknowledgement would be worth nothing. And after the loss of a disk there may be another process
//! of the same identity, that has the disk: each of the two would count as the same owner, the one under the old
//! generation and the other under the new one, until so many of the other owners have seen the new one that the old
//! process can reach no quorum any more.
//!
//! A node that starts from its disk has lost nothing that it knows of. But the directory may be an old copy, and only the
//! others can tell: all of its slots are closed until it has *asked* the other members; see
//! [`Claim`](crate::protocol::wire::life::Claim).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::codec::{self, DecodeError};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;

/// The version of the durable form; its first byte.
const VERSION: u8 = 1;

/// What a slot may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    Votes,
    /// Writes are merged and acknowledged. A read gets no answer from here: what is missing is not *absent*.
    Refilling,
    /// Nothing, for the moment.
    Closed,
}

/// Which slots of its own a node may vote for. A new node, which has never held anything, may vote for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    state: State,
    /// Doubted since the generation was last raised durably. After a start that is all that was not mended.
    unsaid: SlotSet,
    /// Of which the others have not been asked yet whether they know better than this directory.
    unasked: SlotSet,
    is_unsaved: bool,
}

/// What survives a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// All slots without a vote; the other sets are parts of it.
    voteless: SlotSet,
    /// May contain what cannot be read.
    unmended: SlotSet,
    /// An older process of the same identity might still assemble quorums.
    unfenced: SlotSet,
}

/// The durable form cannot be read. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTrust {
    /// It is of another version of the software, or empty.
    #[error("it is of format {0:?}, this version reads {VERSION}")]
    Version(Option<u8>),
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(DecodeError),
}

impl Trust {
    /// Of a node that comes back without its disk.
    #[must_use]
    pub fn lost() -> Trust {
        let state = State { voteless: SlotSet::all(), unmended: SlotSet::new(), unfenced: SlotSet::all() };
        Trust { state, is_unsaved: true, ..Trust::default() }
    }

    /// Of a node that starts from what its disk says; `None` if it never had a doubt.
    pub fn recover(bytes: Option<&Bytes>) -> Result<Trust, BadTrust> {
        let Some(bytes) = bytes else { return Ok(Trust::default()) };
        match bytes.split_first() {
            Some((&VERSION, rest)) => {
                let state: State = codec::decode(rest).map_err(BadTrust::Damaged)?;
                Ok(Trust { unsaid: state.unmended.clone(), state, ..Trust::default() })
            }
            other => Err(BadTrust::Version(other.map(|(version, _)| *version))),
        }
    }

    /// The durable form, if it changed since it was last asked for; `Some(None)` if there is nothing to keep.
    pub fn save(&mut self) -> Option<Option<Bytes>> {
        if !std::mem::take(&mut self.is_unsaved) {
            return None;
        }
        if self.state.voteless.is_empty() {
            return Some(None);
        }
        let mut bytes = vec![VERSION];
        codec::encode_into(&self.state, &mut bytes);
        Some(Some(bytes.into()))
    }

    /// What a slot may be used for.
    #[must_use]
    pub fn standing(&self, slot: Slot) -> Standing {
        if self.unasked.contains(slot) {
            Standing::Closed
        } else if !self.state.voteless.contains(slot) {
            Standing::Votes
        } else if self.unsaid.contains(slot)
            || self.state.unmended.contains(slot)
            || self.state.unfenced.contains(slot)
        {
            Standing::Closed
        } else {
            Standing::Refilling
        }
    }

    /// Nothing is voted for before the others have been asked.
    pub fn ask_first(&mut self) {
        self.unasked = SlotSet::all();
    }

    /// The slots of which the others are to be asked. None of them votes.
    #[must_use]
    pub fn unasked(&self) -> &SlotSet {
        &self.unasked
    }

    /// Enough of the others have been asked for a slot.
    pub fn was_asked(&mut self, slot: Slot) {
        self.unasked.remove(slot);
    }

    /// The slots that have lost something.
    #[must_use]
    pub fn voteless(&self) -> &SlotSet {
        &self.state.voteless
    }

    /// The disk doubts a slot. Tells whether that is news: a slot that was not mended since may be doubted again.
    pub fn doubt(&mut self, slot: Slot) -> bool {
        if !self.state.unmended.insert(slot) {
            return false;
        }
        self.state.voteless.insert(slot);
        self.unsaid.insert(slot);
        self.is_unsaved = true;
        true
    }

    /// The disk doubts a slot that it had mended, before the mending was durable.
    pub fn doubt_again(&mut self, slot: Slot) {
        self.state.voteless.insert(slot);
        self.unsaid.insert(slot);
        self.is_unsaved = true;
    }

    /// Whether the generation has to be raised.
    #[must_use]
    pub fn is_unsaid(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// What a generation that is raised now will speak for.
    #[must_use]
    pub fn unsaid(&self) -> SlotSet {
        self.unsaid.clone()
    }

    /// A raised generation is durable that speaks for these slots. Gives back those that are to be mended.
    pub fn said(&mut self, slots: &SlotSet) -> Vec<Slot> {
        let said: Vec<Slot> = slots.iter().filter(|slot| self.unsaid.remove(*slot)).collect();
        said.into_iter().filter(|slot| self.state.unmended.contains(*slot)).collect()
    }

    /// All that is in the slot can be read.
    pub fn mended(&mut self, slot: Slot) {
        // One that was doubted again meanwhile is mended again, under the next generation.
        if !self.unsaid.contains(slot) {
            self.is_unsaved |= self.state.unmended.remove(slot);
        }
    }

    /// The slots of which an older process of this identity might still answer for.
    #[must_use]
    pub fn unfenced(&self) -> &SlotSet {
        &self.state.unfenced
    }

    /// The slots that it does not vote for, for whatever reason.
    #[must_use]
    pub fn withdrawn(&self) -> SlotSet {
        let mut withdrawn = self.state.voteless.clone();
        withdrawn.unite(&self.unasked);
        withdrawn
    }

    /// The slots whose contents may be brought back. What an older process might still answer for is among them; it must
    /// only not be acknowledged.
    #[must_use]
    pub fn refillable(&self) -> SlotSet {
        let mut refillable = self.state.voteless.clone();
        for closed in [&self.unasked, &self.unsaid, &self.state.unmended] {
            refillable.subtract(closed);
        }
        refillable
    }

    /// So many other owners of the slot have seen the new generation that an older process cannot do without them.
    pub fn fenced(&mut self, slot: Slot) {
        self.is_unsaved |= self.state.unfenced.remove(slot);
    }

    /// The contents are back. Tells whether the slot votes now; it does not if it was doubted again meanwhile.
    pub fn refilled(&mut self, slot: Slot) -> bool {
        if self.standing(slot) != Standing::Refilling {
            return false;
        }
        self.is_unsaved = true;
        self.state.voteless.remove(slot)
    }

    /// The node does not own these: it has nothing to vote for, and nothing to refill.
    pub fn release(&mut self, is_owned: impl Fn(Slot) -> bool) {
        self.unasked.retain(&is_owned);
        let before = self.state.voteless.len();
        self.state.voteless.retain(|slot| is_owned(slot) || self.state.unmended.contains(slot));
        if self.state.voteless.len() != before {
            self.is_unsaved = true;
            self.state.unfenced.intersect(&self.state.voteless);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: u16) -> Slot {
        Slot::new(index).unwrap()
    }

    fn reborn(trust: &mut Trust) -> Trust {
        let bytes = trust.save().expect("it changed");
        Trust::recover(bytes.as_ref()).unwrap()
    }

    #[test]
    fn a_doubted_slot_is_closed_until_it_is_mended_under_a_raised_generation_and_votes_when_it_is_refilled() {
        let mut trust = Trust::default();
        assert!(trust.doubt(slot(1)) && !trust.doubt(slot(1)) && trust.doubt(slot(2)));
        assert_eq!(trust.standing(slot(1)), Standing::Closed);
        trust.mended(slot(1));
        assert!(!trust.refilled(slot(1)), "nobody knows yet");
        assert!(trust.refillable().is_empty());
        let first = trust.unsaid();
        assert!(trust.doubt(slot(3)));
        assert_eq!(trust.said(&first), [slot(1), slot(2)]);
        assert!(trust.is_unsaid(), "slot 3 came too late for it");
        assert_eq!(trust.standing(slot(1)), Standing::Closed);
        trust.mended(slot(1));
        assert_eq!(trust.standing(slot(1)), Standing::Refilling);
        assert_eq!(trust.refillable(), [slot(1)].into_iter().collect());
        trust.ask_first();
        assert_eq!((trust.refillable().is_empty(), trust.withdrawn()), (true, SlotSet::all()));
        Slot::all().for_each(|slot| trust.was_asked(slot));
        assert_eq!(trust.withdrawn(), [1, 2, 3].map(slot).into_iter().collect());
        assert!(trust.refilled(slot(1)));
        assert_eq!((trust.standing(slot(1)), trust.standing(slot(0))), (Standing::Votes, Standing::Votes));
        assert_eq!(trust.voteless().len(), 2);
    }

    #[test]
    fn a_slot_that_is_doubted_again_is_mended_and_refilled_again() {
        let mut trust = Trust::default();
        trust.doubt(slot(1));
        let said = trust.unsaid();
        trust.said(&said);
        trust.mended(slot(1));
        assert!(trust.doubt(slot(1)));
        trust.mended(slot(1));
        assert!(!trust.refilled(slot(1)));
        assert_eq!(trust.standing(slot(1)), Standing::Closed);
    }

    #[test]
    fn a_crash_forgets_no_doubt_and_a_generation_that_may_not_have_become_durable_is_raised_again() {
        let mut trust = Trust::default();
        trust.doubt(slot(1));
        let said = trust.unsaid();
        trust.said(&said);
        let mut again = reborn(&mut trust);
        assert!(again.is_unsaid());
        let said = again.unsaid();
        assert_eq!(again.said(&said), [slot(1)]);
        again.mended(slot(1));
        let mut mended = reborn(&mut again);
        assert_eq!((mended.standing(slot(1)), mended.is_unsaid()), (Standing::Refilling, false));
        assert!(mended.refilled(slot(1)));
        assert_eq!(reborn(&mut mended), Trust::default());
        assert_eq!(mended.save(), None);
    }

    #[test]
    fn after_a_lost_disk_nothing_is_acknowledged_before_it_is_fenced_and_nothing_is_mended() {
        let mut trust = Trust::lost();
        assert!(!trust.is_unsaid(), "it comes back under a raised generation");
        trust.release(|slot| slot.get() < 2);
        assert_eq!((trust.voteless().len(), trust.unfenced().len()), (2, 2));
        assert_eq!(trust.standing(slot(0)), Standing::Closed);
        assert_eq!(trust.refillable(), [slot(0), slot(1)].into_iter().collect());
        trust.fenced(slot(0));
        let mut again = reborn(&mut trust);
        assert_eq!(again.standing(slot(0)), Standing::Refilling);
        assert_eq!(again.standing(slot(1)), Standing::Closed);
        assert!(again.refilled(slot(0)) && !again.refilled(slot(1)));
    }

    /// The durable form is pinned.
    #[test]
    fn the_bytes_are_the_pinned_ones() {
        let mut trust = Trust::lost();
        trust.release(|slot| (16..=20).contains(&slot.get()));
        trust.fenced(slot(17));
        trust.doubt(slot(258));
        let bytes = trust.save().flatten().unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let pinned = "01\
                      0200000000000000\
                      10001400\
                      02010201\
                      0100000000000000\
                      02010201\
                      0200000000000000\
                      10001000\
                      12001400";
        assert_eq!(hex, pinned);
        assert_eq!(Trust::recover(Some(&Bytes::from_static(&[9]))), Err(BadTrust::Version(Some(9))));
        assert!(matches!(Trust::recover(Some(&Bytes::from_static(&[1, 2]))), Err(BadTrust::Damaged(_))));
    }
}
