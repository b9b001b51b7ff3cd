//! What happened in a run: a hash of everything, and lines for people if they are wanted.

mod line;
mod telling;

use std::fmt::Write as _;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::options::Recording;
use crate::protocol::causality::Record;
use crate::protocol::id::RequestId;
use crate::protocol::storage::op::{DiskReply, DoubtReason, Stored};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Level, Outcome, Request};
use crate::protocol::wire::exchange::Exchange;
use crate::protocol::wire::peer::PeerMessage;
use crate::protocol::wire::reap::Reap;

pub use line::{Line, Topic};
pub(super) use telling::{Fate, Holding};

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
    /// The fault that the next line about everybody tells of.
    fault: Option<u32>,
    threads: telling::Threads,
}

impl Trace {
    pub(super) fn new(recording: Recording) -> Trace {
        Trace {
            hasher: Xxh3::new(),
            recording,
            lines: Vec::new(),
            scratch: Vec::new(),
            fault: None,
            threads: telling::Threads::default(),
        }
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

    /// The next line about everybody tells of the fault with this number, or of none.
    pub(super) fn fault(&mut self, number: Option<u32>) {
        self.fault = number;
    }

    /// Records a line, if anybody wants it.
    pub(super) fn line(&mut self, at: Moment, about: About<'_>, text: impl FnOnce() -> String) {
        let fault = if matches!(about, About::All) { self.fault.take() } else { None };
        if self.wants(&about) {
            let text = match fault {
                Some(number) => format!("{}  (fault {number})", text()),
                None => text(),
            };
            let topic = if matches!(about, About::All) { Topic::Fault } else { Topic::Other };
            self.lines.push(Line::told(at, topic, text));
        }
    }

    /// Records a line of some topic, if anybody wants it.
    fn tell(
        &mut self,
        at: Moment,
        about: About<'_>,
        topic: Topic,
        who: impl FnOnce() -> String,
        text: impl FnOnce() -> String,
    ) {
        if self.wants(&about) {
            self.lines.push(Line { at, who: who(), topic, text: text() });
        }
    }

    fn wants(&self, about: &About<'_>) -> bool {
        match (&self.recording, about) {
            (Recording::Nothing, _) => false,
            (Recording::Everything, _) | (_, About::All) => true,
            (Recording::Key(wanted), About::Key(key)) => wanted == key,
            _ => false,
        }
    }

    /// Whether what touches a single key may be wanted.
    fn records_keys(&self) -> bool {
        matches!(self.recording, Recording::Key(_) | Recording::Everything)
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

/// How many owners were asked for.
fn show_level(level: Level) -> String {
    match level {
        Level::One => "one".to_owned(),
        Level::Majority => "majority".to_owned(),
        Level::All => "all".to_owned(),
        Level::Count(count) => count.to_string(),
    }
}

/// The last digits of the number of a request: enough to tell it from the others. Repairs have none.
fn number(request: RequestId) -> String {
    if request.0 == 0 { ", as repair,".to_owned() } else { format!(" #{:03x}", request.0 & 0xfff) }
}

/// A message in a few words.
pub(super) fn show_message(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Hello(_) => "hello".to_owned(),
        PeerMessage::Replicate { request, key, record, .. } => {
            format!("replicate{} {} {}", number(*request), show_key(key), show_record(record))
        }
        PeerMessage::Stored { request, .. } => format!("stored{}", number(*request)),
        PeerMessage::Fetch { request, key, .. } => format!("fetch{} {}", number(*request), show_key(key)),
        PeerMessage::Fetched { request, record, .. } => {
            let held = record.as_ref().map_or("nothing".to_owned(), show_record);
            format!("fetched{} {held}", number(*request))
        }
        PeerMessage::Refused { request, reason } => format!("refused{} {reason:?}", number(*request)),
        PeerMessage::Forward { request, ask, .. } => {
            format!("forward{} {}", number(*request), show_request(ask))
        }
        PeerMessage::Forwarded { request, answer, .. } => {
            format!("forwarded{} {}", number(*request), show_answer(answer))
        }
        PeerMessage::Gossip(gossip) => format!("gossip {gossip:?}"),
        PeerMessage::Hint { request, key, record, .. } => {
            format!("hint{} {} {}", number(*request), show_key(key), show_record(record))
        }
        PeerMessage::Hinted { request, .. } => format!("hinted{}", number(*request)),
        PeerMessage::AskHints { request, slots } => {
            format!("any hints of {} slots?{}", slots.len(), number(*request))
        }
        PeerMessage::NoHints { request, slots } => {
            format!("no hints of {} slots{}", slots.len(), number(*request))
        }
        PeerMessage::Exchange(exchange) => show_exchange(exchange),
        PeerMessage::Reap(reap) => show_reap(reap),
    }
}

/// What the owners of a slot say to each other about forgetting deletions, in a few words.
fn show_reap(reap: &Reap) -> String {
    match reap {
        Reap::Propose { slot, epoch, keys, .. } => {
            let names: Vec<_> = keys.iter().map(|(key, _)| show_key(key)).collect();
            format!("reap {} of slot {slot} in round {}?", names.join(" "), epoch.0)
        }
        Reap::Agreed { slot, epoch, equal, .. } => {
            let held = equal.iter().filter(|equal| **equal).count();
            format!("agreed to round {} of slot {slot}, {held} of {} held", epoch.0, equal.len())
        }
        Reap::Declined { slot, epoch, why, .. } => {
            format!("declined round {} of slot {slot}: {why:?}", epoch.0)
        }
        Reap::Commit { slot, epoch, removed, compacted, .. } => {
            let names: Vec<_> = removed.iter().chain(compacted).map(|(key, _)| show_key(key)).collect();
            format!("commit round {} of slot {slot}: {}", epoch.0, names.join(" "))
        }
        Reap::Done { slot, epoch } => format!("done with round {} of slot {slot}", epoch.0),
        Reap::Ask { request, slot } => format!("why is slot {slot} not reaped?{}", number(*request)),
        Reap::Told { request, wait } => format!("it waits: {wait:?}{}", number(*request)),
    }
}

/// What two owners say to each other, in a few words.
fn show_exchange(exchange: &Exchange) -> String {
    match exchange {
        Exchange::Compare { id, arcs, .. } => format!("compare #{} {} arcs", id.0, arcs.len()),
        Exchange::Compared { id, differing, .. } => format!("compared #{} {} differ", id.0, differing.len()),
        Exchange::Offer { id, arcs, .. } => format!("offer #{} {} arcs", id.0, arcs.len()),
        Exchange::Records { items, .. } => {
            let items: Vec<String> = items
                .iter()
                .map(|item| format!("{} {}", show_key(&item.key), show_record(&item.record)))
                .collect();
            format!("records {}", items.join(", "))
        }
        Exchange::Answered { id, lacking, .. } => format!("answered #{} {} lacking", id.0, lacking.len()),
        Exchange::Refused { id, reason } => format!("refused to exchange #{} {reason:?}", id.0),
        Exchange::Nudge { slots } => format!("nudge about {slots:?}"),
        Exchange::Weigh { id, slots, .. } => format!("weigh #{} {} slots", id.0, slots.len()),
        Exchange::Weighed { id, differing, voteless, .. } => {
            format!("weighed #{} {} differ, {} without a vote", id.0, differing.len(), voteless.len())
        }
        Exchange::Draw { id, slot, held, .. } => format!("draw #{} slot {slot}, {} held", id.0, held.len()),
        Exchange::Drawn { id, items, is_whole, .. } => {
            let whole = if *is_whole { "" } else { ", not to be relied on" };
            format!("drawn #{} {} records{whole}", id.0, items.len())
        }
    }
}

/// A request in a few words.
pub(super) fn show_request(request: &Request) -> String {
    match request {
        Request::Write(write) => format!(
            "{} {}{} {}, w={}{}{}",
            if write.value.is_some() { "put" } else { "delete" },
            show_key(&write.key),
            write.value.as_ref().map_or(String::new(), |value| format!(" {}", show_key(value))),
            if write.context.is_some() { "with its context" } else { "blind" },
            show_level(write.w),
            if write.sloppy { ", sloppy" } else { "" },
            if write.attempt > 1 { format!(", attempt {}", write.attempt) } else { String::new() },
        ),
        Request::Read(read) => {
            let atomic = if read.atomic { ", atomic" } else { "" };
            format!("get {} r={}{atomic}", show_key(&read.key), show_level(read.r))
        }
        Request::Explain { key } => format!("explain {}", show_key(key)),
        other => format!("{other:?}"),
    }
}

/// An answer in a few words.
pub(super) fn show_answer(answer: &Answer) -> String {
    match answer {
        Answer::Written(written) => format!(
            "{}, {} sibling{}, {} ack{}{}",
            match written.outcome {
                Outcome::Committed => "committed",
                Outcome::Unknown => "unknown",
                Outcome::NotApplied => "not applied",
            },
            written.siblings,
            if written.siblings == 1 { "" } else { "s" },
            written.acks.len(),
            if written.acks.len() == 1 { "" } else { "s" },
            written.problem.as_ref().map_or(String::new(), |problem| format!(", {}", problem.code.name())),
        ),
        Answer::Read(read) if read.available => {
            let values: Vec<String> =
                read.values.iter().filter_map(|s| s.value.as_ref()).map(|value| show_key(value)).collect();
            format!("[{}]{}", values.join(" "), if read.deleted { " deleted" } else { "" })
        }
        Answer::Read(read) => {
            format!(
                "unavailable: {}",
                read.problem.as_ref().map_or("", |problem| problem
                    .message
                    .split("; try")
                    .next()
                    .unwrap_or(""))
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

/// What a disk answered, in a few words.
pub(super) fn show_disk_reply(reply: &DiskReply) -> String {
    match reply {
        DiskReply::Applied { lsn, applied, .. } => {
            use crate::protocol::causality::Applied;
            match applied {
                Applied::Changed { record, amnesia } => {
                    let amnesia = if *amnesia { ", and shows that something was forgotten" } else { "" };
                    format!("disk: applied, {} (entry {}){amnesia}", show_record(record), lsn.0)
                }
                Applied::Unchanged { record } => format!("disk: nothing new, {}", show_record(record)),
                Applied::Adopted { record, .. } => format!("disk: done before, {}", show_record(record)),
                Applied::Refused(refusal) => format!("disk: refused, {refusal}"),
            }
        }
        DiskReply::Read { stored, .. } => match stored {
            Stored::Absent => "disk: reads nothing".to_owned(),
            Stored::Present(record) => format!("disk: reads {}", show_record(record)),
            Stored::Lost => "disk: reads that the record is lost".to_owned(),
        },
        DiskReply::Removed { lsn, is_gone: true, .. } => format!("disk: removed (entry {})", lsn.0),
        DiskReply::Removed { .. } => "disk: not removed, since it has changed".to_owned(),
        DiskReply::MetaApplied { lsn, .. } => format!("disk: state replaced, durable with {}", lsn.0),
        DiskReply::Sums { first, last, sums, .. } => {
            format!("disk: sums of {} slots from {first} to {last}", sums.len())
        }
        DiskReply::Listed { page, .. } => {
            format!("disk: lists {} keys", page.as_ref().map_or(0, |page| page.entries.len()))
        }
        DiskReply::ReadMany { found, .. } => format!("disk: read {} keys", found.len()),
        DiskReply::Mended { dropped, .. } => format!("disk: a slot is mended, {dropped} records dropped"),
        DiskReply::Doubted { slots, why } => {
            let wrong = match why {
                DoubtReason::Damaged => "a record cannot be read",
                DoubtReason::Mismatch => "not what its sum says",
            };
            format!("disk: doubts {} slots: {wrong}", slots.len())
        }
        DiskReply::Durable { through } => format!("disk: durable through {}", through.0),
    }
}
