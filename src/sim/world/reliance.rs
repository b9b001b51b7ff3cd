//! What nodes count on: a client was told that a write is on the disk of somebody else.
//!
//! ```text
//! client ◀── committed ── coordinator: it counts on each other node that it names as having the write, or a hint of it
//! client ◀── committed ── node ◀── Forwarded ── owner: that node counts on the owner that has executed it
//! ```
//!
//! This is seen from outside, by what is answered, and not by what the nodes remember of each other.

use super::super::disk::Disk;
use super::World;
use crate::protocol::causality::Dot;
use crate::protocol::id::NodeId;
use crate::protocol::input::Input;
use crate::protocol::output::Output;
use crate::protocol::ring::slot::Slot;
use crate::protocol::wire::client::{Answer, Outcome, Written};
use crate::protocol::wire::peer::PeerMessage;

/// Somebody counts on a write of another host's disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reliance {
    by: usize,
    /// In which boot. What a process has not written down ends with it.
    boot: u64,
    dot: Dot,
}

/// Who has executed what this input gives the answer to, if it was passed on.
pub(super) fn passed_on_to(input: &Input) -> Option<NodeId> {
    match input {
        Input::Peer { from, message: PeerMessage::Forwarded { .. } } => Some(*from),
        _ => None,
    }
}

/// A write that a node tells somebody is committed.
fn committed(output: &Output) -> Option<&Written> {
    match output {
        Output::Respond { answer: Answer::Written(written), .. }
        | Output::Send { message: PeerMessage::Forwarded { answer: Answer::Written(written), .. }, .. } => {
            Some(written).filter(|written| written.outcome == Outcome::Committed)
        }
        _ => None,
    }
}

impl World {
    /// A node has answered: it counts on those who have it on disk and have told it so.
    pub(super) fn take_note_of_reliance(&mut self, by: usize, executor: Option<NodeId>, outputs: &[Output]) {
        if self.hosts.iter().all(|host| host.copy.is_none()) {
            return;
        }
        for written in outputs.iter().filter_map(committed) {
            let Some(dot) = written.dot else { continue };
            let told = |node: &&NodeId| executor.is_none_or(|executor| executor == **node);
            for node in written.acks.iter().chain(&written.hinted).filter(told) {
                let Some(&on) = self.ids.get(node) else { continue };
                let (has_met, boot) = (self.has_met(by, on), self.hosts[by].boot);
                if let Some(copy) = self.hosts[on].copy.as_mut().filter(|_| on != by && has_met) {
                    copy.relied.push(Reliance { by, boot, dot });
                }
            }
        }
    }

    /// Whether the node on one host has been shown where the latest life of that on another one comes from. Before that,
    /// for one round trip, what is acknowledged cannot be told from what another process says.
    fn has_met(&self, one: usize, other: usize) -> bool {
        let (Some(process), Some(id)) = (&self.hosts[one].process, self.hosts[other].id) else {
            return false;
        };
        process.node.membership().remembers(id).is_some_and(|life| life.nonce == self.hosts[other].nonce)
    }

    /// Whether a process still runs that counted on something, and does not stop just now.
    pub(super) fn still_counts(&self, by: usize, boot: u64) -> bool {
        let host = &self.hosts[by];
        host.boot == boot && host.process.as_ref().is_some_and(|process| !process.is_stopping)
    }

    /// Who counts on what the copy of a machine's disk lacks.
    pub(super) fn doubters(&mut self, index: usize) -> Vec<(usize, u64)> {
        let Some(copy) = self.hosts[index].copy.take() else { return Vec::new() };
        let counts = |reliance: &&Reliance| self.still_counts(reliance.by, reliance.boot);
        let relied: Vec<Reliance> = copy.relied.iter().filter(counts).copied().collect();
        let mut doubters = Vec::new();
        if !relied.is_empty() {
            let mut disk = copy.disk.copy(&mut self.rng);
            // One that does not open is refused whoever counts on it.
            if disk.open().is_ok() {
                let lacks = |reliance: &&Reliance| self.lacks(&mut disk, reliance.dot);
                doubters.extend(relied.iter().filter(lacks).map(|reliance| (reliance.by, reliance.boot)));
            }
            doubters.sort_unstable();
            doubters.dedup();
        }
        self.hosts[index].copy = Some(copy);
        doubters
    }

    fn lacks(&self, disk: &mut Disk, dot: Dot) -> bool {
        let Some(key) = self.dots.key_of(dot) else { return false };
        let record = disk.holds_durably(Slot::of_key(key), key);
        record.is_none_or(|record| !record.context().covers(dot))
    }
}
