//! Real nodes that lose their disk come back as themselves, while clients write, and nothing that was acknowledged is gone.
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod lab;
#[path = "support/program.rs"]
mod program;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_std::task::{JoinHandle, block_on, spawn};
use lab::{TestLab, count, poll};
use starling::client::{Client, Level};
use starling::protocol::wire::client::ReplicaView;

/// Keys that are there before the disk is lost.
const BEFORE: usize = 3_000;

/// Operations under way at once.
const WORKERS: usize = 16;

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// What one node says of another: its id, incarnation and amnesia generation.
fn known(client: &Client, node: &str) -> Option<(u64, u64, u32)> {
    let topology = block_on(client.topology()).ok()?;
    let member = topology.members.into_iter().find(|member| member.entry.name.as_str() == node)?;
    Some((member.entry.id.0, member.entry.incarnation.0, member.entry.amnesia))
}

/// Writes one fresh key after the other until it is told to stop; notes those that were acknowledged.
fn keep_writing(
    client: &Client,
    worker: usize,
    acknowledged: &Arc<Mutex<BTreeSet<usize>>>,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (client, acknowledged, stop) = (client.clone(), Arc::clone(acknowledged), Arc::clone(stop));
    spawn(async move {
        let mut number = BEFORE + worker;
        while !stop.load(Ordering::Relaxed) {
            let value = format!("value {number}");
            if client.put_blind(key(number), value).w(Level::Majority).await.is_ok() {
                acknowledged.lock().unwrap().insert(number);
            }
            number += WORKERS;
        }
    })
}

/// How many of the keys are not held by all three owners alike.
fn unequal(client: &Client, keys: &[usize]) -> usize {
    let worker = |offset: usize| {
        let (client, keys) = (client.clone(), keys.to_vec());
        spawn(async move {
            let mut unequal = 0;
            for number in keys.into_iter().skip(offset).step_by(WORKERS) {
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
fn a_node_without_its_disk_comes_back_as_itself_and_no_acknowledged_write_is_lost() {
    let lab = TestLab::start(3);
    let client = lab.client();
    let writers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let client = client.clone();
            spawn(async move {
                for number in (worker..BEFORE).step_by(WORKERS) {
                    let value = format!("value {number}");
                    client.put_blind(key(number), value).w(Level::Majority).await.unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(block_on);

    let (acknowledged, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> =
        (0..WORKERS).map(|worker| keep_writing(&client, worker, &acknowledged, &stop)).collect();
    let before = poll("n2", || known(&client, "n2"));
    lab.command("wipe n2").ok();
    let begun = Instant::now();
    lab.command("restart n2").ok();
    poll("a whole n2", || count(&client, "n2", "slots_refilling").filter(|slots| *slots == 0));
    println!("n2 votes for all of its slots again {:?} after its restart", begun.elapsed());
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(block_on);

    let after = poll("n2", || known(&client, "n2").filter(|after| after.2 > before.2));
    assert_eq!(after.0, before.0, "its own identity");
    assert!(after.1 > before.1, "a new incarnation");
    assert!(poll("the counts", || count(&client, "n2", "records_refilled")) > 0);

    let written = acknowledged.lock().unwrap().clone();
    println!("{} writes were acknowledged meanwhile", written.len());
    let keys: Vec<usize> = (0..BEFORE).chain(written).collect();
    poll("equal owners", || (unequal(&client, &keys) == 0).then_some(()));

    // It has a say again: without another one, reads need it.
    lab.command("kill n1").ok();
    let client = lab.client();
    for number in keys.iter().step_by(keys.len() / 100) {
        let wanted = format!("value {number}");
        let reading =
            poll("an answer", || block_on(async { client.get(key(*number)).r(Level::Majority).await.ok() }));
        assert_eq!(reading.values(), [wanted.as_bytes()], "{number}");
    }
}

/// The node has lost the secret by which it would tell that client that its connection is one of a process that is gone.
#[test]
fn a_client_that_speaks_to_one_node_only_reaches_it_again_when_that_has_lost_its_disk() {
    let lab = TestLab::start(3);
    let client = lab.client_via("n2");
    block_on(async { client.put_blind(key(1), "before").await }).unwrap();
    for command in ["wipe n2", "restart n2", "wait"] {
        lab.command(command).ok();
    }
    // The deadline is half as long as QUIC takes to give a silent connection up.
    block_on(async { client.put_blind(key(1), "after").await }).unwrap();
}

#[test]
fn a_node_that_nobody_can_vouch_for_does_not_come_back() {
    let lab = TestLab::start(3);
    lab.command("wipe n2").ok();
    lab.command("kill n3").ok();
    let refused = lab.command("restart n2");
    let said = format!("{refused:?}");
    assert!(said.contains("2 of the other 2 members"), "{said}");
    // With both others it does.
    lab.command("restart n3").ok();
    lab.command("restart n2").ok();
}
