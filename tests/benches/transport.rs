//! What a request costs on a link: throughput and processor time of both ends together, on loopback.
//!
//! ```text
//! cargo bench --no-default-features --features transport --bench transport
//! ASYNC_STD_THREAD_COUNT=1 cargo bench ...       one executor thread, as a node runs
//! ```
//!
//! A closed loop: so many requests are always in flight, the server answers each batch inline, the client sends the
//! next request for every answer. Processor time is that of the process, which holds both ends.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing better to say")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::time::{Duration, Instant};

use async_std::task;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use starling::transport::{Authority, CloseCode, Endpoint, EndpointOptions, Link, Protocol, Role};

const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(800);
const RUNS: usize = 3;

fn main() {
    // `cargo test --benches` builds and runs this too, to see that it still works.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let (warm_up, measured, runs) =
        if is_trial { (Duration::ZERO, Duration::from_millis(50), 1) } else { (WARM_UP, MEASURED, RUNS) };
    let threads = std::env::var("ASYNC_STD_THREAD_COUNT").unwrap_or_else(|_| "default".to_owned());
    println!("async-std threads: {threads}; median of {runs} runs by processor time");
    println!("request answer in flight   requests/s   CPU us/request   requests/batch");
    for (request_bytes, answer_bytes) in [(120, 120), (1_100, 120), (1_024, 1_024)] {
        for in_flight in [64, 256] {
            let mut results: Vec<Measured> = (0..runs)
                .map(|_| task::block_on(run(request_bytes, answer_bytes, in_flight, warm_up, measured)))
                .collect();
            results.sort_by(|a, b| a.cpu_micros().total_cmp(&b.cpu_micros()));
            let median = &results[runs / 2];
            println!(
                "{request_bytes:>5} B {answer_bytes:>5} B {in_flight:>7} {:>12.0} {:>16.2} {:>16.1}",
                median.requests as f64 / median.elapsed.as_secs_f64(),
                median.cpu_micros(),
                median.requests as f64 / median.batches.max(1) as f64,
            );
        }
    }
}

struct Measured {
    requests: u64,
    batches: u64,
    elapsed: Duration,
    cpu: Duration,
}

impl Measured {
    fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }
}

async fn run(
    request_bytes: usize,
    answer_bytes: usize,
    in_flight: usize,
    warm_up: Duration,
    measured: Duration,
) -> Measured {
    let authority = Authority::create("bench").unwrap();
    let node = authority.issue_node("bench", "n1").unwrap().credentials().unwrap();
    let client = authority.issue_client("bench", Role::Writer).unwrap().credentials().unwrap();
    let any_port = "127.0.0.1:0".parse().unwrap();
    let server = Endpoint::bind(any_port, &node, EndpointOptions::default()).unwrap();
    let client = Endpoint::bind(any_port, &client, EndpointOptions::dialling_only()).unwrap();
    let address = server.local_address();
    let serving = task::spawn(async move {
        let link = server.accept().await.unwrap();
        answer(link, answer_bytes).await;
        server.close("measured").await;
    });

    let link = client.connect(address, Protocol::Client).await.unwrap();
    // The loop runs on the executor's threads, as it would in a program, not on the one that waits for it.
    let result = task::spawn(ask(link, request_bytes, in_flight, warm_up, measured)).await;
    serving.await;
    client.close("measured").await;
    result
}

/// The server: one read loop, one answer per request, a batch at a time.
async fn answer(mut link: Link, answer_bytes: usize) {
    let mut batch = Vec::new();
    while link.receiver.next_batch(&mut batch).await.is_ok() {
        for request in batch.drain(..) {
            let _ = link.sender.push(|out| {
                let start = out.len();
                out.extend_from_slice(&request[..8]);
                out.resize(start + answer_bytes, 7);
            });
        }
    }
}

async fn ask(
    mut link: Link,
    request_bytes: usize,
    in_flight: usize,
    warm_up: Duration,
    measured: Duration,
) -> Measured {
    let mut number = 0_u64;
    let mut ask = |link: &Link| {
        link.sender
            .push(|out| {
                let start = out.len();
                out.extend_from_slice(&number.to_le_bytes());
                out.resize(start + request_bytes, 7);
            })
            .unwrap();
        number += 1;
    };
    for _ in 0..in_flight {
        ask(&link);
    }
    let mut batch = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < warm_up {
        link.receiver.next_batch(&mut batch).await.unwrap();
        batch.drain(..).for_each(|_| ask(&link));
    }
    let (start, cpu) = (Instant::now(), processor_time());
    let (mut requests, mut batches) = (0, 0);
    while start.elapsed() < measured {
        link.receiver.next_batch(&mut batch).await.unwrap();
        batches += 1;
        requests += batch.len() as u64;
        batch.drain(..).for_each(|_| ask(&link));
    }
    let result = Measured { requests, batches, elapsed: start.elapsed(), cpu: processor_time() - cpu };
    link.close(CloseCode::DONE, "measured");
    result
}

/// User and system time of this process.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}
