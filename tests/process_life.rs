//! The lives of real processes: told to stop, frozen, cut off, left behind.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests wait with real deadlines and may panic"
)]

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod lab;
#[path = "support/program.rs"]
mod program;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_std::task::{block_on, spawn};
use lab::{TestLab, poll};
use program::{eventually, runs, signal};
use starling::client::{Client, Level};
use starling::protocol::wire::client::Health;

const SHORT: Duration = Duration::from_millis(300);

/// How long trouble lasts, in seconds. `STARLING_TROUBLE=20` for figures.
fn trouble() -> Duration {
    Duration::from_secs(std::env::var("STARLING_TROUBLE").map_or(6, |text| text.parse().unwrap()))
}

/// Sleeping would be the same: trouble is time that passes.
fn let_pass(span: Duration) {
    let begun = Instant::now();
    eventually("time to pass", || begun.elapsed() >= span);
}

/// A key all of whose owners are among these nodes, or the opposite: none are.
fn key_with(client: &Client, what: &str, holds: impl Fn(&[String]) -> bool) -> String {
    let names = |key: &String| -> Vec<String> {
        let owners = client.owners(key);
        owners.iter().filter_map(|id| client.name_of(*id)).map(|name| name.to_string()).collect()
    };
    (0..10_000).map(|n| format!("{what}-{n}")).find(|key| holds(&names(key))).unwrap()
}

/// Reads the key through the client and writes it with what was read.
fn rewrite(client: &Client, key: &str, value: &str, level: Level) -> Option<()> {
    let seen = block_on(client.get(key).deadline(SHORT).into_future()).ok()?.into_context();
    let put = client.put_with(&seen, value.to_owned()).w(level).deadline(SHORT);
    block_on(put.into_future()).ok().map(|_| ())
}

#[test]
fn a_node_that_is_told_to_stop_under_load_loses_nothing_and_says_goodbye() {
    let lab = TestLab::start(3);
    let client = lab.client();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("w{worker}-{number}");
                    if client.put_blind(&key, key.clone()).await.is_ok() {
                        acknowledged.push(key);
                    }
                }
                acknowledged
            })
        })
        .collect();
    for node in ["n2", "n3", "n2"] {
        let pid = lab.pid_of(node).unwrap();
        let watcher = lab.client_via("n1");
        let told = Instant::now();
        signal(pid, "-TERM");
        poll("n1 to hear the goodbye", || {
            let topology = block_on(watcher.topology()).ok()?;
            let member = topology.members.iter().find(|member| member.entry.name.as_str() == node)?;
            assert_ne!(member.health, Health::Down, "it was found missing instead of saying goodbye");
            (member.health == Health::Stopped).then_some(())
        });
        let heard = told.elapsed();
        eventually("the node ends", || !runs(pid));
        println!("{node} is known as stopped after {heard:?}, and gone after {:?}", told.elapsed());
        // Failure detection takes longer than this; a goodbye is heard at once.
        assert!(heard < Duration::from_secs(2), "{heard:?}");
        let log = std::fs::read_to_string(lab.dir().join(node).join("log")).unwrap();
        assert!(log.trim_end().ends_with("stopped"), "{log}");
        lab.command("status").ok();
        lab.command(&format!("restart {node}")).ok();
        lab.command("wait").ok();
    }
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    for worker in workers {
        for key in block_on(worker) {
            let reading = block_on(client.get(&key).r(Level::All).into_future()).unwrap();
            assert_eq!(reading.values(), std::slice::from_ref(&key), "{key}");
            count += 1;
        }
    }
    println!("{count} acknowledged writes, all there");
    assert!(count > 100, "{count} writes prove little");
}

#[test]
fn nothing_outlives_a_killed_lab_with_a_frozen_node() {
    let mut lab = TestLab::start(3);
    lab.command("pause n2").ok();
    let processes = lab.processes();
    assert!(processes.len() >= 5, "the lab, its guardian and three nodes: {processes:?}");
    lab.kill_the_lab();
    eventually("all are gone", || processes.iter().all(|pid| !runs(*pid)));
}

#[test]
fn a_client_of_one_node_gets_through_right_after_that_was_killed_and_restarted() {
    let lab = TestLab::start(3);
    let pinned = lab.client_via("n2");
    let key = key_with(&pinned, "k", |owners| owners.contains(&"n2".to_owned()));
    for round in ["first", "second"] {
        // Its connection is in use, and nobody tells it that the process at its other end is gone.
        poll("a write through it", || rewrite(&pinned, &key, round, Level::Majority));
        lab.command("kill n2").ok();
        lab.command("restart n2").ok();
        let begun = Instant::now();
        let reading = block_on(pinned.get(&key).deadline(Duration::from_secs(5)).into_future()).unwrap();
        println!("the {round} read through a restarted node took {:?}", begun.elapsed());
        assert_eq!(reading.values(), [round]);
        assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_frozen_node_is_used_again_soon_after_it_thaws() {
    let lab = TestLab::start(5);
    let client = lab.client();
    let key = key_with(&client, "k", |owners| owners.contains(&"n4".to_owned()));
    poll("a first write", || rewrite(&client, &key, "before", Level::All));
    lab.command("pause n4").ok();
    let begun = Instant::now();
    poll("a write without it", || rewrite(&client, &key, "meanwhile", Level::Majority));
    println!("without the frozen owner a write took {:?}", begun.elapsed());
    let_pass(trouble());
    lab.command("resume n4").ok();
    let begun = Instant::now();
    let own = lab.client_via("n4");
    let value = poll("a read through it", || {
        block_on(own.get(&key).deadline(SHORT).into_future()).ok().map(|reading| reading.values().to_vec())
    });
    assert_eq!(value, ["meanwhile"]);
    let reads = begun.elapsed();
    poll("a write that needs it", || rewrite(&client, &key, "afterwards", Level::All));
    println!(
        "a thawed node reads after {reads:?} and is in writes at all owners after {:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_healed_cut_serves_both_sides_within_seconds() {
    let lab = TestLab::start(5);
    let client = lab.client();
    let small = |node: &String| ["n1", "n2"].contains(&node.as_str());
    let of_three = key_with(&client, "three", |owners| owners.iter().filter(|node| small(node)).count() == 0);
    let of_two = key_with(&client, "two", |owners| owners.iter().filter(|node| small(node)).count() == 2);
    for key in [&of_three, &of_two] {
        poll("a first write", || rewrite(&client, key, "before", Level::All));
    }
    let (one, five) = (lab.client_via("n1"), lab.client_via("n5"));
    lab.command("partition n1,n2 | n3,n4,n5").ok();
    poll("the cut to be felt", || {
        block_on(one.get(&of_three).deadline(SHORT).into_future()).is_err().then_some(())
    });
    poll("the other side to serve", || rewrite(&five, &of_three, "cut", Level::Majority));
    poll("this side to serve", || rewrite(&one, &of_two, "cut", Level::Majority));
    let_pass(trouble());
    assert!(block_on(one.get(&of_three).deadline(SHORT).into_future()).is_err(), "it is still cut");
    lab.command("heal").ok();
    let healed = Instant::now();
    poll("the small side reads what only the large one owns", || {
        block_on(one.get(&of_three).deadline(SHORT).into_future()).ok()
    });
    let small_side = healed.elapsed();
    poll("the large side reads what the small one owns", || {
        block_on(five.get(&of_two).deadline(SHORT).into_future()).ok()
    });
    let large_side = healed.elapsed();
    for key in [&of_three, &of_two] {
        poll("a write at all owners", || rewrite(&client, key, "after", Level::All));
    }
    println!(
        "after a cut of {:?}: the small side serves after {small_side:?}, the large one after {large_side:?}, writes at \
         all owners after {:?}",
        trouble(),
        healed.elapsed()
    );
    assert!(healed.elapsed() < Duration::from_secs(10), "{:?}", healed.elapsed());
    lab.command("wait").ok();
}
