//! `starling bench`: a closed loop of operations, and what it cost.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future::block_on;
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use super::answer::to_line;
use super::connection::Connection;
use super::failure::{Done, Failure};
use super::output::{self, Columns};
use super::session::Session;
use super::status;
use crate::client::{Client, Reading};
use crate::protocol::rng::Rng;
use crate::protocol::wire::client::Level;

/// Put load on a cluster and measure it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A closed loop: each of --in-flight workers sends its next operation when the last one was answered. Every worker's puts \
carry the context of its last operation on the key, so no concurrent values pile up. First all keys are written once.

Examples:
  starling bench --lab ./lab
  starling bench --mix put --seconds 10 --in-flight 64 --value-size 1024 --lab ./lab
  starling bench --mix get --keys 100000 --json --connect 10.0.0.1:7400")]
pub(crate) struct BenchArgs {
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Operations under way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: u16,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_size: u32,
    /// How many keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// What to do: puts, gets, or half of each
    #[arg(long, default_value = "half")]
    mix: Mix,
    /// Do not write all keys first
    #[arg(long)]
    no_preload: bool,
    /// How many owners must reply to a get: one, majority, all or a number
    #[arg(long, value_name = "LEVEL", default_value = "majority", value_parser = super::operation::parse_level)]
    r: Level,
    /// How many owners must have a put on disk: one, majority, all or a number
    #[arg(long, value_name = "LEVEL", default_value = "majority", value_parser = super::operation::parse_level)]
    w: Level,
    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mix {
    Put,
    Get,
    Half,
}

/// What the workers share.
struct Load {
    client: Client,
    seed: u64,
    in_flight: u32,
    keys: u32,
    value_size: u32,
    mix: Mix,
    r: Level,
    w: Level,
    until: Instant,
    failed: AtomicU64,
}

/// One kind of operation, measured.
#[derive(Debug, Serialize)]
struct Measured {
    operations: u64,
    per_second: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

#[derive(Debug, Serialize)]
struct Findings {
    mix: String,
    in_flight: u16,
    value_size: u32,
    keys: u32,
    seconds: f64,
    operations: u64,
    failed: u64,
    per_second: f64,
    put: Option<Measured>,
    get: Option<Measured>,
    client_cpu_us_per_operation: f64,
    nodes_cpu_us_per_operation: f64,
    nodes: Vec<NodeCost>,
}

#[derive(Debug, Serialize)]
struct NodeCost {
    node: String,
    cpu_us: u64,
}

impl BenchArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let session = Session::connect(&self.connection)?;
        let client = session.client();
        if !self.no_preload {
            self.preload(client)?;
        }
        let nodes_before = nodes_cpu(client);
        let client_before = client_cpu();
        let begun = Instant::now();
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(Failure::failed)?;
        let load = Arc::new(Load {
            client: client.clone(),
            seed: u64::from_le_bytes(seed),
            in_flight: u32::from(self.in_flight),
            keys: self.keys,
            value_size: self.value_size,
            mix: self.mix,
            r: self.r,
            w: self.w,
            until: begun + Duration::from_secs(self.seconds),
            failed: AtomicU64::new(0),
        });
        let progress = output::spinner(&format!("measuring for {} s", self.seconds));
        let workers: Vec<_> = (0..u32::from(self.in_flight))
            .map(|number| async_std::task::spawn(worker(Arc::clone(&load), number)))
            .collect();
        let (mut puts, mut gets) = (histogram()?, histogram()?);
        for worker in workers {
            let (worker_puts, worker_gets) = block_on(worker).map_err(Failure::failed)?;
            puts.add(worker_puts).map_err(Failure::failed)?;
            gets.add(worker_gets).map_err(Failure::failed)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        progress.finish_and_clear();
        let client_cost = client_cpu().saturating_sub(client_before);
        let nodes = costs(&nodes_before, &nodes_cpu(client));
        let operations = puts.len() + gets.len();
        let per = |micros: u64| round(micros as f64 / operations.max(1) as f64);
        let result = Findings {
            mix: format!("{:?}", self.mix).to_lowercase(),
            in_flight: self.in_flight,
            value_size: self.value_size,
            keys: self.keys,
            seconds: round(seconds),
            operations,
            failed: load.failed.load(Ordering::Relaxed),
            per_second: round(operations as f64 / seconds),
            put: measured(&puts, seconds),
            get: measured(&gets, seconds),
            client_cpu_us_per_operation: per(client_cost),
            nodes_cpu_us_per_operation: per(nodes.iter().map(|node| node.cpu_us).sum()),
            nodes,
        };
        output::line(&if self.json { to_line(&result) } else { told(&result) });
        if result.failed > 0 && result.operations == 0 { Err(Failure::Said) } else { Ok(()) }
    }

    /// Writes every key once, whatever was there.
    fn preload(&self, client: &Client) -> Done {
        let progress = output::spinner(&format!("writing {} keys", self.keys));
        let next = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..self.in_flight)
            .map(|_| {
                let (client, next) = (client.clone(), Arc::clone(&next));
                let (keys, size) = (u64::from(self.keys), self.value_size);
                async_std::task::spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= keys {
                            return Ok(());
                        }
                        let key = key(number as u32);
                        let seen = client.get(&key).await.map_err(|error| error.to_string())?;
                        let put = client.put_with(seen.context(), value(size, number));
                        put.await.map_err(|error| error.to_string())?;
                    }
                })
            })
            .collect();
        for worker in workers {
            block_on(worker)
                .map_err(|error: String| Failure::Failed(format!("writing the keys first: {error}")))?;
        }
        progress.finish_and_clear();
        Ok(())
    }
}

/// Every worker has keys of its own, so that it knows their contexts.
async fn worker(load: Arc<Load>, number: u32) -> Result<(Histogram<u64>, Histogram<u64>), String> {
    let mut rng = Rng::from_number(load.seed.wrapping_add(u64::from(number)));
    let (mut puts, mut gets) =
        (histogram().map_err(|_| "no histogram")?, histogram().map_err(|_| "no histogram")?);
    let share = load.keys.div_ceil(load.in_flight).max(1);
    let mut contexts = vec![None; share as usize];
    let even = Cell::new(number.is_multiple_of(2));
    while Instant::now() < load.until {
        let at = rng.below(u64::from(share)) as u32;
        // With fewer keys than workers some share a key; then siblings arise and are read away.
        let key = key((at * load.in_flight + number) % load.keys);
        let put = match load.mix {
            Mix::Put => true,
            Mix::Get => false,
            Mix::Half => even.replace(!even.get()),
        };
        if put && contexts[at as usize].is_none() {
            // A put without its context would pile up siblings. The read for it is not measured.
            contexts[at as usize] = load.client.get(&key).await.ok().map(Reading::into_context);
        }
        let begun = Instant::now();
        let done = if put {
            // Taken: a context serves one write, the answer to which brings the next.
            let Some(context) = contexts[at as usize].take() else {
                load.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let value = value(load.value_size, rng.bits());
            let written = load.client.put_with(&context, value).w(load.w).await;
            let ok = written.is_ok();
            contexts[at as usize] =
                written.ok().filter(|receipt| receipt.siblings == 1).map(|receipt| receipt.context);
            ok
        } else {
            load.client.get(&key).r(load.r).await.is_ok()
        };
        if done {
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            if put { puts.saturating_record(micros) } else { gets.saturating_record(micros) }
        } else {
            load.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok((puts, gets))
}

fn key(number: u32) -> String {
    format!("bench:{number:08}")
}

/// Bytes that differ from value to value and do not compress.
fn value(size: u32, seed: u64) -> Bytes {
    let mut rng = Rng::from_number(seed);
    let mut bytes = Vec::with_capacity(size as usize + 8);
    while bytes.len() < size as usize {
        bytes.extend_from_slice(&rng.bits().to_le_bytes());
    }
    bytes.truncate(size as usize);
    bytes.into()
}

/// Latencies from 1 µs to 10 minutes, three digits exact.
fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 600_000_000, 3).map_err(Failure::failed)
}

fn measured(histogram: &Histogram<u64>, seconds: f64) -> Option<Measured> {
    (!histogram.is_empty()).then(|| Measured {
        operations: histogram.len(),
        per_second: round(histogram.len() as f64 / seconds),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    })
}

/// CPU time of this process, in microseconds.
fn client_cpu() -> u64 {
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |usage| micros(usage.user_time()) + micros(usage.system_time()))
}

/// CPU time of every node that answers, in microseconds since its start.
fn nodes_cpu(client: &Client) -> Vec<(String, u64)> {
    let names = client.members().iter().map(|member| member.entry.name.clone()).collect();
    let answers = status::of(client, names);
    let cpu = answers
        .into_iter()
        .filter_map(|(name, answer)| Some((name.to_string(), status::count(&answer.ok()?, "cpu_micros")?)));
    cpu.collect()
}

fn costs(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<NodeCost> {
    let cost = |(node, cpu): &(String, u64)| {
        let earlier = before.iter().find(|(name, _)| name == node)?.1;
        // A node that restarted meanwhile counts from zero.
        Some(NodeCost { node: node.clone(), cpu_us: cpu.checked_sub(earlier).unwrap_or(*cpu) })
    };
    after.iter().filter_map(cost).collect()
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn told(result: &Findings) -> String {
    let mut columns = Columns::new(&["", ">operations", ">per second", ">p50", ">p99", ">p99.9", ">max"]);
    for (name, measured) in [("put", &result.put), ("get", &result.get)] {
        if let Some(measured) = measured {
            let ms = |micros: u64| format!("{:.2} ms", micros as f64 / 1e3);
            columns.row([
                name.to_owned(),
                measured.operations.to_string(),
                format!("{:.0}", measured.per_second),
                ms(measured.p50_us),
                ms(measured.p99_us),
                ms(measured.p999_us),
                ms(measured.max_us),
            ]);
        }
    }
    let nodes: Vec<_> =
        result.nodes.iter().map(|node| format!("{} {:.1} s", node.node, node.cpu_us as f64 / 1e6)).collect();
    format!(
        "{}\n{} operations in {:.1} s, {:.0} per second, {} failed; {} in flight, {} keys, {} bytes a value\n\
         CPU per operation: {:.1} µs client, {:.1} µs nodes ({})",
        columns.text(),
        result.operations,
        result.seconds,
        result.per_second,
        result.failed,
        result.in_flight,
        result.keys,
        result.value_size,
        result.client_cpu_us_per_operation,
        result.nodes_cpu_us_per_operation,
        nodes.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_differences_and_restarts_begin_at_zero() {
        let at = |pairs: &[(&str, u64)]| pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Vec<_>>();
        let costs = costs(&at(&[("n1", 100), ("n2", 900)]), &at(&[("n1", 150), ("n2", 30), ("n3", 5)]));
        let costs: Vec<_> = costs.iter().map(|cost| (cost.node.as_str(), cost.cpu_us)).collect();
        assert_eq!(costs, [("n1", 50), ("n2", 30)]);
    }

    #[test]
    fn values_have_their_size_and_differ() {
        assert_eq!(value(0, 1).len(), 0);
        assert_eq!(value(1_021, 1).len(), 1_021);
        assert_ne!(value(16, 1), value(16, 2));
    }
}
