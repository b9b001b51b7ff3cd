//! The world itself: what it makes of a node that panics, of a core, and of a disk that is full or fails.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::faults::{Kind, Swarm};
use super::super::history::{Action, Ending, Operation};
use super::super::invariants::Invariant;
use super::super::network::Weather;
use super::super::options::Options;
use super::super::planted::{Planted, Planting};
use super::super::report::Report;
use super::*;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskReply, DoubtReason};

/// A cluster that serves, with clients that have begun, while nothing goes wrong.
fn at_work(seed: u64, nodes: u16) -> World {
    let options = Options { nodes: Some(nodes), clients: Some(8), keys: Some(30), ..Options::new(seed) };
    let mut world = World::new(&options);
    world.swarm = Swarm::calm();
    for host in 0..usize::from(nodes) {
        world.schedule(world.now, Event::Starts { host });
    }
    world.run_until(world.now + FOUNDING_MAX, World::all_serve);
    world.workload.begin(world.now, &mut world.wishes);
    world.grant_wishes();
    world.go_on(Duration::from_secs(2));
    assert!(world.all_serve() && world.violations.is_empty(), "{:?}", world.violations);
    world
}

impl World {
    fn go_on(&mut self, span: Duration) {
        self.run_until(self.now + span, |_| false);
    }

    /// The operations that began and ended in the last `span`.
    fn within(&self, span: Duration) -> impl Iterator<Item = &Operation> {
        let since = Moment(self.now.0 - u64::try_from(span.as_micros()).unwrap());
        self.workload.history.operations.iter().filter(move |operation| {
            operation.invoked > since && operation.ended <= self.now && operation.ending != Ending::Open
        })
    }
}

#[test]
fn what_a_node_loses_in_a_slot_of_others_does_not_keep_it_from_being_whole() {
    let mut world = at_work(7, 5);
    let node = &world.hosts[0].process.as_ref().unwrap().node;
    let view = node.ring_view().unwrap();
    let slot = Slot::all().find(|slot| !view.slot(*slot).is_owner(node.id())).unwrap();
    world.input(0, Input::Disk(DiskReply::Doubted { slots: vec![slot], why: DoubtReason::Damaged }));
    assert!(!world.votes(0, slot));
    world.go_on(Duration::from_secs(10));
    let is_whole = world.hosts[0].process.as_ref().unwrap().node.trust().voteless().is_empty();
    assert!(is_whole && world.votes(0, slot) && world.violations.is_empty(), "{:?}", world.violations);
}

#[test]
fn an_owner_that_has_lost_one_slot_owes_the_keys_of_all_others() {
    let mut world = at_work(1, 3);
    let core = [0, 1];
    let used = world.workload.keys();
    let slots: BTreeSet<Slot> = used.iter().map(|key| Slot::of_key(key)).collect();
    let lost = *slots.first().unwrap();
    world.input(0, Input::Disk(DiskReply::Doubted { slots: vec![lost], why: DoubtReason::Damaged }));
    let owed = world.keys_of(&core);
    assert!(!owed.is_empty() && owed.iter().all(|key| Slot::of_key(key) != lost), "{owed:?}");
    let expected = used.iter().filter(|key| Slot::of_key(key) != lost).count();
    assert_eq!(owed.len(), expected.min(12).min(world.workload.requests_max()));
}

fn is_write(operation: &&Operation) -> bool {
    matches!(operation.action, Action::Write { .. })
}

fn is_committed(operation: &Operation) -> bool {
    matches!(operation.ending, Ending::Committed(_))
}

/// A machine has gone down whose disk was copied a moment before; since then it has acknowledged a write.
fn copied_a_moment_ago(seed: u64) -> World {
    let mut world = at_work(seed, 3);
    // Whoever knows better can say so in time: on the network that a seed draws a question may take four seconds.
    world.network = Network::new(3, Weather::fair());
    // How much clients write is drawn as well, and what was on the disk before may be acknowledged after it was copied.
    for _ in 0..30 {
        world.copy_disk(0);
        // For less than a heartbeat's time.
        for _ in 0..18 {
            world.go_on(Duration::from_millis(50));
            if !world.doubters(0).is_empty() {
                world.crash(0, Duration::from_secs(3_600), "crashes");
                return world;
            }
        }
    }
    panic!("seed {seed}: nobody has written anything")
}

#[test]
fn a_copy_of_a_moment_ago_is_found_out_by_who_counts_on_what_it_lacks() {
    for seed in 1..=5 {
        let mut world = copied_a_moment_ago(seed);
        world.restore_copy(0);
        assert_eq!(world.hosts[0].copied, Copied::Lately, "seed {seed}: not all have written down more");
        world.start(0);
        world.run_until(world.now + Duration::from_secs(1), |world| world.counts.disks_lost > 0);
        assert_eq!(world.violations, [], "seed {seed}");
        assert_eq!((world.hosts[0].copied, world.counts.disks_lost), (Copied::No, 1), "seed {seed}: denied");
    }
}

#[test]
fn nobody_counts_on_anything_who_has_ended_since() {
    let mut world = copied_a_moment_ago(1);
    let doubters = world.doubters(0);
    assert!(!doubters.is_empty());
    doubters.iter().for_each(|(by, _)| world.crash(*by, Duration::from_secs(3_600), "crashes"));
    assert_eq!(world.doubters(0), []);
    world.restore_copy(0);
    assert_eq!(world.hosts[0].copied, Copied::Freshly);
}

#[test]
fn a_node_that_panics_is_a_violation_of_its_seed_and_the_other_seeds_are_run() {
    let run = |seed| {
        let planted = Some(Planting::Alone(Planted::Panics));
        super::super::run(&Options { planted, duration: Duration::from_secs(1), ..Options::new(seed) })
    };
    // In some runs of a second nothing is written at all.
    let reports: Vec<Report> = (1..=9).map(run).filter(|report| !report.is_ok()).take(3).collect();
    assert_eq!(reports.len(), 3);
    for report in &reports {
        let [violation] = &report.violations[..] else { panic!("{:?}", report.violations) };
        assert_eq!(violation.invariant, Invariant::Sane);
        assert!(violation.evidence.starts_with("the node on n"), "{violation}");
        assert!(violation.evidence.ends_with("panicked: planted for a test"), "{violation}");
        // What had happened by then is told.
        assert!(report.counts.events > 0 && report.story.is_some() && !report.is_ok());
    }
    // Whose fault it was is noted in time; nothing happens after it.
    let host = reports[0].violations[0].evidence.split(' ').nth(3).unwrap().to_owned();
    let story = reports[0].story.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(story.contains(&format!("the node on {host} panics: planted for a test")), "{story}");
}

#[test]
fn a_core_is_healed_and_serves_and_the_rest_stays_as_broken_as_it_is() {
    let (mut owed, mut down, mut unreached) = (0, 0, 0);
    for seed in 1..=12 {
        let mut world = at_work(seed, 5);
        world.swarm.kinds = [Kind::Crash, Kind::Pause, Kind::Partition, Kind::OneWay, Kind::Odd].into();
        // Somebody is broken before: the core is not.
        world.crash(0, Duration::from_secs(3_600), "crashes");
        world.network.cut(&[(1, 2), (2, 1), (3, 4)]);
        world.go_on(Duration::from_secs(1));
        world.core_part();
        assert_eq!(world.violations, [], "seed {seed}");
        let (rest, core): (Vec<usize>, Vec<usize>) = (0..5).partition(|&host| world.hosts[host].is_frozen);
        assert!((1..=2).contains(&rest.len()), "seed {seed}: {rest:?}");
        for (&from, &to) in core.iter().flat_map(|from| core.iter().map(move |to| (from, to))) {
            let process = world.hosts[from].process.as_ref().unwrap();
            let other = world.hosts[to].id.unwrap();
            assert!(from == to || process.node.membership().is_reachable(other), "seed {seed}");
        }
        let operations = &world.workload.history.operations;
        let promised: Vec<&Operation> = operations.iter().filter(|op| op.owed_by.is_some()).collect();
        for operation in &promised {
            let went_well = matches!(operation.ending, Ending::Committed(_) | Ending::Answered(_));
            assert!(went_well && Some(operation.ended) <= operation.owed_by, "seed {seed}: {operation:?}");
        }
        owed += promised.len();
        down += rest.iter().filter(|&&host| world.hosts[host].process.is_none()).count();
        let witness = world.hosts[core[0]].process.as_ref().unwrap().node.membership();
        let ids = rest.iter().filter_map(|&host| world.hosts[host].id);
        unreached += ids.filter(|id| !witness.is_reachable(*id)).count();

        world.heal();
        world.run_until(world.now + RECOVERY_MAX, World::all_serve);
        assert!(world.all_serve() && world.hosts.iter().all(|host| !host.is_frozen), "seed {seed}");
    }
    assert!(owed > 100 && down > 0 && unreached > down, "{owed} {down} {unreached}");
}

#[test]
fn a_core_owes_the_keys_of_which_it_has_a_majority_and_no_others() {
    let mut world = at_work(1, 5);
    let core = [0, 1, 2];
    let inside: BTreeSet<NodeId> = core.iter().map(|&host| world.hosts[host].id.unwrap()).collect();
    let owed = world.keys_of(&core);
    let view = world.hosts[0].process.as_ref().unwrap().node.ring_view().unwrap();
    let has_majority = |key: &bytes::Bytes| {
        view.slot(Slot::of_key(key)).read_set().iter().filter(|owner| inside.contains(owner)).count() >= 2
    };
    let used = world.workload.keys();
    let (kept, lost): (Vec<_>, Vec<_>) = used.iter().partition(|key| has_majority(key));
    assert!(!lost.is_empty() && !kept.is_empty());
    assert!(
        owed.iter().all(has_majority) && owed.len() == kept.len().min(12).min(world.workload.requests_max()),
        "{owed:?}"
    );
}

#[test]
fn there_is_no_core_of_two_nodes_or_before_the_founding() {
    let mut world = at_work(1, 1);
    world.core_part();
    assert!(world.is_safe && world.hosts.iter().all(|host| !host.is_frozen));
    let mut unfounded = World::new(&Options { nodes: Some(5), ..Options::new(1) });
    unfounded.core_part();
    assert!(unfounded.is_safe && unfounded.hosts.iter().all(|host| !host.is_frozen));
}

#[test]
fn full_disks_refuse_writes_and_go_on_reading_until_there_is_room() {
    let mut world = at_work(1, 3);
    for host in 0..3 {
        world.hosts[host].disk.is_full = true;
    }
    // What was under way may still have been executed before.
    world.go_on(Duration::from_secs(3));
    let span = Duration::from_secs(5);
    world.go_on(span);
    let writes: Vec<&Operation> = world.within(span).filter(is_write).collect();
    assert!(writes.len() > 5 && !writes.iter().any(|write| is_committed(write)), "{writes:?}");
    assert!(writes.iter().any(|write| write.ending == Ending::NotApplied));
    assert!(world.within(span).any(|operation| matches!(operation.ending, Ending::Answered(_))));
    for host in 0..3 {
        world.schedule(world.now, Event::FaultEnds(Relief::DiskHasRoom { host }));
    }
    world.go_on(span);
    assert!(world.within(span).filter(is_write).any(is_committed));
    assert!(world.hosts.iter().all(|host| host.boot == 1), "a full disk ends no node");
    assert_eq!(world.report().violations, []);
}

#[test]
fn a_failed_sync_ends_the_node_which_comes_back_with_what_was_durable() {
    let mut world = at_work(1, 3);
    let incarnation = world.hosts[0].process.as_ref().unwrap().node.incarnation();
    world.hosts[0].sync_fails = true;
    world.run_until(world.now + Duration::from_secs(5), |world| world.hosts[0].process.is_none());
    assert!(world.hosts[0].process.is_none() && !world.hosts[0].sync_fails);
    assert_eq!(world.counts.crashes, 1);
    world.run_until(world.now + RECOVERY_MAX, World::all_serve);
    let process = world.hosts[0].process.as_ref().unwrap();
    assert!(process.node.incarnation() > incarnation && world.hosts[0].boot == 2);
    world.go_on(Duration::from_secs(5));
    // Every judge has looked: above all, nothing that was acknowledged is lost.
    assert!(world.workload.history.operations.len() > 50);
    assert_eq!(world.report().violations, []);
}

#[test]
fn talk_of_members_does_not_grow_of_itself_where_messages_come_late_and_twice() {
    let mut world = at_work(3, 7);
    let late = Weather { delay_spread: Duration::from_millis(100), tail_per_mille: 50, ..Weather::fair() };
    world.network = Network::new(7, Weather { duplicate_per_mille: 500, ..late });
    // One way that is cut, so that there is always somebody to suspect and to refute.
    world.network.cut(&[(0, 1)]);
    let mut said = Vec::new();
    for _ in 0..5 {
        let before = world.counts.messages;
        world.go_on(Duration::from_secs(10));
        said.push(world.counts.messages - before);
    }
    assert!(said[4] < 2 * said[1], "{said:?}");
}
