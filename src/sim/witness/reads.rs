//! Which reads a node runs, what each of them was told, and whether it was answered accordingly.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Opened;
use crate::protocol::causality::Record;
use crate::protocol::id::{NodeId, RequestId, SessionId};
use crate::protocol::storage::op::Ticket;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Request};
use crate::sim::invariants::exact_siblings::reads::Replies;

/// Who waits for the answer of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Origin {
    /// A client.
    Client(SessionId, u64),
    /// A node that passed the read on.
    Node(NodeId, RequestId),
}

/// The reads that one node runs.
///
/// Which of the node's messages belong to which read is seen from the input that they answer: the node begins a read in one
/// step, with a question to its own disk, to other owners, or to both. Only a read of one owner may begin without a
/// number that others see; when such a read asks others later, and several wait that could be the one, it is left alone.
#[derive(Default)]
pub(super) struct Reads {
    own: Option<NodeId>,
    waiting: Vec<Waiting>,
    /// The read whose input is being handled, if it is one.
    beginning: Option<Waiting>,
    numbers: BTreeSet<RequestId>,
}

#[derive(Clone, Debug)]
struct Waiting {
    origin: Origin,
    key: Bytes,
    since: Moment,
    ticket: Option<Ticket>,
    request: Option<RequestId>,
    /// It may have asked others under a number that is not known.
    is_unclear: bool,
    replies: Replies,
}

impl Reads {
    pub(super) fn of(own: NodeId) -> Reads {
        Reads { own: Some(own), ..Reads::default() }
    }

    /// The node handles a new input.
    pub(super) fn begin(&mut self, read: Option<(Origin, &Bytes, usize, Moment)>) {
        if let Some(begun) = self.beginning.take()
            && (begun.ticket.is_some() || begun.request.is_some())
        {
            self.waiting.push(begun);
        }
        self.beginning = read.map(|(origin, key, needed, since)| Waiting {
            origin,
            key: key.clone(),
            since,
            ticket: None,
            request: None,
            is_unclear: false,
            replies: Replies::new(needed),
        });
    }

    pub(super) fn asked_by_client(
        &mut self,
        session: SessionId,
        id: u64,
        request: &Request,
        owners: usize,
        now: Moment,
    ) {
        if let Request::Read(read) = request {
            self.begin(Some((Origin::Client(session, id), &read.key, read.r.of(owners), now)));
        }
    }

    pub(super) fn asked_by_node(
        &mut self,
        node: NodeId,
        request: RequestId,
        ask: &Request,
        owners: usize,
        now: Moment,
    ) {
        if let Request::Read(read) = ask {
            self.begin(Some((Origin::Node(node, request), &read.key, read.r.of(owners), now)));
        }
    }

    /// The node asks its own disk.
    pub(super) fn reads_own(&mut self, ticket: Ticket, key: &Bytes) {
        if let Some(begun) = self.beginning.as_mut().filter(|begun| begun.key == *key) {
            begun.ticket = Some(ticket);
        }
    }

    /// The node asks another owner.
    pub(super) fn fetches(&mut self, request: RequestId, key: &Bytes) {
        let is_new = self.numbers.insert(request);
        if let Some(begun) = &mut self.beginning {
            begun.request = Some(request);
        } else if is_new {
            let mut nameless: Vec<&mut Waiting> =
                self.waiting.iter_mut().filter(|w| w.key == *key && w.request.is_none()).collect();
            if let [only] = &mut nameless[..] {
                only.request = Some(request);
            } else {
                nameless.into_iter().for_each(|waiting| waiting.is_unclear = true);
            }
        }
    }

    /// The own disk told what it holds.
    pub(super) fn own_read(&mut self, ticket: Ticket, record: Option<&Record>) {
        let Some(own) = self.own else { return };
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ticket == Some(ticket)) {
            waiting.replies.came(own, record);
        }
    }

    /// An owner told what it holds. Gives back the key, if a read waits for that.
    pub(super) fn fetched(
        &mut self,
        from: NodeId,
        request: RequestId,
        record: Option<&Record>,
    ) -> Option<Bytes> {
        let waiting = self.waiting.iter_mut().find(|waiting| waiting.request == Some(request))?;
        waiting.replies.came(from, record);
        Some(waiting.key.clone())
    }

    /// The node answers. Gives back the key, when the read began and what is wrong with the answer, if anything is.
    pub(super) fn answered(
        &mut self,
        origin: Origin,
        answer: &Answer,
        opened: Opened<'_>,
    ) -> Option<(Bytes, Moment, String)> {
        let is_it = |waiting: &Waiting| waiting.origin == origin;
        let first = self.waiting.iter().position(is_it)?;
        let Answer::Read(read) = answer else { return None };
        if !read.available {
            self.waiting.swap_remove(first);
            return None;
        }
        let key = self.waiting[first].key.clone();
        let since = self.waiting[first].since;
        let context = match read.context.as_ref().zip(opened).map(|(token, secret)| token.open(&key, secret))
        {
            None => None,
            Some(Ok(context)) => Some(context),
            Some(Err(error)) => {
                self.waiting.swap_remove(first);
                return Some((key, since, format!("the context in the answer does not open: {error}")));
            }
        };
        // A message that came twice has begun two reads of one origin: the answer is that of one of them.
        let mut wrong = None;
        for at in (0..self.waiting.len()).filter(|&at| is_it(&self.waiting[at])) {
            let waiting = &self.waiting[at];
            match waiting.replies.judge(read, context.as_ref()) {
                Some(_) if waiting.is_unclear => {}
                Some(evidence) => {
                    wrong.get_or_insert(evidence);
                    continue;
                }
                None => {}
            }
            self.waiting.swap_remove(at);
            return None;
        }
        self.waiting.swap_remove(first);
        wrong.map(|evidence| (key, since, evidence))
    }
}
