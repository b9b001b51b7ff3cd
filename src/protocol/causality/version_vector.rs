//! What has been seen: actor to highest timestamp.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::Dot;
use crate::protocol::id::Actor;
use crate::protocol::time::Timestamp;

/// A Version Vector (*Patterns of Distributed Systems*): for each actor the highest timestamp seen of one key.
///
/// It *covers* a dot if its entry for the dot's actor is at least the dot's timestamp. Kept sorted by actor, without
/// empty entries, so that equal vectors have equal bytes; decoding refuses anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Actor, Timestamp)>")]
pub struct VersionVector(Vec<(Actor, Timestamp)>);

impl VersionVector {
    /// The vector that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The highest timestamp seen of `actor`; the zero timestamp if none was.
    #[must_use]
    pub fn get(&self, actor: Actor) -> Timestamp {
        match self.find(actor) {
            Ok(at) => self.0[at].1,
            Err(_) => Timestamp::default(),
        }
    }

    /// Whether `dot` has been seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.actor) >= dot.at
    }

    /// Takes note of a dot and of all earlier ones of its actor.
    pub fn note(&mut self, dot: Dot) {
        if dot.at == Timestamp::default() {
            return;
        }
        match self.find(dot.actor) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(dot.at),
            Err(at) => self.0.insert(at, (dot.actor, dot.at)),
        }
    }

    /// The least vector that has seen everything that either has seen.
    pub fn join(&mut self, other: &VersionVector) {
        // Usually `other` names few actors that are unknown here, or none. Only when there are several is a second
        // vector cheaper than making room for each of them.
        let unknown = other.0.iter().filter(|&&(actor, _)| self.find(actor).is_err()).count();
        if unknown <= 2 {
            other.iter().for_each(|dot| self.note(dot));
        } else {
            self.join_anew(other, unknown);
        }
    }

    /// [`join`](VersionVector::join) in one pass over both, into new memory.
    fn join_anew(&mut self, other: &VersionVector, unknown: usize) {
        let mut joined = Vec::with_capacity(self.0.len() + unknown);
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(&&(a, a_at)), Some(&&(b, b_at))) = (mine.peek(), theirs.peek()) {
            let at = match a.cmp(&b) {
                Ordering::Less => a_at,
                Ordering::Equal => a_at.max(b_at),
                Ordering::Greater => b_at,
            };
            joined.push((a.min(b), at));
            mine.next_if(|_| a <= b);
            theirs.next_if(|_| b <= a);
        }
        joined.extend(mine.chain(theirs));
        self.0 = joined;
    }

    /// Whether this has seen everything that `other` has.
    #[must_use]
    pub fn dominates(&self, other: &VersionVector) -> bool {
        other.0.iter().all(|&(actor, at)| self.covers(Dot { actor, at }))
    }

    /// Forgets the actors that are not needed. Only a certified round of reaping may do so.
    pub(super) fn retain(&mut self, is_needed: impl Fn(Actor) -> bool) {
        self.0.retain(|(actor, _)| is_needed(*actor));
    }

    /// How many actors it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has seen nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest dot of each actor, in the order of the actors.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|&(actor, at)| Dot { actor, at })
    }

    fn find(&self, actor: Actor) -> Result<usize, usize> {
        self.0.binary_search_by_key(&actor, |&(a, _)| a)
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = VersionVector::new();
        for dot in dots {
            vector.note(dot);
        }
        vector
    }
}

impl TryFrom<Vec<(Actor, Timestamp)>> for VersionVector {
    type Error = &'static str;

    fn try_from(entries: Vec<(Actor, Timestamp)>) -> Result<Self, Self::Error> {
        let sorted = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let full = entries.iter().all(|&(_, at)| at > Timestamp::default());
        if sorted && full {
            Ok(VersionVector(entries))
        } else {
            Err("a version vector is not in canonical form")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;
    use crate::protocol::rng::Rng;

    fn dot(actor: u64, at: u64) -> Dot {
        Dot { actor: Actor(actor), at: Timestamp(at) }
    }

    #[test]
    fn a_dot_covers_all_earlier_ones_of_its_actor_and_none_of_another() {
        let seen: VersionVector = [dot(1, 5), dot(2, 9), dot(1, 3)].into_iter().collect();
        assert!(seen.covers(dot(1, 5)) && seen.covers(dot(1, 1)) && seen.covers(dot(2, 9)));
        assert!(!seen.covers(dot(1, 6)) && !seen.covers(dot(3, 1)));
        assert_eq!((seen.len(), seen.get(Actor(1)), seen.get(Actor(3))), (2, Timestamp(5), Timestamp(0)));
    }

    #[test]
    fn both_ways_of_joining_are_the_entry_by_entry_maximum() {
        let mut rng = Rng::from_number(1);
        for _ in 0..2_000 {
            let mut draw = |most| -> VersionVector {
                (0..rng.below(most)).map(|_| dot(rng.below(9), rng.below(5))).collect()
            };
            let (a, b) = (draw(6), draw(9));
            let mut joined = a.clone();
            joined.join(&b);
            let mut anew = a.clone();
            anew.join_anew(&b, 0);
            let expected: VersionVector = a.iter().chain(b.iter()).collect();
            assert_eq!((&joined, &anew), (&expected, &expected));
            assert!(joined.dominates(&a) && joined.dominates(&b));
            assert_eq!(a.dominates(&b), joined == a);
        }
    }

    #[test]
    fn what_is_not_canonical_does_not_decode() {
        let decodes =
            |entries: &[(u64, u64)]| codec::decode::<VersionVector>(&codec::encode(entries)).is_ok();
        assert!(decodes(&[]) && decodes(&[(1, 1), (2, 1)]));
        assert!(!decodes(&[(2, 1), (1, 1)]), "unsorted");
        assert!(!decodes(&[(1, 1), (1, 2)]), "an actor twice");
        assert!(!decodes(&[(1, 0)]), "an empty entry");
    }
}
