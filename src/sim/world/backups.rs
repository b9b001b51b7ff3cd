//! Machines that start from an old copy of their disk: a restored backup, or two directories of one node that are used
//! in turns.
//!
//! What makes a copy old is what the others have written down: every one of them remembers, durably, more of the node
//! than the copy holds. A copy that is fresher than that is another fault, which nobody can tell from a crash, and the
//! documents say so. The node has to stop before it votes for anything; its operator then does what it is told, and puts
//! the directory aside.

use super::super::disk::Disk;
use super::super::faults::Kind;
use super::super::host;
use super::super::invariants::{Invariant, Violation};
use super::super::trace::About;
use super::World;
use crate::protocol::id::Incarnation;
use crate::protocol::membership::Recovered;
use crate::protocol::storage::op::{Lsn, MetaKey};
use crate::protocol::wire::life::Life;

/// Faults in a thousand before which somebody copies a disk.
const COPIES_PER_MILLE: u32 = 100;

/// Starts in a thousand from an old copy, if there is one.
const RESTORES_PER_MILLE: u32 = 400;

/// A copy of a disk.
pub(in crate::sim) struct Copy {
    disk: Disk,
    /// The directory, the incarnation and the position that it has got to at most.
    at: (Incarnation, Incarnation, Lsn),
}

/// Whether a machine runs from a copy of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Copied {
    /// From its own.
    No,
    /// From a copy of which nobody may know that it is one.
    Freshly,
    /// From one of which all others know better.
    LongAgo,
}

impl World {
    /// Now and then somebody copies the disk of a running node.
    pub(super) fn perhaps_copy_a_disk(&mut self) {
        if !self.swarm.kinds.contains(&Kind::Backup) || !self.rng.chance(COPIES_PER_MILLE) {
            return;
        }
        let index = self.rng.index(self.hosts.len());
        self.copy_disk(index);
    }

    /// Somebody copies the disk of a running node.
    pub(super) fn copy_disk(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if let Some(at) = is_at(&host.disk) {
            host.copy = Some(Box::new(Copy { disk: host.disk.copy(&mut self.rng), at }));
            self.note(About::All, || format!("the disk of {} is copied", host::name(index)));
        }
    }

    /// A machine is about to start: now and then from an old copy.
    pub(super) fn perhaps_restore_copy(&mut self, index: usize) {
        if self.is_safe
            && self.is_copy_old(index)
            && self.may_lose_disk(index)
            && self.rng.chance(RESTORES_PER_MILLE)
            && self.strikes(Kind::Backup)
        {
            self.restore_copy(index);
        }
    }

    /// Whether all others have written down more of the node than its copy holds.
    fn is_copy_old(&self, index: usize) -> bool {
        let Some(copy) = &self.hosts[index].copy else { return false };
        let is_beyond = |life: &Life| (life.directory, life.incarnation, life.position) > copy.at;
        self.remembered(index).filter(is_beyond).count() == self.hosts.len() - 1
    }

    /// What the others remember durably of a node.
    fn remembered(&self, index: usize) -> impl Iterator<Item = Life> + '_ {
        let others = self.hosts.iter().enumerate().filter(move |(other, _)| *other != index);
        let id = self.hosts[index].id;
        others.filter_map(move |(_, other)| {
            let lives = Recovered::parse(other.disk.durable_lives()).ok()?.lives;
            lives.get(&id?).copied()
        })
    }

    /// A machine that does not run gets its copy back.
    pub(super) fn restore_copy(&mut self, index: usize) {
        let copied = if self.is_copy_old(index) { Copied::LongAgo } else { Copied::Freshly };
        let Some(mut copy) = self.hosts[index].copy.take() else { return };
        self.note(About::All, || format!("{} gets back an old copy of its disk", host::name(index)));
        std::mem::swap(&mut self.hosts[index].disk, &mut copy.disk);
        // The disk that was in its place may come back in turn, once the others know better than that one as well.
        let directory = self.remembered(index).map(|life| life.directory).max().unwrap_or_default();
        copy.at = (directory, Incarnation(u64::MAX), Lsn(u64::MAX));
        let host = &mut self.hosts[index];
        host.copy = Some(copy);
        host.has_lost |= copied == Copied::LongAgo;
        host.copied = copied;
        self.witness.lost(index);
        self.starts.restored(index);
        self.trace.disk_closed(index);
        self.workload.history.lost_disks.push((self.now, index));
    }

    /// A node was told that its directory is an old copy, and has stopped.
    pub(super) fn was_denied(&mut self, index: usize) {
        let is_a_copy = self.hosts[index].copied != Copied::No;
        #[cfg(test)]
        let is_a_copy = is_a_copy || self.planted.restores_backups();
        if !is_a_copy {
            return self.insane(index, "was denied although it runs from its own directory");
        }
        let down = self.down_time();
        self.crash(index, down, "ends, since others remember more of it");
        self.lose_disk(index);
    }

    /// A node that runs from an old copy may do anything but vote.
    pub(super) fn demand_that_a_copy_is_noticed(&mut self, index: usize) {
        let host = &self.hosts[index];
        let Some(process) = host.process.as_ref().filter(|_| host.copied == Copied::LongAgo) else { return };
        let node = &process.node;
        let votes = node
            .ring_view()
            .is_some_and(|view| node.trust().unasked().len() < view.ring().load(node.id()) as usize);
        if votes && self.violations.is_empty() {
            let evidence = format!("{} runs from an old copy, and nobody has noticed", host::name(index));
            self.violations.push(Violation::general(Invariant::Sane, evidence));
        }
    }
}

/// How far a disk has got that a node has open.
fn is_at(disk: &Disk) -> Option<(Incarnation, Incarnation, Lsn)> {
    let (position, own) = disk.own_life()?;
    let own = Recovered::parse(&[(MetaKey::OwnLife, own)].into()).ok()?.own_life?;
    let life = own.claim().now;
    Some((life.directory, life.incarnation, position))
}
