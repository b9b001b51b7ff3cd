//! The operations that a node runs for clients.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use super::explain::Explain;
use super::forward::{Forward, key_of, refusal};
use super::get::{Get, check_key};
use super::put::Put;
use super::scope::{Origin, Scope};
use crate::protocol::causality::{Applied, Record};
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::rng::Rng;
use crate::protocol::time::{Moment, Timestamp};
use crate::protocol::wire::client::{Answer, Code, Problem, Request};
use crate::protocol::wire::peer::PeerRefusal;

/// Something that happened to one operation.
#[derive(Debug)]
pub enum Event {
    /// An owner's record; this node's own among them.
    Fetched {
        /// The owner.
        from: NodeId,
        /// What it holds.
        record: Option<Record>,
    },
    /// An owner has the record in its synced log.
    Stored {
        /// The owner.
        from: NodeId,
        /// Its entry for this node's actor.
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
    /// An owner answered what was passed on to it.
    Forwarded {
        /// The owner.
        from: NodeId,
        /// For the client.
        answer: Answer,
    },
    /// The time of [`Operation::due`] has come.
    Deadline,
}

/// Whether an operation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for something.
    Pending,
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
    passed_on: PassedOn,
}

/// How many operations that other nodes passed on are remembered.
const PASSED_ON_MAX: usize = 8_192;

/// An Idempotent Receiver (*Patterns of Distributed Systems*) for what other nodes pass on: a message may come twice, and
/// when the first copy was refused and answered *not applied*, the second one must not be executed.
#[derive(Debug, Default)]
struct PassedOn {
    known: BTreeSet<(NodeId, RequestId)>,
    order: VecDeque<(NodeId, RequestId)>,
}

impl PassedOn {
    /// Takes note of one; tells whether it is new. Senders number their requests from a random start, so that those of
    /// two lives of a node do not meet.
    fn is_new(&mut self, node: NodeId, request: RequestId) -> bool {
        let is_new = self.known.insert((node, request));
        if is_new {
            self.order.push_back((node, request));
        }
        if self.order.len() > PASSED_ON_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        is_new
    }
}

#[derive(Debug)]
struct Waiting {
    operation: Box<dyn Operation>,
    due: Moment,
}

impl Coordinator {
    /// Numbers start anywhere: answers to a former life of this node, which were under way when it restarted, must not
    /// be taken for answers to this one.
    #[must_use]
    pub fn new(rng: &mut Rng) -> Coordinator {
        Coordinator {
            next: rng.bits() >> 1,
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            passed_on: PassedOn::default(),
        }
    }

    /// Begins an operation. One that came from another node is executed here and never passed on again.
    pub fn start(&mut self, origin: Origin, ask: Request, patience: Duration, scope: &mut Scope<'_>) {
        let Some(key) = key_of(&ask) else { return };
        if let Origin::Peer { node, request } = &origin
            && !self.passed_on.is_new(*node, *request)
        {
            return;
        }
        if let Err(problem) = check_key(key, scope.limits.key_bytes_max) {
            return scope.answer(origin, refusal(&ask, problem));
        }
        if self.waiting.len() >= scope.config.requests_max {
            let message =
                format!("{} requests are under way already; try again in a moment", self.waiting.len());
            return scope.answer(origin, refusal(&ask, Problem::new(Code::Overloaded, message)));
        }
        let is_owner = scope.slot_of(key).is_owner(scope.own);
        let is_from_client = matches!(origin, Origin::Client { .. });
        let deadline = scope.now.monotonic + patience;
        self.next += 1;
        let request = RequestId(self.next);
        let operation: Option<Box<dyn Operation>> = if is_owner && !(is_from_client && passes_on(&ask, scope))
        {
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
            self.waiting.insert(request, Waiting { operation, due });
        }
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
    scope.peers.is_clock_off()
        && scope
            .slot_of(&write.key)
            .read_set()
            .iter()
            .any(|node| *node != scope.own && scope.can_reach(*node))
}

fn boxed<T: Operation + 'static>(operation: Option<T>) -> Option<Box<dyn Operation>> {
    operation.map(|operation| Box::new(operation) as Box<dyn Operation>)
}
