//! One simulated machine: clocks, a disk, and the node that runs on it while it runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::clock::Clock;
use super::disk::Disk;
use super::world::{Copied, Copy};
use crate::protocol::causality::ClusterSecret;
use crate::protocol::config::NodeConfig;
use crate::protocol::id::NodeId;
use crate::protocol::node::Node;
use crate::protocol::replication::scope::node_time;
use crate::protocol::ring::entry::Name;
use crate::protocol::time::{Moment, WallTime};

/// The most that a disk is slowed down, in thousandths more: as much as one fault does at most.
const SLOWNESS_MAX: u64 = 100_000;

/// The longest that anything takes on a slow disk.
const SLOWED_MAX: Duration = Duration::from_secs(4);

/// One machine.
pub(super) struct Host {
    pub(super) config: NodeConfig,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    /// Counts the starts, so that what was meant for an earlier process is told apart.
    pub(super) boot: u64,
    /// Who runs here, once known.
    pub(super) id: Option<NodeId>,
    /// While it is paused nothing happens on it.
    pub(super) paused_until: Moment,
    /// How much slower its disk is than usual, in thousandths more.
    pub(super) slowness: u64,
    /// Whether a node that ran here ever served.
    pub(super) has_served: bool,
    /// It stays as it is until everything heals, down if it is down.
    pub(super) is_frozen: bool,
    /// It has lost its disk, and what came back under its name is not whole yet.
    pub(super) has_lost: bool,
    /// Whether it runs from a copy of its disk.
    pub(super) copied: Copied,
    /// A copy of its disk that somebody has made, or the disk that one was put in the place of.
    pub(super) copy: Option<Box<Copy>>,
    /// Who has counted on what its copy lacks, as a host and the boot in which it did.
    pub(super) doubters: Vec<(usize, u64)>,
    /// Names the latest life that has said a word here.
    pub(super) nonce: u64,
    /// When the latest process began.
    pub(super) started_at: Moment,
    /// Its log is damaged, so that it may refuse to start from it.
    pub(super) log_is_damaged: bool,
    /// Its store is going to be opened without one of its records.
    pub(super) loses_a_record: bool,
    /// Its next sync fails.
    pub(super) sync_fails: bool,
}

/// A running process.
pub(super) struct Process {
    pub(super) node: Node,
    /// It said that its incarnation and actor are durable.
    pub(super) has_started: bool,
    /// When it wants to be woken, in the world's time; what was scheduled for later is stale.
    pub(super) wakes_at: Moment,
    /// Whether an execution of its disk requests is scheduled.
    pub(super) disk_is_busy: bool,
    /// It is stopping in good order.
    pub(super) is_stopping: bool,
}

impl Process {
    /// What the node seals contexts with, once its cluster is founded.
    pub(super) fn secret(&self) -> Option<&ClusterSecret> {
        self.node.membership().cluster().map(|cluster| &cluster.secret)
    }
}

impl Host {
    /// The time that the node tells its clients, by which they name their operations; what the wall shows while it is down.
    pub(super) fn told_time(&self, now: Moment) -> WallTime {
        let wall = self.clock.now(now).wall;
        match &self.process {
            Some(process) => node_time(wall, process.node.membership().clock_offset()),
            None => wall,
        }
    }

    /// How long something takes on this disk that takes `span` on a healthy one.
    ///
    /// Several reasons to be slow add up only so far, and nothing takes longer than [`SLOWED_MAX`]: what was begun before
    /// a part of the cluster heals has to end before that part is held to its promises.
    pub(super) fn slowed(&self, span: Duration) -> Duration {
        let slowness = self.slowness.min(SLOWNESS_MAX);
        let slowed = span + Duration::from_micros(span.as_micros() as u64 * slowness / 1_000);
        slowed.min(SLOWED_MAX.max(span))
    }
}

/// The name of the host with this index, for people: n1, n2, ...
pub(super) fn name(index: usize) -> String {
    format!("n{}", index + 1)
}

/// The address of the host with this index.
pub(super) fn address(index: usize) -> SocketAddr {
    let [high, low] = (index as u16 + 1).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 7_000))
}

/// The host behind an address.
pub(super) fn at_address(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(v4) => {
            let [_, _, high, low] = v4.ip().octets();
            usize::from(u16::from_be_bytes([high, low])).checked_sub(1)
        }
        SocketAddr::V6(_) => None,
    }
}

/// What the node on the host with this index is told, in a cluster of `nodes`.
pub(super) fn config(index: usize, nodes: usize) -> Result<NodeConfig, String> {
    let mut config = NodeConfig::new(Name::new(name(index))?, address(index));
    config.seeds = (0..nodes.min(3)).filter(|seed| *seed != index).map(address).collect();
    config.found = u16::try_from(nodes).ok();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_back_to_their_hosts() {
        for index in [0, 1, 254, 255, 999] {
            assert_eq!(at_address(address(index)), Some(index));
        }
    }
}
