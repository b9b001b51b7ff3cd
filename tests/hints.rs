//! Real nodes keep hints for an owner that is away and hand them over when it is back, also after a kill -9 of their own.
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod lab;
#[path = "support/program.rs"]
mod program;

use std::time::{Duration, Instant};

use async_std::task::{block_on, spawn};
use lab::{TestLab, count, poll};
use program::{runs, signal};
use starling::client::{Client, Level};
use starling::protocol::wire::client::ReplicaView;

const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

/// Keys that are written while an owner is away, strictly and sloppily.
const KEYS: usize = 400;

/// Operations under way at once.
const WORKERS: usize = 16;

fn key(number: usize) -> String {
    format!("key-{number}")
}

fn total(client: &Client, nodes: &[&str], name: &str) -> Option<u64> {
    nodes.iter().map(|node| count(client, node, name)).sum()
}

/// Writes all keys; every second one sloppily and to all owners, the others strictly to a majority. Returns how many of
/// the sloppy ones were told of hints; each of them was told of three copies.
fn write(client: &Client) -> usize {
    let worker = |offset: usize| {
        let client = client.clone();
        spawn(async move {
            let mut hinted = 0;
            for number in (offset..KEYS).step_by(WORKERS) {
                let write =
                    client.put_blind(key(number), "while n3 was away").deadline(Duration::from_secs(20));
                if number % 2 == 0 {
                    let receipt = write.w(Level::All).sloppy().await.unwrap();
                    assert!(receipt.acks.len() + receipt.hinted.len() >= 3, "{receipt:?}");
                    hinted += usize::from(!receipt.hinted.is_empty());
                } else {
                    let receipt = write.w(Level::Majority).await.unwrap();
                    assert!(receipt.acks.len() >= 2, "{receipt:?}");
                }
            }
            hinted
        })
    };
    let workers: Vec<_> = (0..WORKERS).map(worker).collect();
    workers.into_iter().map(block_on).sum()
}

/// How many of the keys are not held by all three owners alike. `explain` asks all of them and repairs nothing.
fn unequal(client: &Client) -> usize {
    let is_equal = |number: usize| {
        block_on(client.explain(key(number))).is_ok_and(|explanation| {
            let held = |replica: &ReplicaView| replica.record.as_ref().ok().cloned().flatten();
            let mut records = explanation.replicas.iter().map(held);
            let first = records.next().flatten();
            explanation.replicas.len() == 3 && first.is_some() && records.all(|record| record == first)
        })
    };
    (0..KEYS).filter(|number| !is_equal(*number)).count()
}

#[test]
fn hints_outlive_a_kill_of_their_holder_and_come_home() {
    let lab = TestLab::start(NODES.len() as u16);
    let client = lab.client();
    lab.command("kill n3").ok();
    let hinted = write(&client);
    assert!(hinted > 0, "n3 owns some of the keys");

    // Whoever keeps most of them is killed and finds them again. Meanwhile nobody has an owner to bring them to.
    let there = ["n1", "n2", "n4", "n5"];
    let kept = |node: &&str| poll("the hints of a node", || count(&client, node, "hints"));
    let holder = *there.iter().max_by_key(|node| kept(node)).unwrap();
    let before = kept(&holder);
    assert!(before > 0);
    let pid = lab.pid_of(holder).expect("it runs");
    signal(pid, "-KILL");
    poll("its end", || (!runs(pid)).then_some(()));
    lab.command("status").ok();
    lab.command(&format!("restart {holder}")).ok();
    poll("the hints that it kept", || count(&client, holder, "hints").filter(|hints| *hints >= before));

    let begun = Instant::now();
    lab.command("restart n3").ok();
    poll("no hints", || total(&client, &NODES, "hints").filter(|hints| *hints == 0));
    println!("hints were handed over within {:?}", begun.elapsed());
    assert!(poll("the counts", || count(&client, holder, "hints_delivered")) >= before);
    assert_eq!(poll("the counts", || total(&client, &NODES, "hint_bytes")), 0);
    // What was written before anybody knew that n3 is away has no hint: the exchanges see to that.
    poll("equal owners", || (unequal(&client) == 0).then_some(()));
    // And nobody is asked for them any more.
    poll("empty registers", || {
        total(&client, &NODES, "hint_holders_registered").filter(|entries| *entries == 0)
    });
}
