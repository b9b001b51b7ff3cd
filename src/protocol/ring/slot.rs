//! Slots: the equal arcs that the hash circle is cut into.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// How many slots there are. Fixed for ever: it is part of placement version 1.
///
/// More slots balance better, fewer cost less in digests and hash trees. With three replicas, 16,384 slots are 491
/// replicas a node at 100 nodes and 49 at 1,000.
pub const SLOTS: u16 = 16_384;

/// How many bits of a key's hash name its slot.
const SLOT_BITS: u32 = SLOTS.ilog2();

/// The position of a key on the hash circle: xxh3-64 of its bytes, part of placement version 1.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// One of the [`SLOTS`] equal arcs of the hash circle (*Fixed Partitions*; the third placement strategy of the Dynamo
/// paper): the unit of ownership, of handoff and of anti-entropy.
///
/// A key never changes its slot. What changes is which nodes own the slot.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, or an error for numbers from [`SLOTS`] on.
    pub fn new(index: u16) -> Result<Slot, NoSuchSlot> {
        if index < SLOTS { Ok(Slot(index)) } else { Err(NoSuchSlot(index)) }
    }

    /// The slot of a key: the top 14 bits of its [`key_hash`].
    #[must_use]
    pub fn of_key(key: &[u8]) -> Slot {
        Slot::of_hash(key_hash(key))
    }

    /// The slot whose arc holds this position of the circle.
    #[must_use]
    pub fn of_hash(hash: u64) -> Slot {
        // The shift leaves exactly SLOT_BITS bits, so the number is below SLOTS.
        Slot((hash >> (u64::BITS - SLOT_BITS)) as u16)
    }

    /// The number of the slot, below [`SLOTS`]; fit to index an array.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number of the slot, below [`SLOTS`].
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// Every slot, in the order of the circle.
    pub fn all() -> impl DoubleEndedIterator<Item = Slot> + ExactSizeIterator + Clone {
        (0..SLOTS).map(Slot)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.0)
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> u16 {
        slot.0
    }
}

impl TryFrom<u16> for Slot {
    type Error = NoSuchSlot;

    fn try_from(index: u16) -> Result<Slot, NoSuchSlot> {
        Slot::new(index)
    }
}

/// The number names no slot. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no slot {0}: slots are numbered from 0 to 16383")]
pub struct NoSuchSlot(pub u16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;

    #[test]
    fn numbers_outside_the_circle_are_refused_also_when_they_come_as_bytes() {
        assert_eq!(Slot::new(16_383).map(Slot::get), Ok(16_383));
        assert_eq!(Slot::new(16_384), Err(NoSuchSlot(16_384)));
        assert_eq!(codec::encode(&Slot(258)), [2, 1]);
        assert_eq!(codec::decode::<Slot>(&[2, 1]), Ok(Slot(258)));
        assert!(codec::decode::<Slot>(&16_384_u16.to_le_bytes()).is_err());
    }

    #[test]
    fn arcs_are_equal_and_in_the_order_of_the_circle() {
        assert_eq!(Slot::of_hash(0), Slot(0));
        assert_eq!(Slot::of_hash((1 << 50) - 1), Slot(0));
        assert_eq!(Slot::of_hash(1 << 50), Slot(1));
        assert_eq!(Slot::of_hash(u64::MAX), Slot(SLOTS - 1));
        assert_eq!(Slot::all().len(), 16_384);
        assert!(Slot::all().is_sorted());
    }

    /// Pinned: a change here loses every key of every cluster.
    #[test]
    fn keys_keep_their_slots_for_ever() {
        let pinned: [(&[u8], u64, u16); 4] = [
            (b"", 0x2d06_8005_38d3_94c2, 2_881),
            (b"starling", 0x10b2_b5de_ccb7_a3a7, 1_068),
            (b"user:1", 0x3b57_7afd_7fed_9501, 3_797),
            (b"\0\xff", 0xa99b_043a_346c_8bf3, 10_854),
        ];
        for (key, hash, slot) in pinned {
            assert_eq!((key_hash(key), Slot::of_key(key).get()), (hash, slot), "{key:?}");
        }
    }
}
