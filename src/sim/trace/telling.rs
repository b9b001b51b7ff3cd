//! What is recorded of the traffic between clients, nodes and disks, and how it is told.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::host;
use super::super::options::Recording;
use super::line::{Line, Topic};
use super::{About, Trace, key_of, key_of_request};
use super::{show_answer, show_disk_reply, show_message, show_record, show_request};
use crate::protocol::causality::Applied;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Stored};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Request};
use crate::protocol::wire::peer::PeerMessage;

/// A message that arrives later than this is told of when it is sent: it is what makes an old world of the new one.
const LATE: u64 = 50_000;

/// What connects replies, which name no key, with what was asked.
#[derive(Default)]
pub(super) struct Threads {
    /// Requests of a host to others: (host, number).
    requests: BTreeMap<(usize, u64), Bytes>,
    /// Requests of a host to its disk: (host, ticket).
    tickets: BTreeMap<(usize, u64), Bytes>,
    /// What the recorded key is on the disk of each host.
    pub(super) holdings: BTreeMap<usize, Holding>,
}

/// What a disk holds of the recorded key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Holding {
    /// In memory, and so for everybody who asks; lost by a crash.
    pub(in super::super) applied: Option<String>,
    /// In the synced log.
    pub(in super::super) durable: Option<String>,
    /// The position through which the log must be synced for the first to become the second.
    due: Option<u64>,
}

/// What became of a message when it was sent.
pub(in super::super) enum Fate {
    Arrives(Moment),
    Lost,
    /// Nobody listens there.
    Unheard,
}

impl Trace {
    /// A client asks a node.
    pub(in super::super) fn asked(&mut self, at: Moment, client: usize, to: usize, request: &Request) {
        let who = || format!("c{} -> {}", client + 1, host::name(to));
        let about = key_of_request(request).map_or(About::Chatter, |key| About::Key(key));
        self.tell(at, about, Topic::Asked, who, || show_request(request));
    }

    /// A node answers a client, on a key if it is known.
    pub(in super::super) fn answered(
        &mut self,
        at: Moment,
        from: usize,
        client: usize,
        key: Option<&Bytes>,
        answer: &Answer,
    ) {
        let who = || format!("{} -> c{}", host::name(from), client + 1);
        let about = key.map_or(About::Chatter, |key| About::Key(key));
        self.tell(at, about, Topic::Answered, who, || show_answer(answer));
    }

    /// A node sends another one a message.
    pub(in super::super) fn sent(
        &mut self,
        at: Moment,
        from: usize,
        to: usize,
        message: &PeerMessage,
        fate: &Fate,
    ) {
        if !self.records_keys() {
            return;
        }
        if let (Some(key), Some(number)) = (key_of(message), number_of(message)) {
            self.threads.requests.insert((from, number), key.clone());
        }
        let key = self.key_in(to, message);
        let about = key.as_ref().map_or(About::Chatter, |key| About::Key(key));
        let who = || format!("{} -> {}", host::name(from), host::name(to));
        self.tell(at, about, Topic::Sent, who, || {
            let fate = match fate {
                Fate::Lost => ", lost".to_owned(),
                Fate::Unheard => format!(", lost: {} is down", host::name(to)),
                Fate::Arrives(arrival) if arrival.0 > at.0 + LATE => {
                    format!(", under way for {} ms", (arrival.0 - at.0) / 1_000)
                }
                Fate::Arrives(_) => String::new(),
            };
            format!("{}{fate}", show_message(message))
        });
    }

    /// A node receives a message of another one.
    pub(in super::super) fn received(
        &mut self,
        at: Moment,
        to: usize,
        from: Option<usize>,
        message: &PeerMessage,
    ) {
        if !self.records_keys() {
            return;
        }
        let key = key_of(message).cloned().or_else(|| self.key_in(to, message));
        let about = key.as_ref().map_or(About::Chatter, |key| About::Key(key));
        let who = || format!("{} <- {}", host::name(to), from.map_or("?".to_owned(), host::name));
        self.tell(at, about, Topic::Received, who, || show_message(message));
    }

    /// A node asks its disk.
    pub(in super::super) fn disk_asked(&mut self, index: usize, request: &DiskRequest) {
        if !self.records_keys() {
            return;
        }
        if let DiskRequest::Update { ticket, key, .. } | DiskRequest::Read { ticket, key, .. } = request {
            self.threads.tickets.insert((index, ticket.0), key.clone());
        }
    }

    /// A disk replies.
    pub(in super::super) fn disk_replied(&mut self, at: Moment, index: usize, reply: &DiskReply) {
        if !self.records_keys() {
            return;
        }
        let key = match reply {
            DiskReply::Applied { ticket, .. } | DiskReply::Read { ticket, .. } => {
                self.threads.tickets.remove(&(index, ticket.0))
            }
            _ => None,
        };
        let about = key.as_ref().map_or(About::Chatter, |key| About::Key(key));
        let is_recorded = matches!(self.recording, Recording::Key(_)) && self.wants(&about);
        self.tell(at, about, Topic::Disk, || host::name(index), || show_disk_reply(reply));
        if is_recorded {
            self.threads.holdings.entry(index).or_default().learn(reply);
        }
        if let DiskReply::Durable { through } = reply
            && let Some(holding) = self.threads.holdings.get_mut(&index)
            && let Some(text) = holding.synced(through.0)
        {
            let line = Line { at, who: host::name(index), topic: Topic::Disk, text };
            self.lines.push(line);
        }
    }

    /// A host crashes, or its node stops: what was not durable is gone, or is at least not known to be there.
    pub(in super::super) fn disk_closed(&mut self, index: usize) {
        self.threads.tickets.retain(|(host, _), _| *host != index);
        self.threads.requests.retain(|(host, _), _| *host != index);
        if let Some(holding) = self.threads.holdings.get_mut(&index) {
            holding.applied = None;
            holding.due = None;
        }
    }

    /// What each host is known to hold of the recorded key.
    pub(in super::super) fn holdings(&self) -> Vec<(usize, Holding)> {
        self.threads.holdings.iter().map(|(host, holding)| (*host, holding.clone())).collect()
    }

    /// The key of the request to which a message is the reply, among those of `asker`.
    fn key_in(&self, asker: usize, message: &PeerMessage) -> Option<Bytes> {
        if let Some(key) = key_of(message) {
            return Some(key.clone());
        }
        self.threads.requests.get(&(asker, number_of(message)?)).cloned()
    }
}

impl Holding {
    fn learn(&mut self, reply: &DiskReply) {
        let (lsn, record) = match reply {
            DiskReply::Applied { lsn, applied, .. } => match applied {
                Applied::Changed { record, .. }
                | Applied::Unchanged { record }
                | Applied::Adopted { record, .. } => (lsn, show_record(record)),
                Applied::Refused(_) => return,
            },
            DiskReply::Read { lsn, stored: Stored::Present(record), .. } => (lsn, show_record(record)),
            DiskReply::Read { lsn, stored: Stored::Absent, .. } => (lsn, "nothing".to_owned()),
            _ => return,
        };
        if self.applied.as_ref() != Some(&record) {
            self.due = (self.durable.as_ref() != Some(&record)).then_some(lsn.0);
            self.applied = Some(record);
        }
    }

    /// The log is synced up to there. Returns what is to be said of that.
    fn synced(&mut self, through: u64) -> Option<String> {
        self.due.take_if(|due| *due <= through)?;
        self.durable.clone_from(&self.applied);
        self.durable.as_ref().filter(|held| *held != "nothing").map(|held| format!("disk: durable, {held}"))
    }
}

/// The number by which a request and its reply know each other; `None` for what expects no reply.
fn number_of(message: &PeerMessage) -> Option<u64> {
    let request = match message {
        PeerMessage::Replicate { request, .. }
        | PeerMessage::Stored { request, .. }
        | PeerMessage::Fetch { request, .. }
        | PeerMessage::Fetched { request, .. }
        | PeerMessage::Refused { request, .. }
        | PeerMessage::Forward { request, .. }
        | PeerMessage::Forwarded { request, .. } => request.0,
        _ => return None,
    };
    (request != 0).then_some(request)
}
