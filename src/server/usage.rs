//! What the process itself adds to a node's status.

use nix::sys::resource::{UsageWho, getrusage};

use super::disk::Disk;
use super::peers::Peers;
use crate::protocol::wire::client::Status;

/// Adds CPU, memory, disk and connections, and keeps the counts in alphabetical order.
pub(super) fn add_to(status: &mut Status, disk: Option<&Disk>, peers: &Peers) {
    let mut add = |name: &str, count: u64| status.counts.push((name.to_owned(), count));
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
        add("cpu_micros", micros(usage.user_time()) + micros(usage.system_time()));
    }
    if let Some(bytes) = resident_bytes() {
        add("memory_bytes", bytes);
    }
    add("peer_links", peers.links() as u64);
    if let Some(disk) = disk {
        add("keys", disk.sums().iter().map(|(_, sum)| sum.count).sum());
        add("log_position", disk.durable().0);
        add("untrusted_slots", disk.untrusted_slots().len() as u64);
        disk.counts().into_iter().for_each(|(name, count)| add(name, count));
        status.add_dirty(disk.untrusted_slots().iter().copied());
    }
    status.counts.sort();
}

/// The resident set, in bytes, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
