//! An owner's side of a round: what it held when it agreed.

use bytes::Bytes;

use super::held;
use crate::protocol::id::{Actor, NodeId, ReapEpoch};
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::Stored;
use crate::protocol::wire::reap::{Certified, Reap};

/// An agreement to a round that is on its way to the log.
///
/// The order is what counts: first the records are compared, then the epoch is raised, in two requests to the disk with
/// nothing in between. So whatever is read from this store under the new epoch is at least as new as what was compared.
#[derive(Debug)]
pub(super) struct Pledge {
    driver: NodeId,
    epoch: ReapEpoch,
    proposal: u64,
    keys: Vec<Certified>,
    equal: Vec<bool>,
    writing: Actor,
}

impl Pledge {
    /// Agrees to a round about these keys, if it becomes durable.
    pub(super) fn new(
        driver: NodeId,
        (epoch, proposal): (ReapEpoch, u64),
        keys: Vec<Certified>,
        writing: Actor,
    ) -> Pledge {
        let equal = vec![false; keys.len()];
        Pledge { driver, epoch, proposal, keys, equal, writing }
    }

    /// The round.
    pub(super) fn epoch(&self) -> ReapEpoch {
        self.epoch
    }

    /// This is what the own disk holds. What was not read counts as different.
    pub(super) fn compare(&mut self, found: &[(Bytes, Stored)]) {
        for ((equal, (key, hash)), (read, stored)) in self.equal.iter_mut().zip(&self.keys).zip(found) {
            *equal = read == key && held(stored, key) == Some(*hash);
        }
    }

    /// It is durable: to whom to say what.
    pub(super) fn agree(self, slot: Slot) -> (NodeId, Reap) {
        let Pledge { driver, epoch, proposal, equal, writing, .. } = self;
        (driver, Reap::Agreed { slot, epoch, proposal, equal, writing })
    }
}
