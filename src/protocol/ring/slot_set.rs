//! A set of slots.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::slot::{NoSuchSlot, SLOTS, Slot};

const WORDS: usize = SLOTS as usize / 64;

/// A set of slots: two kilobytes in memory; on disk the ranges that it consists of, so that *none*, *all* and *this
/// one* take a few bytes each.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Slot, Slot)>", into = "Vec<(Slot, Slot)>")]
pub struct SlotSet {
    words: Box<[u64]>,
    len: usize,
}

impl SlotSet {
    /// No slot.
    #[must_use]
    pub fn new() -> SlotSet {
        SlotSet { words: vec![0; WORDS].into(), len: 0 }
    }

    /// Every slot.
    #[must_use]
    pub fn all() -> SlotSet {
        SlotSet { words: vec![u64::MAX; WORDS].into(), len: usize::from(SLOTS) }
    }

    /// Adds a slot; tells whether it is new.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes a slot out; tells whether it was there.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        let was_there = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        self.len -= usize::from(was_there);
        was_there
    }

    /// Whether the slot is there.
    #[must_use]
    pub fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.words[word] & bit != 0
    }

    /// How many slots are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slots, in the order of the circle. Looks at 256 words and at the slots that are there, not at all that there could be.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| bits(at, *word))
    }

    /// Keeps the slots that `keeps` says yes to.
    pub fn retain(&mut self, keeps: impl Fn(Slot) -> bool) {
        for (at, word) in self.words.iter_mut().enumerate() {
            for slot in bits(at, *word).filter(|slot| !keeps(*slot)) {
                *word &= !place(slot).1;
                self.len -= 1;
            }
        }
    }

    /// Keeps the slots that the other set has, too.
    pub fn intersect(&mut self, other: &SlotSet) {
        self.combine(other, |own, others| own & others);
    }

    /// Adds the slots of another set.
    pub fn unite(&mut self, other: &SlotSet) {
        self.combine(other, |own, others| own | others);
    }

    /// Takes out the slots of another set.
    pub fn subtract(&mut self, other: &SlotSet) {
        self.combine(other, |own, others| own & !others);
    }

    fn combine(&mut self, other: &SlotSet, combined: impl Fn(u64, u64) -> u64) {
        self.len = 0;
        for (own, others) in self.words.iter_mut().zip(&other.words) {
            *own = combined(*own, *others);
            self.len += own.count_ones() as usize;
        }
    }
}

/// The slots of one word.
fn bits(at: usize, word: u64) -> impl Iterator<Item = Slot> {
    let unless_empty = |word: u64| Some(word).filter(|word| *word != 0);
    let words = std::iter::successors(unless_empty(word), move |rest| unless_empty(rest & (rest - 1)));
    // A word and a bit in it are below the number of slots.
    words.filter_map(move |rest| Slot::new((at * 64) as u16 + rest.trailing_zeros() as u16).ok())
}

fn place(slot: Slot) -> (usize, u64) {
    (slot.index() / 64, 1 << (slot.index() % 64))
}

impl Default for SlotSet {
    fn default() -> SlotSet {
        SlotSet::new()
    }
}

impl Extend<Slot> for SlotSet {
    fn extend<T: IntoIterator<Item = Slot>>(&mut self, slots: T) {
        slots.into_iter().for_each(|slot| {
            self.insert(slot);
        });
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> SlotSet {
        let mut set = SlotSet::new();
        set.extend(slots);
        set
    }
}

impl From<SlotSet> for Vec<(Slot, Slot)> {
    fn from(set: SlotSet) -> Vec<(Slot, Slot)> {
        // A range begins where the slot before is missing, and ends where the next one is: a few operations for 64 slots.
        let words = &set.words;
        let before = |at: usize| at.checked_sub(1).map_or(0, |at| words[at] >> 63);
        let next = |at: usize| words.get(at + 1).map_or(0, |next| next << 63);
        let firsts = (0..WORDS).flat_map(|at| bits(at, words[at] & !(words[at] << 1 | before(at))));
        let lasts = (0..WORDS).flat_map(|at| bits(at, words[at] & !(words[at] >> 1 | next(at))));
        firsts.zip(lasts).collect()
    }
}

impl TryFrom<Vec<(Slot, Slot)>> for SlotSet {
    type Error = NoSuchSlot;

    fn try_from(ranges: Vec<(Slot, Slot)>) -> Result<SlotSet, NoSuchSlot> {
        let mut set = SlotSet::new();
        for (first, last) in ranges {
            for slot in first.get()..=last.get() {
                set.insert(Slot::new(slot)?);
            }
        }
        Ok(set)
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotSet")?;
        f.debug_list().entries(Vec::from(self.clone())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;

    fn slot(index: u16) -> Slot {
        Slot::new(index).unwrap()
    }

    #[test]
    fn it_holds_what_was_put_in_and_counts_it_once() {
        let mut set = SlotSet::new();
        assert!(set.insert(slot(64)) && set.insert(slot(3)) && !set.insert(slot(64)));
        assert_eq!((set.len(), set.iter().collect::<Vec<_>>()), (2, vec![slot(3), slot(64)]));
        assert!(set.remove(slot(3)) && !set.remove(slot(3)));
        set.retain(|slot| slot.get() < 64);
        assert!(set.is_empty() && set == SlotSet::default());
        assert_eq!((SlotSet::all().len(), SlotSet::all().iter().count()), (16_384, 16_384));
        assert!(SlotSet::all().iter().eq(Slot::all()));
    }

    #[test]
    fn what_is_kept_added_and_shared_is_counted_anew() {
        let set = |slots: &[u16]| slots.iter().copied().map(slot).collect::<SlotSet>();
        let mut kept = set(&[0, 5, 63, 64, 127, 9_000, 16_383]);
        kept.retain(|slot| slot.get() % 2 == 1);
        assert_eq!(kept, set(&[5, 63, 127, 16_383]));
        kept.unite(&set(&[5, 6]));
        assert_eq!(kept, set(&[5, 6, 63, 127, 16_383]));
        kept.intersect(&set(&[6, 127, 128]));
        assert_eq!(kept, set(&[6, 127]));
        kept.subtract(&set(&[6, 128]));
        assert_eq!(kept, set(&[127]));
    }

    #[test]
    fn its_ranges_begin_and_end_anywhere_in_a_word() {
        for (first, last) in [(0, 0), (0, 63), (63, 64), (1, 62), (64, 191), (100, 16_383), (16_383, 16_383)]
        {
            let range: SlotSet = (first..=last).map(slot).collect();
            assert_eq!(Vec::from(range.clone()), [(slot(first), slot(last))]);
            let mut rest = SlotSet::all();
            rest.subtract(&range);
            let before = first.checked_sub(1).map(|before| (slot(0), slot(before)));
            let behind = (last < 16_383).then(|| (slot(last + 1), slot(16_383)));
            assert_eq!(Vec::from(rest), before.into_iter().chain(behind).collect::<Vec<_>>());
        }
        let odd: SlotSet = Slot::all().filter(|slot| slot.get() % 2 == 1).collect();
        assert_eq!(Vec::from(odd.clone()), odd.iter().map(|slot| (slot, slot)).collect::<Vec<_>>());
    }

    #[test]
    fn it_is_stored_as_its_ranges() {
        for (set, bytes) in [
            (SlotSet::new(), 8),
            (SlotSet::all(), 12),
            ([1, 2, 3, 63, 64, 9_000].map(slot).into_iter().collect(), 20),
        ] {
            let encoded = codec::encode(&set);
            assert_eq!(encoded.len(), bytes, "{set:?}");
            assert_eq!(codec::decode::<SlotSet>(&encoded), Ok(set));
        }
    }
}
