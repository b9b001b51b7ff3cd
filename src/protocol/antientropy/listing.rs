//! The keys of one slot with the hashes of their records, gathered page by page.

use bytes::Bytes;

use super::means::{Means, Token};
use crate::protocol::causality::{Record, RecordHash};
use crate::protocol::id::ReapEpoch;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{Page, Stored};
use crate::protocol::wire::exchange::Item;

/// A listing that is being gathered.
#[derive(Debug)]
pub(super) struct Listing {
    slot: Slot,
    entries: Vec<(Bytes, RecordHash)>,
    after: Option<Bytes>,
    token: Option<Token>,
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gathered {
    /// The page belonged to something else.
    Foreign,
    /// There are more pages: call [`Listing::ask`] when it suits.
    More,
    /// All is there; `None` if the slot's contents are not trusted.
    All(Option<Vec<(Bytes, RecordHash)>>),
}

impl Listing {
    /// Nothing is asked yet.
    pub(super) fn new(slot: Slot) -> Listing {
        Listing { slot, entries: Vec::new(), after: None, token: None }
    }

    /// Asks for the next page, unless that was done.
    pub(super) fn ask(&mut self, means: &mut Means<'_>) {
        if self.token.is_none() {
            self.token = Some(means.list(self.slot, self.after.clone()));
        }
    }

    /// Whether it was this listing that asked.
    pub(super) fn awaits(&self, token: Token) -> bool {
        self.token == Some(token)
    }

    /// A page has come.
    pub(super) fn on_page(&mut self, token: Token, page: Option<Page>, means: &mut Means<'_>) -> Gathered {
        if self.token != Some(token) {
            return Gathered::Foreign;
        }
        self.token = None;
        let Some(page) = page else { return Gathered::All(None) };
        means.ledger.charge_listing(means.now, page.entries.len() as u64 + 1);
        self.entries.extend(page.entries);
        self.after = page.next;
        if self.after.is_some() {
            return Gathered::More;
        }
        Gathered::All(Some(std::mem::take(&mut self.entries)))
    }

    /// The slot.
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }
}

/// What can be sent of what was found: a record that is lost is no record, and what has gone meanwhile is gone. The
/// epoch stays zero until reaping exists.
pub(super) fn items(found: Vec<(Bytes, Stored)>) -> Vec<Item> {
    let item = |key: Bytes, record: Record| Item { key, epoch: ReapEpoch::default(), record };
    let present = found.into_iter().filter_map(|(key, stored)| match stored {
        Stored::Present(record) => Some(item(key, record)),
        Stored::Absent | Stored::Lost => None,
    });
    present.collect()
}
