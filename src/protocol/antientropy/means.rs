//! What the two sides of an exchange may use: the disk, the peers, the ledger.

use bytes::Bytes;

use crate::protocol::causality::Record;
use crate::protocol::id::{NodeId, ReapEpoch};
use crate::protocol::ledger::Ledger;
use crate::protocol::ring::common::PairDigest;
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::Moment;
use crate::protocol::wire::exchange::{EXCHANGE_BYTES_MAX, Exchange, Item};

/// A page of a listing has so many keys: read in a fraction of a millisecond, in which the node does nothing else.
const PAGE_KEYS: usize = 256;

/// So many records are read and sent at once; their receiver merges them at one go.
pub(super) const RECORDS_AT_ONCE: usize = 64;

/// And no further one after so many bytes, so that a message stays below its limit unless a single record is above.
const RECORD_BYTES_AT_ONCE: u64 = 64 << 10;

const _: () = assert!(EXCHANGE_BYTES_MAX as u64 >= 3 * RECORD_BYTES_AT_ONCE);

/// Names something that was asked of the own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What is asked of the own disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The sums of the slots from the first to the last.
    Sums(Slot, Slot),
    /// A page of a slot.
    List {
        /// The slot.
        slot: Slot,
        /// Where the page begins.
        after: Option<Bytes>,
        /// About how many keys it has.
        keys_max: usize,
    },
    /// These records, until there are so many bytes.
    Read {
        /// The keys.
        keys: Vec<Bytes>,
        /// No further record after so many bytes.
        bytes_max: u64,
    },
    /// Merge another owner's record.
    Merge {
        /// The key.
        key: Bytes,
        /// The record.
        record: Record,
        /// The reap epoch under which it was read.
        epoch: ReapEpoch,
    },
}

/// What an exchange wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Say something to another owner.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Exchange,
    },
    /// Ask the own disk.
    Disk {
        /// Comes back with the reply.
        token: Token,
        /// What.
        ask: Ask,
    },
    /// Slots without a vote have got on.
    Refilled {
        /// Enough of the other owners have seen the raised generation.
        fenced: Vec<Slot>,
        /// All that enough of the other owners hold is here.
        refilled: Vec<Slot>,
    },
}

/// What exchanges have done since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exchanges led to their end.
    pub rounds: u64,
    /// Of those, how many ended after one mark: all was equal.
    pub rounds_equal: u64,
    /// Slots of which both sides' contents were compared beyond the common mark.
    pub slots_compared: u64,
    /// Records sent.
    pub keys_sent: u64,
    /// Records received.
    pub keys_received: u64,
    /// Bytes of exchanges sent.
    pub bytes_sent: u64,
    /// Bytes of exchanges received.
    pub bytes_received: u64,
}

/// What a step may use, for the time of one input.
pub(super) struct Means<'a> {
    pub(super) now: Moment,
    pub(super) ledger: &'a mut Ledger,
    pub(super) counts: &'a mut Counts,
    pub(super) next: &'a mut u64,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Means<'_> {
    /// A number that was not given before.
    pub(super) fn number(&mut self) -> u64 {
        *self.next = self.next.wrapping_add(1);
        *self.next
    }

    /// Asks the own disk.
    pub(super) fn ask(&mut self, ask: Ask) -> Token {
        let token = Token(self.number());
        self.out.push(Effect::Disk { token, ask });
        token
    }

    /// Asks for the next page of a slot.
    pub(super) fn list(&mut self, slot: Slot, after: Option<Bytes>) -> Token {
        self.ask(Ask::List { slot, after, keys_max: PAGE_KEYS })
    }

    /// Asks for as many of these records as go into one message.
    pub(super) fn read<'k>(&mut self, keys: impl IntoIterator<Item = &'k Bytes>) -> Token {
        let keys = keys.into_iter().take(RECORDS_AT_ONCE).cloned().collect();
        self.ask(Ask::Read { keys, bytes_max: RECORD_BYTES_AT_ONCE })
    }

    /// Says something to another owner.
    pub(super) fn send(&mut self, to: NodeId, message: Exchange) {
        let bytes = message.wire_bytes();
        self.counts.bytes_sent += bytes;
        self.ledger.charge(self.now, 0, bytes);
        self.out.push(Effect::Send { to, message });
    }

    /// Sends records, if there are any. Returns their bytes.
    pub(super) fn send_records(&mut self, to: NodeId, digest: PairDigest, items: Vec<Item>) -> u64 {
        if items.is_empty() {
            return 0;
        }
        self.counts.keys_sent += items.len() as u64;
        self.ledger.charge(self.now, items.len() as u64, 0);
        let bytes = items.iter().map(Item::wire_bytes).sum();
        self.send(to, Exchange::Records { digest, items });
        bytes
    }
}
