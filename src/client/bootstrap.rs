//! Finding the cluster: any seed that answers will do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_io::Timer;
use async_std::channel::{self, Sender};
use bytes::Bytes;

use super::clock;
use super::error::{ConnectError, SeedError};
use crate::protocol::codec;
use crate::protocol::wire::client::{Answer, AnswerFrame, ClientFrame, Request, Topology};
use crate::transport::{Endpoint, Link, Protocol};

/// How long a seed has the field to itself before the next one is tried beside it (as in RFC 8305, *Happy Eyeballs*):
/// long enough not to bother every seed each time, short enough not to wait for a dead one.
const STAGGER: Duration = Duration::from_millis(150);

/// A node that answered, over a link that can be used on.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) link: Link,
    pub(super) topology: Topology,
    pub(super) asked: Instant,
    pub(super) answered: Instant,
}

/// Asks all seeds for the topology, one by one but without waiting for the slow; the first answer counts.
pub(super) async fn find(
    endpoint: &Endpoint,
    seeds: &[SocketAddr],
    limit: Duration,
) -> Result<Found, ConnectError> {
    if seeds.is_empty() {
        return Err(ConnectError::NoSeeds);
    }
    let until = clock::now() + limit;
    let (tell, told) = channel::unbounded();
    let mut said: Vec<Option<String>> = vec![None; seeds.len()];
    let mut begun = 0;
    while said.iter().any(Option::is_none) {
        if let Some(seed) = seeds.get(begun) {
            async_std::task::spawn(try_seed(endpoint.clone(), *seed, begun, until, tell.clone()));
            begun += 1;
        }
        let turn = if begun < seeds.len() { (clock::now() + STAGGER).min(until) } else { until };
        let next = async { told.recv().await.ok() };
        let timer = async {
            Timer::at(turn).await;
            None
        };
        match futures_lite::future::or(next, timer).await {
            Some((_, Ok(found))) => return Ok(found),
            Some((index, Err(problem))) => said[index] = Some(problem),
            None if clock::now() >= until => break,
            None => {}
        }
    }
    let silent = || format!("no answer within {:.1} s", limit.as_secs_f64());
    let error = |(address, said): (&SocketAddr, Option<String>)| SeedError {
        address: *address,
        said: said.unwrap_or_else(silent),
    };
    Err(ConnectError::NoNode(seeds.iter().zip(said).map(error).collect()))
}

type Told = (usize, Result<Found, String>);

async fn try_seed(endpoint: Endpoint, seed: SocketAddr, index: usize, until: Instant, tell: Sender<Told>) {
    // A seed that never answers would keep its link for ever.
    let given_up = async {
        Timer::at(until).await;
        Err("it accepted the connection and never answered".to_owned())
    };
    let outcome = futures_lite::future::or(ask(&endpoint, seed, until), given_up).await;
    // Nobody listens any more if another seed was faster; the link closes when it is dropped.
    let _ = tell.send((index, outcome)).await;
}

async fn ask(endpoint: &Endpoint, seed: SocketAddr, until: Instant) -> Result<Found, String> {
    let mut link = endpoint.connect(seed, Protocol::Client).await.map_err(|error| error.to_string())?;
    let asked = clock::now();
    // Connections count their requests from 1, so this number is free on a link that is used on.
    let frame =
        ClientFrame { id: 0, deadline_ms: clock::remaining_ms(asked, until), request: Request::Topology };
    link.sender.push(|out| codec::encode_into(&frame, out)).map_err(|error| error.to_string())?;
    let mut payloads: Vec<Bytes> = Vec::new();
    link.receiver.next_batch(&mut payloads).await.map_err(|error| error.to_string())?;
    let answered = clock::now();
    let first = payloads.first().map(|payload| codec::decode::<AnswerFrame>(payload));
    match first {
        Some(Ok(AnswerFrame { id: 0, answer: Answer::Topology(topology) })) => {
            Ok(Found { link, topology, asked, answered })
        }
        Some(Ok(AnswerFrame { answer: Answer::Refused(problem), .. })) => Err(problem.message),
        Some(Err(error)) => Err(format!("it answered with garbage: {error}")),
        Some(Ok(_)) | None => Err("it answered something that was not asked".to_owned()),
    }
}
