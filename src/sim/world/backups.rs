//! Machines that start from an old copy of their disk: a restored backup, or two directories of one node that are used
//! in turns.
//!
//! What makes a copy old is what others know of the node that it does not hold. Either all of them have that written
//! down, so that whoever can be asked knows better; or somebody counts on it, that is, a client was told of a write by a node
//! that still runs, and the copy has not got that write. Of a copy that is fresher than that nobody alive needs to know; it
//! is another fault, which the documents name. An old one has to stop before it votes for anything; its operator then does
//! what it is told, and puts the directory aside. If all who count on what it lacks have ended or cannot be reached
//! when it begins to vote, nothing can be demanded, and the operator finds out for himself at that moment.

use std::time::Duration;

use super::super::disk::Disk;
use super::super::faults::Kind;
use super::super::host;
use super::super::invariants::{Invariant, Violation};
use super::super::trace::About;
use super::reliance::Reliance;
use super::{Event, World};
use crate::protocol::id::Incarnation;
use crate::protocol::membership::Recovered;
use crate::protocol::storage::op::{Lsn, MetaKey};
use crate::protocol::wire::life::Life;

/// Faults in a thousand before which somebody copies a disk.
const COPIES_PER_MILLE: u32 = 100;

/// Crashes in a thousand that come a moment after the disk was copied, where disks are copied at all.
const COPIED_BEFORE_CRASHES_PER_MILLE: u32 = 400;

/// How long after the copy that moment is, in milliseconds: no heartbeat need have told of it.
const COPIED_BEFORE_MS: (u64, u64) = (5, 1_200);

/// Starts in a thousand from an old copy, if there is one.
const RESTORES_PER_MILLE: u32 = 400;

/// A copy of a disk.
pub(in crate::sim) struct Copy {
    pub(super) disk: Disk,
    /// The directory, the incarnation and the position that it has got to at most.
    at: (Incarnation, Incarnation, Lsn),
    /// Who counts on what the node has acknowledged since it was made.
    pub(super) relied: Vec<Reliance>,
}

/// Whether a machine runs from a copy of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Copied {
    /// From its own.
    No,
    /// From a copy of which nobody alive needs to know that it is one.
    Freshly,
    /// From one that lacks what somebody alive counts on.
    Lately,
    /// From one of which all others know better, and have it written down.
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
            let disk = host.disk.copy(&mut self.rng);
            host.copy = Some(Box::new(Copy { disk, at, relied: Vec::new() }));
            self.note(About::All, || format!("the disk of {} is copied", host::name(index)));
        }
    }

    /// A machine loses power. Now and then somebody has copied its disk a moment before.
    pub(super) fn lose_power(&mut self, index: usize, down: Duration) {
        let is_copied = self.swarm.kinds.contains(&Kind::Backup)
            && self.hosts[index].process.is_some()
            && self.rng.chance(COPIED_BEFORE_CRASHES_PER_MILLE);
        if !is_copied {
            return self.crash(index, down, "crashes");
        }
        self.copy_disk(index);
        let (least, most) = COPIED_BEFORE_MS;
        let at = self.now + Duration::from_millis(self.rng.between(least, most));
        let boot = self.hosts[index].boot;
        self.schedule(at, Event::LosesPower { host: index, boot, down });
    }

    /// A machine is about to start: now and then from an old copy.
    pub(super) fn perhaps_restore_copy(&mut self, index: usize) {
        if self.is_safe
            && self.may_lose_disk(index)
            && self.how_copied(index).0 != Copied::Freshly
            && self.rng.chance(RESTORES_PER_MILLE)
            && self.strikes(Kind::Backup)
        {
            self.restore_copy(index);
        }
    }

    /// What a machine would run from if it got its copy back, and who would count on what that lacks.
    fn how_copied(&mut self, index: usize) -> (Copied, Vec<(usize, u64)>) {
        let doubters = self.doubters(index);
        match (self.is_copy_old(index), doubters.is_empty()) {
            (true, _) => (Copied::LongAgo, doubters),
            (false, false) => (Copied::Lately, doubters),
            (false, true) => (Copied::Freshly, doubters),
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
        let (copied, doubters) = self.how_copied(index);
        let Some(mut copy) = self.hosts[index].copy.take() else { return };
        self.note(About::All, || {
            let name = host::name(index);
            let known: Vec<String> = doubters.iter().map(|(by, _)| host::name(*by)).collect();
            match copied {
                Copied::Lately => {
                    format!("{name} gets back an old copy of its disk; {} count on more", known.join(", "))
                }
                _ => format!("{name} gets back an old copy of its disk"),
            }
        });
        std::mem::swap(&mut self.hosts[index].disk, &mut copy.disk);
        // The disk that was in its place may come back in turn, once the others know of a directory after it: what it holds is
        // all that there was in its own. If it is empty it is old as soon as there is anything newer than now.
        let directories = self.remembered(index).map(|life| life.directory);
        let directory = directories.chain([begun_in(&copy.disk)]).max().unwrap_or_default();
        copy.at = (directory, Incarnation(u64::MAX), Lsn(u64::MAX));
        copy.relied.clear();
        let host = &mut self.hosts[index];
        host.copy = Some(copy);
        host.has_lost |= copied != Copied::Freshly;
        host.copied = copied;
        host.doubters = doubters;
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
        let is_old = matches!(host.copied, Copied::Lately | Copied::LongAgo);
        let Some(process) = host.process.as_ref().filter(|_| is_old) else { return };
        let node = &process.node;
        let votes = node
            .ring_view()
            .is_some_and(|view| node.trust().unasked().len() < view.ring().load(node.id()) as usize);
        if !votes || !self.violations.is_empty() {
            return;
        }
        let doubter = host.doubters.iter().find(|doubter| self.could_have_told(index, **doubter));
        let why = match (host.copied, doubter) {
            (Copied::LongAgo, _) => "nobody has noticed".to_owned(),
            (_, Some((by, _))) => format!("{} counts on what that lacks and was not heard", host::name(*by)),
            (_, None) if self.scripted.is_some() => return,
            (_, None) => {
                let down = self.down_time();
                self.crash(
                    index,
                    down,
                    "is stopped by its operator, who alone knows that it runs from a copy",
                );
                return self.lose_disk(index);
            }
        };
        let evidence = format!("{} runs from an old copy, and {why}", host::name(index));
        self.violations.push(Violation::general(Invariant::Sane, evidence));
    }

    /// Whether a host still runs in the boot in which it counted on something, and nothing has kept it from telling
    /// another one so since that one began.
    fn could_have_told(&self, index: usize, (by, boot): (usize, u64)) -> bool {
        let since = self.hosts[index].started_at;
        self.still_counts(by, boot)
            && self.hosts[by].paused_until <= since
            && self.network.is_prompt_since(by, index, since)
    }
}

/// In which incarnation the directory on a disk began, as far as that is durable.
fn begun_in(disk: &Disk) -> Incarnation {
    let own = Recovered::parse(disk.durable_lives()).ok().and_then(|recovered| recovered.own_life);
    own.map(|own| own.claim().now.directory).unwrap_or_default()
}

/// How far a disk has got that a node has open.
fn is_at(disk: &Disk) -> Option<(Incarnation, Incarnation, Lsn)> {
    let (position, own) = disk.own_life()?;
    let own = Recovered::parse(&[(MetaKey::OwnLife, own)].into()).ok()?.own_life?;
    let life = own.claim().now;
    Some((life.directory, life.incarnation, position))
}
