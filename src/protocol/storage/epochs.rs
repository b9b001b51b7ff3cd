//! Which rounds of reaping the slots of this node have gone through.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::op::MetaKey;
use crate::protocol::codec;
use crate::protocol::id::ReapEpoch;
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::WallTime;

/// Where one slot of this node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The newest round that this node has agreed to. What it reads from its store is stamped with it.
    pub raised: ReapEpoch,
    /// The newest round whose verdict it has executed. A key that is absent here takes no record from before it.
    pub committed: ReapEpoch,
    /// Operations that started before this, in node time, may have been forgotten together with their keys: a further
    /// attempt of one of them cannot be told from a new operation.
    pub forgotten: WallTime,
}

/// The standing of all slots that ever went through a round, a Generation Clock for each (*Patterns of Distributed
/// Systems*).
///
/// What is promised to others must be durable first, and what is refused because of a round must be refused from the
/// moment on in which the removal is on its way to the log. So there are two answers for each slot.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    /// As the log has it, synced.
    durable: BTreeMap<Slot, Standing>,
    /// As the disk was asked to make it.
    asked: BTreeMap<Slot, Standing>,
}

impl Epochs {
    /// The standing as it was written down.
    pub fn parse(meta: &BTreeMap<MetaKey, Bytes>) -> Result<Epochs, codec::DecodeError> {
        let mut durable = BTreeMap::new();
        for (key, bytes) in meta {
            if let MetaKey::Reaping(slot) = key {
                durable.insert(*slot, codec::decode(bytes)?);
            }
        }
        Ok(Epochs { asked: durable.clone(), durable })
    }

    /// What may be told to others: it outlives every crash.
    #[must_use]
    pub fn durable(&self, slot: Slot) -> Standing {
        self.durable.get(&slot).copied().unwrap_or_default()
    }

    /// What holds for everything that is asked of the disk from now on.
    #[must_use]
    pub fn asked(&self, slot: Slot) -> Standing {
        self.asked.get(&slot).copied().unwrap_or_default()
    }

    /// The slot is to stand like this. Gives back what the disk is to write down.
    #[must_use]
    pub fn ask(&mut self, slot: Slot, standing: Standing) -> (MetaKey, Option<Bytes>) {
        self.asked.insert(slot, standing);
        (MetaKey::Reaping(slot), Some(codec::encode(&standing).into()))
    }

    /// What was asked for is synced. Requests are synced in order, so nothing goes back here.
    pub fn became_durable(&mut self, slot: Slot, standing: Standing) {
        self.durable.insert(slot, standing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_told_to_others_only_when_it_is_durable() {
        let mut epochs = Epochs::default();
        let standing = Standing { raised: ReapEpoch(1), ..Standing::default() };
        let slot = Slot::new(5).unwrap();
        let (key, value) = epochs.ask(slot, standing);
        assert_eq!((epochs.asked(slot), epochs.durable(slot)), (standing, Standing::default()));
        epochs.became_durable(slot, standing);
        assert_eq!(epochs.durable(slot), standing);
        let meta = BTreeMap::from([(key, value.unwrap())]);
        let read = Epochs::parse(&meta).unwrap();
        assert_eq!((read.durable(slot), read.asked(slot)), (standing, standing));
    }
}
