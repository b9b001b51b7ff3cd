//! Who waits for the disk.

use std::collections::BTreeMap;

use crate::protocol::causality::Record;
use crate::protocol::id::{Actor, NodeId, RequestId};
use crate::protocol::output::Output;
use crate::protocol::storage::op::{DiskRequest, Lsn, Ticket};
use crate::protocol::time::Timestamp;

/// Why a disk request was made, and so who gets the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// An operation that this node coordinates.
    Operation(RequestId),
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
    },
    /// A repair of this node's own replica; nobody waits.
    Repair,
    /// A new incarnation and actor.
    Start(Actor),
    /// A belief of the membership: its token.
    Belief(u64),
}

/// Who waits for the log to be synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vigil {
    /// An operation waits for its own write.
    OwnWrite(RequestId),
    /// An operation waits for what it read here.
    OwnRead(RequestId, Option<Record>),
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
        record: Option<Record>,
    },
    /// As in [`Errand::Start`].
    Start(Actor),
    /// As in [`Errand::Belief`].
    Belief(u64),
}

/// Remembers what each disk request was for, and who waits for which position of the log (High-Water Mark).
#[derive(Debug, Default)]
pub struct Desk {
    next: u64,
    errands: BTreeMap<Ticket, Errand>,
    vigils: BTreeMap<Lsn, Vec<Vigil>>,
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
        self.errands.insert(ticket, errand);
        out.push(Output::Disk(request(ticket)));
    }

    /// What the request with this ticket was for; answers once.
    pub fn fetch_errand(&mut self, ticket: Ticket) -> Option<Errand> {
        self.errands.remove(&ticket)
    }

    /// Gives the vigil back if the log is synced that far already, otherwise keeps it until it is.
    pub fn wait(&mut self, lsn: Lsn, vigil: Vigil) -> Option<Vigil> {
        if lsn <= self.durable {
            return Some(vigil);
        }
        self.vigils.entry(lsn).or_default().push(vigil);
        None
    }

    /// The log is synced up to `through`: gives back who waited for that, in the order of the log.
    pub fn synced(&mut self, through: Lsn) -> Vec<Vigil> {
        self.durable = self.durable.max(through);
        let later = self.vigils.split_off(&Lsn(through.0 + 1));
        std::mem::replace(&mut self.vigils, later).into_values().flatten().collect()
    }

    /// Whether nothing waits for the disk.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.errands.is_empty() && self.vigils.is_empty()
    }
}
