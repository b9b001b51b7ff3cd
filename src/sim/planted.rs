//! Bugs planted for the proof of the judges: a judge that finds nothing in a world that is sound proves little.
//!
//! ```text
//! bank ── entry ──▶ profile ──▶ what favours the bug: nodes, faults, clients      ┐
//!   │                 └───────▶ scaffold: a trouble that a sound node survives    ├─▶ run ──▶ judges ──▶ found?
//!   └── bug ──▶ Bench (spoils what passes: disk, network, answers, starts)        │
//!         └───▶ protocol::planted (what can only live inside of a node)           ┘
//! ```
//!
//! Each bug stands for one that some store shipped, or that our own model of the rules found. They exist in tests only.
//! With the same profile and scaffold and *without* the bug the same judges must find nothing: that is the control, and
//! without it a profile might find its own noise.

mod bank;
mod profiles;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::bank::Entry;
use self::profiles::Scaffold;
use super::disk::Disk;
use super::faults::Swarm;
use super::invariants::{Invariant, Violation};
use super::workload::Profile as Clients;
use crate::protocol::causality::{Applied, Change, Dot, OperationId, Put, Record};
use crate::protocol::codec;
use crate::protocol::config::{CLOCK_SKEW_MAX, Limits};
use crate::protocol::id::{Incarnation, NodeId, ReapEpoch, RequestId};
use crate::protocol::node::{Node, Start};
use crate::protocol::output::Destination;
pub(super) use crate::protocol::planted::Planted;
use crate::protocol::planted::{self, Bed};
use crate::protocol::ring::slot::Slot;
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Lsn, MetaKey};
use crate::protocol::time::{Timestamp, WallTime};
use crate::protocol::wire::client::{Answer, Health, Outcome, Request};
use crate::protocol::wire::exchange::Exchange;
use crate::protocol::wire::gossip::{Body, Gossip};
use crate::protocol::wire::life::Milestone;
use crate::protocol::wire::peer::PeerMessage;

/// What is planted in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planting {
    /// A bug, under the profile that favours it, before the judges that may find it.
    Favoured(Planted),
    /// That profile and those judges without the bug.
    Control(Planted),
    /// A bug in whatever the seed draws, before all judges.
    Alone(Planted),
}

/// The number of a bug in the bank, as the documents call it.
pub(super) fn number_of(bug: Planted) -> &'static str {
    bank::entry(bug).number
}

/// Where a run keeps its planted bug and what that needs. With nothing planted it leaves everything as it is.
pub(super) struct Bench {
    entry: Option<&'static Entry>,
    bug: Option<Planted>,
    rng: Rng,
    rngs: BTreeMap<usize, Rng>,
    starts: BTreeMap<usize, Bytes>,
    puts: BTreeMap<Dot, Put>,
    backup: Option<Disk>,
    incarnation: Incarnation,
    /// Who was asked (the host that asks, its number, the stranger) instead of whom.
    stand_ins: BTreeMap<(usize, RequestId, NodeId), NodeId>,
    _bed: Bed,
}

/// What becomes of a message on its way.
pub(super) enum Passage {
    /// It arrives as this.
    As(NodeId, PeerMessage),
    /// It does not arrive.
    Nowhere,
    /// Nobody sees it, and this is what its sender hears.
    Answered(PeerMessage),
}

impl Bench {
    pub(super) fn new(planting: Option<Planting>, seed: u64) -> Bench {
        let (entry, bug) = match planting {
            Some(Planting::Favoured(bug)) => (Some(bank::entry(bug)), Some(bug)),
            Some(Planting::Control(bug)) => (Some(bank::entry(bug)), None),
            Some(Planting::Alone(bug)) => (None, Some(bug)),
            None => (None, None),
        };
        Bench {
            entry,
            bug,
            // The world's own draws stay what they are with and without the bug.
            rng: Rng::from_number(seed ^ 0x0b5e_55ed),
            rngs: BTreeMap::new(),
            starts: BTreeMap::new(),
            puts: BTreeMap::new(),
            backup: None,
            incarnation: Incarnation::default(),
            stand_ins: BTreeMap::new(),
            _bed: planted::plant(bug),
        }
    }

    pub(super) fn is(&self, bug: Planted) -> bool {
        self.bug == Some(bug)
    }

    /// Whether nobody is told what others remember of it: that is a bug of its own, and hides some others, of which it is the
    /// second line of defence.
    fn forgets_lives(&self) -> bool {
        matches!(
            self.bug,
            Some(
                Planted::BackupsUnnoticed
                    | Planted::ActorInTheBackup
                    | Planted::DurableBeforeTheSync
                    | Planted::LogCutInTheMiddle
            )
        )
    }

    /// Whether old copies of a directory come back that the world knows nothing of.
    pub(super) fn restores_backups(&self) -> bool {
        self.has(Scaffold::RestoredBackup)
    }

    fn has(&self, scaffold: Scaffold) -> bool {
        self.entry.is_some_and(|entry| entry.profile.scaffold == Some(scaffold))
    }

    /// Sets the faults that favour the bug.
    pub(super) fn favour_faults(&self, swarm: &mut Swarm) {
        if let Some(entry) = self.entry {
            (entry.profile.faults)(swarm);
        }
    }

    /// Sets what clients do that favours the bug.
    pub(super) fn favour_clients(&self, clients: &mut Clients) {
        if let Some(entry) = self.entry {
            (entry.profile.clients)(clients);
        }
    }

    /// Keeps only the verdicts that the entry counts: others would end a run before its bug has done what it does.
    pub(super) fn mute(&self, violations: &mut Vec<Violation>) {
        if let Some(entry) = self.entry {
            violations.retain(|v| v.invariant == Invariant::Sane || entry.judges.contains(&v.invariant));
        }
    }

    /// Before a node starts.
    pub(super) fn doctor_start(&mut self, host: usize, meta: &mut BTreeMap<MetaKey, Bytes>, rng: &mut Rng) {
        let has_run = meta.contains_key(&MetaKey::Identity);
        match self.bug {
            // The second and all later starts draw the same numbers, the actor among them.
            Some(Planted::ActorSurvives | Planted::ActorInTheBackup) if has_run => {
                *rng = self.rngs.entry(host).or_insert_with(|| rng.clone()).clone();
            }
            Some(Planted::IncarnationStays) if has_run => {
                if let Some(start) = meta.get(&MetaKey::Start).cloned() {
                    meta.insert(MetaKey::Start, self.starts.entry(host).or_insert(start).clone());
                }
            }
            _ => {}
        }
        // Who restores a backup is told by the others that its incarnation is an old one.
        if self.has(Scaffold::RestoredBackup)
            && host == 0
            && let Some(start) = meta.get(&MetaKey::Start)
            && let Ok(mut start) = codec::decode::<Start>(start)
        {
            start.incarnation = start.incarnation.max(self.incarnation);
            self.incarnation = start.incarnation.next();
            meta.insert(MetaKey::Start, codec::encode(&start).into());
        }
    }

    /// After a crash.
    pub(super) fn crashed(&self, disk: &mut Disk, rng: &mut Rng) {
        if self.is(Planted::LostAsAbsent) {
            disk.forget(rng);
        }
        if self.is(Planted::SumsOutliveACrash) {
            disk.keep_sums();
        }
    }

    /// After a stop in good order: the first time somebody takes a backup of the first node, later they may restore it.
    pub(super) fn stopped(&mut self, host: usize, disk: &mut Disk) {
        if !self.has(Scaffold::RestoredBackup) || host != 0 {
            return;
        }
        match &self.backup {
            Some(backup) if self.rng.chance(500) => *disk = backup.copy(&mut self.rng),
            Some(_) => {}
            None => self.backup = Some(disk.copy(&mut self.rng)),
        }
    }

    /// Before a client's request leaves.
    pub(super) fn doctor_request(&mut self, mut request: Request) -> Request {
        match &mut request {
            Request::Write(write) if self.is(Planted::RetryIsANewPut) && write.attempt > 1 => {
                write.attempt = 1;
                write.operation.nonce = self.rng.bits();
            }
            Request::Read(read) if self.is(Planted::AtomicInNameOnly) => read.atomic = false,
            _ => {}
        }
        request
    }

    /// Before an answer leaves.
    pub(super) fn doctor_answer(&self, mut answer: Answer) -> Answer {
        if let Answer::Written(written) = &mut answer
            && self.is(Planted::UnknownAsNotApplied)
            && written.outcome == Outcome::Unknown
        {
            written.outcome = Outcome::NotApplied;
        }
        answer
    }

    /// After a node asked its disk for something.
    pub(super) fn saw_disk_request(&mut self, request: &DiskRequest) {
        if let DiskRequest::Update { change: Change::Put(put), .. } = request
            && self.is(Planted::BareWrite)
        {
            self.puts.insert(put.dot, Put { base: Some(Record::default()), ..put.clone() });
        }
    }

    /// Before a node hears of its disk.
    pub(super) fn doctor_disk_reply(&self, mut reply: DiskReply) -> DiskReply {
        assert!(
            !(self.is(Planted::Panics) && matches!(reply, DiskReply::Applied { .. })),
            "planted for a test"
        );
        if let DiskReply::Read { lsn, .. } = &mut reply
            && self.is(Planted::ReadBeforeDurable)
        {
            *lsn = Lsn(0);
        }
        reply
    }

    /// Before a message leaves; `None` if the sender does not send it.
    pub(super) fn doctor_message(
        &mut self,
        sender: &Node,
        to: &Destination,
        message: PeerMessage,
    ) -> Option<PeerMessage> {
        let message = if self.is(Planted::SilentAcks) { silenced(message) } else { message };
        match message {
            PeerMessage::Replicate { request, digest, epoch, actor, key, record }
                if self.is(Planted::BareWrite) =>
            {
                let newest = record.siblings().iter().filter_map(|sibling| self.puts.get(&sibling.dot));
                let bare = newest.last().map(|put| Record::apply(&Change::Put(put.clone()), None));
                let record = match bare {
                    Some(Applied::Changed { record, .. }) => record,
                    _ => record,
                };
                Some(PeerMessage::Replicate { request, digest, epoch, actor, key, record })
            }
            PeerMessage::Replicate { request, digest, actor, key, record, .. }
                if self.has(Scaffold::AgelessHints)
                    && !sender
                        .ring_view()
                        .is_some_and(|view| view.slot(Slot::of_key(&key)).is_owner(sender.id())) =>
            {
                let epoch = ReapEpoch(u64::MAX);
                Some(PeerMessage::Replicate { request, digest, epoch, actor, key, record })
            }
            PeerMessage::Forward { request, deadline_ms, ask: Request::Write(mut write) }
                if self.is(Planted::PutCoordinatedTwice) =>
            {
                // Whoever it is passed on to takes it for a put of its own.
                write.operation = OperationId { nonce: self.rng.bits(), ..write.operation };
                Some(PeerMessage::Forward { request, deadline_ms, ask: Request::Write(write) })
            }
            PeerMessage::Gossip(gossip) if self.is(Planted::DeadForgotten) => {
                let members = sender.membership();
                let is_forgotten = match to {
                    Destination::Node { id, .. } => members.health(*id) == Some(Health::Down),
                    // The seeds are for those that have no cluster yet.
                    Destination::Address(_) => sender.is_serving(),
                };
                (!is_forgotten).then_some(PeerMessage::Gossip(gossip))
            }
            message => Some(message),
        }
    }

    /// To whom a message goes instead that is meant for an owner who does not listen: to a stranger, if those answer.
    pub(super) fn stand_in(
        &mut self,
        from: usize,
        owner: NodeId,
        message: &PeerMessage,
        strangers: &[NodeId],
    ) -> Option<NodeId> {
        let request = match message {
            PeerMessage::Replicate { request, .. } | PeerMessage::Fetch { request, .. } => *request,
            _ => return None,
        };
        // Nobody waits for the acknowledgement of a repair.
        let stranger = *strangers.first().filter(|_| request != RequestId::default())?;
        self.stand_ins.insert((from, request, stranger), owner);
        Some(stranger)
    }

    /// When a message arrives on a host whose wall clock shows `wall`.
    pub(super) fn doctor_arrival(
        &mut self,
        to: usize,
        from: NodeId,
        message: PeerMessage,
        wall: WallTime,
        limits: &Limits,
        is_safe: bool,
    ) -> Passage {
        match &message {
            PeerMessage::Gossip(Gossip { cluster, body: Body::Known { nonce, life: Some(_) } })
                if self.forgets_lives() =>
            {
                let body = Body::Known { nonce: *nonce, life: None };
                Passage::As(from, PeerMessage::Gossip(Gossip { cluster: *cluster, body }))
            }
            PeerMessage::Replicate { record, .. }
                if self.is(Planted::LimitOnRepairs) && record.siblings().len() > limits.siblings_max =>
            {
                Passage::Nowhere
            }
            PeerMessage::Replicate { record, .. } if self.is(Planted::FutureRefused) => {
                let latest = Timestamp::at(wall.plus(CLOCK_SKEW_MAX));
                match record.siblings().iter().any(|sibling| sibling.dot.at > latest) {
                    true => Passage::Nowhere,
                    false => Passage::As(from, message),
                }
            }
            PeerMessage::Exchange(Exchange::Records { digest, items }) => {
                let latest = Timestamp::at(wall.plus(CLOCK_SKEW_MAX));
                let is_refused = |record: &Record| {
                    self.is(Planted::LimitOnRepairs) && record.siblings().len() > limits.siblings_max
                        || self.is(Planted::FutureRefused)
                            && record.siblings().iter().any(|sibling| sibling.dot.at > latest)
                };
                let items = items.iter().filter(|item| !is_refused(&item.record)).cloned().collect();
                Passage::As(from, PeerMessage::Exchange(Exchange::Records { digest: *digest, items }))
            }
            PeerMessage::Replicate { request, .. }
                if self.has(Scaffold::UnmergedAcks) && is_safe && self.rng.chance(100) =>
            {
                let (entry, milestone) = Default::default();
                Passage::Answered(PeerMessage::Stored { request: *request, entry, milestone })
            }
            PeerMessage::Stored { request, .. } | PeerMessage::Fetched { request, .. } => {
                let meant = self.stand_ins.get(&(to, *request, from)).copied();
                Passage::As(meant.unwrap_or(from), message)
            }
            _ => Passage::As(from, message),
        }
    }
}

/// The same message, which does not say how far its sender has got.
fn silenced(mut message: PeerMessage) -> PeerMessage {
    match &mut message {
        PeerMessage::Stored { milestone, .. }
        | PeerMessage::Fetched { milestone, .. }
        | PeerMessage::Forwarded { milestone, .. }
        | PeerMessage::Hinted { milestone, .. } => *milestone = Milestone::default(),
        _ => {}
    }
    message
}
