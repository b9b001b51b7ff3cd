//! Slots whose contents are doubted, and what is answered about them.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::op::{DiskReply, DiskRequest, DoubtReason, Lsn, Stored};
use super::store::{Store, StoreError};
use crate::protocol::causality::{Applied, Refusal};
use crate::protocol::ring::slot::Slot;

/// The slots that a disk doubts, from the finding until they are mended.
///
/// What a store holds of such a slot is no reply, never *absent*: nobody counts it, and nothing is built on it. Of the
/// records in it those that can be read are as good as ever; but one that is gone without a trace cannot be told from
/// one that never was, so the whole slot is silent.
#[derive(Clone, Debug, Default)]
pub struct Doubts {
    slots: BTreeSet<Slot>,
    /// Found, and not told yet.
    news: Vec<(Slot, DoubtReason)>,
    damaged: u64,
}

impl Doubts {
    /// Notes a finding. Returns whether it is one: a slot in doubt is told of once, until it is mended.
    pub fn find(&mut self, slot: Slot, why: DoubtReason) -> bool {
        let is_new = self.slots.insert(slot);
        if is_new {
            self.news.push((slot, why));
        }
        is_new
    }

    /// Has the slots that a request is about compared with their sums, each of them once for every start. Returns how
    /// many of them are doubted since.
    pub fn verify<S: Store>(
        &mut self,
        request: &DiskRequest,
        engine: &mut Engine<S>,
    ) -> Result<usize, StoreError> {
        let mut found = 0;
        for slot in request.slots() {
            if let Some(why) = engine.verify(slot)?
                && self.find(slot, why)
            {
                self.damaged += u64::from(why == DoubtReason::Damaged);
                found += 1;
            }
        }
        Ok(found)
    }

    /// Counts records that could not be read.
    pub fn count_damaged(&mut self, records: u64) {
        self.damaged += records;
    }

    /// Records that could not be read, since the start.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The slot is whole again, as far as its disk is concerned.
    pub fn mended(&mut self, slot: Slot) {
        self.slots.remove(&slot);
        self.news.retain(|(doubted, _)| *doubted != slot);
    }

    /// The slots in doubt.
    #[must_use]
    pub fn slots(&self) -> &BTreeSet<Slot> {
        &self.slots
    }

    /// What is answered in place of the disk, if the request is about a slot in doubt.
    #[must_use]
    pub fn answer(&self, request: &DiskRequest) -> Option<DiskReply> {
        let lsn = Lsn::default();
        match request {
            DiskRequest::Update { ticket, slot, .. } if self.slots.contains(slot) => {
                let applied = Applied::Refused(Refusal::Lost);
                Some(DiskReply::Applied { ticket: *ticket, slot: *slot, lsn, applied })
            }
            DiskRequest::Read { ticket, slot, .. } if self.slots.contains(slot) => {
                Some(DiskReply::Read { ticket: *ticket, lsn, stored: Stored::Lost })
            }
            DiskRequest::Remove { ticket, slot, .. } if self.slots.contains(slot) => {
                Some(DiskReply::Removed { ticket: *ticket, lsn, is_gone: false })
            }
            DiskRequest::List { ticket, slot, .. } if self.slots.contains(slot) => {
                Some(DiskReply::Listed { ticket: *ticket, page: None })
            }
            _ => None,
        }
    }

    /// Takes the slots in doubt out of a reply about several, and notes what the reply says about others. `asked` is
    /// the slot of the request, if it was about one key.
    pub fn review(&mut self, asked: Option<Slot>, reply: &mut DiskReply) {
        let is_lost = match reply {
            DiskReply::Read { stored, .. } => *stored == Stored::Lost,
            DiskReply::Applied { applied, .. } => *applied == Applied::Refused(Refusal::Lost),
            _ => false,
        };
        if let Some(slot) = asked.filter(|_| is_lost)
            && self.find(slot, DoubtReason::Damaged)
        {
            self.damaged += 1;
        }
        match reply {
            DiskReply::Sums { first, last, sums, .. } => {
                for slot in self.slots.range(*first..=*last) {
                    match sums.binary_search_by_key(slot, |(held, _)| *held) {
                        Ok(at) => sums[at].1 = None,
                        Err(at) => sums.insert(at, (*slot, None)),
                    }
                }
            }
            DiskReply::ReadMany { found, .. } => {
                for (key, stored) in found {
                    let slot = Slot::of_key(key);
                    if self.slots.contains(&slot) {
                        *stored = Stored::Lost;
                    } else if *stored == Stored::Lost {
                        self.find(slot, DoubtReason::Damaged);
                        self.damaged += 1;
                    }
                }
            }
            _ => {}
        }
    }

    /// Says what was found since it was last asked.
    pub fn tell(&mut self, replies: &mut Vec<DiskReply>) {
        if self.news.is_empty() {
            return;
        }
        for why in [DoubtReason::Damaged, DoubtReason::Mismatch] {
            let slots: Vec<Slot> =
                self.news.iter().filter(|(_, reason)| *reason == why).map(|(slot, _)| *slot).collect();
            if !slots.is_empty() {
                replies.push(DiskReply::Doubted { slots, why });
            }
        }
        self.news.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::storage::op::Ticket;
    use crate::protocol::storage::store::contract::{record, slot};
    use crate::protocol::storage::sums::SlotSum;

    const TICKET: Ticket = Ticket(3);

    #[test]
    fn a_slot_in_doubt_is_told_of_once_until_it_is_mended() {
        let mut doubts = Doubts::default();
        let mut replies = Vec::new();
        for _ in 0..2 {
            assert!(doubts.find(slot(5), DoubtReason::Mismatch));
            assert!(!doubts.find(slot(5), DoubtReason::Damaged));
            doubts.tell(&mut replies);
            doubts.tell(&mut replies);
            let told = DiskReply::Doubted { slots: vec![slot(5)], why: DoubtReason::Mismatch };
            assert_eq!(std::mem::take(&mut replies), [told]);
            doubts.mended(slot(5));
            assert!(doubts.slots().is_empty());
        }
    }

    #[test]
    fn a_slot_in_doubt_is_silent_and_the_others_are_not() {
        let key = Bytes::from_static(b"k");
        let of_key = Slot::of_key(&key);
        let mut doubts = Doubts::default();
        let read = DiskRequest::Read { ticket: TICKET, slot: of_key, key: key.clone() };
        assert_eq!(doubts.answer(&read), None);
        // A read that meets damage is how the slot gets into doubt.
        let mut reply = DiskReply::Read { ticket: TICKET, lsn: Lsn(1), stored: Stored::Lost };
        doubts.review(Some(of_key), &mut reply);
        assert_eq!(doubts.damaged(), 1);
        let lost = DiskReply::Read { ticket: TICKET, lsn: Lsn(0), stored: Stored::Lost };
        assert_eq!(doubts.answer(&read), Some(lost));
        let list = DiskRequest::List { ticket: TICKET, slot: of_key, after: None, keys_max: 9 };
        assert_eq!(doubts.answer(&list), Some(DiskReply::Listed { ticket: TICKET, page: None }));
        assert_eq!(doubts.answer(&DiskRequest::Mend { ticket: TICKET, slot: of_key }), None);

        let (before, after) = (slot(of_key.get() - 1), slot(of_key.get() + 1));
        let whole = Some(SlotSum { count: 1, sum: 7 });
        let reply =
            |first, last, sums: &[_]| DiskReply::Sums { ticket: TICKET, first, last, sums: sums.to_vec() };
        for held in
            [vec![(before, whole), (of_key, whole), (after, whole)], vec![(before, whole), (after, whole)]]
        {
            let mut sums = reply(before, after, &held);
            doubts.review(None, &mut sums);
            let told = [(before, whole), (of_key, None), (after, whole)];
            assert_eq!(sums, reply(before, after, &told), "whether its sum says that it is empty or not");
        }
        let mut sums = reply(after, after, &[(after, whole)]);
        doubts.review(None, &mut sums);
        assert_eq!(sums, reply(after, after, &[(after, whole)]), "it was not asked for");

        let other = (0..).map(|n: u32| Bytes::from(n.to_string())).find(|key| Slot::of_key(key) != of_key);
        let other = other.unwrap();
        let present = Stored::Present(record(1, b"v"));
        let found = vec![(key.clone(), present.clone()), (other.clone(), present.clone())];
        let mut many = DiskReply::ReadMany { ticket: TICKET, found };
        doubts.review(None, &mut many);
        let found = vec![(key, Stored::Lost), (other.clone(), present)];
        assert_eq!(many, DiskReply::ReadMany { ticket: TICKET, found });

        let mut many = DiskReply::ReadMany { ticket: TICKET, found: vec![(other.clone(), Stored::Lost)] };
        doubts.review(None, &mut many);
        assert!(doubts.slots().contains(&Slot::of_key(&other)));
        assert_eq!(doubts.damaged(), 2);
        assert_ne!(after, before);
    }
}
