//! Answering an owner that refills slots which it has no vote for.
//!
//! Nothing is remembered from one question to the next: each is answered from what the own store holds now. That the
//! question was accepted at all means that both sides believe in the same amnesia generation; from then on this node
//! acknowledges nothing to whoever believes in an older one, and what it acknowledged before is in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc as Shared;

use bytes::Bytes;

use super::listing::items;
use super::means::{Ask, Means, RECORDS_AT_ONCE, Token};
use super::tree::{SlotSums, whole_mark};
use crate::protocol::id::NodeId;
use crate::protocol::ring::arc::Arc;
use crate::protocol::ring::common::Common;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{Page, Stored};
use crate::protocol::storage::trust::Standing;
use crate::protocol::wire::exchange::{Exchange, Item, Mark, QuestionId, Salt};

/// What is being answered, by what was asked of the own disk.
#[derive(Debug, Default)]
pub(super) struct Supplies(BTreeMap<Token, Supply>);

#[derive(Debug)]
struct Supply {
    to: NodeId,
    id: QuestionId,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Weighing { salt: Salt, common: Shared<Common>, slots: Vec<(Slot, Mark)> },
    Listing { salt: Salt, slot: Slot, held: BTreeSet<Mark> },
    Reading { slot: Slot, keys: Vec<Bytes>, next: Option<Bytes> },
}

impl Supplies {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether it was this that asked the own disk.
    pub(super) fn awaits(&self, token: Token) -> bool {
        self.0.contains_key(&token)
    }

    /// One question of each owner is answered at a time: it asks a new one when it has given up the last.
    fn put(&mut self, token: Token, supply: Supply) {
        self.0.retain(|_, other| other.to != supply.to);
        self.0.insert(token, supply);
    }

    /// Begins to weigh slots.
    pub(super) fn weigh(
        &mut self,
        to: NodeId,
        id: QuestionId,
        salt: Salt,
        common: Shared<Common>,
        slots: Vec<(Slot, Mark)>,
        means: &mut Means<'_>,
    ) {
        let numbers = || slots.iter().map(|(slot, _)| *slot);
        let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else { return };
        let token = means.ask(Ask::Sums(first, last));
        self.put(token, Supply { to, id, work: Work::Weighing { salt, common, slots } });
    }

    /// Begins to look what a slot holds.
    #[expect(clippy::too_many_arguments, reason = "the parts of one message, and who sent it")]
    pub(super) fn draw(
        &mut self,
        to: NodeId,
        id: QuestionId,
        salt: Salt,
        slot: Slot,
        after: Option<Bytes>,
        held: Vec<Mark>,
        means: &mut Means<'_>,
    ) {
        let token = means.list(slot, after);
        let work = Work::Listing { salt, slot, held: held.into_iter().collect() };
        self.put(token, Supply { to, id, work });
    }

    /// Says that nothing can be said of a slot.
    pub(super) fn decline(to: NodeId, id: QuestionId, means: &mut Means<'_>) {
        means.send(to, Exchange::Drawn { id, items: Vec::new(), next: None, is_whole: false });
    }

    /// The own sums have come.
    pub(super) fn on_sums(
        &mut self,
        token: Token,
        sums: &SlotSums,
        standing: impl Fn(Slot) -> Standing,
        means: &mut Means<'_>,
    ) {
        let Some(Supply { to, id, work: Work::Weighing { salt, common, slots } }) = self.0.remove(&token)
        else {
            return;
        };
        let (mut differing, mut voteless, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        let mut epochs = Vec::new();
        for (slot, theirs) in slots {
            let standing = standing(slot);
            if standing == Standing::Closed || !common.has(slot) || sums.get(slot).is_none() {
                closed.push(slot);
                continue;
            }
            epochs.push((slot, Default::default()));
            if standing == Standing::Refilling {
                voteless.push(slot);
            }
            if sums.mark(Arc::of_slot(slot), &common, salt) != theirs {
                differing.push(slot);
            }
        }
        means.send(to, Exchange::Weighed { id, differing, voteless, closed, epochs });
    }

    /// A page of an own slot has come.
    pub(super) fn on_page(&mut self, token: Token, page: Option<Page>, means: &mut Means<'_>) {
        let Some(Supply { to, id, work: Work::Listing { salt, slot, held } }) = self.0.remove(&token) else {
            return;
        };
        let Some(Page { entries, mut next }) = page else { return Supplies::decline(to, id, means) };
        means.ledger.charge_listing(means.now, entries.len() as u64 + 1);
        let lacks = |hash| !held.contains(&whole_mark(hash, salt));
        let mut keys: Vec<Bytes> =
            entries.into_iter().filter(|(_, hash)| lacks(*hash)).map(|(key, _)| key).collect();
        if keys.len() > RECORDS_AT_ONCE {
            keys.truncate(RECORDS_AT_ONCE);
            next = keys.last().cloned();
        }
        if keys.is_empty() {
            means.send(to, Exchange::Drawn { id, items: Vec::new(), next, is_whole: true });
            return;
        }
        let token = means.read(&keys);
        self.put(token, Supply { to, id, work: Work::Reading { slot, keys, next } });
    }

    /// Records have been read.
    pub(super) fn on_read(
        &mut self,
        token: Token,
        found: Vec<(Bytes, Stored)>,
        standing: impl Fn(Slot) -> Standing,
        means: &mut Means<'_>,
    ) {
        let Some(Supply { to, id, work: Work::Reading { slot, keys, mut next } }) = self.0.remove(&token)
        else {
            return;
        };
        if standing(slot) == Standing::Closed || found.iter().any(|(_, stored)| *stored == Stored::Lost) {
            return Supplies::decline(to, id, means);
        }
        if found.len() < keys.len() {
            next = found.last().map(|(key, _)| key.clone());
        }
        let items: Vec<Item> = items(found);
        means.counts.keys_sent += items.len() as u64;
        means.ledger.charge(means.now, items.len() as u64, 0);
        means.send(to, Exchange::Drawn { id, items, next, is_whole: true });
    }
}
