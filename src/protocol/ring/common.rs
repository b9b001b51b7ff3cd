//! What two nodes own together.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::arc::Arc;
use super::slot::Slot;
use super::slot_set::SlotSet;
use super::view::SlotView;
use crate::protocol::id::NodeId;

/// A hash over the digests of all slots that two nodes both own: whoever believes otherwise refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PairDigest(pub u64);

/// The slots that two nodes both own, and what they have to agree on about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    slots: SlotSet,
    digest: PairDigest,
}

impl Common {
    /// The slots that `own` owns together with each other owner of them, from what is believed of the slots of `own`.
    pub(super) fn of<'a>(
        own: NodeId,
        slots: impl Iterator<Item = SlotView<'a>>,
    ) -> impl Iterator<Item = (NodeId, Common)> {
        let mut found: Vec<(NodeId, SlotSet, Vec<u8>)> = Vec::new();
        for slot in slots {
            for node in slot.read_set().iter().filter(|node| **node != own) {
                let at = match found.iter().position(|(known, ..)| known == node) {
                    Some(at) => at,
                    None => {
                        found.push((*node, SlotSet::new(), Vec::new()));
                        found.len() - 1
                    }
                };
                let (_, slots, hashed) = &mut found[at];
                slots.insert(slot.slot);
                hashed.extend(slot.slot.get().to_le_bytes());
                hashed.extend(slot.digest.0.to_le_bytes());
            }
        }
        found
            .into_iter()
            .map(|(node, slots, hashed)| (node, Common { slots, digest: PairDigest(xxh3_64(&hashed)) }))
    }

    /// The slots.
    #[must_use]
    pub fn slots(&self) -> &SlotSet {
        &self.slots
    }

    /// What both have to believe.
    #[must_use]
    pub fn digest(&self) -> PairDigest {
        self.digest
    }

    /// Whether any of the slots lies in an arc.
    #[must_use]
    pub fn touches(&self, arc: Arc) -> bool {
        let (first, last) = arc.slots();
        (first.get()..=last.get()).filter_map(|slot| Slot::new(slot).ok()).any(|slot| self.has(slot))
    }

    /// Whether both own the slot.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        self.slots.contains(slot)
    }
}

#[cfg(test)]
impl From<SlotSet> for Common {
    fn from(slots: SlotSet) -> Common {
        Common { slots, digest: PairDigest(0) }
    }
}
