//! What membership costs while nothing happens.

use std::net::SocketAddr;
use std::time::Duration;

use super::network::Network;
use crate::protocol::ring::entry::Name;
use crate::protocol::ring::member::Zone;

#[test]
fn idle_traffic_per_node_does_not_grow_with_the_cluster() {
    for (size, bytes_max) in [(5, 600), (50, 1_000)] {
        let mut network = Network::founded(size, 1);
        network.run_for(Duration::from_secs(60));
        let (bytes, messages) = (network.bytes, network.messages);
        let persists: u64 = network.hosts.values().map(|host| host.persists).sum();
        network.run_for(Duration::from_secs(100));
        let per_node_second = size * 100;
        let bytes = (network.bytes - bytes) / per_node_second;
        let messages = (network.messages - messages) / (per_node_second / 10);
        println!("{size} nodes: {bytes} bytes and {messages}/10 messages a second and node");
        assert!(bytes <= bytes_max, "{bytes} bytes");
        let after: u64 = network.hosts.values().map(|host| host.persists).sum();
        assert_eq!(after, persists, "an idle cluster writes nothing");
    }
}

/// The network of the tests asserts the size of every message. Here members are as large as they can be.
#[test]
fn the_largest_members_still_fit_in_a_packet() {
    let mut network = Network::new(2);
    let large = |number: u64, found| {
        let mut config = Network::config(number, found, &[1]);
        config.name = Name::new(format!("{number:064}")).unwrap();
        config.zone = Zone::new(format!("{:064}", number % 3)).unwrap();
        let more =
            (0..12).map(|port| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, number as u16], 7_000 + port)));
        config.addresses.extend(more);
        config
    };
    for number in 1..=20 {
        network.add(number, large(number, Some(20)));
    }
    network.run_until(30, Network::all_serve);
    for number in 21..=80 {
        network.add(number, large(number, None));
    }
    network.run_until(30, |network| network.all_serve() && network.all_agree());
    network.crash(Network::id(7));
    network.run_until(20, Network::all_agree);
}
