//! Real nodes in this process: real QUIC, real sled, no binary.
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use async_std::channel::{Receiver, Sender, bounded};
use starling::client::{Client, ConnectOptions};
use starling::protocol::config::NodeConfig;
use starling::protocol::ring::entry::Name;
use starling::server::disk::DiskOptions;
use starling::server::{Launch, RunError, run};
use starling::transport::authority::Authority;
use starling::transport::identity::Role;

struct Running {
    address: SocketAddr,
    stop: Sender<()>,
    ended: async_std::task::JoinHandle<Result<(), RunError>>,
}

fn launch(authority: &Authority, dir: &Path, name: &str, found: Option<u16>, seeds: &[SocketAddr]) -> Launch {
    let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut node = NodeConfig::new(Name::new(name).unwrap(), listen);
    node.found = found;
    node.seeds = seeds.to_vec();
    let disk = DiskOptions { segment_bytes: 1 << 20, free_space_floor: 0, ..DiskOptions::default() };
    let credentials = authority.issue_node("test", name).unwrap().credentials().unwrap();
    Launch {
        node,
        listen,
        data: dir.join(name),
        disk,
        credentials,
        faults: true,
        recovery: Default::default(),
    }
}

async fn start(launch: Launch) -> Running {
    let (told, heard): (Sender<SocketAddr>, Receiver<SocketAddr>) = bounded(1);
    let (stop, stopped): (Sender<()>, Receiver<()>) = bounded(1);
    let until = async move {
        let _ = stopped.recv().await;
    };
    let observer = move |address| {
        let _ = told.try_send(address);
    };
    let ended = async_std::task::spawn(async move { run(launch, observer, until).await });
    let address = heard.recv().await.expect("the node listens");
    Running { address, stop, ended }
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(()).await;
        self.ended.await.unwrap();
    }
}

async fn client(authority: &Authority, seeds: Vec<SocketAddr>) -> Client {
    let credentials = authority.issue_client("test", Role::Admin).unwrap().credentials().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Client::connect(ConnectOptions::new(seeds.clone(), credentials.clone())).await {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn three_nodes_found_a_cluster_and_keep_what_they_are_given() {
    async_std::task::block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create("test").unwrap();
        let n1 = start(launch(&authority, dir.path(), "n1", Some(3), &[])).await;
        let seeds = [n1.address];
        let n2 = start(launch(&authority, dir.path(), "n2", Some(3), &seeds)).await;
        let n3 = start(launch(&authority, dir.path(), "n3", Some(3), &seeds)).await;
        let client = client(&authority, vec![n1.address]).await;
        let put = client.put_blind("greeting", "hello").await.unwrap();
        println!("{put:?}");
        let reading = client.get("greeting").await.unwrap();
        println!("{reading:?}");
        client.close().await;
        n1.stop().await;
        n2.stop().await;
        n3.stop().await;
    });
}
