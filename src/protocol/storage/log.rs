//! The byte format of the log: groups of entries, and how to tell a torn write from a damaged directory.
//!
//! ```text
//! segment (generation g)
//! ┌────────┬─────────────────────┬─┬────────┬──────────────┬─┬───────────────────────────────┐
//! │ header │ entry entry entry   │0│ header │ entry        │0│ zeros, or what the file held  │
//! └────────┴─────────────────────┴─┴────────┴──────────────┴─┴──── under an older generation ┘
//!   one group = one write and one sync         padded to 8 bytes
//! ```
//!
//! Patterns: Write-Ahead Log, Segmented Log, Low-Water Mark, Request Batch (*Patterns of Distributed Systems*).
//!
//! An entry is a full post-state, never a change, so that replaying it twice or over a newer store does no harm.
//! Entries have no number of their own; the header names the first one and they count up from there, without a hole,
//! from group to group and from segment to segment.
//!
//! Layout of a group, version 1, all integers little-endian:
//!
//! | offset | bytes | meaning |
//! | --- | --- | --- |
//! | 0 | 4 | `STLG` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | zero |
//! | 8 | 8 | generation of the segment, so that stale bytes of a recycled file never count |
//! | 16 | 8 | LSN of the first entry |
//! | 24 | 8 | the last LSN known to be synced when the group was written |
//! | 32 | 4 | bytes of the body |
//! | 36 | 4 | entries in the body; zero for a *seal*, which only states that the log reaches to here |
//! | 40 | 8 | xxh3-64 of the body, seeded with the identity of the log |
//! | 48 | 8 | xxh3-64 of the 48 bytes above, seeded likewise |
//! | 56 | | the body: per entry 4 bytes of length, then the [`Entry`] in the codec's form |
//!
//! The seed is random per data directory and never leaves it, so that no client can smuggle bytes into a value that
//! would pass for a group when a torn tail is searched.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::op::{Lsn, MetaKey};
use super::store::StoredValue;
use super::sums::SlotSum;
use crate::protocol::causality::RecordHash;
use crate::protocol::codec;
use crate::protocol::ring::slot::Slot;

const MAGIC: [u8; 4] = *b"STLG";
const VERSION: u16 = 1;
const HEADER: usize = 56;
const ALIGNMENT: usize = 8;

/// The identity of one log: 64 random bits, drawn when its directory is made. Seeds every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId(pub u64);

/// One segment of one log. The generation rises with every segment that is begun, recycled files included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentName {
    /// The log that it belongs to.
    pub log: LogId,
    /// Its place in the order of segments, from 1.
    pub generation: u64,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The record of a key is now this. The new hash is inside the value.
    Put {
        /// The slot of the key.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// Hash of the record before; zero if there was none.
        old: RecordHash,
        /// The record in the form in which the store holds it.
        value: StoredValue,
    },
    /// The record of a key is gone, by a certified reap.
    Removed {
        /// The slot of the key.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// Hash of the record before.
        old: RecordHash,
    },
    /// Pieces of the state that is not per key were replaced, all at once; `None` removes one.
    Meta(Vec<(MetaKey, Option<Bytes>)>),
    /// All that is not in the store, so that older segments may go.
    Checkpoint(Checkpoint),
    /// What could not be read in a slot was given up: from here on this is the sum of what is left. Not a difference,
    /// since what the slot had lost had left no trace of its own.
    Mended {
        /// The slot.
        slot: Slot,
        /// Its count and sum as of this entry.
        sum: SlotSum,
    },
}

/// What a checkpoint puts into the log. It describes the state just before its own entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The Low-Water Mark: everything up to here is safely in the store, and replay begins behind it.
    pub low_water: Lsn,
    /// The whole state that is not per key.
    pub meta: Vec<(MetaKey, Bytes)>,
    /// Count and content sum of every slot that is not empty, in order.
    pub sums: Vec<(Slot, SlotSum)>,
}

/// Entries that are written and synced together.
#[derive(Clone, Debug)]
pub struct Group {
    first: Lsn,
    count: u32,
    synced: Lsn,
    bytes: Vec<u8>,
}

impl Group {
    /// An empty group whose first entry will be `first`.
    #[must_use]
    pub fn new(first: Lsn) -> Group {
        Group { first, count: 0, synced: Lsn(0), bytes: vec![0; HEADER] }
    }

    /// A *seal*: a group without entries, which states that the log reaches to `synced` and is synced that far. Written
    /// at every start and at a clean end, it tells a log whose tail was damaged later from one that a crash tore.
    #[must_use]
    pub fn seal_at(synced: Lsn) -> Group {
        Group { synced, ..Group::new(Lsn(synced.0 + 1)) }
    }

    /// Adds an entry. Returns its position.
    pub fn push(&mut self, entry: &Entry) -> Lsn {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        codec::encode_into(entry, &mut self.bytes);
        // The codec refuses to encode more than 16 MiB, so the length fits.
        let length = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
        Lsn(self.first.0 + u64::from(self.count) - 1)
    }

    /// The position of the last entry; of the last one before the group if it has none.
    #[must_use]
    pub fn through(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.count) - 1)
    }

    /// Bytes that the group will take in the log.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGNMENT)
    }

    /// Whether the group has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Notes how far the log was synced when the group was handed out for writing.
    pub(super) fn note_synced(&mut self, synced: Lsn) {
        self.synced = synced;
    }

    /// Completes the header for the segment that the group goes into, and gives the bytes to write there.
    #[must_use]
    pub fn seal(mut self, segment: SegmentName) -> Vec<u8> {
        let seed = segment.log.0;
        let length = self.bytes.len() - HEADER;
        let body = xxh3_64_with_seed(&self.bytes[HEADER..], seed);
        let header = &mut self.bytes[..HEADER];
        header[0..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&VERSION.to_le_bytes());
        header[8..16].copy_from_slice(&segment.generation.to_le_bytes());
        header[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        header[24..32].copy_from_slice(&self.synced.0.to_le_bytes());
        // The engine closes a group at a few megabytes, and one entry is at most 16.
        header[32..36].copy_from_slice(&(length as u32).to_le_bytes());
        header[36..40].copy_from_slice(&self.count.to_le_bytes());
        header[40..48].copy_from_slice(&body.to_le_bytes());
        let checksum = xxh3_64_with_seed(&header[..48], seed);
        header[48..56].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes
    }
}

/// Why a log, or the store behind it, cannot be believed. Such a directory counts as a lost disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Untrusted {
    /// A bad group with a good later one is no torn write: something that was synced has changed.
    #[error("segment {generation} of the log is damaged at byte {offset}, behind entry {after}, and goes on after that",
        after = after.0)]
    Damaged {
        /// The segment.
        generation: u64,
        /// Where in it.
        offset: u64,
        /// The last good entry before.
        after: Lsn,
    },
    /// Entries are missing, or there are too many.
    #[error("the log holds entry {found} in segment {generation} where entry {expected} belongs",
        found = found.0, expected = expected.0)]
    Hole {
        /// The segment in which the gap shows.
        generation: u64,
        /// The entry that should come.
        expected: Lsn,
        /// The entry that came.
        found: Lsn,
    },
    /// A group has a right checksum and wrong contents, or a version that this program does not know.
    #[error("segment {generation} of the log holds something at byte {offset} that this program cannot read")]
    Unreadable {
        /// The segment.
        generation: u64,
        /// Where in it.
        offset: u64,
    },
    /// The log ends before what the store was fed from it.
    #[error("the log ends at entry {end}, but the store was fed up to entry {fed} of it", end = end.0, fed = fed.0)]
    LogBehindStore {
        /// The last entry of the log.
        end: Lsn,
        /// How far the store was fed.
        fed: Lsn,
    },
    /// The store lacks what a checkpoint had found safely in it.
    #[error("the store was fed up to entry {fed} only, but a checkpoint found it fed up to entry {low_water}",
        fed = fed.0, low_water = low_water.0)]
    StoreBehindCheckpoint {
        /// How far the store was fed.
        fed: Lsn,
        /// What the checkpoint says.
        low_water: Lsn,
    },
    /// The oldest segments are missing.
    #[error("the log begins at entry {first}, but entry {needed} is still needed", first = first.0, needed = needed.0)]
    Beheaded {
        /// The first entry there is.
        first: Lsn,
        /// The first entry that replay needs.
        needed: Lsn,
    },
}

/// How the log ended. Both are what a crash leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// After a whole group.
    Clean,
    /// In the middle of a group that was being written. Nobody was told that its entries are durable.
    Torn,
}

/// What a whole log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// All entries, in order, without a hole.
    pub entries: Vec<(Lsn, Entry)>,
    /// The position of the last entry; zero for an empty log.
    pub end: Lsn,
    /// How the log ended.
    pub tail: Tail,
}

/// Reads a log, segment by segment.
///
/// A bad group is a torn write if nothing good follows it, or if what follows *in a later segment* goes on with the
/// very entry that the bad group would have begun with: then an earlier recovery has cut the tear and gone on.
/// Anything else is [`Untrusted`].
#[derive(Clone, Debug)]
pub struct Scanner {
    log: LogId,
    begun: bool,
    scan: Scan,
}

impl Scanner {
    /// A scanner for the segments of `log`.
    #[must_use]
    pub fn new(log: LogId) -> Scanner {
        Scanner { log, begun: false, scan: Scan { entries: Vec::new(), end: Lsn(0), tail: Tail::Clean } }
    }

    /// Reads the next segment, in the order of generations. Returns whether it holds any group at all.
    pub fn segment(&mut self, generation: u64, bytes: &[u8]) -> Result<bool, Untrusted> {
        let name = SegmentName { log: self.log, generation };
        let mut at = 0;
        loop {
            match parse(bytes, at, name) {
                Parsed::Group(header) => {
                    self.take(&header, &bytes[at + HEADER..at + HEADER + header.length], name, at)?;
                    at = (at + HEADER + header.length).next_multiple_of(ALIGNMENT).min(bytes.len());
                }
                Parsed::Unknown => return Err(Untrusted::Unreadable { generation, offset: at as u64 }),
                Parsed::Bad { begun } => {
                    if begun {
                        self.scan.tail = Tail::Torn;
                    }
                    let later = (at + ALIGNMENT..bytes.len()).step_by(ALIGNMENT);
                    if later.into_iter().any(|later| !matches!(parse(bytes, later, name), Parsed::Bad { .. }))
                    {
                        let after = self.scan.end;
                        return Err(Untrusted::Damaged { generation, offset: at as u64, after });
                    }
                    return Ok(at > 0);
                }
            }
        }
    }

    /// How far the segments read so far reach.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.scan.end
    }

    /// All that was read.
    #[must_use]
    pub fn finish(self) -> Scan {
        self.scan
    }

    fn take(&mut self, header: &Header, body: &[u8], name: SegmentName, at: usize) -> Result<(), Untrusted> {
        let SegmentName { generation, .. } = name;
        if !self.begun {
            self.begun = true;
            self.scan.end = Lsn(header.first.0.saturating_sub(1));
        }
        let expected = Lsn(self.scan.end.0 + 1);
        if header.first != expected {
            return Err(Untrusted::Hole { generation, expected, found: header.first });
        }
        if header.synced > self.scan.end {
            return Err(Untrusted::Hole { generation, expected, found: header.synced });
        }
        let unreadable = Untrusted::Unreadable { generation, offset: at as u64 };
        let mut rest = body;
        for _ in 0..header.count {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or(unreadable)?;
            let (entry, tail) =
                tail.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(unreadable)?;
            let entry = codec::decode(entry).map_err(|_| unreadable)?;
            self.scan.end = Lsn(self.scan.end.0 + 1);
            self.scan.entries.push((self.scan.end, entry));
            rest = tail;
        }
        self.scan.tail = Tail::Clean;
        if rest.is_empty() { Ok(()) } else { Err(unreadable) }
    }
}

struct Header {
    first: Lsn,
    synced: Lsn,
    length: usize,
    count: u32,
}

enum Parsed {
    /// A whole group with the right checksums.
    Group(Header),
    /// No such thing; `begun` if a group of this segment was at least begun here.
    Bad { begun: bool },
    /// A good header of another version.
    Unknown,
}

fn parse(bytes: &[u8], at: usize, name: SegmentName) -> Parsed {
    let Some(header) = bytes.get(at..at + HEADER) else { return Parsed::Bad { begun: false } };
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let half = |at: usize| (number(at & !7) >> (8 * (at & 7))) as u32;
    // The order is by cost: nearly every place that is searched fails the first comparison.
    if header[..4] != MAGIC || number(8) != name.generation {
        return Parsed::Bad { begun: false };
    }
    if number(48) != xxh3_64_with_seed(&header[..48], name.log.0) {
        return Parsed::Bad { begun: true };
    }
    if header[4..8] != [VERSION as u8, (VERSION >> 8) as u8, 0, 0] {
        return Parsed::Unknown;
    }
    let length = half(32) as usize;
    match bytes.get(at + HEADER..at + HEADER + length) {
        Some(body) if xxh3_64_with_seed(body, name.log.0) == number(40) => {
            Parsed::Group(Header { first: Lsn(number(16)), synced: Lsn(number(24)), length, count: half(36) })
        }
        _ => Parsed::Bad { begun: true },
    }
}

#[cfg(test)]
mod tests;
