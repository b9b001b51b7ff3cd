#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::protocol::config::NodeConfig;
use crate::protocol::ring::entry::Name;
use crate::protocol::rng::Rng;
use crate::server::disk::DiskOptions;
use crate::transport::authority::Authority;
use crate::transport::endpoint::{Endpoint, EndpointOptions};

fn driver(folder: &tempfile::TempDir) -> Arc<Driver> {
    let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let credentials =
        Authority::create("test").unwrap().issue_node("test", "n1").unwrap().credentials().unwrap();
    let endpoint = Endpoint::bind(listen, &credentials, EndpointOptions::default()).unwrap();
    let disk = Disk::open(folder.path(), DiskOptions::default(), || ()).unwrap();
    let (clock, mut outputs) = (Clock::start(), Vec::new());
    let config = NodeConfig::new(Name::new("n1").unwrap(), endpoint.local_address());
    let rng = Rng::from_seed([7; 32]);
    let node = Node::start(config, disk.meta(), disk.durable(), clock.now(), rng, &mut outputs).unwrap();
    Driver::new(node, disk, outputs, Peers::new(endpoint, clock), clock)
}

#[test]
fn a_panic_at_work_ends_the_node_and_nothing_is_built_on_what_it_left() {
    let folder = tempfile::tempdir().unwrap();
    let driver = driver(&folder);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        driver.handle(std::iter::from_fn(|| -> Option<Input> { panic!("on purpose") }));
    }));
    assert!(panicked.is_err());
    assert!(matches!(driver.failed.1.try_recv(), Ok(RunError::Panicked)));
    driver.handle(std::iter::from_fn(|| -> Option<Input> { panic!("nobody may ask for this") }));
    assert!(driver.hello().is_none());
    assert!(driver.take_disk().is_some());
}

#[test]
fn a_timer_that_sleeps_keeps_no_node_alive_and_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let driver = driver(&folder);
    let weak = Arc::downgrade(&driver);
    async_std::task::block_on(async {
        // The disk has told nobody yet, so the node is still starting and wants to be woken never.
        let mut timer = Box::pin(Driver::run_timer(Weak::clone(&weak)));
        assert!(future::poll_once(&mut timer).await.is_none());
        drop(driver);
        assert!(weak.upgrade().is_none());
        timer.await;
    });
}
