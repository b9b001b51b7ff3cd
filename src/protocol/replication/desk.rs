//! Who waits for the disk.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::causality::Record;
use crate::protocol::id::{Actor, NodeId, ReapEpoch, RequestId};
use crate::protocol::output::Output;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskRequest, Lsn, Ticket};
use crate::protocol::time::Timestamp;

/// Why a disk request was made, and so who gets the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// An operation that this node coordinates changes the own store.
    Operation(RequestId),
    /// It reads the own store; the slot of its key.
    OwnRead(RequestId, Slot),
    /// A record that a coordinator sent.
    Replicate {
        /// The coordinator.
        from: NodeId,
        /// Its number.
        request: RequestId,
        /// Its actor.
        actor: Actor,
    },
    /// A coordinator's question.
    Fetch {
        /// The coordinator.
        from: NodeId,
        /// Its number.
        request: RequestId,
        /// The slot of the key.
        slot: Slot,
    },
    /// A repair of this node's own replica; nobody waits.
    Repair,
    /// An exchange with another owner: its token.
    Exchange(u64),
    /// A new incarnation and actor.
    Start(Actor),
    /// A belief of the membership: its token.
    Belief(u64),
    /// A round of reaping: its token.
    Reap(u64),
    /// Which slots the node votes for.
    Trust,
    /// A slot that is to be mended.
    Mend(Slot),
    /// A node that may keep hints of a slot is entered into the register, for this operation.
    Register(Slot, NodeId, RequestId),
    /// Nodes are struck off again, or are suspected because the register was lost; nobody waits.
    StrikeOff,
    /// A record to keep for an owner.
    Hint {
        /// The coordinator.
        from: NodeId,
        /// Its number.
        request: RequestId,
        /// The owner.
        target: NodeId,
        /// The key.
        key: Bytes,
        /// What was set aside for it.
        bytes: u64,
    },
    /// The epoch of a hint is written down; nobody waits, since the hint itself follows in the log.
    HintEpoch,
    /// What lies in slots of others is looked up, to find the hints of former lives.
    Recount,
    /// A hint is read, to be sent to the owners.
    Replay(Bytes),
    /// A hint that all owners have is dropped.
    DropHint(Bytes),
}

/// What a replica holds of a key, and how its slot stood when that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The record; `None` if the key is absent.
    pub record: Option<Record>,
    /// The reap epoch: raised.
    pub raised: ReapEpoch,
    /// The reap epoch: committed.
    pub committed: ReapEpoch,
}

/// Who waits for the log to be synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vigil {
    /// An operation waits for its own write.
    OwnWrite(RequestId),
    /// An operation waits for what it read here.
    OwnRead(RequestId, Reply),
    /// A coordinator waits for a `Stored`.
    Stored {
        /// The coordinator.
        to: NodeId,
        /// Its number.
        request: RequestId,
        /// The entry to state.
        entry: Timestamp,
    },
    /// A coordinator waits for a `Fetched`.
    Fetched {
        /// The coordinator.
        to: NodeId,
        /// Its number.
        request: RequestId,
        /// What was read.
        reply: Reply,
    },
    /// As in [`Errand::Start`].
    Start(Actor),
    /// As in [`Errand::Belief`].
    Belief(u64),
    /// As in [`Errand::Reap`].
    Reap(u64),
    /// A slot was mended.
    Mended(Slot),
    /// As in [`Errand::Trust`].
    Trust,
    /// As in [`Errand::Register`].
    Register(Slot, NodeId, RequestId),
    /// A coordinator waits for a `Hinted`.
    Hinted {
        /// The coordinator.
        to: NodeId,
        /// Its number.
        request: RequestId,
    },
    /// As in [`Errand::DropHint`].
    DropHint(Bytes),
}

/// Remembers what each disk request was for, and who waits for which position of the log (High-Water Mark).
#[derive(Debug, Default)]
pub struct Desk {
    next: u64,
    /// In the order of the tickets, which is the order of the replies too: the one that is looked for is the first.
    errands: VecDeque<(Ticket, Errand)>,
    /// In the order of arrival. Usually every second one is released by each sync, so sorting them would not pay.
    vigils: Vec<(Lsn, Vigil)>,
    durable: Lsn,
}

impl Desk {
    /// Sends a request to the disk and remembers what it is for.
    pub fn ask(
        &mut self,
        errand: Errand,
        request: impl FnOnce(Ticket) -> DiskRequest,
        out: &mut Vec<Output>,
    ) {
        self.next += 1;
        let ticket = Ticket(self.next);
        self.errands.push_back((ticket, errand));
        out.push(Output::Disk(request(ticket)));
    }

    /// What the request with this ticket was for; answers once.
    pub fn fetch_errand(&mut self, ticket: Ticket) -> Option<Errand> {
        let at = self.errands.iter().position(|(known, _)| *known == ticket)?;
        self.errands.remove(at).map(|(_, errand)| errand)
    }

    /// Gives the vigil back if the log is synced that far already, otherwise keeps it until it is.
    pub fn wait(&mut self, lsn: Lsn, vigil: Vigil) -> Option<Vigil> {
        if lsn <= self.durable {
            return Some(vigil);
        }
        self.vigils.push((lsn, vigil));
        None
    }

    /// The log is synced up to `through`: gives back who waited for that, in the order of arrival.
    pub fn synced(&mut self, through: Lsn) -> Vec<Vigil> {
        self.durable = self.durable.max(through);
        self.vigils.extract_if(.., |(lsn, _)| *lsn <= through).map(|(_, vigil)| vigil).collect()
    }

    /// How many wait for the disk.
    #[must_use]
    pub fn len(&self) -> usize {
        self.errands.len() + self.vigils.len()
    }

    /// Whether nothing waits for the disk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_is_fetched_once() {
        let (mut desk, mut out) = (Desk::default(), Vec::new());
        let request = |ticket| DiskRequest::Meta { ticket, entries: Vec::new() };
        desk.ask(Errand::Repair, request, &mut out);
        desk.ask(Errand::Belief(7), request, &mut out);
        assert_eq!(desk.fetch_errand(Ticket(2)), Some(Errand::Belief(7)));
        assert_eq!(desk.fetch_errand(Ticket(2)), None);
        assert_eq!(desk.fetch_errand(Ticket(3)), None);
        assert_eq!((desk.len(), desk.fetch_errand(Ticket(1))), (1, Some(Errand::Repair)));
        assert!(desk.is_empty());
    }

    #[test]
    fn who_waits_is_released_by_the_sync_that_covers_it_and_not_before() {
        let mut desk = Desk::default();
        assert_eq!(desk.wait(Lsn(0), Vigil::Belief(0)), Some(Vigil::Belief(0)));
        assert_eq!(desk.wait(Lsn(3), Vigil::Belief(3)), None);
        assert_eq!(desk.wait(Lsn(1), Vigil::Belief(1)), None);
        assert_eq!(desk.wait(Lsn(2), Vigil::Belief(2)), None);
        assert_eq!(desk.synced(Lsn(2)), [Vigil::Belief(1), Vigil::Belief(2)]);
        assert_eq!(desk.wait(Lsn(2), Vigil::Belief(4)), Some(Vigil::Belief(4)));
        assert_eq!((desk.synced(Lsn(2)), desk.is_empty()), (vec![], false));
        assert_eq!(desk.synced(Lsn(9)), [Vigil::Belief(3)]);
    }
}
