//! What the world sees of every replica and every coordinator while a run goes on: the evidence of the judges that
//! clients' histories are not enough for.
//!
//! ```text
//! Input ───▶ ┌─────────┐ ◀─── Output         disk replies  ─▶ honest contexts, repair only adds
//!            │ Witness │                     asks, changes ─▶ repair only adds
//! start ───▶ └─────────┘ ───▶ violations     replies, answers ─▶ exact siblings of reads
//! ```
//!
//! It only looks: nothing that happens depends on it. All of its knowledge comes from what passes, never from asking a
//! node, so that a node that lies to itself cannot talk it round.

mod reads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;

use super::host::{self, Host};
use super::invariants::bounds::Caps;
use super::invariants::hints_drain;
use super::invariants::honest_contexts::{Birth, Book, Holding};
use super::invariants::one_dot_one_value::Dots;
use super::invariants::repair_only_adds::{self, Duties};
use super::invariants::{Invariant, Violation};
use crate::protocol::causality::{Applied, Change, Dot, OperationId, Record, Refusal};
use crate::protocol::id::NodeId;
use crate::protocol::input::Input;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Lsn, MetaKey, Stored, Ticket};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Answer, Request};
use crate::protocol::wire::peer::PeerMessage;

use reads::Reads;

/// Everything that was seen so far.
pub(super) struct Witness {
    owners: usize,
    /// Keys by number: numbers are cheaper to look for.
    keys: BTreeMap<Bytes, usize>,
    names: Vec<Bytes>,
    books: Vec<Book>,
    hosts: Vec<Watched>,
    caps: Vec<Caps>,
    /// Removals of hints that were judged.
    drops: u64,
    violations: Vec<Violation>,
}

/// What was seen of one machine.
#[derive(Default)]
struct Watched {
    replicas: BTreeMap<usize, Replica>,
    /// What becomes durable with which position of the log.
    unsynced: VecDeque<(Lsn, usize, Rc<Holding>)>,
    /// What the disk was asked and has not answered, in order.
    asked: VecDeque<(Ticket, usize, Asked)>,
    /// The hosts of the owners of what the disk was asked to remove, where that was a hint.
    drops: BTreeMap<Ticket, Vec<usize>>,
    synced: Lsn,
    has_lost_a_disk: bool,
    /// Keys whose records were damaged in the store, or gone from it.
    rotten: BTreeSet<usize>,
    reads: Reads,
    /// Slots that have gone through a round of reaping here, as this node was asked to write down.
    reaping: BTreeSet<Slot>,
    duties: Duties,
}

/// What a machine holds of one key.
#[derive(Clone, Debug, Default)]
struct Replica {
    applied: Rc<Holding>,
    durable: Rc<Holding>,
    /// Whether it was looked at since the node started: a crash may have kept more than was known to be durable.
    is_current: bool,
    /// Whether that crash may have kept a removal, or a compaction, that was not known to be durable.
    may_be_gone: bool,
    since: Moment,
}

enum Asked {
    Read,
    Merge(Holding),
    Remove,
    Reap,
    Compact,
    Mend,
    Put { birth: Birth, base: Option<Holding>, operation: OperationId },
}

impl Watched {
    /// What is on the disk of a key, as far as that was seen.
    fn on_disk(&self, key: usize) -> Option<&Holding> {
        // What rests on entries that were synced long ago shows with the next look at the key.
        let newer = self.unsynced.iter().rev().find(|(lsn, of, _)| *of == key && *lsn <= self.synced);
        let known = self.replicas.get(&key).map(|replica| &replica.durable);
        newer.map(|(_, _, holding)| &**holding).or(known.map(|holding| &**holding))
    }
}

impl Witness {
    /// Of a world of these hosts, in which each key has so many owners.
    pub(super) fn new(hosts: &[Host], owners: usize) -> Witness {
        Witness {
            owners,
            keys: BTreeMap::new(),
            names: Vec::new(),
            books: Vec::new(),
            caps: hosts.iter().map(|host| Caps::of(&host.config, owners)).collect(),
            hosts: hosts.iter().map(|_| Watched::default()).collect(),
            drops: 0,
            violations: Vec::new(),
        }
    }

    /// What may grow how far on a host.
    pub(super) fn caps(&self, host: usize) -> Caps {
        self.caps[host]
    }

    /// How many removals of hints were judged.
    pub(super) fn drops(&self) -> u64 {
        self.drops
    }

    /// What was violated since this was asked last.
    pub(super) fn take_violations(&mut self) -> impl Iterator<Item = Violation> + '_ {
        self.violations.drain(..)
    }

    /// A machine has lost its disk.
    pub(super) fn lost(&mut self, host: usize) {
        self.hosts[host].replicas.clear();
        self.hosts[host].has_lost_a_disk = true;
    }

    /// What the store of a machine holds of a key is lost.
    pub(super) fn rots(&mut self, host: usize, key: &Bytes) {
        let key = self.number(key);
        self.hosts[host].rotten.insert(key);
    }

    /// A node has dropped what is lost in a slot, if the log did not hold it after all.
    fn is_to_mend(&mut self, host: usize, ticket: Ticket, slot: Slot) {
        let lost = self.hosts[host].rotten.iter().filter(|key| Slot::of_key(&self.names[**key]) == slot);
        let lost: Vec<usize> = lost.copied().collect();
        let asked = lost.into_iter().map(|key| (ticket, key, Asked::Mend));
        self.hosts[host].asked.extend(asked);
    }

    fn mended(&mut self, host: usize, ticket: Ticket, lsn: Lsn) {
        let Watched { asked, replicas, unsynced, .. } = &mut self.hosts[host];
        while let Some((_, key, _)) = asked.pop_front_if(|(asked, ..)| *asked == ticket) {
            let replica = replicas.entry(key).or_default();
            replica.may_be_gone = true;
            replica.is_current = false;
            unsynced.push_back((lsn, key, Rc::default()));
        }
    }

    /// A node starts, from what its disk has kept.
    pub(super) fn started(&mut self, host: usize, id: NodeId) {
        let watched = &mut self.hosts[host];
        for replica in watched.replicas.values_mut() {
            // What an earlier crash may have kept shows with the next look, however many starts there are until then.
            replica.may_be_gone &= !replica.is_current;
            replica.is_current = false;
        }
        for (lsn, key, holding) in watched.unsynced.drain(..) {
            let Some(replica) = watched.replicas.get_mut(&key) else { continue };
            if lsn <= watched.synced {
                // It was looked at when what it rests on had been synced already: no sync told of it since.
                replica.durable = holding;
            } else if !holding.context.dominates(&replica.durable.context) {
                replica.may_be_gone = true;
            }
        }
        for replica in watched.replicas.values_mut() {
            replica.applied = replica.durable.clone();
        }
        for (_, key, asked) in watched.asked.drain(..) {
            // The disk may have done it, and the crash may have kept it.
            if matches!(asked, Asked::Remove | Asked::Reap | Asked::Compact | Asked::Mend)
                && let Some(replica) = watched.replicas.get_mut(&key)
            {
                replica.may_be_gone = true;
            }
        }
        watched.drops.clear();
        watched.synced = Lsn::default();
        watched.reads = Reads::of(id);
    }

    /// Something is about to happen to a node.
    pub(super) fn input(&mut self, host: usize, now: Moment, input: &Input, dots: &mut Dots) {
        self.hosts[host].reads.begin(None);
        if matches!(
            input,
            Input::Deadline
                | Input::Peer { message: PeerMessage::Refused { .. }, .. }
                | Input::Disk(DiskReply::Read { stored: Stored::Lost, .. })
        ) {
            self.hosts[host].reads.may_ask_more();
        }
        if matches!(input, Input::Disk(DiskReply::Durable { .. })) {
            self.hosts[host].reads.may_begin_anew();
        }
        match input {
            Input::Disk(reply) => self.disk_replied(host, now, reply, dots),
            Input::Client { session, id, request, .. } => {
                if let Request::Write(write) = request {
                    self.hosts[host].duties.asked(write.operation);
                }
                self.hosts[host].reads.asked_by_client(*session, *id, request, self.owners, now);
            }
            Input::Peer { from, message: PeerMessage::Forward { request, ask, .. } } => {
                if let Request::Write(write) = ask {
                    self.hosts[host].duties.asked_by(*from, *request, write.attempt, write.operation);
                }
                self.hosts[host].reads.asked_by_node(*from, *request, ask, self.owners, now);
            }
            Input::Peer { from, message: PeerMessage::Fetched { request, record, raised, .. } } => {
                let key = self.hosts[host].reads.fetched(*from, *request, record.as_ref(), *raised);
                if let (Some(key), Some(record)) = (key, record) {
                    let violation = dots.passed(&key, record);
                    self.violations.extend(violation);
                }
            }
            _ => {}
        }
    }

    /// A node asks its disk.
    pub(super) fn disk_is_asked(&mut self, host: usize, now: Moment, request: &DiskRequest) {
        let (ticket, key, asked) = match request {
            DiskRequest::Read { ticket, key, .. } => {
                self.hosts[host].reads.reads_own(*ticket, key);
                (ticket, key, Asked::Read)
            }
            DiskRequest::Update { ticket, key, change: Change::Merge { record, .. }, .. } => {
                (ticket, key, Asked::Merge(Holding::of(record)))
            }
            DiskRequest::Update { ticket, key, change: Change::Put(put), .. } => {
                if let Some(evidence) = self.hosts[host].duties.executed(put.dot, put.operation) {
                    self.report(Invariant::RepairOnlyAdds, host, key, (now, now), &evidence);
                }
                let base = put.base.as_ref().map(Holding::of);
                (ticket, key, Asked::Put { birth: Birth::from(put), base, operation: put.operation })
            }
            DiskRequest::Update { ticket, key, change: Change::Compact(_), .. } => {
                (ticket, key, Asked::Compact)
            }
            // An owner removes what a round has certified; whoever owns nothing of it, a hint.
            DiskRequest::Remove { ticket, slot, key, .. } if self.hosts[host].reaping.contains(slot) => {
                (ticket, key, Asked::Reap)
            }
            DiskRequest::Remove { ticket, key, .. } => (ticket, key, Asked::Remove),
            DiskRequest::Meta { entries, .. } => {
                let slots = entries.iter().filter_map(|(key, _)| match key {
                    MetaKey::Reaping(slot) => Some(*slot),
                    _ => None,
                });
                self.hosts[host].reaping.extend(slots);
                return;
            }
            // What exchanges look at shows when it is sent, and what they change comes as merges.
            DiskRequest::Sums { .. } | DiskRequest::List { .. } | DiskRequest::ReadMany { .. } => return,
            DiskRequest::Mend { ticket, slot } => return self.is_to_mend(host, *ticket, *slot),
        };
        let key = self.number(key);
        self.hosts[host].asked.push_back((*ticket, key, asked));
    }

    /// A node asks its disk to remove a record of a slot that is owned by these hosts, and not by itself.
    pub(super) fn hint_is_dropped(&mut self, host: usize, ticket: Ticket, owners: Vec<usize>) {
        self.hosts[host].drops.insert(ticket, owners);
    }

    /// A node issues a dot.
    pub(super) fn issued(&mut self, host: usize, dot: Dot) {
        if let Some(evidence) = self.hosts[host].duties.issued(dot) {
            let evidence = format!("{}: {evidence}", host::name(host));
            self.violations.push(Violation::general(Invariant::RepairOnlyAdds, evidence));
        }
    }

    /// A node sends a message.
    pub(super) fn sent(
        &mut self,
        host: usize,
        to: NodeId,
        now: Moment,
        message: &PeerMessage,
        opened: Opened<'_>,
    ) {
        match message {
            PeerMessage::Fetch { request, key, .. } => self.hosts[host].reads.fetches(*request, key),
            PeerMessage::Forward { request, ask: Request::Write(write), .. } => {
                if let Some(evidence) = self.hosts[host].duties.passed_on(*request, write.operation) {
                    self.report(Invariant::RepairOnlyAdds, host, &write.key, (now, now), &evidence);
                }
            }
            PeerMessage::Forwarded { request, answer, .. } => {
                self.answered(host, reads::Origin::Node(to, *request), now, answer, opened);
            }
            _ => {}
        }
    }

    /// A node answers a request of a client, or one that another node passed on.
    pub(super) fn answered(
        &mut self,
        host: usize,
        origin: reads::Origin,
        now: Moment,
        answer: &Answer,
        opened: Opened<'_>,
    ) {
        if let Some((key, since, evidence)) = self.hosts[host].reads.answered(origin, answer, opened) {
            let evidence = format!("a read was answered wrongly: {evidence}");
            self.report(Invariant::ExactSiblings, host, &key, (since, now), &evidence);
        }
    }

    fn disk_replied(&mut self, host: usize, now: Moment, reply: &DiskReply, dots: &mut Dots) {
        let (ticket, lsn) = match reply {
            DiskReply::Applied { ticket, lsn, .. }
            | DiskReply::Read { ticket, lsn, .. }
            | DiskReply::Removed { ticket, lsn, .. } => (*ticket, *lsn),
            DiskReply::Durable { through } => return self.synced(host, *through),
            DiskReply::MetaApplied { .. }
            | DiskReply::Sums { .. }
            | DiskReply::Listed { .. }
            | DiskReply::ReadMany { .. }
            | DiskReply::Doubted { .. } => return,
            DiskReply::Mended { ticket, lsn, .. } => return self.mended(host, *ticket, *lsn),
        };
        let watched = &mut self.hosts[host];
        let Some((_, key, asked)) = watched.asked.pop_front_if(|(asked, ..)| *asked == ticket) else {
            return;
        };
        let replica = watched.replicas.entry(key).or_default();
        let found = match (reply, asked) {
            (DiskReply::Read { stored: Stored::Present(record), .. }, _) => {
                watched.reads.own_read(ticket, Some(record));
                Found { record, is_change: false, birth: None, sources: Vec::new() }
            }
            (DiskReply::Read { stored: Stored::Absent, .. }, _) => {
                watched.reads.own_read(ticket, None);
                if replica.may_be_gone && !replica.is_current {
                    replica.applied = Rc::default();
                    replica.durable = Rc::default();
                }
                if *replica.applied != Holding::default() {
                    let evidence = "it answers that the key is absent, although it held a record of it";
                    let since = replica.since;
                    self.report_of(Invariant::HonestContexts, host, key, (since, now), evidence);
                }
                return;
            }
            (DiskReply::Removed { is_gone, .. }, asked) => {
                let owners = watched.drops.remove(&ticket);
                if !*is_gone {
                    return;
                }
                let since = std::mem::replace(&mut replica.since, now);
                let held = std::mem::take(&mut replica.applied);
                let was_current = std::mem::replace(&mut replica.is_current, true);
                watched.unsynced.push_back((lsn, key, Rc::default()));
                if matches!(asked, Asked::Reap) {
                    // What a crash has kept nobody has looked at yet; but all owners held the same.
                    let known = was_current.then_some(held);
                    return self.forgets(host, key, now, known.as_deref());
                }
                // What an owner had before it lost its disk, or the record, it has to get from the others.
                let is_whole = |owner: &usize| {
                    !self.hosts[*owner].has_lost_a_disk && !self.hosts[*owner].rotten.contains(&key)
                };
                let on_disk = |owner: usize| (host::name(owner), self.hosts[owner].on_disk(key));
                let mut owners = owners.into_iter().flatten().filter(is_whole).map(on_disk).peekable();
                self.drops += u64::from(owners.peek().is_some());
                if let Some(evidence) = hints_drain::judge_removal(&held, &self.books[key], owners) {
                    self.report_of(Invariant::HintsDrain, host, key, (since, now), &evidence);
                }
                return;
            }
            // The one way in which a record that stays may forget.
            (DiskReply::Applied { applied, .. }, Asked::Compact) => {
                if let Applied::Changed { record, .. } = applied {
                    let after = Rc::new(Holding::of(record));
                    let before = std::mem::replace(&mut replica.applied, after.clone());
                    replica.is_current = true;
                    replica.since = now;
                    watched.unsynced.push_back((lsn, key, after));
                    self.books[key].compacted(&before);
                }
                return;
            }
            (DiskReply::Applied { applied, .. }, asked) => {
                let (record, is_adopted) = match applied {
                    Applied::Changed { record, .. } | Applied::Unchanged { record } => (record, false),
                    Applied::Adopted { record, .. } => (record, true),
                    Applied::Refused(refusal) => {
                        if let (Refusal::Behind | Refusal::Reaped, Asked::Put { operation, .. }) =
                            (refusal, asked)
                        {
                            watched.duties.undone(operation);
                        }
                        return;
                    }
                };
                let (birth, sources) = match asked {
                    Asked::Read | Asked::Remove | Asked::Reap | Asked::Compact | Asked::Mend => return,
                    Asked::Merge(merged) => (None, vec![merged]),
                    Asked::Put { birth, base, .. } => {
                        ((!is_adopted).then_some(birth), base.into_iter().collect())
                    }
                };
                Found { record, is_change: true, birth, sources }
            }
            _ => return,
        };
        if found.birth.is_none()
            && replica.is_current
            && replica.applied.is_of(found.record)
            && found.sources.is_empty()
        {
            return;
        }
        self.found(host, now, key, lsn, found, dots);
    }

    /// A replica forgets by a round of reaping.
    fn forgets(&mut self, host: usize, key: usize, now: Moment, before: Option<&Holding>) {
        if let Some(evidence) = self.books[key].reaped(before) {
            self.report_of(Invariant::HonestContexts, host, key, (now, now), &evidence);
        }
    }

    /// What rounds of reaping have forgotten, by key.
    pub(super) fn reaped(&self) -> BTreeMap<Bytes, BTreeSet<Dot>> {
        let books = self.names.iter().zip(&self.books).filter(|(_, book)| !book.forgotten().is_empty());
        books.map(|(name, book)| (name.clone(), book.forgotten().clone())).collect()
    }

    /// A replica is seen to hold a record.
    fn found(&mut self, host: usize, now: Moment, key: usize, lsn: Lsn, found: Found<'_>, dots: &mut Dots) {
        let Some(replica) = self.hosts[host].replicas.get_mut(&key) else { return };
        let is_after_removal = replica.may_be_gone && !replica.is_current;
        let before = if is_after_removal { Rc::default() } else { replica.applied.clone() };
        let since = replica.since;
        let was_current = std::mem::replace(&mut replica.is_current, true);
        let after =
            if before.is_of(found.record) { before.clone() } else { Rc::new(Holding::of(found.record)) };
        if !Rc::ptr_eq(&before, &after) {
            replica.applied = after.clone();
            replica.since = now;
            self.hosts[host].unsynced.push_back((lsn, key, after.clone()));
        }
        // What a crash kept of what was not durable yet is a source that nobody saw.
        let made_up = (found.is_change && was_current).then(|| {
            let mut sources: Vec<&Holding> = found.sources.iter().collect();
            sources.push(&before);
            repair_only_adds::judge(&sources, found.birth.as_ref(), &after)
        });
        if let Some(birth) = found.birth {
            self.books[key].born(birth);
        }
        if let Some(evidence) = made_up.flatten() {
            self.report_of(Invariant::RepairOnlyAdds, host, key, (since, now), &evidence);
        }
        if Rc::ptr_eq(&before, &after) {
            return;
        }
        let slot = self.names.get(key).map(|name| Slot::of_key(name));
        let is_owner = slot.is_some_and(|slot| self.hosts[host].reaping.contains(&slot));
        let is_back = || self.books[key].judge_return(&before, &after).filter(|_| is_owner);
        if let Some(evidence) = self.books[key].judge(&before, &after).or_else(is_back) {
            self.report_of(Invariant::HonestContexts, host, key, (since, now), &evidence);
        }
        if let Some(evidence) = self.caps[host].judge_record(found.record) {
            self.report_of(Invariant::Bounds, host, key, (since, now), &evidence);
        }
        let violation = self.key(key).and_then(|name| dots.passed(&name, found.record));
        self.violations.extend(violation);
    }

    fn synced(&mut self, host: usize, through: Lsn) {
        let Watched { unsynced, replicas, synced, .. } = &mut self.hosts[host];
        *synced = through;
        while let Some((_, key, holding)) = unsynced.pop_front_if(|(lsn, ..)| *lsn <= through) {
            if let Some(replica) = replicas.get_mut(&key) {
                replica.durable = holding;
            }
        }
    }

    fn number(&mut self, key: &Bytes) -> usize {
        if let Some(number) = self.keys.get(key) {
            return *number;
        }
        self.books.push(Book::default());
        self.names.push(key.clone());
        self.keys.insert(key.clone(), self.books.len() - 1);
        self.books.len() - 1
    }

    fn key(&self, number: usize) -> Option<Bytes> {
        self.names.get(number).cloned()
    }

    fn report_of(
        &mut self,
        which: Invariant,
        host: usize,
        key: usize,
        span: (Moment, Moment),
        evidence: &str,
    ) {
        if let Some(key) = self.key(key) {
            self.report(which, host, &key, span, evidence);
        }
    }

    fn report(&mut self, which: Invariant, host: usize, key: &Bytes, span: (Moment, Moment), evidence: &str) {
        let evidence = format!("{}: {evidence}", host::name(host));
        self.violations.push(Violation::of_key(which, key, span, evidence));
    }
}

/// What a disk told of a key.
struct Found<'a> {
    record: &'a Record,
    /// Whether this is what a change made, and of what.
    is_change: bool,
    birth: Option<Birth>,
    sources: Vec<Holding>,
}

/// What opens the contexts in answers: the secret of the cluster.
pub(super) type Opened<'a> = Option<&'a crate::protocol::causality::ClusterSecret>;

pub(super) use reads::Origin;

#[cfg(test)]
mod tests;
