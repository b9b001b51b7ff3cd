//! What membership costs while nothing happens.

use std::time::Duration;

use super::network::Network;

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
