//! Arcs: the nodes of a binary tree over the hash circle, of which the slots are one level.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::slot::{SLOTS, Slot, key_hash};

/// How many bits of a hash name a slot.
const SLOT_BITS: u32 = SLOTS.ilog2();

/// All keys whose hashes begin with certain bits.
///
/// Numbered as a binary heap is: the whole circle is 1, and the two halves of arc `a` are `2a` and `2a + 1`. So an arc
/// is its first bits with a one in front, a slot is a number of 15 bits, and everything below is a part of one slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Arc(u32);

impl Arc {
    /// The whole circle.
    pub const CIRCLE: Arc = Arc(1);

    /// How many bits an arc may fix at most.
    pub const BITS_MAX: u32 = u32::BITS - 1;

    /// The arc of a slot.
    #[must_use]
    pub fn of_slot(slot: Slot) -> Arc {
        Arc(1 << SLOT_BITS | u32::from(slot.get()))
    }

    /// How many bits it fixes.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.ilog2()
    }

    /// Whether it is larger than a slot.
    #[must_use]
    pub fn spans_slots(self) -> bool {
        self.bits() < SLOT_BITS
    }

    /// The first and the last slot of an arc that spans slots; twice the slot that holds it, for any other one.
    #[must_use]
    pub fn slots(self) -> (Slot, Slot) {
        let (first, last) = match SLOT_BITS.checked_sub(self.bits()) {
            Some(open) => (self.0 << open, (self.0 << open) + ((1 << open) - 1)),
            None => (self.0 >> (self.bits() - SLOT_BITS), self.0 >> (self.bits() - SLOT_BITS)),
        };
        let slot = |arc: u32| {
            // Without the leading one, 14 bits are left.
            #[expect(clippy::expect_used, reason = "14 bits name a slot")]
            Slot::new((arc ^ 1 << SLOT_BITS) as u16).expect("14 bits name a slot")
        };
        (slot(first), slot(last))
    }

    /// The first position of the hash circle that lies in it.
    #[must_use]
    pub fn begin(self) -> u64 {
        let bits = self.bits();
        u64::from(self.0 ^ 1 << bits).checked_shl(u64::BITS - bits).unwrap_or(0)
    }

    /// Cuts it into 2^`bits` equal parts, in the order of the circle. Never finer than [`Arc::BITS_MAX`].
    pub fn parts(self, bits: u32) -> impl ExactSizeIterator<Item = Arc> {
        let bits = bits.min(Self::BITS_MAX - self.bits());
        (0..1_u32 << bits).map(move |part| Arc(self.0 << bits | part))
    }

    /// Which of its 2^`bits` parts a key lies in. Means nothing for a key that lies elsewhere.
    #[must_use]
    pub fn part_of(self, bits: u32, key: &[u8]) -> usize {
        let below = key_hash(key) << self.bits();
        // The shift leaves the bits that follow those of the arc; a shift by all 64 would not be defined.
        below.checked_shr(u64::BITS - bits).unwrap_or(0) as usize
    }

    /// Whether a key lies in it.
    #[must_use]
    pub fn holds(self, key: &[u8]) -> bool {
        let bits = self.bits();
        let begins = key_hash(key).checked_shr(u64::BITS - bits).unwrap_or(0);
        begins == u64::from(self.0 ^ 1 << bits)
    }
}

impl fmt::Debug for Arc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits() as usize;
        match bits {
            0 => write!(f, "Arc(circle)"),
            _ => write!(f, "Arc({:0bits$b})", self.0 ^ 1 << bits),
        }
    }
}

impl From<Arc> for u32 {
    fn from(arc: Arc) -> u32 {
        arc.0
    }
}

impl TryFrom<u32> for Arc {
    type Error = NoSuchArc;

    fn try_from(number: u32) -> Result<Arc, NoSuchArc> {
        if number == 0 { Err(NoSuchArc) } else { Ok(Arc(number)) }
    }
}

/// Zero numbers no arc. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("arcs are numbered from 1")]
pub struct NoSuchArc;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;

    #[test]
    fn arcs_nest_down_to_slots_and_below() {
        let (first, last) = Arc::CIRCLE.slots();
        assert_eq!((first.get(), last.get()), (0, SLOTS - 1));
        let tops: Vec<Arc> = Arc::CIRCLE.parts(4).collect();
        assert_eq!(tops.len(), 16);
        assert_eq!(tops[1].slots().0.get(), 1_024);
        assert_eq!(tops[15].slots().1.get(), SLOTS - 1);
        let slots: Vec<Arc> = tops[0].parts(10).collect();
        assert_eq!(slots[7], Arc::of_slot(Slot::new(7).unwrap()));
        assert!(tops[0].spans_slots() && !slots[7].spans_slots());
        let buckets: Vec<Arc> = slots[7].parts(3).collect();
        assert!(buckets.iter().all(|bucket| bucket.slots() == slots[7].slots()));
        assert_eq!(slots[7].parts(40).len(), 1 << 17);
    }

    #[test]
    fn every_key_lies_in_one_part_at_every_level() {
        for number in 0..200_u32 {
            let key = number.to_le_bytes();
            let slot = Arc::of_slot(Slot::of_key(&key));
            assert!(Arc::CIRCLE.holds(&key) && slot.holds(&key));
            assert_eq!(Arc::CIRCLE.parts(14).nth(Arc::CIRCLE.part_of(14, &key)), Some(slot));
            assert!(slot.begin() <= key_hash(&key) && Arc::CIRCLE.begin() == 0);
            for bits in [0, 1, 5, 17] {
                let holding: Vec<usize> = slot
                    .parts(bits)
                    .enumerate()
                    .filter(|(_, part)| part.holds(&key))
                    .map(|(at, _)| at)
                    .collect();
                assert_eq!(holding, [slot.part_of(bits, &key)]);
            }
        }
    }

    #[test]
    fn a_number_that_is_no_arc_is_refused_also_when_it_comes_as_bytes() {
        assert_eq!(codec::decode::<Arc>(&codec::encode(&Arc::CIRCLE)), Ok(Arc::CIRCLE));
        assert!(codec::decode::<Arc>(&[0; 4]).is_err());
    }
}
