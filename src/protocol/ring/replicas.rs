//! How many owners a slot has.

use std::fmt;
use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The number of replicas, Dynamo's N: how many owners each slot has while there are as many nodes.
///
/// It is chosen at founding and belongs to the cluster's identity: two nodes with different numbers would refuse each
/// other for ever. Choose an odd number, since an even one costs a copy and survives no more failures: 3 keeps a
/// majority through the loss of one node, 5 through two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Replicas(NonZeroU8);

impl Replicas {
    /// The largest number of replicas. A write waits for a majority of them, so more would cost much and add nothing.
    pub const MAX: u8 = 7;

    /// Three, the default.
    pub const THREE: Replicas = Replicas(NonZeroU8::MIN.saturating_add(2));

    /// This many replicas, or an error outside of 1..=[`Replicas::MAX`].
    pub fn new(count: u8) -> Result<Replicas, BadReplicas> {
        match NonZeroU8::new(count) {
            Some(number) if count <= Self::MAX => Ok(Replicas(number)),
            _ => Err(BadReplicas(count)),
        }
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0.get())
    }
}

impl Default for Replicas {
    fn default() -> Replicas {
        Replicas::THREE
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Replicas> for u8 {
    fn from(replicas: Replicas) -> u8 {
        replicas.0.get()
    }
}

impl TryFrom<u8> for Replicas {
    type Error = BadReplicas;

    fn try_from(count: u8) -> Result<Replicas, BadReplicas> {
        Replicas::new(count)
    }
}

/// No cluster keeps this many replicas. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} replicas are not possible: choose 1 to 7")]
pub struct BadReplicas(pub u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_to_seven_replicas_exist() {
        assert_eq!(Replicas::new(0), Err(BadReplicas(0)));
        assert_eq!(Replicas::new(8), Err(BadReplicas(8)));
        assert_eq!(Replicas::new(7).map(Replicas::get), Ok(7));
        assert_eq!(Replicas::default().get(), 3);
    }
}
