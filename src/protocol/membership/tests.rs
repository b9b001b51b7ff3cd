//! Whole clusters of memberships, in virtual time.

mod network;

use std::time::Duration;

use self::network::Network;
use crate::protocol::id::NodeId;
use crate::protocol::wire::client::Health;

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
    numbers.into_iter().map(Network::id).collect()
}

#[test]
fn three_nodes_found_a_cluster_and_agree() {
    let network = Network::founded(3, 1);
    let clusters: Vec<_> = network.running().map(|(_, node)| node.cluster().cloned()).collect();
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]));
    assert!(network.running().all(|(_, node)| node.ring_members().count() == 3));
    assert!(network.running().all(|(_, node)| node.waiting_for().is_none()));
}

#[test]
fn a_death_is_noticed_by_all_and_so_is_the_return() {
    for (size, seed) in [(3, 1), (5, 2), (9, 3), (50, 4)] {
        let mut network = Network::founded(size, seed);
        let victim = Network::id(size / 2 + 1);
        network.crash(victim);
        let noticed = network.run_until(10, |network| network.all_believe(victim, Health::Down));
        println!("{size} nodes: down after {noticed} ms");
        network.run_until(10, Network::all_agree);
        network.restart(victim);
        let back = network.run_until(5, Network::all_agree);
        println!("{size} nodes: back after {back} ms");
    }
}

#[test]
fn a_false_suspicion_is_refuted() {
    let mut network = Network::founded(5, 7);
    let victim = Network::id(3);
    let before = network.at(victim).own().version;
    network.pause(victim);
    network.run_until(10, |network| network.all_believe(victim, Health::Suspect));
    network.resume(victim);
    let refuted = network.run_until(5, Network::all_agree);
    println!("refuted after {refuted} ms");
    assert!(network.at(victim).own().version > before);
    assert_eq!(network.verdicts(Health::Down), 0);
}

#[test]
fn a_node_that_slept_for_minutes_accuses_nobody() {
    let mut network = Network::founded(5, 8);
    let sleeper = Network::id(2);
    network.pause(sleeper);
    network.run_for(Duration::from_secs(300));
    network.resume(sleeper);
    network.run_until(10, Network::all_agree);
    let others = ids([1, 3, 4, 5]);
    let accused = network.hosts[&sleeper].notices.iter().filter(|(_, notice)| {
        matches!(notice, crate::protocol::output::Notice::Health { member, health: Health::Suspect | Health::Down }
            if others.contains(member))
    });
    assert_eq!(accused.count(), 0);
}
