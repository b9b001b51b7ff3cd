//! Deaths, pauses, stops and false alarms.

use std::time::Duration;

use super::ids;
use super::network::Network;
use crate::protocol::id::NodeId;
use crate::protocol::output::Notice;
use crate::protocol::wire::client::Health;

#[test]
fn a_death_is_noticed_by_all_and_so_is_the_return() {
    for (size, seed) in [(3, 1), (5, 2), (9, 3), (50, 4)] {
        let mut network = Network::founded(size, seed);
        let victim = Network::id(size / 2 + 1);
        network.crash(victim);
        let unreachable = network.run_until(8, |network| {
            network.running().all(|(_, view)| !view.is_reachable(victim) || size > 8)
        });
        let noticed = network.run_until(8, |network| network.all_believe(victim, Health::Down));
        println!("{size} nodes: unreachable after {unreachable} ms, down {noticed} ms later");
        assert!(unreachable <= 3_000);
        network.run_until(10, Network::all_agree);
        network.restart(victim);
        let back = network.run_until(3, Network::all_agree);
        println!("{size} nodes: back after {back} ms");
    }
}

#[test]
fn a_survivor_of_many_deaths_reaches_a_verdict_too() {
    let mut network = Network::founded(3, 5);
    network.crash(Network::id(1));
    network.crash(Network::id(3));
    let noticed = network.run_until(30, Network::all_agree);
    println!("the only survivor of three: {noticed} ms");
}

#[test]
fn a_suspicion_is_refuted_by_a_higher_version() {
    let mut network = Network::founded(5, 7);
    let victim = Network::id(3);
    let before = network.at(victim).own().version;
    network.pause(victim);
    network.run_until(10, |network| network.all_believe(victim, Health::Suspect));
    network.resume(victim);
    network.run_until(2, Network::all_agree);
    assert!(network.at(victim).own().version > before);
    assert_eq!(network.verdicts(Health::Down), 0);
}

#[test]
fn a_node_that_slept_for_minutes_accuses_nobody() {
    for size in [5, 12] {
        let mut network = Network::founded(size, 8);
        let sleeper = Network::id(2);
        network.pause(sleeper);
        network.run_for(Duration::from_secs(300));
        network.resume(sleeper);
        network.run_until(10, Network::all_agree);
        network.run_for(Duration::from_secs(20));
        let is_accusation =
            |notice: &Notice| matches!(notice, Notice::Health { health: Health::Suspect | Health::Down, .. });
        let accused = network.hosts[&sleeper].notices.iter().filter(|(_, notice)| is_accusation(notice));
        assert_eq!(accused.count(), 0);
    }
}

#[test]
fn a_clean_stop_is_known_at_once_and_undone_by_a_start() {
    let mut network = Network::founded(5, 9);
    let leaver = Network::id(4);
    network.stop(leaver);
    let known = network.run_until(1, |network| network.all_believe(leaver, Health::Stopped));
    assert!(known <= 100, "{known} ms");
    assert!(network.running().all(|(_, view)| !view.is_reachable(leaver)));
    network.run_for(Duration::from_secs(20));
    assert!(network.all_believe(leaver, Health::Stopped));
    assert_eq!(network.verdicts(Health::Suspect), 0);
    network.restart(leaver);
    network.run_until(3, Network::all_agree);
}

#[test]
fn a_restart_faster_than_any_suspicion_is_seen_by_the_incarnation() {
    let mut network = Network::founded(3, 10);
    let before = network.at(Network::id(1)).own().incarnation;
    network.restart(Network::id(1));
    network.run_until(2, Network::all_agree);
    let seen = network.at(Network::id(2)).entry(Network::id(1)).unwrap().incarnation;
    assert!(seen > before);
    assert_eq!(network.verdicts(Health::Suspect), 0);
}

/// Half an hour with every hundredth message lost, and some of the rest slow or twice there.
#[test]
fn no_healthy_node_is_declared_down_on_a_lossy_network() {
    for (size, minutes) in [(5, 30), (20, 30), (50, 5)] {
        let mut network = Network::founded(size, size);
        network.loss_per_mille = 10;
        network.duplicate_per_mille = 10;
        network.delay = (500, 80_000);
        network.run_for(Duration::from_secs(60 * minutes));
        println!("{size} nodes, {minutes} minutes: {} suspicions", network.verdicts(Health::Suspect));
        assert_eq!(network.verdicts(Health::Down), 0);
        network.loss_per_mille = 0;
        network.run_until(10, Network::all_agree);
    }
}

/// With a third of all messages lost, opinions may flap, but not the truth for long.
#[test]
fn after_heavy_loss_all_agree_again() {
    let mut network = Network::founded(7, 3);
    network.loss_per_mille = 300;
    network.delay = (1_000, 300_000);
    network.run_for(Duration::from_secs(300));
    println!(
        "30 % loss: {} suspicions, {} deaths",
        network.verdicts(Health::Suspect),
        network.verdicts(Health::Down)
    );
    network.loss_per_mille = 0;
    network.delay = (500, 25_000);
    network.run_until(10, Network::all_agree);
}

/// A deaf node hears nothing, a mute one is not heard: either is declared down once, and nobody else is.
#[test]
fn a_deaf_or_mute_node_changes_its_status_once() {
    for is_deaf in [true, false] {
        let mut network = Network::founded(12, 11);
        let (odd, others) = (ids([6]), ids((1..=12).filter(|&number| number != 6)));
        if is_deaf {
            network.cut(&others, &odd)
        } else {
            network.cut(&odd, &others)
        }
        network.run_for(Duration::from_secs(120));
        let at = Network::id(1);
        let changes = |about: NodeId| {
            let is_about =
                move |notice: &Notice| matches!(notice, Notice::Health { member, .. } if *member == about);
            network.hosts[&at].notices.iter().filter(|(_, notice)| is_about(notice)).count()
        };
        assert_eq!(network.at(at).health(odd[0]), Some(Health::Down), "deaf: {is_deaf}");
        assert!(changes(odd[0]) <= 4, "{} changes of the odd one", changes(odd[0]));
        for &other in others.iter().filter(|&&other| other != at) {
            assert_eq!(network.at(at).health(other), Some(Health::Alive));
            assert!(changes(other) <= 2, "{} changes of a healthy one", changes(other));
        }
        network.cuts.clear();
        network.run_until(10, Network::all_agree);
    }
}

/// The link between two nodes is broken in one direction. Both live, and all say so; the two know that they cannot reach each
/// other, and the third can reach both: indirect liveness is no reachability.
#[test]
fn a_broken_link_is_unreachability_and_not_death() {
    let mut network = Network::founded(3, 12);
    network.cut(&ids([1]), &ids([2]));
    network.run_for(Duration::from_secs(30));
    let reaches = |a: u64, b: u64| network.at(Network::id(a)).is_reachable(Network::id(b));
    assert!(!reaches(1, 2) && !reaches(2, 1));
    assert!(reaches(3, 1) && reaches(3, 2) && reaches(1, 3) && reaches(2, 3));
    assert_eq!(network.verdicts(Health::Down), 0);
    network.cuts.clear();
    let healed = network.run_until(5, Network::all_agree);
    assert!(healed <= 1_500, "{healed} ms");
}

/// Clocks: everybody learns how far its own is from the median.
#[test]
fn a_clock_that_is_off_is_known_to_its_node_and_moves_no_other() {
    let mut network = Network::founded(5, 13);
    network.hosts.get_mut(&Network::id(2)).unwrap().wall_offset = 3_600_000;
    network.run_for(Duration::from_secs(5));
    for (id, view) in network.running() {
        let offset = view.clock_offset();
        let expected = if id == Network::id(2) { 3_600_000 } else { 0 };
        assert!((offset - expected).abs() <= 30, "{id:?}: {offset}");
    }
}
