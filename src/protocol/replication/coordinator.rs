//! The operations that a node runs for clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use super::desk::Reply;
use super::explain::Explain;
use super::forward::{Forward, key_of, refusal};
use super::get::{Get, check_key};
use super::put::Put;
use super::receiver::{self, Receiver};
use super::scope::{Origin, Scope};
use crate::protocol::causality::{Applied, OPERATION_LIFETIME};
use crate::protocol::id::{NodeId, RequestId};
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::view::{SlotDigest, SlotView};
use crate::protocol::rng::Rng;
use crate::protocol::storage::trust::Standing;
use crate::protocol::time::{Moment, Timestamp};
use crate::protocol::wire::client::{Answer, Code, Problem, Request};
use crate::protocol::wire::peer::PeerRefusal;
use crate::protocol::wire::reap::ReapWait;

/// Something that happened to one operation.
#[derive(Debug)]
pub enum Event {
    /// An owner's record; this node's own among them.
    Fetched {
        /// The owner.
        from: NodeId,
        /// What it holds.
        reply: Reply,
    },
    /// An owner has the record in its synced log.
    Stored {
        /// The owner.
        from: NodeId,
        /// Its entry for the actor that this node asked it about.
        entry: Timestamp,
    },
    /// An owner refused.
    Refused {
        /// The owner.
        from: NodeId,
        /// Why.
        reason: PeerRefusal,
    },
    /// The own disk executed the change.
    Applied(Applied),
    /// The own write is in the synced log.
    Logged,
    /// It is durable that this node may keep hints of the key.
    Registered(NodeId),
    /// A node has its hint in its synced log.
    Hinted(NodeId),
    /// An owner answered what was passed on to it.
    Forwarded {
        /// The owner.
        from: NodeId,
        /// For the client.
        answer: Answer,
    },
    /// The driver of the key's slot told what its rounds of reaping wait for.
    ReapTold {
        /// The driver.
        from: NodeId,
        /// What it said.
        wait: ReapWait,
    },
    /// The owners of the key, or their standing, are not what they were when the operation began.
    RingChanged {
        /// A number under which nobody has said anything yet.
        fresh: RequestId,
    },
    /// The time of [`Operation::due`] has come.
    Deadline,
}

/// Whether an operation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for something.
    Pending,
    /// It goes on under the fresh number, and what comes under the old one is not for it any more.
    Renumbered,
    /// It has answered.
    Done,
}

/// One operation under way.
pub(super) trait Operation: Debug + Send {
    /// Takes note of an event.
    fn handle(&mut self, event: Event, scope: &mut Scope<'_>) -> Progress;
    /// When it wants [`Event::Deadline`].
    fn due(&self) -> Moment;
}

/// A Request Waiting List (*Patterns of Distributed Systems*): the operations that wait for owners or for the disk, by
/// number, and when each wants to be woken.
#[derive(Debug)]
pub struct Coordinator {
    next: u64,
    waiting: BTreeMap<RequestId, Waiting>,
    due: BTreeSet<(Moment, RequestId)>,
    receiver: Receiver,
}

#[derive(Debug)]
struct Waiting {
    operation: Box<dyn Operation>,
    due: Moment,
    slot: Slot,
    digest: SlotDigest,
}

/// Nobody is waited for longer than this, whatever the client says: what waits costs memory, and a write that old would
/// not be recognised any more if it were tried again.
const PATIENCE_MAX: Duration = OPERATION_LIFETIME;

impl Coordinator {
    /// Numbers start anywhere: answers to a former life of this node, which were under way when it restarted, must not
    /// be taken for answers to this one.
    #[must_use]
    pub fn new(rng: &mut Rng) -> Coordinator {
        Coordinator {
            next: rng.bits() >> 1,
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            receiver: Receiver::default(),
        }
    }

    /// Begins an operation. One that came from another node is executed here and never passed on again.
    pub fn start(&mut self, origin: Origin, ask: Request, patience: Duration, scope: &mut Scope<'_>) {
        let Some(key) = key_of(&ask) else {
            let message = "only reads, writes and explanations of a key can be passed on";
            return scope.answer(origin, refusal(&ask, Problem::new(Code::BadRequest, message)));
        };
        if let (Origin::Peer { node, request }, Request::Write(write)) = (origin, &ask)
            && !self.receiver.admit(node, request, write.attempt)
        {
            return;
        }
        if patience.is_zero() {
            let message = "the deadline had passed before the request arrived; nothing was done";
            return scope.answer(origin, refusal(&ask, Problem::new(Code::Timeout, message)));
        }
        if let Err(problem) = check_key(key, scope.limits.key_bytes_max) {
            return scope.answer(origin, refusal(&ask, problem));
        }
        if let (Origin::Client { .. }, Request::Write(write)) = (origin, &ask)
            && !receiver::may_have_started(write.operation, scope.node_time())
        {
            let message =
                "the operation is said to start in the future; operation ids carry the time that nodes tell";
            return scope.answer(origin, refusal(&ask, Problem::new(Code::BadRequest, message)));
        }
        if self.waiting.len() >= scope.config.requests_max {
            let message =
                format!("{} requests are under way already; try again in a moment", self.waiting.len());
            return scope.answer(origin, refusal(&ask, Problem::new(Code::Overloaded, message)));
        }
        let SlotView { slot, digest, .. } = scope.slot_of(key);
        let is_owner = scope.slot_of(key).is_owner(scope.own);
        if is_owner && scope.is_disk_behind() {
            let message =
                format!("{} requests wait for the disk already; try again in a moment", scope.desk.len());
            return scope.answer(origin, refusal(&ask, Problem::new(Code::Overloaded, message)));
        }
        let is_closed = is_owner && scope.standing_of(key) == Standing::Closed;
        let is_from_client = matches!(origin, Origin::Client { .. });
        if is_closed && !is_from_client && !matches!(ask, Request::Explain { .. }) {
            let message =
                "the node has lost its copy of the key and is getting it back; another owner can serve it";
            return scope.answer(origin, refusal(&ask, Problem::new(Code::NotReady, message)));
        }
        #[cfg(test)]
        let is_from_client = is_from_client || planted::is(Planted::ForwardedAgain);
        let deadline = scope.now.monotonic + patience.min(PATIENCE_MAX);
        self.next += 1;
        let request = RequestId(self.next);
        let passes_on = is_closed || passes_on(&ask, scope);
        let operation: Option<Box<dyn Operation>> = if is_owner && !(is_from_client && passes_on) {
            match ask {
                Request::Write(write) => boxed(Put::start(request, origin, write, deadline, scope)),
                Request::Read(read) => boxed(Get::start(request, origin, read, deadline, scope)),
                Request::Explain { key } => boxed(Explain::start(request, origin, key, deadline, scope)),
                Request::Topology | Request::Status | Request::Admin(_) => None,
            }
        } else if is_from_client {
            boxed(Forward::start(request, origin, ask, deadline, scope))
        } else {
            let message = "the node that was asked does not own the key; the ring has changed, try again";
            return scope.answer(origin, refusal(&ask, Problem::new(Code::RingChanged, message)));
        };
        if let Some(operation) = operation {
            let due = operation.due();
            self.due.insert((due, request));
            self.waiting.insert(request, Waiting { operation, due, slot, digest });
        }
    }

    /// Whether this attempt of another node's client has been let in already.
    #[must_use]
    pub fn has_let_in(&self, node: NodeId, request: RequestId, ask: &Request) -> bool {
        matches!(ask, Request::Write(write) if self.receiver.has_met(node, request, write.attempt))
    }

    /// Hands an event to the operation with this number; one that has answered already needs no more.
    pub fn handle(&mut self, request: RequestId, event: Event, scope: &mut Scope<'_>) {
        let Some(waiting) = self.waiting.get_mut(&request) else { return };
        let progress = waiting.operation.handle(event, scope);
        let due = waiting.operation.due();
        if progress == Progress::Done {
            self.due.remove(&(waiting.due, request));
            self.waiting.remove(&request);
        } else if due != waiting.due {
            self.due.remove(&(waiting.due, request));
            waiting.due = due;
            self.due.insert((due, request));
        }
    }

    /// Wakes every operation whose time has come.
    pub fn tick(&mut self, scope: &mut Scope<'_>) {
        let now = scope.now.monotonic;
        let late: Vec<RequestId> =
            self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, request)| *request).collect();
        for request in late {
            self.handle(request, Event::Deadline, scope);
        }
    }

    /// The ring is not what it was: tells every operation whose slot that concerns. What its owners agreed to under the
    /// old ring does not add up with what they agree to under the new one.
    pub fn on_ring_change(&mut self, scope: &mut Scope<'_>) {
        let is_concerned = |waiting: &Waiting| scope.view.slot(waiting.slot).digest != waiting.digest;
        let concerned: Vec<RequestId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| is_concerned(waiting))
            .map(|(request, _)| *request)
            .collect();
        for request in concerned {
            let Some(mut waiting) = self.waiting.remove(&request) else { continue };
            self.due.remove(&(waiting.due, request));
            self.next += 1;
            let fresh = RequestId(self.next);
            waiting.digest = scope.view.slot(waiting.slot).digest;
            let number = match waiting.operation.handle(Event::RingChanged { fresh }, scope) {
                Progress::Done => continue,
                Progress::Renumbered => fresh,
                Progress::Pending => request,
            };
            waiting.due = waiting.operation.due();
            self.due.insert((waiting.due, number));
            self.waiting.insert(number, waiting);
        }
    }

    /// When to call [`tick`](Coordinator::tick).
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        self.due.first().map_or(Moment::NEVER, |(due, _)| *due)
    }

    /// How many operations are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The number of the operation that began last.
    #[cfg(test)]
    pub(super) fn newest(&self) -> RequestId {
        RequestId(self.next)
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// A node whose clock is off issues no dots if another owner can: nothing breaks if it does, but its writes would look
/// older or newer to people than they are.
fn passes_on(ask: &Request, scope: &Scope<'_>) -> bool {
    let Request::Write(write) = ask else { return false };
    scope.is_clock_off()
        && scope
            .slot_of(&write.key)
            .read_set()
            .iter()
            .any(|node| *node != scope.own && scope.can_reach(*node))
}

fn boxed<T: Operation + 'static>(operation: Option<T>) -> Option<Box<dyn Operation>> {
    operation.map(|operation| Box::new(operation) as Box<dyn Operation>)
}

#[cfg(test)]
mod tests;
