//! A workload that deletes what it has written gives its disk space back: real nodes, from the first put to the space
//! on the disk. Some minutes: `cargo test --release --test long_deletes -- --nocapture` shows the figures as they come.
//! `STARLING_KEYS` is how many, 200,000 unless set otherwise.
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

#[path = "../support/lab.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod lab;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod program;

use std::path::Path;
use std::time::{Duration, Instant};

use async_std::task::{block_on, spawn};
use lab::{TestLab, count};
use starling::client::{Client, Level};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VALUE_BYTES: usize = 1_024;

/// Operations under way at once.
const WORKERS: usize = 64;

/// The log of a node: two segments, whatever the store holds.
const LOG_BYTES: u64 = 128 << 20;

/// A smaller store is left alone, which is the default of the setting `compact_floor_bytes`; what is rewritten ends with some
/// of sled's segments.
const FLOOR_BYTES: u64 = 64 << 20;

/// How often the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long owners may take to agree on all of it, and their stores to be rewritten.
const PATIENCE: Duration = Duration::from_secs(900);

fn all_keys() -> usize {
    std::env::var("STARLING_KEYS").map_or(200_000, |text| text.parse().expect("STARLING_KEYS is a number"))
}

/// Does something with each key, many at once.
fn each(client: &Client, what: &str, act: fn(Client, usize) -> async_std::task::JoinHandle<()>) {
    let began = Instant::now();
    let worker = |offset: usize| {
        let client = client.clone();
        spawn(async move {
            for number in (offset..all_keys()).step_by(WORKERS) {
                act(client.clone(), number).await;
            }
        })
    };
    let workers: Vec<_> = (0..WORKERS).map(worker).collect();
    workers.into_iter().for_each(block_on);
    println!("{} keys {what} in {:.0} s", all_keys(), began.elapsed().as_secs_f64());
}

fn key(number: usize) -> String {
    format!("key-{number:08}")
}

/// What a directory takes on the disk.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => std::os::unix::fs::MetadataExt::blocks(&found) * 512,
        // It was removed meanwhile.
        Err(_) => 0,
    });
    sizes.sum()
}

/// What the nodes hold and take, told and given back: the keys of all, and the bytes of the one that takes most.
fn look(lab: &TestLab, client: &Client, when: &str) -> (u64, u64) {
    let keys = NODES.iter().map(|node| count(client, node, "keys").unwrap()).sum();
    let sizes = NODES.map(|node| bytes_in(&lab.dir().join(node).join("data")));
    let told: Vec<String> = sizes.iter().map(|bytes| format!("{} MiB", bytes >> 20)).collect();
    println!("{when}: {keys} keys, tombstones among them, on {}", told.join(", "));
    (keys, sizes.into_iter().max().unwrap())
}

#[test]
fn a_workload_that_deletes_what_it_has_written_gives_its_space_back() {
    let lab = TestLab::start(3);
    let client = lab.client();
    for round in 1..=2 {
        each(&client, "written", |client, number| {
            spawn(async move {
                let value = vec![number as u8; VALUE_BYTES];
                client.put_blind(key(number), value).w(Level::Majority).await.unwrap();
            })
        });
        let (_, full) = look(&lab, &client, &format!("round {round}, full"));
        let held = (all_keys() * VALUE_BYTES) as u64;
        assert!(full > held, "a node that owns everything takes {full} bytes for {held}");
        each(&client, "deleted", |client, number| {
            spawn(async move {
                client.delete(key(number)).w(Level::Majority).await.unwrap();
            })
        });
        let began = Instant::now();
        loop {
            let when = format!("round {round}, {:.0} s after the last delete", began.elapsed().as_secs_f64());
            let (keys, bytes) = look(&lab, &client, &when);
            if keys == 0 && bytes <= LOG_BYTES + 2 * FLOOR_BYTES {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{keys} keys are left, and {bytes} bytes taken");
            // This is the poll, and each look at it is a line of the figures.
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
