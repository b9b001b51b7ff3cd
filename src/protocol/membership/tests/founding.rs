//! Foundings under every misfortune.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ids;
use super::network::Network;
use crate::protocol::id::ClusterId;
use crate::protocol::ring::replicas::Replicas;

fn candidates(size: u16, count: u64, seed: u64) -> Network {
    let mut network = Network::new(seed);
    for number in 1..=count {
        network.add(number, Network::config(number, Some(size), &[1, 2]));
    }
    network
}

fn clusters(network: &Network) -> BTreeSet<ClusterId> {
    network.running().filter_map(|(_, node)| node.cluster().map(|cluster| cluster.id)).collect()
}

#[test]
fn three_nodes_found_a_cluster_and_agree() {
    let network = Network::founded(3, 1);
    assert_eq!(clusters(&network).len(), 1);
    assert!(network.running().all(|(_, node)| node.ring_members().count() == 3));
    assert!(network.running().all(|(_, node)| node.waiting_for().is_none()));
}

#[test]
fn any_number_of_nodes_found_a_cluster() {
    for size in [1, 2, 5, 7, 20, 50] {
        let mut network = candidates(size, u64::from(size), 2);
        let founded = network.run_until(20, Network::all_serve);
        println!("{size} nodes founded a cluster in {founded} ms");
        network.run_until(10, Network::all_agree);
        assert_eq!(clusters(&network).len(), 1);
    }
}

#[test]
fn a_node_without_seeds_and_size_founds_alone() {
    let mut network = Network::new(3);
    network.add(1, Network::config(1, None, &[]));
    network.run_until(1, Network::all_serve);
    assert_eq!(network.at(Network::id(1)).ring_members().count(), 1);
}

/// One of the nodes crashes at each thing that it says or writes, in turn, and comes back with what its disk has.
#[test]
fn a_crash_at_any_step_only_delays_the_founding() {
    let steps = {
        let network = Network::founded(3, 4);
        network.steps
    };
    assert!(steps > 30);
    for crash_at in 1..=steps.min(150) {
        let mut network = Network::new(4);
        network.crash_at = Some(crash_at);
        for number in 1..=3 {
            network.add(number, Network::config(number, Some(3), &[1, 2]));
        }
        let down_for = crash_at % 7 * 400;
        network.run_until(60, |network| {
            network.crashed.is_some() || (network.all_serve() && network.all_agree())
        });
        let crashed = network.crashed.expect("every step comes before the end");
        network.run_for(Duration::from_millis(down_for));
        network.start(crashed);
        network.run_until(30, |network| network.all_serve() && network.all_agree());
        assert_eq!(clusters(&network).len(), 1, "crash at step {crash_at}");
    }
}

/// All of them crash again and again, on a network that loses, repeats and reorders.
#[test]
fn foundings_survive_loss_duplicates_and_many_crashes() {
    for seed in 0..60 {
        let size = 2 + seed % 4;
        let mut rng = crate::protocol::rng::Rng::from_number(seed);
        let mut network = candidates(size as u16, size, seed);
        network.loss_per_mille = 200;
        network.duplicate_per_mille = 300;
        network.delay = (500, 400_000);
        for _ in 0..6 {
            network.run_for(Duration::from_millis(rng.below(1_500)));
            let unlucky = Network::id(1 + rng.below(size));
            network.crash(unlucky);
            network.run_for(Duration::from_millis(rng.below(800)));
            network.start(unlucky);
        }
        network.run_until(60, Network::all_serve);
        assert_eq!(clusters(&network).len(), 1, "seed {seed}");
        network.loss_per_mille = 0;
        network.run_until(20, Network::all_agree);
    }
}

/// More candidates than the cluster has founders, who see each other only by and by: proposers must yield, never
/// found two clusters of one node.
#[test]
fn rival_proposers_yield() {
    for seed in 0..60 {
        let mut rng = crate::protocol::rng::Rng::from_number(1_000 + seed);
        let mut network = candidates(3, 5, seed);
        for _ in 0..8 {
            let (a, b) = (Network::id(1 + rng.below(5)), Network::id(1 + rng.below(5)));
            network.cut(&[a], &[b]);
            network.cut(&[b], &[a]);
        }
        network.loss_per_mille = 100;
        network.run_for(Duration::from_secs(rng.below(15)));
        network.cuts.clear();
        network.loss_per_mille = 0;
        network.run_until(60, |network| !clusters(network).is_empty());
        network.run_for(Duration::from_secs(30));
        let all = clusters(&network);
        assert_eq!(all.len(), 1, "five nodes cannot found two clusters of three (seed {seed})");
        let members = network.running().filter(|(_, node)| node.cluster().is_some()).count();
        assert_eq!(members, 3, "seed {seed}: {}", network.describe());
        for (id, node) in network.running() {
            if node.cluster().is_none() {
                assert!(
                    network.troubles(id).iter().any(|text| text.contains("without --found")),
                    "seed {seed}: {:?} {:?}",
                    network.troubles(id),
                    node.waiting_for()
                );
            }
        }
    }
}

/// A candidate dies for good before it confirmed; another one comes and takes its place.
#[test]
fn a_dead_candidate_is_replaced() {
    let mut network = Network::new(6);
    for number in 1..=3 {
        network.add(number, Network::config(number, Some(3), &[1, 2]));
        if number == 3 {
            network.run_for(Duration::from_millis(40));
        }
    }
    network.crash(Network::id(3));
    network.run_for(Duration::from_secs(5));
    assert!(clusters(&network).is_empty());
    network.add(4, Network::config(4, Some(3), &[1, 2]));
    network.run_until(60, Network::all_serve);
    let cluster = network.at(Network::id(1)).cluster().unwrap();
    assert!(cluster.founders.ids().eq(ids([1, 2, 4])));
}

#[test]
fn who_disagrees_about_the_cluster_is_told_so() {
    let mut network = candidates(2, 1, 7);
    let mut config = Network::config(2, Some(3), &[1]);
    config.replicas = Replicas::new(5).unwrap();
    network.add(2, config);
    network.run_for(Duration::from_secs(10));
    assert!(clusters(&network).is_empty());
    for number in [1, 2] {
        let text = network.troubles(Network::id(number)).join("\n");
        assert!(text.contains("the same --found and --replicas"), "{text}");
    }
}

#[test]
fn candidates_of_one_name_found_nothing() {
    let mut network = candidates(2, 1, 8);
    let mut config = Network::config(2, Some(2), &[1]);
    config.name = crate::protocol::ring::entry::Name::new("n1").unwrap();
    network.add(2, config);
    network.run_for(Duration::from_secs(10));
    assert!(clusters(&network).is_empty());
    let text = network.troubles(Network::id(1)).join("\n");
    assert!(text.contains("two nodes are called n1"), "{text}");
}

#[test]
fn what_is_missing_is_said_in_words() {
    let mut network = candidates(3, 2, 9);
    network.run_for(Duration::from_secs(3));
    let waits = network.at(Network::id(1)).waiting_for();
    assert_eq!(waits.as_deref(), Some("founding: 2 of 3 nodes are here (n1, n2)"));
}

/// Started again with another size once the cluster exists, a node does not care; started in another zone, it stays where
/// it was founded.
#[test]
fn what_was_founded_is_not_founded_again() {
    let mut network = Network::founded(3, 10);
    let id = Network::id(2);
    let cluster = network.at(id).cluster().cloned();
    let host = network.hosts.get_mut(&id).unwrap();
    host.config.found = Some(7);
    host.config.zone = crate::protocol::ring::member::Zone::new("elsewhere").unwrap();
    network.restart(id);
    network.run_until(5, |network| network.all_serve() && network.all_agree());
    assert_eq!(network.at(id).cluster().cloned(), cluster);
    assert_eq!(network.at(id).own().zone.as_str(), "default");
}
