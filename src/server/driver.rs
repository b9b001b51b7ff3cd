//! The loop around a node: inputs in, outputs out, under one lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_std::channel::{Receiver, Sender, bounded};
use event_listener::Event;
use futures_lite::future;

use super::RunError;
use super::clock::Clock;
use super::disk::{Disk, Poisoned};
use super::peers::Peers;
use super::usage;
use crate::protocol::codec;
use crate::protocol::id::{NodeId, SessionId};
use crate::protocol::input::Input;
use crate::protocol::node::Node;
use crate::protocol::output::{Notice, Output};
use crate::protocol::storage::op::DiskReply;
use crate::protocol::time::{Moment, Now};
use crate::protocol::wire::client::{Answer, AnswerFrame, Code, Problem};
use crate::protocol::wire::peer::{Hello, PeerMessage};
use crate::transport::link::{CloseCode, LinkSender, PushError};

/// The one place where a node, its disk and its connections meet (Singular Update Queue): whoever has an input takes the
/// lock, handles it inline together with everything that follows from it, and leaves. On a single executor thread
/// nobody ever waits for it.
pub(super) struct Driver {
    core: Mutex<Core>,
    peers: Peers,
    clock: Clock,
    deadline_moved: Arc<Event>,
    stopped: (Sender<()>, Receiver<()>),
    failed: (Sender<RunError>, Receiver<RunError>),
}

/// What the lock protects.
struct Core {
    node: Node,
    /// Gone once the node has stopped.
    disk: Option<Disk>,
    sessions: BTreeMap<SessionId, LinkSender>,
    next_session: u64,
    outputs: Vec<Output>,
    /// Empty; its memory is used over and over by [`Driver::settle`].
    carrying_out: Vec<Output>,
    replies: Vec<DiskReply>,
    armed: Moment,
}

impl Driver {
    /// Puts the parts together. `outputs` are those of the node's start.
    pub(super) fn new(
        node: Node,
        disk: Disk,
        outputs: Vec<Output>,
        peers: Peers,
        clock: Clock,
    ) -> Arc<Driver> {
        let core = Core {
            node,
            disk: Some(disk),
            sessions: BTreeMap::new(),
            next_session: 0,
            outputs,
            carrying_out: Vec::new(),
            replies: Vec::new(),
            armed: Moment::NEVER,
        };
        let driver = Driver {
            core: Mutex::new(core),
            peers,
            clock,
            deadline_moved: Arc::default(),
            stopped: bounded(1),
            failed: bounded(1),
        };
        let driver = Arc::new(driver);
        driver.peers.drive(&driver);
        driver.settle(&mut driver.lock(), clock.now());
        driver
    }

    /// Lets the node handle inputs, in order.
    pub(super) fn handle(&self, inputs: impl IntoIterator<Item = Input>) {
        let Some(mut core) = self.lock_whole() else { return };
        let _fuse = Fuse(self);
        // A batch takes well under a millisecond, so all of it happens now.
        let now = self.clock.now();
        let Core { node, outputs, .. } = &mut *core;
        for input in inputs {
            node.handle(now, input, outputs);
        }
        self.settle(&mut core, now);
    }

    /// Lets the node handle what a peer said.
    pub(super) fn on_peer(&self, from: NodeId, messages: impl IntoIterator<Item = PeerMessage>) {
        self.handle(messages.into_iter().map(|message| Input::Peer { from, message }));
    }

    /// A client has connected: gives the number of its session.
    pub(super) fn open_session(&self, link: LinkSender) -> SessionId {
        let mut core = self.lock();
        core.next_session += 1;
        let session = SessionId(core.next_session);
        core.sessions.insert(session, link);
        session
    }

    /// A client has gone; answers to it go nowhere from now on.
    pub(super) fn close_session(&self, session: SessionId) {
        self.lock().sessions.remove(&session);
    }

    /// What to say first to a peer; `None` while the node may not talk.
    pub(super) fn hello(&self) -> Option<Hello> {
        self.lock_whole()?.node.hello()
    }

    /// The connections to other nodes.
    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Wakes the node whenever it wants to be woken, until the driver is gone.
    pub(super) async fn run_timer(driver: Weak<Driver>) {
        loop {
            let Some(strong) = driver.upgrade() else { return };
            let moved = strong.deadline_moved.listen();
            let (deadline, clock) = {
                let Some(mut core) = strong.lock_whole() else { return };
                core.armed = core.node.next_deadline();
                (core.armed, strong.clock)
            };
            // Whoever sleeps must not keep the node alive.
            drop(strong);
            // An hour stands for ever: it only means a needless look.
            let wait = clock.until(deadline).unwrap_or(Duration::from_secs(3_600));
            if !wait.is_zero() {
                let timer = async {
                    async_io::Timer::after(wait).await;
                };
                future::or(timer, moved).await;
            }
            if clock.now().monotonic >= deadline {
                let Some(strong) = driver.upgrade() else { return };
                // A thread of the disk that hangs wakes nobody, so it is looked after here as well.
                strong.poll_disk();
                strong.handle([Input::Deadline]);
            }
        }
    }

    /// Takes in what the disk's threads have done, whenever they say so.
    pub(super) async fn run_disk(driver: Weak<Driver>, woken: Receiver<()>) {
        while woken.recv().await.is_ok() {
            let Some(driver) = driver.upgrade() else { return };
            driver.poll_disk();
        }
    }

    fn poll_disk(&self) {
        let Some(mut guard) = self.lock_whole() else { return };
        let _fuse = Fuse(self);
        let core = &mut *guard;
        pace_scrub(core, self.clock.now());
        let Some(disk) = core.disk.as_mut() else { return };
        match disk.poll(&mut core.replies) {
            Ok(()) => {
                let now = self.clock.now();
                take_replies(core, now);
                self.settle(core, now);
            }
            Err(poisoned) => self.poison(poisoned),
        }
    }

    /// Asks the node to stop in good order and waits until it has finished its work, at most as long as `patience`.
    pub(super) async fn stop(&self, patience: Duration) {
        self.handle([Input::Stop]);
        let finished = async {
            let _ = self.stopped.1.recv().await;
            true
        };
        let tired = async {
            async_io::Timer::after(patience).await;
            false
        };
        if !future::or(finished, tired).await {
            tracing::warn!("stopping with requests under way: they did not finish in time");
        }
    }

    /// Hands out the disk for closing. Nothing reaches it any more.
    pub(super) fn take_disk(&self) -> Option<Disk> {
        self.lock().disk.take()
    }

    /// The connections of clients.
    pub(super) fn clients(&self) -> Vec<LinkSender> {
        self.lock().sessions.values().cloned().collect()
    }

    /// Waits for the disk to fail, or for a panic.
    pub(super) async fn failure(&self) -> RunError {
        match self.failed.1.recv().await {
            Ok(error) => error,
            Err(_) => future::pending().await,
        }
    }

    /// For what holds whatever state the node is in.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the node itself; `None` after a panic, which may have left a step half done: nothing may be built on that.
    fn lock_whole(&self) -> Option<MutexGuard<'_, Core>> {
        self.core.lock().ok()
    }

    /// Carries out all outputs and all that follow from them.
    fn settle(&self, core: &mut Core, now: Now) {
        let mut outputs = std::mem::take(&mut core.carrying_out);
        while !core.outputs.is_empty() {
            std::mem::swap(&mut outputs, &mut core.outputs);
            for output in outputs.drain(..) {
                self.carry_out(core, output, now);
            }
        }
        core.carrying_out = outputs;
        pace_scrub(core, now);
        if let Some(disk) = core.disk.as_mut() {
            disk.kick();
        }
        let deadline = core.node.next_deadline();
        if deadline < core.armed {
            core.armed = deadline;
            self.deadline_moved.notify(1);
        }
    }

    fn carry_out(&self, core: &mut Core, output: Output, now: Now) {
        match output {
            Output::Send { to, message } => self.peers.send(now.monotonic, to, &message),
            Output::Respond { session, id, answer } => self.respond(core, session, id, answer),
            Output::Disk(request) => {
                let Some(disk) = core.disk.as_mut() else { return };
                match disk.submit(request, &mut core.replies) {
                    Ok(()) => take_replies(core, now),
                    Err(poisoned) => self.poison(poisoned),
                }
            }
            Output::Notice(notice) => self.on_notice(core, &notice),
        }
    }

    fn respond(&self, core: &mut Core, session: SessionId, id: u64, mut answer: Answer) {
        if let Answer::Status(status) = &mut answer {
            usage::add_to(status, core.disk.as_ref(), &self.peers);
        }
        let Some(link) = core.sessions.get(&session) else { return };
        let frame = AnswerFrame { id, answer };
        match link.push(|out| codec::encode_into(&frame, out)) {
            Ok(()) => {}
            Err(error @ PushError::TooLong { .. }) => {
                let answer = Answer::Refused(Problem::new(Code::RecordTooLarge, error.to_string()));
                let _ = link.push(|out| codec::encode_into(&AnswerFrame { id, answer }, out));
            }
            Err(PushError::Full | PushError::Closed) => {
                // A client that does not read its answers keeps them from nobody but itself.
                link.close(CloseCode::BUSY, "the answers of this connection are not being read");
                core.sessions.remove(&session);
            }
        }
    }

    fn on_notice(&self, core: &Core, notice: &Notice) {
        let name =
            |id: NodeId| core.node.membership().name(id).map_or_else(|| id.to_string(), |n| n.to_string());
        match notice {
            Notice::Started => tracing::info!(incarnation = core.node.incarnation().0, "started"),
            Notice::Serving => {
                let cluster = core.node.cluster().map(|id| id.to_string()).unwrap_or_default();
                tracing::info!(cluster, "serving");
            }
            Notice::Issued(_) => {}
            Notice::Health { member, health } => {
                tracing::info!(member = name(*member), ?health, "health changed")
            }
            Notice::Amnesia => {
                tracing::warn!(
                    "a write of this node is unknown to it, or its clock jumped: it takes a new actor"
                );
            }
            Notice::Doubted { slots, why } => {
                tracing::error!(
                    slots,
                    ?why,
                    "the disk cannot stand for some slots: they are refilled from the other owners"
                );
            }
            Notice::Refilling { slots_left, records, per_second, left_for } => {
                let seconds_left = left_for.map(|span| span.as_secs());
                tracing::info!(slots_left, records, per_second, seconds_left, "refilling");
            }
            Notice::Whole { records, took } => {
                tracing::info!(
                    records,
                    ms = took.as_millis() as u64,
                    "refilled: the node votes for all of its slots"
                );
            }
            Notice::Fenced { generation } => {
                let _ = self.failed.0.try_send(RunError::Fenced { generation: *generation });
            }
            Notice::Denied { by, remembers, claim } => {
                let denied = RunError::Denied { by: name(*by), remembers: *remembers, claim: claim.clone() };
                let _ = self.failed.0.try_send(denied);
            }
            Notice::Trouble(trouble) => tracing::warn!("{trouble}"),
            Notice::Stopped => {
                let _ = self.stopped.0.try_send(());
            }
        }
    }

    fn poison(&self, poisoned: Poisoned) {
        let _ = self.failed.0.try_send(poisoned.into());
    }
}

/// Lets the node handle what the disk has answered.
fn take_replies(core: &mut Core, now: Now) {
    let Core { node, replies, outputs, .. } = core;
    for reply in replies.drain(..) {
        node.handle(now, Input::Disk(reply), outputs);
    }
}

/// The scrub draws on the account of all repair, before the disk gets a chance to go on with it.
fn pace_scrub(core: &mut Core, now: Now) {
    let Core { node, disk, .. } = core;
    if let Some(disk) = disk.as_mut() {
        disk.pace_scrub(|bytes| node.charge_scrub(now, bytes));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The timer's task ends now rather than at its next deadline.
        self.deadline_moved.notify(usize::MAX);
    }
}

/// Reports a panic while the node was at work. The executor would go on with its other tasks, and the node, neither
/// alive nor dead, would be worse for the others than one that has stopped.
struct Fuse<'a>(&'a Driver);

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.failed.0.try_send(RunError::Panicked);
        }
    }
}

#[cfg(test)]
mod tests;
