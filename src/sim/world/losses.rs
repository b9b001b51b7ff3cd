//! Machines that lose their disk, and how they come back.
//!
//! What a simulated operator does is what the real one is told to do: the node comes back under its own name, with what
//! a majority of the others know of it; and nobody loses a second disk before the first one is whole again, since with
//! three replicas that may be one too many.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::disk::Disk;
use super::super::faults::Kind;
use super::super::host::{self, Process};
use super::super::invariants::{Invariant, Violation};
use super::super::trace::About;
use super::{Copied, Event, World};
use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::Entry;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::MetaKey;
use crate::protocol::storage::trust::Standing;

/// Starts in a thousand from a damaged log, where that happens at all.
const LOGS_DAMAGED_PER_MILLE: u32 = 300;

/// How long a recovery waits before it asks the others again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl World {
    /// A machine is about to start: now and then it has lost its disk.
    pub(super) fn perhaps_lose_disk(&mut self, index: usize) {
        if self.is_safe
            && self.swarm.lost_disk_per_mille > 0
            && self.may_lose_disk(index)
            && self.rng.chance(self.swarm.lost_disk_per_mille)
            && self.strikes(Kind::LostDisk)
        {
            self.lose_disk(index);
        }
    }

    /// A machine is about to start: now and then a bit of its log has flipped, in the middle.
    pub(super) fn perhaps_damage_log(&mut self, index: usize) {
        if self.is_safe
            && self.swarm.kinds.contains(&Kind::RotLog)
            && self.may_lose_disk(index)
            && self.rng.chance(LOGS_DAMAGED_PER_MILLE)
            && self.strikes(Kind::RotLog)
            && self.hosts[index].disk.damage_log(&mut self.rng)
        {
            self.note(About::All, || format!("the log of {} is damaged", host::name(index)));
            self.hosts[index].log_is_damaged = true;
        }
    }

    /// A directory is refused. If its log is damaged that is as it should be, and the operator does what the program
    /// says: the disk counts as lost. Returns what is on the new one; `None` if nothing was wrong with the old one.
    pub(super) fn give_up_disk(&mut self, index: usize, error: &str) -> Option<BTreeMap<MetaKey, Bytes>> {
        if !self.hosts[index].log_is_damaged {
            return None;
        }
        self.note(About::All, || format!("{} refuses its directory: {error}", host::name(index)));
        self.lose_disk(index);
        self.hosts[index].disk.open().ok()
    }

    pub(super) fn may_lose_disk(&self, index: usize) -> bool {
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != index);
        self.hosts.len() >= 3
            && self.options.replicas.get() >= 3
            && self.hosts.iter().all(|host| host.has_served)
            && others.into_iter().all(|(_, host)| !host.has_lost)
    }

    /// Everything on the disk of a machine that does not run is gone.
    pub(super) fn lose_disk(&mut self, index: usize) {
        self.note(About::All, || format!("{} has lost its disk", host::name(index)));
        self.hosts[index].disk = Disk::new(self.swarm.feed_per_mille, &mut self.rng);
        self.hosts[index].has_lost = true;
        self.hosts[index].copied = Copied::No;
        self.witness.lost(index);
        self.starts.lost(index);
        self.trace.disk_closed(index);
        self.counts.disks_lost += 1;
        self.workload.history.lost_disks.push((self.now, index));
    }

    /// What the others know of a member, if enough of them can be asked.
    pub(super) fn known_to_others(&self, index: usize, id: NodeId) -> Option<Entry> {
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != index);
        let running = others.filter_map(|(_, host)| host.process.as_ref());
        let known: Vec<&Entry> = running.filter_map(|process| process.node.membership().entry(id)).collect();
        let majority = self.hosts.len() / 2 + 1;
        if known.len() < majority.min(self.hosts.len() - 1) {
            return None;
        }
        let mut newest = Entry::clone(known.iter().max_by_key(|entry| entry.age())?);
        newest.amnesia = known.iter().map(|entry| entry.amnesia).max()?;
        Some(newest)
    }

    /// A recovery has to wait for the others.
    pub(super) fn start_later(&mut self, index: usize) {
        if let Err(error) = self.hosts[index].disk.shut(&mut self.rng) {
            self.insane(index, &format!("cannot close its disk: {error}"));
        }
        self.schedule(self.now + ASK_AGAIN, Event::Starts { host: index });
    }

    /// When all is over, every node votes for all of its slots.
    pub(super) fn demand_whole_nodes(&mut self) {
        if !self.violations.is_empty() {
            return;
        }
        for index in 0..self.hosts.len() {
            let Some(process) = &self.hosts[index].process else { continue };
            let trust = process.node.trust();
            let left = trust.voteless().len() + trust.unasked().len();
            if left > 0 {
                let evidence = format!("{} still has no vote for {left} of its slots", host::name(index));
                self.violations.push(Violation::general(Invariant::Liveness, evidence));
            }
        }
    }

    /// Whether a machine has a vote for a slot.
    pub(super) fn votes(&self, index: usize, slot: Slot) -> bool {
        let host = &self.hosts[index];
        let votes = |process: &Process| process.node.trust().standing(slot) == Standing::Votes;
        !host.has_lost && host.process.as_ref().is_some_and(votes)
    }
}
