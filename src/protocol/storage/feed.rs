//! What goes from the log into the store.

use super::op::Lsn;
use super::store::Replacement;

/// Synced entries on their way into the store: the newest of each key, in order of slot and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// What to replace.
    pub batch: Vec<Replacement>,
    /// With this, the store holds everything up to here.
    pub through: Lsn,
    pub(super) bytes: u64,
}

impl Feed {
    /// Bytes of the entries that the feed came from, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
