//! Real nodes become equal by themselves: one was away while others wrote, and nobody reads what it has missed.
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod lab;
#[path = "support/program.rs"]
mod program;

use std::time::Instant;

use async_std::task::{block_on, spawn};
use lab::{TestLab, count, poll};
use program::{runs, signal};
use starling::client::{Client, Level};
use starling::protocol::wire::client::ReplicaView;

/// Keys that all nodes have before one of them goes away.
const BEFORE: usize = 1_000;

/// Keys that are written while it is away: half of those again, and new ones.
const MISSED: std::ops::Range<usize> = 500..4_500;

/// Operations under way at once.
const WORKERS: usize = 32;

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// Writes keys, each on a majority.
fn write(client: &Client, keys: std::ops::Range<usize>, what: &'static str) {
    let worker = |offset: usize| {
        let (client, keys) = (client.clone(), keys.clone());
        spawn(async move {
            for number in keys.skip(offset).step_by(WORKERS) {
                let value = format!("{what} {number}");
                client.put_blind(key(number), value).w(Level::Majority).await.unwrap();
            }
        })
    };
    let workers: Vec<_> = (0..WORKERS).map(worker).collect();
    workers.into_iter().for_each(block_on);
}

fn total(client: &Client, name: &str) -> Option<u64> {
    ["n1", "n2", "n3"].iter().map(|node| count(client, node, name)).sum()
}

/// How many of the keys are not held by all three owners alike. `explain` asks all of them and repairs nothing.
fn unequal(client: &Client, keys: std::ops::Range<usize>) -> usize {
    let worker = |offset: usize| {
        let (client, keys) = (client.clone(), keys.clone());
        spawn(async move {
            let mut unequal = 0;
            for number in keys.skip(offset).step_by(WORKERS) {
                let is_equal = client.explain(key(number)).await.is_ok_and(|explanation| {
                    let held = |replica: &ReplicaView| replica.record.as_ref().ok().cloned().flatten();
                    let mut records = explanation.replicas.iter().map(held);
                    let first = records.next().flatten();
                    explanation.replicas.len() == 3
                        && first.is_some()
                        && records.all(|record| record == first)
                });
                unequal += usize::from(!is_equal);
            }
            unequal
        })
    };
    let workers: Vec<_> = (0..WORKERS).map(worker).collect();
    workers.into_iter().map(block_on).sum()
}

#[test]
fn a_node_that_was_away_becomes_equal_with_no_read_even_if_it_is_killed_meanwhile() {
    let lab = TestLab::start(3);
    let client = lab.client();
    write(&client, 0..BEFORE, "first");
    lab.command("kill n3").ok();
    write(&client, MISSED, "second");
    let held = poll("the keys of n1", || count(&client, "n1", "keys"));
    assert_eq!(held, MISSED.end as u64);
    // Every slot has three owners here, and one of them is gone. That it misses something is known once that is noticed.
    let away = poll("writes that are known to be missed", || {
        write(&client, 600..620, "third");
        Some(whole(&lab)).filter(|whole| whole["slots_dirty"].as_u64() > Some(0))
    });
    assert_eq!((&away["slots_with_quorum"], &away["slots_fully_replicated"]), (&16_384.into(), &0.into()));
    assert_eq!((&away["nodes_answering"], &away["nodes"]), (&2.into(), &3.into()));

    // The first time it is killed as soon as something of what it has missed has come.
    lab.command("restart n3").ok();
    poll("an exchange with n3", || count(&client, "n3", "exchange_keys_received").filter(|keys| *keys > 0));
    let pid = lab.pid_of("n3").expect("n3 runs");
    signal(pid, "-KILL");
    poll("the end of n3", || (!runs(pid)).then_some(()));
    lab.command("status").ok();

    let begun = Instant::now();
    lab.command("restart n3").ok();
    poll("as many keys on n3", || count(&client, "n3", "keys").filter(|keys| *keys == held));
    poll("equal owners", || (unequal(&client, 0..MISSED.end) == 0).then_some(()));
    println!("{} missed keys were made up for within {:?}", MISSED.len(), begun.elapsed());
    assert_eq!(poll("the counts", || total(&client, "untrusted_slots")), 0);

    // They know it, and have nothing more to say to each other.
    let equal = poll("the counts", || total(&client, "exchange_rounds_equal"));
    poll("exchanges of equal owners", || {
        total(&client, "exchange_rounds_equal").filter(|rounds| *rounds >= equal + 2)
    });
    let sent = poll("the counts", || total(&client, "exchange_keys_sent"));
    poll("no difference", || total(&client, "exchange_slots_differing").filter(|slots| *slots == 0));
    assert_eq!(poll("the counts", || total(&client, "repair_debt_keys")), 0);
    let rounds = poll("the counts", || total(&client, "exchange_rounds"));
    poll("another exchange", || total(&client, "exchange_rounds").filter(|now| *now > rounds));
    assert_eq!(poll("the counts", || total(&client, "exchange_keys_sent")), sent);
    assert_eq!(unequal(&client, 0..MISSED.end), 0);
    let well = poll("a cluster that is well", || Some(whole(&lab)).filter(|whole| whole["slots_dirty"] == 0));
    assert_eq!(
        (&well["slots_fully_replicated"], &well["repair_left_ms"]),
        (&16_384.into(), &0.into()),
        "{well}"
    );
}

/// What `starling status` says of the cluster as a whole.
fn whole(lab: &TestLab) -> serde_json::Value {
    let lines = lab.run(&["status", "--json"]).ok().json_lines();
    lines.into_iter().find(|line| line["node"].is_null()).expect("one object is about the cluster")
}

#[test]
fn what_the_scrub_reads_is_charged_to_the_account_of_all_repair() {
    // A cluster of one: there is nobody whom it could repair.
    let lab = TestLab::start(1);
    let client = lab.client();
    write(&client, 0..BEFORE, "value");
    let charged =
        poll("a charge", || count(&client, "n1", "repair_bytes_charged").filter(|bytes| *bytes > 0));
    let scrubbed = poll("the counts", || count(&client, "n1", "disk_scrubbed_bytes"));
    assert!(charged <= scrubbed, "{charged} bytes were charged, and {scrubbed} read");
}
