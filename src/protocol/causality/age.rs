//! How old a record is that comes from another store, in deletions forgotten.

use super::Record;
use crate::protocol::id::ReapEpoch;
#[cfg(test)]
use crate::protocol::planted::{self, Planted};

/// When a record was read from a store, and what its receiver has forgotten since: what keeps a deletion that was
/// forgotten by everybody from being undone by a message that was under way all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// The reap epoch of the slot, *raised*, at whoever read the record from a store, when it did; the least of several
    /// for what was merged from several.
    pub read: ReapEpoch,
    /// The reap epoch of the slot, *committed*, at the receiver. A key that is absent here may have been reaped as late
    /// as in this round.
    pub committed: ReapEpoch,
}

impl Age {
    /// Whether what is stored here may have forgotten what the record tells.
    #[must_use]
    pub fn is_late(&self, stored: Option<&Record>) -> bool {
        #[cfg(test)]
        if planted::is(Planted::LateAccepted) || planted::is(Planted::LateMeetsRecreated) && stored.is_some()
        {
            return false;
        }
        self.read < stored.map_or(self.committed, Record::epoch)
    }
}
