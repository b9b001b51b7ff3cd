//! Which reads a node runs, what each of them was told, and whether it was answered accordingly.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Opened;
use crate::protocol::causality::Record;
use crate::protocol::id::{NodeId, RequestId, SessionId};
use crate::protocol::storage::op::Ticket;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, ReadAnswer, Request};
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
    /// Whether what is being handled can make a read ask more owners than it began with. What is asked of others at any other
    /// time is asked for something else.
    may_ask_more: bool,
    /// Whether it can make reads begin anew, since the owners are under another digest. Which of those that are asked then
    /// began it cannot be seen.
    may_begin_anew: bool,
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
        self.may_ask_more = false;
        self.may_begin_anew = false;
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

    /// The node handles something that can make its reads ask more owners: a deadline, a refusal, a record that is lost.
    pub(super) fn may_ask_more(&mut self) {
        self.may_ask_more = true;
    }

    /// The node handles something after which another ring may be in force for it.
    pub(super) fn may_begin_anew(&mut self) {
        self.may_begin_anew = true;
    }

    fn begin_anew(&mut self, key: &Bytes) {
        if self.may_begin_anew {
            let these = self.waiting.iter_mut().filter(|waiting| waiting.key == *key);
            these.for_each(|waiting| waiting.is_unclear = true);
        }
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
        self.begin_anew(key);
        if let Some(begun) = self.beginning.as_mut().filter(|begun| begun.key == *key) {
            begun.ticket = Some(ticket);
        }
    }

    /// The node asks another owner.
    pub(super) fn fetches(&mut self, request: RequestId, key: &Bytes) {
        self.begin_anew(key);
        let is_new = self.numbers.insert(request);
        if let Some(begun) = &mut self.beginning {
            begun.request = Some(request);
        } else if is_new && self.may_ask_more {
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
        let Answer::Read(read) = answer else { return None };
        // A message that came twice has begun two reads of one origin, and this is the answer of one of them. The first
        // answer has to fit any; of what is left nobody can tell any more which answer is whose.
        let (mut these, others): (Vec<Waiting>, Vec<Waiting>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.origin == origin);
        self.waiting = others;
        let (key, since) = these.first().map(|waiting| (waiting.key.clone(), waiting.since))?;
        let wrong = if read.available { wrong_with(&these, read, &key, opened) } else { None };
        these.truncate(these.len() - 1);
        self.waiting.extend(these.into_iter().map(|waiting| Waiting { is_unclear: true, ..waiting }));
        wrong.map(|evidence| (key, since, evidence))
    }
}

/// What is wrong with the answer, if it fits none of these reads.
fn wrong_with(these: &[Waiting], read: &ReadAnswer, key: &Bytes, opened: Opened<'_>) -> Option<String> {
    if these.iter().any(|waiting| waiting.is_unclear) {
        return None;
    }
    let context =
        match read.context.as_ref().zip(opened).map(|(token, secret)| token.open(key, secret)).transpose() {
            Ok(context) => context,
            Err(error) => return Some(format!("the context in the answer does not open: {error}")),
        };
    let mut told: Vec<String> = Vec::new();
    for waiting in these {
        told.push(waiting.replies.judge(read, context.as_ref())?);
    }
    told.into_iter().next()
}
