//! What clients are told to do, instead of choosing for themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::{Client, Sight, Step, Wish, Workload};
use crate::protocol::config::Limits;
use crate::protocol::rng::Rng;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Code, Level};

/// Nodes refuse what begins this much later than their own time.
const DISPUTED: Duration = Duration::from_secs(10);

/// Where a client sends its attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Route {
    /// To any host.
    #[default]
    Anywhere,
    /// To any of these.
    Among(Vec<usize>),
    /// To these, one attempt each.
    InOrder(Vec<usize>),
}

/// What is demanded of the core of a cluster.
pub(in super::super) struct CorePart {
    /// The hosts that coordinate.
    pub(in super::super) hosts: Vec<usize>,
    /// Keys whose owners are healthy, by majority.
    pub(in super::super) keys: Vec<Bytes>,
}

/// An operation that a client is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Task {
    /// Read from that many owners.
    Read(Level),
    /// Write with what the client has at hand of the key.
    Put(Level),
    /// Write without a context.
    PutBlind(Level),
    /// Delete what the client has at hand.
    Delete(Level),
}

impl Route {
    /// Where the attempt with this number goes, counted from zero, if there are `hosts`.
    pub(super) fn host(&self, attempt: u32, hosts: usize, rng: &mut Rng) -> usize {
        match self {
            Route::Anywhere => rng.index(hosts),
            Route::Among(among) => rng.pick(among).copied().unwrap_or_default(),
            Route::InOrder(order) => {
                order.get(attempt as usize).or(order.last()).copied().unwrap_or_default()
            }
        }
    }
}

impl Task {
    fn step(self) -> (Step, Level) {
        match self {
            Task::Read(level) => (Step::Read(level), level),
            Task::Put(level) => (Step::Put, level),
            Task::PutBlind(level) => (Step::PutBlind, level),
            Task::Delete(level) => (Step::Delete, level),
        }
    }
}

impl Workload {
    /// How many requests a node of this run takes at once.
    pub(in super::super) fn requests_max(&self) -> usize {
        self.profile.requests_max
    }

    /// Every key that an operation was on.
    pub(in super::super) fn keys(&self) -> BTreeSet<Bytes> {
        self.history.operations.iter().map(|operation| operation.key.clone()).collect()
    }

    /// Until then nobody begins anything by its own choice.
    pub(in super::super) fn rest(&mut self, until: Moment) {
        self.rests_until = self.rests_until.max(until);
    }

    /// A client for every key that reads, writes and reads again through hosts of the core, each within a deadline of its
    /// own.
    pub(in super::super) fn begin_core_part(
        &mut self,
        part: CorePart,
        now: Moment,
        rng: &mut Rng,
        wishes: &mut Vec<Wish>,
    ) {
        for key in part.keys {
            let client = self.hire(rng);
            let steps = [Step::Read(Level::Majority), Step::Put, Step::Read(Level::Majority)];
            let actor = &mut self.clients[client];
            actor.script.extend(steps.map(|step| (key.clone(), step)));
            actor.owed_within = Some(self.profile.core_deadline);
            actor.route = Route::Among(part.hosts.clone());
            self.wake_at(client, now + Duration::from_millis(rng.between(1, 500)), wishes);
        }
    }

    /// A client that does nothing but what it is told; see [`perform`](Workload::perform).
    pub(in super::super) fn hire(&mut self, rng: &mut Rng) -> usize {
        self.clients.push(Client { is_staged: true, ..Client::new(rng.fork()) });
        self.clients.len() - 1
    }

    /// A hired client gives up what it does and does this instead, in as many attempts as its route is long.
    pub(in super::super) fn perform(
        &mut self,
        client: usize,
        key: &Bytes,
        task: Task,
        route: Vec<usize>,
        sight: &Sight<'_>,
        wishes: &mut Vec<Wish>,
    ) {
        self.give_up(client, sight.now, wishes);
        let (step, level) = task.step();
        let actor = &mut self.clients[client];
        actor.level = Some(level);
        actor.route = Route::InOrder(route);
        actor.script.clear();
        actor.script.push_back((key.clone(), step));
        self.begin_operation(client, sight, wishes);
    }

    /// Whether the nodes of the core tell times so far apart that what begins at one of them has not yet begun for another.
    ///
    /// Node time is the median of the clocks that a node hears. When most clocks are wrong, by hours, and half of the
    /// nodes are heard by some and not by others, there is no such time, and nodes refuse what comes from their future:
    /// it would make records forget the operations that they know. Only a further attempt can meet this: the first one
    /// carries the time of the node that is asked, and is not asked about it again by those to whom it is passed on.
    pub(super) fn is_time_disputed(&self, client: usize, sight: &Sight<'_>) -> bool {
        if self.clients[client].ongoing.as_ref().is_none_or(|ongoing| ongoing.attempts <= 1) {
            return false;
        }
        let Route::Among(hosts) = &self.clients[client].route else { return false };
        let times = || hosts.iter().filter_map(|&host| sight.times.get(host));
        let (earliest, latest) = (times().min(), times().max());
        earliest.zip(latest).is_some_and(|(earliest, latest)| *latest > earliest.plus(DISPUTED))
    }

    /// Whether a write that the cluster owes was refused by a cap that was drawn so low that honest use meets it: for a minute
    /// the marks of earlier operations alone can fill such a record. Under the real caps the write stays owed.
    pub(super) fn is_full(&self, client: usize, code: Code) -> bool {
        let is_cap = matches!(code, Code::RecordTooLarge | Code::TooManySiblings);
        is_cap && self.clients[client].owed_by.is_some() && self.profile.limits != Limits::default()
    }

    /// What was owed is owed no more, and the client goes on with what comes next.
    pub(super) fn excuse(&mut self, client: usize, now: Moment, wishes: &mut Vec<Wish>) {
        self.clients[client].script.pop_front();
        self.start_over(client, now, wishes);
    }

    /// Whether a client waits for an answer.
    pub(in super::super) fn is_waiting(&self, client: usize) -> bool {
        self.clients.get(client).is_some_and(|client| client.ongoing.is_some())
    }
}
