//! Cuts of the network, latecomers, and clusters that must not mix.

use std::time::Duration;

use super::ids;
use super::network::Network;
use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::Stage;
use crate::protocol::wire::client::Health;

fn split(network: &mut Network, left: &[NodeId], right: &[NodeId]) {
    network.cut(left, right);
    network.cut(right, left);
}

#[test]
fn two_halves_bury_each_other_and_find_each_other_again() {
    let shapes = [(5, 2, 60), (5, 1, 60), (7, 3, 3_600), (20, 10, 600), (50, 25, 600)];
    for (size, left, seconds) in shapes {
        let mut network = Network::founded(size, size);
        let (left, right) = (ids(1..=left), ids(left + 1..=size));
        split(&mut network, &left, &right);
        network.run_until(40, |network| {
            let buries = |a: &[NodeId], b: &[NodeId]| {
                a.iter().all(|&a| {
                    b.iter().all(|&b| {
                        let view = network.at(a);
                        view.health(b) == Some(Health::Down) && !view.is_reachable(b)
                    })
                })
            };
            buries(&left, &right) && buries(&right, &left)
        });
        network.run_for(Duration::from_secs(seconds));
        network.cuts.clear();
        let healed = network.run_until(10, Network::all_agree);
        println!("{} | {} for {seconds} s: one view {healed} ms after healing", left.len(), right.len());
    }
}

#[test]
fn a_one_way_cut_heals_too() {
    for (size, left) in [(5, 2), (12, 4)] {
        let mut network = Network::founded(size, size);
        network.cut(&ids(1..=left), &ids(left + 1..=size));
        network.run_for(Duration::from_secs(120));
        network.cuts.clear();
        let healed = network.run_until(10, Network::all_agree);
        println!("one-way {left} of {size}: one view after {healed} ms");
    }
}

#[test]
fn cuts_of_any_shape_heal() {
    for seed in 0..12 {
        let mut network = Network::founded(5, 100 + seed);
        let mut rng = crate::protocol::rng::Rng::from_number(seed);
        for _ in 0..4 {
            let (a, b) = (ids([1 + rng.below(5)]), ids([1 + rng.below(5)]));
            network.cut(&a, &b);
            network.run_for(Duration::from_secs(rng.below(20)));
            if rng.chance(300) {
                let unlucky = Network::id(1 + rng.below(5));
                network.restart(unlucky);
            }
        }
        network.cuts.clear();
        network.run_until(10, Network::all_agree);
    }
}

/// Nodes whose halves were restarted while they were apart remember each other from disk.
#[test]
fn halves_that_restart_apart_find_each_other_from_their_books() {
    let mut network = Network::founded(4, 21);
    for number in 1..=4 {
        network.hosts.get_mut(&Network::id(number)).unwrap().config.seeds.clear();
    }
    let (left, right) = (ids([1, 2]), ids([3, 4]));
    split(&mut network, &left, &right);
    network.run_for(Duration::from_secs(60));
    for number in 1..=4 {
        network.restart(Network::id(number));
    }
    network.run_for(Duration::from_secs(60));
    network.cuts.clear();
    network.run_until(10, Network::all_agree);
}

#[test]
fn latecomers_learn_and_are_in_no_ring() {
    let mut network = Network::founded(3, 30);
    for number in 4..=50 {
        network.add(number, Network::config(number, None, &[1]));
    }
    let joined = network.run_until(20, |network| network.all_serve() && network.all_agree());
    println!("47 latecomers through one seed: one view after {joined} ms");
    for (id, view) in network.running() {
        assert_eq!(view.ring_members().count(), 3);
        let is_founder = ids(1..=3).contains(&id);
        assert_eq!(view.own().phase.stage == Stage::Active, is_founder);
        assert_eq!(view.own().phase.generation, 1);
    }
    // A learner that restarts is still one.
    network.restart(Network::id(17));
    network.run_until(5, |network| network.all_serve() && network.all_agree());
    assert_eq!(network.at(Network::id(17)).own().phase.stage, Stage::Learning);
}

#[test]
fn a_node_with_seeds_waits_and_never_founds() {
    let mut network = Network::new(31);
    network.add(2, Network::config(2, None, &[1]));
    network.run_for(Duration::from_secs(60));
    assert!(network.at(Network::id(2)).cluster().is_none());
    assert!(network.at(Network::id(2)).waiting_for().unwrap().contains("none of the seeds"));
    // The seed comes up, with a cluster of its own; and remembering its seeds, the waiting node would wait after a restart
    // without any, too.
    network.hosts.get_mut(&Network::id(2)).unwrap().config.seeds.clear();
    network.restart(Network::id(2));
    network.run_for(Duration::from_secs(10));
    assert!(network.at(Network::id(2)).cluster().is_none());
    network.add(1, Network::config(1, None, &[]));
    network.run_until(5, |network| network.all_serve() && network.all_agree());
}

#[test]
fn two_clusters_never_merge() {
    let mut network = Network::new(32);
    network.add(1, Network::config(1, None, &[]));
    network.add(2, Network::config(2, Some(1), &[1]));
    network.run_for(Duration::from_secs(60));
    for (own, other) in [(1, 2), (2, 1)] {
        let view = network.at(Network::id(own));
        assert!(view.entry(Network::id(other)).is_none());
        assert_eq!(view.members().len(), 1);
    }
    let text = network.troubles(Network::id(1)).join("\n");
    for id in [1, 2] {
        let cluster = network.at(Network::id(id)).cluster().unwrap().id;
        assert!(text.contains(&cluster.to_string()), "{text}");
    }
}

#[test]
fn two_nodes_of_one_name_are_pointed_out() {
    let mut network = Network::founded(3, 33);
    let mut config = Network::config(4, None, &[1]);
    config.name = crate::protocol::ring::entry::Name::new("n2").unwrap();
    network.add(4, config);
    network.run_until(10, |network| {
        network.troubles(Network::id(1)).iter().any(|text| text.contains("two nodes are called n2"))
    });
}

/// A node whose disk was set back remembers too low an incarnation. The others know better, and it outbids them.
#[test]
fn an_old_life_is_outbid() {
    let mut network = Network::founded(3, 34);
    let backup = network.hosts[&Network::id(2)].disk.clone();
    for _ in 0..5 {
        network.restart(Network::id(2));
        network.run_for(Duration::from_secs(10));
    }
    let before = network.at(Network::id(1)).entry(Network::id(2)).unwrap().incarnation;
    network.crash(Network::id(2));
    network.hosts.get_mut(&Network::id(2)).unwrap().disk = backup;
    network.forget_incarnation(Network::id(2));
    network.start(Network::id(2));
    assert!(network.at(Network::id(2)).own().incarnation < before);
    network.run_until(5, Network::all_agree);
    assert_eq!(network.at(Network::id(2)).own().incarnation, before);
    assert!(network.troubles(Network::id(2)).is_empty());
}
