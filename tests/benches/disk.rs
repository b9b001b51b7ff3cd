//! Durable updates of one disk: how many a second, and what one costs in CPU time.
//!
//! `cargo bench --bench disk`, a few seconds. One driver thread keeps N updates in flight, each of a random key of
//! 16 bytes, and counts those that are reported durable: the whole path of a replica below its node, with the log
//! synced for each group and sled fed behind it.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use starling::protocol::causality::{Applied, Change, Dot, OperationId, Put};
use starling::protocol::config::Limits;
use starling::protocol::id::Actor;
use starling::protocol::ring::slot::Slot;
use starling::protocol::rng::Rng;
use starling::protocol::storage::op::{DiskReply, DiskRequest, Ticket};
use starling::protocol::time::{Timestamp, WallTime};
use starling::server::disk::{Disk, DiskOptions};

const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(1_300);

fn main() {
    memory();
    println!(
        "updates/s counts durable ones; store/s is what sled took in meanwhile; us/op is CPU time of all threads"
    );
    println!(
        "{:>6} {:>9} {:>11} {:>8} {:>9} {:>9} {:>8}",
        "value", "in flight", "updates/s", "us/op", "p50 us", "p99 us", "store/s"
    );
    for value_bytes in [100, 1_024] {
        for in_flight in [1, 64, 256] {
            throughput(value_bytes, in_flight);
        }
    }
}

/// A generator of puts of incompressible values under random keys.
struct Load {
    rng: Rng,
    number: u64,
    value_bytes: usize,
}

impl Load {
    fn next(&mut self) -> DiskRequest {
        self.number += 1;
        let mut key = self.rng.bits().to_le_bytes().to_vec();
        key.extend(self.rng.bits().to_le_bytes());
        let mut value = Vec::with_capacity(self.value_bytes + 8);
        while value.len() < self.value_bytes {
            value.extend(self.rng.bits().to_le_bytes());
        }
        value.truncate(self.value_bytes);
        let put = Put {
            context: Default::default(),
            dot: Dot { actor: Actor(1), at: Timestamp(self.number) },
            value: Some(value.into()),
            operation: OperationId { started: WallTime(1), nonce: self.number },
            base: None,
            age: Default::default(),
            limits: Limits::default(),
        };
        let key = Bytes::from(key);
        let (ticket, slot) = (Ticket(self.number), Slot::of_key(&key));
        DiskRequest::Update { ticket, slot, key, change: Change::Put(put) }
    }
}

fn throughput(value_bytes: usize, in_flight: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut disk = Disk::open(folder.path(), DiskOptions::default(), || {}).unwrap();
    let mut load = Load { rng: Rng::from_number(1), number: 0, value_bytes };
    let mut waiting = VecDeque::new();
    let mut replies = Vec::new();
    let mut latencies = Vec::new();
    let begun = Instant::now();
    let mut measured: Option<(Instant, Duration, u64)> = None;
    loop {
        while waiting.len() < in_flight {
            disk.submit(load.next(), &mut replies).unwrap();
            match replies.pop() {
                Some(DiskReply::Applied { lsn, applied: Applied::Changed { .. }, .. }) => {
                    waiting.push_back((lsn, Instant::now()));
                }
                // Overloaded: the store is behind its bound.
                _ => break,
            }
        }
        disk.wait(Duration::from_secs(1), &mut replies).unwrap();
        let durable = disk.durable();
        while let Some((_, submitted)) = waiting.pop_front_if(|(lsn, _)| *lsn <= durable) {
            if measured.is_some() {
                latencies.push(submitted.elapsed().as_micros() as u64);
            }
        }
        replies.clear();
        if measured.is_none() && begun.elapsed() >= WARM_UP {
            measured = Some((Instant::now(), cpu_time(), disk.fed_through().0));
        }
        if measured.is_some_and(|(begun, ..)| begun.elapsed() >= MEASURED) {
            break;
        }
    }
    let Some((begun, cpu, fed)) = measured else { return };
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_time() - cpu);
    let fed = disk.fed_through().0 - fed;
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len() * share / 1_000).copied().unwrap_or_default();
    println!(
        "{value_bytes:>6} {in_flight:>9} {:>11.0} {:>8.1} {:>9} {:>9} {:>8.0}",
        latencies.len() as f64 / seconds,
        cpu.as_micros() as f64 / latencies.len() as f64,
        at(500),
        at(990),
        fed as f64 / seconds,
    );
}

/// What a node's disk takes in memory with 63,000 records of 1 KiB, once loaded and once reopened.
fn memory() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let before = resident_mib();
    let mut disk = Disk::open(folder.path(), DiskOptions::default(), || {}).unwrap();
    let empty = resident_mib();
    let mut load = Load { rng: Rng::from_number(2), number: 0, value_bytes: 1_024 };
    let mut replies = Vec::new();
    while disk.durable().0 < 63_000 {
        for _ in 0..256 {
            if load.number < 63_000 && !disk.is_saturated() {
                disk.submit(load.next(), &mut replies).unwrap();
            }
        }
        disk.wait(Duration::from_millis(100), &mut replies).unwrap();
        replies.clear();
    }
    let loaded = resident_mib();
    disk.close().unwrap();
    let begun = Instant::now();
    let mut disk = Disk::open(folder.path(), DiskOptions::default(), || {}).unwrap();
    let opened = begun.elapsed();
    while !disk.is_verified() {
        disk.wait(Duration::from_millis(100), &mut replies).unwrap();
    }
    println!(
        "63,000 records of 1 KiB: {before} MiB resident before, {empty} empty, {loaded} loaded, {} reopened and verified \
         (open {opened:.0?}, verified after {:.0?})",
        resident_mib(),
        begun.elapsed(),
    );
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
}
