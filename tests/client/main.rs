//! The client library against nodes that answer from a script: what it does when they are slow, wrong or gone.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod outcomes;
mod reading;
#[cfg(feature = "server")]
mod real;
mod scripted;
mod updates;

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_std::task::block_on;
use bytes::Bytes;
use scripted::{
    Act, Cluster, NODE_TIME, Shelf, committed, dot, found, member, not_applied, poll, problem, refused,
    status, token, unknown, value,
};
use starling::client::{
    AdminError, AskError, Client, Code, ConnectError, ConnectOptions, Context, Level, ReadError,
    UnmergedReason, UpdateError, Updated, WriteError,
};
use starling::protocol::causality::Sibling;
use starling::protocol::id::{ClusterId, NodeId};
use starling::protocol::ring::entry::Name;
use starling::protocol::wire::client::{AdminAnswer, AdminRequest, Answer, ClientFrame, Request, Write};
use starling::transport::{Authority, Role};

const SHORT: Duration = Duration::from_millis(300);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn write_of(frame: &ClientFrame) -> &Write {
    match &frame.request {
        Request::Write(write) => write,
        other => panic!("a write is expected, not {other:?}"),
    }
}

/// What the examples and most programs do, on whatever runtime drives it.
async fn read_and_write(options: ConnectOptions) {
    let client = Client::connect(options).await.unwrap();
    client.put_blind("k", "a").await.unwrap();
    client.update("k", |values: &[Bytes]| [values.concat().as_slice(), b"b"].concat()).await.unwrap();
    assert_eq!(client.get("k").await.unwrap().single().unwrap().unwrap(), "ab");
    client.close().await;
}

fn is_send<F: Future + Send>(future: F) -> F {
    future
}

#[test]
fn it_works_from_tokio() {
    let shelf = Shelf::default();
    let cluster = Cluster::start(3, move |_, frame| Act::Answer(shelf.answer(frame)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The runtime has neither its timers nor its sockets switched on: the client brings its own.
    runtime.block_on(async {
        tokio::spawn(is_send(read_and_write(cluster.options()))).await.unwrap();
    });
}

#[test]
fn it_works_from_async_std() {
    let shelf = Shelf::default();
    let cluster = Cluster::start(3, move |_, frame| Act::Answer(shelf.answer(frame)));
    block_on(async_std::task::spawn(is_send(read_and_write(cluster.options()))));
}
