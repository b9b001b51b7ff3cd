//! What the ring knows of a member: who it is, where it stands, how much it carries.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::id::{NodeId, Place};

/// The part of a membership entry that placement reads. Two nodes that hold equal ring members hold equal rings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RingMember {
    /// Who owns the slots that the place wins.
    pub node: NodeId,
    /// What is hashed. A replacement inherits the place of the dead and with it exactly its slots.
    pub place: Place,
    /// Whose failures it shares: the owners of a slot stand in distinct zones while there are enough of them.
    pub zone: Zone,
    /// How much it should carry, relative to the other members.
    pub weight: Weight,
}

impl RingMember {
    /// A node at its own place, in the default zone, of the default weight.
    #[must_use]
    pub fn new(node: NodeId) -> RingMember {
        RingMember { node, place: Place(node.0), zone: Zone::default(), weight: Weight::default() }
    }
}

/// A set of nodes that fail together: a rack, a room, a data centre. Nodes that are told nothing share the zone
/// `default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

impl Zone {
    /// The longest name, in bytes: entries of members must fit in a gossip packet.
    pub const BYTES_MAX: usize = 64;

    /// A zone of this name: 1 to [`Zone::BYTES_MAX`] bytes of letters, digits, ASCII punctuation and inner spaces. No
    /// invisible characters: two names that look alike on a terminal should be one zone.
    pub fn new(name: impl Into<String>) -> Result<Zone, BadZone> {
        let name = name.into();
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return Err(BadZone::Length(name.len()));
        }
        let is_visible = |c: char| c == ' ' || c.is_alphanumeric() || c.is_ascii_punctuation();
        if name.trim() != name || !name.chars().all(is_visible) {
            return Err(BadZone::Unprintable);
        }
        Ok(Zone(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Zone {
        Zone("default".to_owned())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.0
    }
}

impl TryFrom<String> for Zone {
    type Error = BadZone;

    fn try_from(name: String) -> Result<Zone, BadZone> {
        Zone::new(name)
    }
}

impl std::str::FromStr for Zone {
    type Err = BadZone;

    fn from_str(name: &str) -> Result<Zone, BadZone> {
        Zone::new(name)
    }
}

/// The text names no zone. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadZone {
    /// It is empty or too long.
    #[error("a zone's name has 1 to 64 bytes, not {0}")]
    Length(usize),
    /// It holds invisible characters, or begins or ends with a space.
    #[error("a zone's name is made of letters, digits, punctuation and inner spaces")]
    Unprintable,
}

/// How much of the ring a member should carry, relative to the others: twice the weight, twice the slots.
///
/// Only ratios count, so any unit will do as long as all members use the same: terabytes, or the number of ordinary
/// machines that this one is worth. The default is 1, one ordinary machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The largest weight.
    pub const MAX: u16 = 1_024;

    /// A weight, or an error outside of 1..=[`Weight::MAX`]. There is no weight zero: a member that should own
    /// nothing leaves the ring, with the phases that make leaving safe.
    pub fn new(weight: u16) -> Result<Weight, BadWeight> {
        match NonZeroU16::new(weight) {
            Some(number) if weight <= Self::MAX => Ok(Weight(number)),
            _ => Err(BadWeight(weight)),
        }
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl Default for Weight {
    fn default() -> Weight {
        Weight(NonZeroU16::MIN)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> u16 {
        weight.0.get()
    }
}

impl TryFrom<u16> for Weight {
    type Error = BadWeight;

    fn try_from(weight: u16) -> Result<Weight, BadWeight> {
        Weight::new(weight)
    }
}

/// No member has this weight. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a weight of {0} is not possible: choose 1 to 1024")]
pub struct BadWeight(pub u16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;

    #[test]
    fn zones_are_short_printable_names() {
        assert_eq!(Zone::default().as_str(), "default");
        assert!(Zone::new("eu-west 1 ä").is_ok());
        assert!(Zone::new("z".repeat(64)).is_ok());
        assert_eq!(Zone::new("z".repeat(65)), Err(BadZone::Length(65)));
        assert_eq!(Zone::new(""), Err(BadZone::Length(0)));
        for unprintable in ["a\nb", " a", "a ", "\u{7f}", "a\u{202e}b", "a\u{200b}"] {
            assert_eq!(Zone::new(unprintable), Err(BadZone::Unprintable), "{unprintable:?}");
        }
        assert!(codec::decode::<Zone>(&codec::encode("a\nb")).is_err());
    }

    #[test]
    fn weights_run_from_1_to_1024() {
        assert_eq!(Weight::default().get(), 1);
        assert_eq!(Weight::new(1_024).map(Weight::get), Ok(1_024));
        assert_eq!(Weight::new(0), Err(BadWeight(0)));
        assert_eq!(Weight::new(1_025), Err(BadWeight(1_025)));
        assert!(codec::decode::<Weight>(&[0, 0]).is_err());
    }

    #[test]
    fn a_member_survives_the_codec() {
        let member = RingMember::new(NodeId(7));
        assert_eq!(codec::decode::<RingMember>(&codec::encode(&member)), Ok(member));
    }
}
