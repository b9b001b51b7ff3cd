//! Real nodes are killed with SIGKILL, one at a time, while clients write. Nothing that was acknowledged is lost, every
//! killed node starts again and serves again.
//!
//! `STARLING_KILLS` is the number of kills (5), `STARLING_SEED` draws who is killed and when. The long run:
//! `STARLING_KILLS=50 cargo test --release --test kill9 -- --nocapture`
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

#[path = "../support/lab.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod lab;
#[path = "../support/program.rs"]
mod program;

use std::time::{Duration, Instant};

use async_std::task::block_on;
use lab::{TestLab, poll};
use program::{runs, signal};
use starling::client::{Client, Level};
use starling::lab::soak::chronicle::Chronicle;
use starling::lab::soak::load::{Demand, Load, Roads};
use starling::lab::soak::remains;
use starling::protocol::rng::Rng;
use starling::sim::history::{Ending, History, Seen};
use starling::sim::invariants;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A key that the node owns.
fn key_of(client: &Client, node: &str) -> String {
    let mut keys = (0..).map(|number| format!("owned-{number}"));
    let owned = |key: &String| {
        let owners = client.owners(key);
        owners.iter().any(|id| client.name_of(*id).is_some_and(|name| name.as_str() == node))
    };
    keys.find(owned).unwrap()
}

/// Starts a node and measures how long it is from there until it runs a majority read itself, and until it takes part
/// in a write that needs all owners.
fn restart(lab: &TestLab, client: &Client, node: &str) -> (Duration, Duration) {
    let begun = Instant::now();
    lab.command(&format!("restart {node}")).ok();
    let own = lab.client_via(node);
    let key = key_of(client, node);
    let short = Duration::from_millis(300);
    poll("the node to serve", || block_on(own.get(&key).deadline(short).into_future()).ok());
    let serving = begun.elapsed();
    // With the context of a read, so that the probes of many restarts do not pile up beside each other.
    poll("a write at all owners", || {
        let seen = block_on(client.get(&key).deadline(short).into_future()).ok()?.into_context();
        let put = client.put_with(&seen, "probe").w(Level::All).deadline(short);
        block_on(put.into_future()).ok()
    });
    let full = begun.elapsed();
    block_on(own.close());
    (serving, full)
}

#[test]
fn nodes_are_killed_and_nothing_is_lost() {
    let (kills, seed) = (from_environment("STARLING_KILLS", 5), from_environment("STARLING_SEED", 1));
    println!("{kills} kills, seed {seed}");
    let mut rng = Rng::from_number(seed);
    let lab = TestLab::start(5);
    let client = lab.client();
    let chronicle = Chronicle::begin(3);
    let demand = Demand { think_max: Duration::ZERO, ..Demand::default() };
    let load = Load::start(&Roads::of(&client), &chronicle, demand, rng.fork());
    let acknowledged = || chronicle.counts().committed;

    let mut spans = Vec::new();
    for kill in 0..kills {
        let node = format!("n{}", rng.between(1, 5));
        let pid = lab.pid_of(&node).expect("a node that runs");
        let before = acknowledged();
        lab.command(&format!("kill {node}")).ok();
        assert!(!runs(pid));
        // The others go on: the next kill would prove little if nothing were written meanwhile.
        let more = rng.between(20, 200);
        poll("writes without the node", || (acknowledged() >= before + more).then_some(()));
        if kill % 4 == 3 {
            kill_while_it_starts(&lab, &node, &mut rng);
        }
        spans.push(restart(&lab, &client, &node));
        let before = acknowledged();
        let more = rng.between(20, 200);
        poll("writes with the node", || (acknowledged() >= before + more).then_some(()));
    }
    load.stop();

    block_on(remains::read_all(&chronicle, &client, remains::OWED_WITHIN));
    let (history, _) = chronicle.close();
    let ended = |wanted: fn(&Ending) -> bool| history.operations.iter().filter(|o| wanted(&o.ending)).count();
    println!(
        "{kills} kills, {} operations: {} writes acknowledged, {} of unknown outcome, {} not applied; {} keys read from \
         all owners at the end",
        history.operations.len(),
        ended(|ending| matches!(ending, Ending::Committed(_))),
        ended(|ending| *ending == Ending::Unknown),
        ended(|ending| *ending == Ending::NotApplied),
        history.remains.len(),
    );
    let (mut serving, mut full): (Vec<_>, Vec<_>) = spans.into_iter().unzip();
    for (what, spans) in [("serves", &mut serving), ("is in writes at all owners", &mut full)] {
        spans.sort();
        let (median, max) = (spans.get(spans.len() / 2), spans.last());
        println!("a restarted node {what} again after {median:?} (median), {max:?} (max)");
    }
    let violations = invariants::judge(&history);
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "seed {seed}: {}", told.join("\n"));
    assert!(ended(|ending| matches!(ending, Ending::Committed(_))) > 40 * kills as usize);
    a_loss_would_have_shown(history);
}

/// A judge that was given the wrong papers acquits everybody: the same history with a value missing in the end has to
/// be found guilty.
fn a_loss_would_have_shown(mut history: History) {
    let last = history.remains.values().map(|remains| remains.read);
    let answers = |read: &usize| matches!(&history.operations[*read].ending, Ending::Answered(seen) if !seen.values.is_empty());
    let read = last.clone().find(answers).unwrap();
    assert!(last.count() > 100, "most keys were read at the end");
    history.operations[read].ending = Ending::Answered(Seen::default());
    assert!(!invariants::no_lost_write::judge(&history).is_empty());
    assert!(!invariants::regular_reads::judge(&history).is_empty());
}

/// A node that dies in the middle of its recovery is as good as one that dies later.
fn kill_while_it_starts(lab: &TestLab, node: &str, rng: &mut Rng) {
    let patience = Duration::from_millis(rng.between(1, 150));
    std::thread::scope(|scope| {
        let restarted = scope.spawn(|| lab.command(&format!("restart {node}")));
        let pid = poll("the process of the node", || lab.pid_of(node));
        let begun = Instant::now();
        poll("the moment to kill", || (begun.elapsed() >= patience).then_some(()));
        signal(pid, "-KILL");
        // It may have answered the lab before it died.
        restarted.join().unwrap();
        poll("the end of the node", || (!runs(pid)).then_some(()));
    });
    // The lab notices, and knows the node as ended.
    lab.command("status").ok();
}
