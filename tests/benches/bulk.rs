//! What a request waits for while bulk flows on the same link: with the bulk among the requests, and on a stream of its own.
//!
//! ```text
//! cargo bench --no-default-features --features transport --bench bulk
//! ```
//!
//! One request at a time, every millisecond, is echoed; beside it 256 KiB are sent 64 times a second: 16 MiB/s, which is
//! what repair may take unless it is told otherwise. Both ways of sending it are measured in turn in one run, on a link
//! that is as good as loopback is, and on one that is 5 ms long and loses one datagram in a hundred.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing better to say")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::task;
use starling::protocol::rng::Rng;
use starling::transport::faults::{Direction, Fault, Faults};
use starling::transport::{Authority, Endpoint, EndpointOptions, Link, LinkSender, Protocol};

const REQUEST_BYTES: usize = 1_024;
const BULK_BYTES: usize = 256 << 10;
const BULK_EVERY: Duration = Duration::from_micros(15_625);
const PAUSE: Duration = Duration::from_millis(1);

/// How the bulk is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    None,
    AmongRequests,
    Apart,
}

fn main() {
    // `cargo test --benches` builds and runs this too, to see that it still works.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let (measured, rounds) =
        if is_trial { (Duration::from_millis(50), 1) } else { (Duration::from_secs(4), 3) };
    println!("network               bulk              requests   p50 ms   p99 ms   max ms");
    for (name, fault) in [
        ("loopback", None),
        ("5 ms, 1 % lost", Some(Fault { delay_ms: 5, loss_per_mille: 10, ..Fault::default() })),
    ] {
        let ways = [Way::None, Way::AmongRequests, Way::Apart];
        let mut waits = ways.map(|way| (way, Vec::new()));
        for _ in 0..rounds {
            for (way, waits) in &mut waits {
                waits.extend(task::block_on(run(*way, fault, measured)));
            }
        }
        for (way, mut waits) in waits {
            waits.sort();
            let at = |per_mille: usize| {
                waits[(waits.len() * per_mille / 1_000).min(waits.len() - 1)].as_secs_f64() * 1e3
            };
            println!(
                "{name:<21} {:<15} {:>10} {:>8.2} {:>8.2} {:>8.2}",
                format!("{way:?}"),
                waits.len(),
                at(500),
                at(990),
                at(1_000)
            );
        }
    }
}

async fn run(way: Way, fault: Option<Fault>, measured: Duration) -> Vec<Duration> {
    let authority = Authority::create("bench").unwrap();
    let credentials = |name| authority.issue_node("bench", name).unwrap().credentials().unwrap();
    let any_port = "127.0.0.1:0".parse().unwrap();
    let faults = Arc::new(Faults::new(Rng::from_number(1)));
    let options = EndpointOptions { faults: Some(Arc::clone(&faults)), ..EndpointOptions::default() };
    let a = Endpoint::bind(any_port, &credentials("n1"), options).unwrap();
    let b = Endpoint::bind(any_port, &credentials("n2"), EndpointOptions::default()).unwrap();
    if let Some(fault) = fault {
        // Only what goes out can be held back; what comes in is lost as often.
        faults.set(b.local_address(), Direction::Outbound, fault).unwrap();
        let inbound = Fault { delay_ms: 0, ..fault };
        faults.set(b.local_address(), Direction::Inbound, inbound).unwrap();
    }
    let (address, accepting) = (b.local_address(), b.clone());
    task::spawn(async move { answer(accepting.accept().await.unwrap()).await });
    let mut link = a.connect(address, Protocol::Peer).await.unwrap();
    let bulk = link.sender.clone();
    let sending = task::spawn(async move { send_bulk(way, bulk).await });
    let (mut waits, mut batch) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < measured {
        let asked = Instant::now();
        link.sender.push(|out| out.resize(out.len() + REQUEST_BYTES, 7)).unwrap();
        link.receiver.next_batch(&mut batch).await.unwrap();
        waits.push(asked.elapsed());
        batch.clear();
        task::sleep(PAUSE).await;
    }
    sending.cancel().await;
    a.close("measured").await;
    waits
}

/// Sends back requests, and nothing else.
async fn answer(mut link: Link) {
    let bulk = link.receiver.bulk();
    task::spawn(async move {
        let Ok(mut bulk) = bulk.await else { return };
        let mut batch = Vec::new();
        while bulk.next_batch(&mut batch).await.is_ok() {
            batch.clear();
        }
    });
    let mut batch = Vec::new();
    while link.receiver.next_batch(&mut batch).await.is_ok() {
        for frame in batch.drain(..).filter(|frame| frame.len() == REQUEST_BYTES) {
            let _ = link.sender.push(|out| out.extend_from_slice(&frame));
        }
    }
}

async fn send_bulk(way: Way, sender: LinkSender) {
    let bulk = |out: &mut Vec<u8>| out.resize(out.len() + BULK_BYTES, 7);
    loop {
        let _ = match way {
            Way::None => Ok(()),
            Way::AmongRequests => sender.push(bulk),
            Way::Apart => sender.push_bulk(bulk),
        };
        task::sleep(BULK_EVERY).await;
    }
}
