//! A stand-in's hints after a start: found again by looking what lies in slots of others.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::desk::Errand;
use super::scope::Scope;
use crate::protocol::ring::slot::{SLOTS, Slot};
use crate::protocol::storage::op::{DiskReply, DiskRequest, Page, Stored};
use crate::protocol::storage::sums::SlotSum;
use crate::protocol::time::Moment;

/// So many slots are asked about at once.
const SLOTS_AT_ONCE: u16 = 1_024;

/// So many keys are listed at once.
const KEYS_AT_ONCE: usize = 256;

/// No further record is read at once after so many bytes.
const BYTES_AT_ONCE: u64 = 256 << 10;

/// When a slot is asked about again whose contents the own disk does not trust yet.
const TRUST_AFTER: Duration = Duration::from_secs(1);

/// The search for the hints of former lives of this node, in the background, one question to the disk at a time.
///
/// ```text
/// all slots ──Sums──▶ those of others that hold something ──List──▶ their keys ──ReadMany──▶ hints
/// ```
///
/// Until it is over nobody is told that this node keeps no hints.
#[derive(Debug, Default)]
pub struct Recount {
    /// What is still to be looked at, in order; nothing when the search is over.
    todo: VecDeque<Step>,
    is_asked: bool,
    due: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// What the slots from here on hold.
    Sum(Slot),
    /// The keys of a slot, behind this one.
    List(Slot, Option<Bytes>),
    /// The records of these keys of a slot.
    Read(Slot, Vec<Bytes>),
}

impl Recount {
    /// One that has everything before it.
    pub(super) fn due() -> Recount {
        let firsts = (0..SLOTS).step_by(usize::from(SLOTS_AT_ONCE));
        let todo = firsts.filter_map(|first| Slot::new(first).ok()).map(Step::Sum).collect();
        Recount { todo, is_asked: false, due: Moment::default() }
    }

    /// Whether every hint of former lives is known.
    pub(super) fn is_over(&self) -> bool {
        self.todo.is_empty()
    }

    /// When [`tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Moment {
        if self.is_over() || self.is_asked { Moment::NEVER } else { self.due }
    }
}

/// Asks the next question, if the node's account of repairs allows it.
pub fn tick(scope: &mut Scope<'_>) {
    let now = scope.now.monotonic;
    if now < scope.hints.recount.next_deadline() {
        return;
    }
    let opens_at = scope.ledger.opens_at(now);
    let recount = &mut scope.hints.recount;
    if opens_at > now {
        recount.due = opens_at;
        return;
    }
    let Some(step) = recount.todo.front().cloned() else { return };
    recount.is_asked = true;
    let question = |ticket| match step {
        Step::Sum(first) => {
            let last = Slot::new((first.get() + (SLOTS_AT_ONCE - 1)).min(SLOTS - 1)).unwrap_or(first);
            DiskRequest::Sums { ticket, first, last }
        }
        Step::List(slot, after) => DiskRequest::List { ticket, slot, after, keys_max: KEYS_AT_ONCE },
        Step::Read(_, keys) => DiskRequest::ReadMany { ticket, keys, bytes_max: BYTES_AT_ONCE },
    };
    scope.desk.ask(Errand::Recount, question, scope.out);
}

/// The own disk has answered.
pub fn on_reply(reply: DiskReply, scope: &mut Scope<'_>) {
    let recount = &mut scope.hints.recount;
    recount.is_asked = false;
    let Some(step) = recount.todo.pop_front() else { return };
    match (step, reply) {
        (Step::Sum(_), DiskReply::Sums { sums, .. }) => on_sums(sums, scope),
        (Step::List(slot, _), DiskReply::Listed { page: Some(page), .. }) => on_page(slot, page, scope),
        (Step::Read(slot, keys), DiskReply::ReadMany { found, .. }) => on_found(slot, keys, found, scope),
        // The own disk does not trust the slot, and finds out what is in it.
        (step, _) => {
            recount.todo.push_back(step);
            recount.due = scope.now.monotonic + TRUST_AFTER;
            return;
        }
    }
    tick(scope);
}

fn on_sums(sums: Vec<(Slot, Option<SlotSum>)>, scope: &mut Scope<'_>) {
    for (slot, sum) in sums {
        let is_foreign = !scope.view.slot(slot).is_owner(scope.own);
        if is_foreign && sum.is_none_or(|sum| sum.count > 0) {
            scope.hints.recount.todo.push_back(Step::List(slot, None));
        }
    }
}

fn on_page(slot: Slot, page: Page, scope: &mut Scope<'_>) {
    scope.ledger.charge_listing(scope.now.monotonic, page.entries.len() as u64);
    let keys: Vec<Bytes> = page.entries.into_iter().map(|(key, _)| key).collect();
    let todo = &mut scope.hints.recount.todo;
    if page.next.is_some() {
        todo.push_front(Step::List(slot, page.next));
    }
    if !keys.is_empty() {
        todo.push_front(Step::Read(slot, keys));
    }
}

fn on_found(slot: Slot, mut keys: Vec<Bytes>, found: Vec<(Bytes, Stored)>, scope: &mut Scope<'_>) {
    scope.ledger.charge_listing(scope.now.monotonic, found.len() as u64);
    keys.drain(..found.len().max(1).min(keys.len()));
    if !keys.is_empty() {
        scope.hints.recount.todo.push_front(Step::Read(slot, keys));
    }
    let mut doubted = Vec::new();
    for (key, stored) in found {
        let place = (slot, key);
        match stored {
            // What has come or was brought to its owners since the start is known already.
            Stored::Present(record)
                if !scope.hints.held.contains_key(&place) && !scope.view.slot(slot).is_owner(scope.own) =>
            {
                scope.hints.keep(place, None, record.encoded_len());
            }
            Stored::Lost => doubted.push(place.1),
            Stored::Present(_) | Stored::Absent => {}
        }
    }
    // The own disk doubts the slot. When it has dropped what it cannot read, the rest can be looked at.
    if !doubted.is_empty() {
        scope.hints.recount.todo.push_back(Step::Read(slot, doubted));
        scope.hints.recount.due = scope.now.monotonic + TRUST_AFTER;
    }
}

#[cfg(test)]
mod tests;
