//! What happened in a run: a hash of everything, and lines for people if they are wanted.

use std::fmt::Write as _;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::options::Recording;
use crate::protocol::causality::Record;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Stored};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Request};
use crate::protocol::wire::peer::PeerMessage;

/// One line of the story of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in virtual time.
    pub at: Moment,
    /// What, for people.
    pub text: String,
}

/// What a line is about.
pub(super) enum About<'a> {
    /// Everybody: a fault, a start, a stop.
    All,
    /// One key.
    Key(&'a [u8]),
    /// Nothing that a single key would show.
    Chatter,
}

/// Hashes everything, records what is wanted.
pub(super) struct Trace {
    hasher: Xxh3,
    recording: Recording,
    pub(super) lines: Vec<Line>,
    scratch: Vec<u8>,
}

impl Trace {
    pub(super) fn new(recording: Recording) -> Trace {
        Trace { hasher: Xxh3::new(), recording, lines: Vec::new(), scratch: Vec::new() }
    }

    /// Takes an event into the hash: its kind, where, when.
    pub(super) fn event(&mut self, at: Moment, kind: u8, place: usize, number: u64) {
        let mut bytes = [0; 25];
        bytes[0] = kind;
        bytes[1..9].copy_from_slice(&at.0.to_le_bytes());
        bytes[9..17].copy_from_slice(&(place as u64).to_le_bytes());
        bytes[17..25].copy_from_slice(&number.to_le_bytes());
        self.hasher.update(&bytes);
    }

    /// Takes a message into the hash, in the form in which it would travel. Gives back those bytes.
    pub(super) fn content<T: serde::Serialize>(&mut self, content: &T) -> &[u8] {
        self.scratch.clear();
        crate::protocol::codec::encode_into(content, &mut self.scratch);
        self.hasher.update(&self.scratch);
        &self.scratch
    }

    /// Records a line, if anybody wants it.
    pub(super) fn line(&mut self, at: Moment, about: About<'_>, text: impl FnOnce() -> String) {
        let wanted = match (&self.recording, about) {
            (Recording::Nothing, _) => false,
            (Recording::Everything, _) | (_, About::All) => true,
            (Recording::Key(wanted), About::Key(key)) => wanted == key,
            _ => false,
        };
        if wanted {
            self.lines.push(Line { at, text: text() });
        }
    }

    /// The hash of everything so far.
    pub(super) fn hash(&self) -> u64 {
        self.hasher.digest()
    }
}

/// The key that a message is about, if it is about one.
pub(super) fn key_of(message: &PeerMessage) -> Option<&Bytes> {
    match message {
        PeerMessage::Replicate { key, .. }
        | PeerMessage::Fetch { key, .. }
        | PeerMessage::Hint { key, .. } => Some(key),
        PeerMessage::Forward { ask, .. } => key_of_request(ask),
        _ => None,
    }
}

/// The key that a request is about, if it is about one.
pub(super) fn key_of_request(request: &Request) -> Option<&Bytes> {
    match request {
        Request::Write(write) => Some(&write.key),
        Request::Read(read) => Some(&read.key),
        Request::Explain { key } => Some(key),
        _ => None,
    }
}

/// A key as text.
pub(super) fn show_key(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The siblings of a record.
pub(super) fn show_record(record: &Record) -> String {
    let mut text = String::from("[");
    for (index, sibling) in record.siblings().iter().enumerate() {
        let separator = if index == 0 { "" } else { " " };
        let value = sibling.value.as_ref().map_or("deleted".to_owned(), |value| show_key(value));
        let _ = write!(text, "{separator}{value}@{:04x}", sibling.dot.actor.0 >> 48);
    }
    text + "]"
}

/// A message in a few words.
pub(super) fn show_message(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Hello(_) => "hello".to_owned(),
        PeerMessage::Replicate { request, key, record, .. } => {
            format!("replicate #{} {} {}", request.0, show_key(key), show_record(record))
        }
        PeerMessage::Stored { request, .. } => format!("stored #{}", request.0),
        PeerMessage::Fetch { request, key, .. } => format!("fetch #{} {}", request.0, show_key(key)),
        PeerMessage::Fetched { request, record, .. } => {
            format!("fetched #{} {}", request.0, record.as_ref().map_or("absent".to_owned(), show_record))
        }
        PeerMessage::Refused { request, reason } => format!("refused #{} {reason:?}", request.0),
        PeerMessage::Forward { request, ask, .. } => format!("forward #{} {}", request.0, show_request(ask)),
        PeerMessage::Forwarded { request, answer } => {
            format!("forwarded #{} {}", request.0, show_answer(answer))
        }
        PeerMessage::Gossip(gossip) => format!("gossip {gossip:?}"),
        PeerMessage::Hint { request, target, key, record, .. } => {
            format!("hint #{} for {target} {} {}", request.0, show_key(key), show_record(record))
        }
        PeerMessage::Hinted { request } => format!("hinted #{}", request.0),
        PeerMessage::AskHints { slots } => format!("any hints of {} slots?", slots.len()),
        PeerMessage::NoHints { slots } => format!("no hints of {} slots", slots.len()),
    }
}

/// A request in a few words.
pub(super) fn show_request(request: &Request) -> String {
    match request {
        Request::Write(write) => format!(
            "{} {} {} (operation {:04x}, attempt {}, {}, w={:?})",
            if write.value.is_some() { "put" } else { "delete" },
            show_key(&write.key),
            write.value.as_ref().map_or(String::new(), |value| show_key(value)),
            write.operation.nonce >> 48,
            write.attempt,
            if write.context.is_some() { "with a context" } else { "blind" },
            write.w,
        ),
        Request::Read(read) => format!("get {} r={:?}", show_key(&read.key), read.r),
        Request::Explain { key } => format!("explain {}", show_key(key)),
        other => format!("{other:?}"),
    }
}

/// An answer in a few words.
pub(super) fn show_answer(answer: &Answer) -> String {
    match answer {
        Answer::Written(written) => format!(
            "{:?}, {} sibling(s), acks {}{}",
            written.outcome,
            written.siblings,
            written.acks.len(),
            written.problem.as_ref().map_or(String::new(), |problem| format!(", {}", problem.code.name())),
        ),
        Answer::Read(read) if read.available => {
            let values: Vec<String> =
                read.values.iter().filter_map(|s| s.value.as_ref()).map(|value| show_key(value)).collect();
            format!("[{}]{}", values.join(" "), if read.deleted { " deleted" } else { "" })
        }
        Answer::Read(read) => {
            format!(
                "unavailable{}",
                read.problem.as_ref().map_or(String::new(), |p| format!(": {}", p.message))
            )
        }
        Answer::Refused(problem) => format!("refused, {}: {}", problem.code.name(), problem.message),
        Answer::Explained(explanation) => {
            let owners: Vec<String> = explanation
                .replicas
                .iter()
                .map(|replica| match &replica.record {
                    Ok(Some(record)) => show_record(record),
                    Ok(None) => "absent".to_owned(),
                    Err(problem) => problem.code.name().to_owned(),
                })
                .collect();
            owners.join(" | ")
        }
        other => format!("{other:?}"),
    }
}

/// What a node asks of its disk, in a few words, with the key if it is about one.
pub(super) fn show_disk_request(request: &DiskRequest) -> Option<(&Bytes, &'static str)> {
    match request {
        DiskRequest::Update { key, .. } => Some((key, "disk: update")),
        DiskRequest::Read { key, .. } => Some((key, "disk: read")),
        DiskRequest::Remove { key, .. } => Some((key, "disk: remove")),
        DiskRequest::Meta { .. } => None,
    }
}

/// What a disk answered, in a few words.
pub(super) fn show_disk_reply(reply: &DiskReply) -> String {
    match reply {
        DiskReply::Applied { lsn, applied, .. } => {
            use crate::protocol::causality::Applied;
            let outcome = match applied {
                Applied::Changed { record, amnesia } => {
                    format!("changed to {}{}", show_record(record), if *amnesia { ", amnesia" } else { "" })
                }
                Applied::Unchanged { record } => format!("unchanged {}", show_record(record)),
                Applied::Adopted { record, .. } => format!("done before {}", show_record(record)),
                Applied::Refused(refusal) => format!("refused, {refusal}"),
            };
            format!("disk: {outcome}, durable with {}", lsn.0)
        }
        DiskReply::Read { lsn, stored, .. } => match stored {
            Stored::Absent => "disk: absent".to_owned(),
            Stored::Present(record) => format!("disk: holds {}, durable with {}", show_record(record), lsn.0),
            Stored::Lost => "disk: lost".to_owned(),
        },
        DiskReply::Removed { lsn, is_gone: true, .. } => format!("disk: removed, durable with {}", lsn.0),
        DiskReply::Removed { .. } => "disk: not removed, since it has changed".to_owned(),
        DiskReply::MetaApplied { lsn, .. } => format!("disk: state replaced, durable with {}", lsn.0),
        DiskReply::Durable { through } => format!("disk: durable through {}", through.0),
    }
}
