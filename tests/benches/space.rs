//! How much of the disk a store takes under churn, beside what it holds.
//!
//! `cargo bench --bench space`: two minutes. `STARLING_KEYS` (100,000), `STARLING_ROUNDS` (10) and `STARLING_VALUE_BYTES`
//! (100) set the size; `STARLING_COMPACT_PERCENT=0` never rewrites the store; `STARLING_MODE` is `overwrite` or `remove`.
//! All keys are written once, then overwritten that many times; in a second directory they are written and removed
//! again, as by reaps, that many times. After each round: what log and store take beside what they hold.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling::protocol::causality::{Applied, Change, Dot, OperationId, Put, VersionVector};
use starling::protocol::config::Limits;
use starling::protocol::id::Actor;
use starling::protocol::ring::slot::Slot;
use starling::protocol::rng::Rng;
use starling::protocol::storage::op::{DiskReply, DiskRequest, Lsn, Stored, Ticket};
use starling::protocol::time::{Timestamp, WallTime};
use starling::server::disk::{Disk, DiskOptions};

fn main() {
    let setting =
        |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let keys = setting("STARLING_KEYS", 100_000);
    let rounds = setting("STARLING_ROUNDS", 10);
    let value_bytes = setting("STARLING_VALUE_BYTES", 100) as usize;
    let default = DiskOptions::default();
    let compact_percent = setting("STARLING_COMPACT_PERCENT", default.compact_percent);
    let options = DiskOptions { compact_percent, ..default };
    println!(
        "{keys} keys of 16 bytes, values of {value_bytes} bytes. In MiB: keys and values, what the store holds for them, \
         log, store, most of both together at any time; then how many times what it holds the store takes, and how \
         often it was rewritten"
    );
    let modes = std::env::var("STARLING_MODE").unwrap_or_default();
    for removes in [false, true] {
        if modes.is_empty() || modes == if removes { "remove" } else { "overwrite" } {
            churn(keys, rounds, value_bytes, removes, options.clone());
        }
    }
}

struct Churn {
    disk: Disk,
    rng: Rng,
    version: u64,
    waiting: VecDeque<(Lsn, Instant)>,
    latencies: Vec<u64>,
    replies: Vec<DiskReply>,
    folder: PathBuf,
    looked: Instant,
    peak: u64,
}

impl Churn {
    fn key(number: u64) -> Bytes {
        let mut rng = Rng::from_number(number);
        [rng.bits().to_le_bytes(), rng.bits().to_le_bytes()].concat().into()
    }

    /// Notes the most that is taken at any time.
    fn look(&mut self) {
        if self.looked.elapsed() >= Duration::from_millis(250) {
            self.looked = Instant::now();
            self.peak = self.peak.max(taken(&self.folder));
        }
    }

    /// Takes in what the disk has done; waits for it when enough is under way.
    fn breathe(&mut self, in_flight: usize) {
        while self.waiting.len() >= in_flight.max(1) || self.disk.is_saturated() {
            self.disk.wait(Duration::from_millis(100), &mut self.replies).unwrap();
            self.replies.clear();
            self.look();
            let durable = self.disk.durable();
            while let Some((_, begun)) = self.waiting.pop_front_if(|(lsn, _)| *lsn <= durable) {
                self.latencies.push(begun.elapsed().as_micros() as u64);
            }
            if self.waiting.is_empty() && !self.disk.is_saturated() {
                break;
            }
        }
    }

    fn read(&mut self, key: &Bytes) -> Stored {
        let (slot, key) = (Slot::of_key(key), key.clone());
        self.disk.submit(DiskRequest::Read { ticket: Ticket(0), slot, key }, &mut self.replies).unwrap();
        match self.replies.pop() {
            Some(DiskReply::Read { stored, .. }) => stored,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, number: u64, value_bytes: usize) {
        let key = Churn::key(number);
        self.breathe(256);
        let begun = Instant::now();
        let context = match self.read(&key) {
            Stored::Present(record) => record.context().clone(),
            _ => VersionVector::default(),
        };
        let mut value = Vec::with_capacity(value_bytes + 8);
        while value.len() < value_bytes {
            value.extend(self.rng.bits().to_le_bytes());
        }
        value.truncate(value_bytes);
        self.version += 1;
        let put = Put {
            context,
            dot: Dot { actor: Actor(1), at: Timestamp(self.version) },
            value: Some(value.into()),
            // So far apart that a record remembers one operation only, as one that is not written every few seconds.
            operation: OperationId { started: WallTime(self.version * 100), nonce: self.version },
            base: None,
            age: Default::default(),
            limits: Limits::default(),
        };
        let (ticket, slot) = (Ticket(self.version), Slot::of_key(&key));
        let request = DiskRequest::Update { ticket, slot, key, change: Change::Put(put) };
        self.disk.submit(request, &mut self.replies).unwrap();
        match self.replies.pop() {
            Some(DiskReply::Applied { lsn, applied: Applied::Changed { .. }, .. }) => {
                self.waiting.push_back((lsn, begun));
            }
            other => panic!("{other:?}"),
        }
    }

    fn remove(&mut self, number: u64) {
        let key = Churn::key(number);
        self.breathe(256);
        let begun = Instant::now();
        let Stored::Present(record) = self.read(&key) else { panic!("key {number} is not there") };
        let lsn = self.disk.remove(Slot::of_key(&key), key.clone(), record.hash(&key)).unwrap().unwrap();
        self.waiting.push_back((lsn, begun));
    }

    fn settle(&mut self) {
        self.breathe(1);
        self.run_until(|disk| disk.fed_through() >= disk.durable());
    }

    fn run_until(&mut self, done: impl Fn(&Disk) -> bool) {
        let begun = Instant::now();
        while !done(&self.disk) && begun.elapsed() < Duration::from_secs(120) {
            self.disk.wait(Duration::from_millis(100), &mut self.replies).unwrap();
            self.replies.clear();
            self.look();
        }
    }

    fn count(&self, wanted: &str) -> u64 {
        self.disk.counts().iter().find(|(name, _)| *name == wanted).unwrap().1
    }

    fn tell(&mut self, what: &str, live: u64, updates: u64, begun: Instant) {
        let seconds = begun.elapsed().as_secs_f64();
        let log = taken(&self.folder.join("log"));
        let all = taken(&self.folder);
        self.latencies.sort_unstable();
        let latencies = &self.latencies;
        let at = |share: usize| latencies.get(latencies.len() * share / 1_000).copied().unwrap_or_default();
        println!(
            "{what:<20} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>6.2} {:>4} {:>9.0} {:>8} {:>8} {:>6}",
            mib(live),
            mib(self.count("live_bytes")),
            mib(log),
            mib(all - log),
            mib(self.peak.max(all)),
            (all - log) as f64 / self.count("live_bytes").max(1) as f64,
            self.count("disk_compactions"),
            updates as f64 / seconds,
            at(500),
            at(990),
            resident_mib(),
        );
        self.latencies.clear();
        self.peak = 0;
    }
}

fn churn(keys: u64, rounds: u64, value_bytes: usize, removes: bool, options: DiskOptions) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = Disk::open(folder.path(), options, || {}).unwrap();
    let mut churn = Churn {
        disk,
        rng: Rng::from_number(7),
        version: 0,
        waiting: VecDeque::new(),
        latencies: Vec::new(),
        replies: Vec::new(),
        folder: folder.path().to_owned(),
        looked: Instant::now(),
        peak: 0,
    };
    let live = keys * (16 + value_bytes as u64);
    println!(
        "{:<20} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6} {:>4} {:>9} {:>8} {:>8} {:>6}",
        if removes { "written and removed" } else { "overwritten" },
        "data",
        "stored",
        "log",
        "store",
        "peak",
        "times",
        "new",
        "updates/s",
        "p50 us",
        "p99 us",
        "RSS"
    );
    for round in 0..=rounds {
        let begun = Instant::now();
        (0..keys).for_each(|number| churn.write(number, value_bytes));
        churn.settle();
        churn.tell(&format!("round {round}, written"), live, keys, begun);
        if removes {
            let begun = Instant::now();
            (0..keys).for_each(|number| churn.remove(number));
            churn.settle();
            churn.tell(&format!("round {round}, removed"), 0, keys, begun);
        }
    }
    // What is due after the next checkpoint.
    let begun = Instant::now();
    churn.run_until(|_| begun.elapsed() > Duration::from_secs(45));
    churn.tell("45 s later", if removes { 0 } else { live }, 0, begun);
    churn.disk.close().unwrap();
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes of disk that a folder takes with all that is in it.
fn taken(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(file) if file.is_dir() => bytes += taken(&entry.path()),
            // What sled removes meanwhile takes nothing.
            file => bytes += file.map_or(0, |file| file.blocks() * 512),
        }
    }
    bytes
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
}
