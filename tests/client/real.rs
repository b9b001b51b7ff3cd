//! The client against real nodes in this process: real QUIC, real disks, a real partition.

use std::net::SocketAddr;
use std::path::Path;

use async_std::channel::{Sender, bounded};
use async_std::task::JoinHandle;
use starling::protocol::config::NodeConfig;
use starling::protocol::wire::client::Fault;
use starling::server::disk::DiskOptions;
use starling::server::{Launch, RunError, run};

use super::*;

struct Running {
    address: SocketAddr,
    stop: Sender<()>,
    ended: JoinHandle<Result<(), RunError>>,
}

async fn start(authority: &Authority, dir: &Path, node: &str, seeds: &[SocketAddr]) -> Running {
    let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = NodeConfig::new(name(node), listen);
    config.found = Some(3);
    config.seeds = seeds.to_vec();
    let disk = DiskOptions { segment_bytes: 1 << 20, free_space_floor: 0, ..DiskOptions::default() };
    let credentials = authority.issue_node("test", node).unwrap().credentials().unwrap();
    let launch = Launch {
        node: config,
        listen,
        data: dir.join(node),
        disk,
        credentials,
        faults: true,
        recovery: Default::default(),
    };
    let ((told, heard), (stop, stopped)) = (bounded(1), bounded::<()>(1));
    let until = async move {
        let _ = stopped.recv().await;
    };
    let observer = move |address| {
        let _ = told.try_send(address);
    };
    let ended = async_std::task::spawn(async move { run(launch, observer, until).await });
    Running { address: heard.recv().await.unwrap(), stop, ended }
}

/// Cuts `one` off from `others`, or heals that.
async fn cut(client: &Client, one: (&str, SocketAddr), others: &[(&str, SocketAddr)], is_cut: bool) {
    let fault = Fault { cut: is_cut, ..Fault::default() };
    let towards = |peer| AdminRequest::SetFault { peer, outbound: fault, inbound: fault };
    for other in others {
        client.admin(&name(one.0), towards(other.1)).await.unwrap();
        client.admin(&name(other.0), towards(one.1)).await.unwrap();
    }
}

#[test]
fn a_value_written_on_both_sides_of_a_partition_is_merged_after_it() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create("test").unwrap();
        let n1 = start(&authority, dir.path(), "n1", &[]).await;
        let n2 = start(&authority, dir.path(), "n2", &[n1.address]).await;
        let n3 = start(&authority, dir.path(), "n3", &[n1.address]).await;
        let options = |seed: &Running| {
            let credentials = authority.issue_client("tester", Role::Admin).unwrap().credentials().unwrap();
            ConnectOptions::new([seed.address], credentials)
        };
        let client = Client::connect(options(&n1)).await.unwrap();
        // Until the cluster is founded, nodes answer that they are not ready, and the client goes on trying.
        client.put_blind("cart", "milk").w(Level::All).deadline(Duration::from_secs(30)).await.unwrap();
        assert_eq!(client.get("cart").await.unwrap().values(), ["milk"]);

        let (here, there) = ([("n1", n1.address), ("n2", n2.address)], ("n3", n3.address));
        cut(&client, there, &here, true).await;
        let left = Client::connect(options(&n1).via(name("n1"))).await.unwrap();
        let right = Client::connect(options(&n3).via(name("n3"))).await.unwrap();
        let seen = left.get("cart").await.unwrap();
        left.put_with(seen.context(), "milk,bread").await.unwrap();
        let error = right.get("cart").deadline(SHORT).await.unwrap_err();
        assert!(matches!(error, ReadError::Unavailable(_)), "{error}");
        let seen = right.get("cart").r(Level::One).await.unwrap();
        assert_eq!(seen.values(), ["milk"]);
        right.put_with(seen.context(), "milk,apples").w(Level::One).await.unwrap();

        let other_key = Context::from_token("other", seen.context().token().cloned());
        let error = left.put_with(&other_key, "x").await.unwrap_err();
        assert!(matches!(error, WriteError::NotApplied { .. }), "{error}");
        assert_eq!(error.problem().code, Code::ContextOfAnotherKey);

        cut(&client, there, &here, false).await;
        let both = client.get("cart").r(Level::All).deadline(Duration::from_secs(30)).await.unwrap();
        assert_eq!(both.values().len(), 2, "{both:?}");
        let updated = client.update("cart", |carts: &[Bytes]| {
            let items: BTreeSet<&[u8]> =
                carts.iter().flat_map(|cart| cart.split(|byte| *byte == b',')).collect();
            items.into_iter().collect::<Vec<_>>().join(&b',')
        });
        assert!(matches!(updated.await.unwrap(), Updated::Written(receipt) if receipt.siblings == 1));
        let merged = client.get("cart").r(Level::All).await.unwrap();
        assert_eq!(merged.values(), ["apples,bread,milk"]);

        // One node of three is gone: the others go on, and the client with them.
        n2.stop.send(()).await.unwrap();
        n2.ended.await.unwrap();
        for round in 0..20 {
            client.put_blind(format!("key {round}"), "v").await.unwrap();
            assert_eq!(client.get(format!("key {round}")).await.unwrap().values(), ["v"]);
        }
        client.delete("cart").await.unwrap();
        assert!(client.get("cart").await.unwrap().is_deleted());
        for node in [n1, n3] {
            node.stop.send(()).await.unwrap();
            node.ended.await.unwrap();
        }
    });
}
