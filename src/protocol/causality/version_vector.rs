//! What has been seen: actor to highest timestamp.

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
        if self.0 == other.0 {
            return;
        }
        for &(actor, at) in &other.0 {
            self.note(Dot { actor, at });
        }
    }

    /// Whether this has seen everything that `other` has.
    #[must_use]
    pub fn dominates(&self, other: &VersionVector) -> bool {
        other.0.iter().all(|&(actor, at)| self.covers(Dot { actor, at }))
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
