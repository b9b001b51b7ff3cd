//! Slots without a vote: what has to happen before they are whole again.

use super::*;
use crate::protocol::ring::slot_set::SlotSet;

impl World {
    /// A host comes back without its disk, under a generation that the others believe in.
    fn lose_disk(&mut self, host: usize, believers: &[usize]) {
        self.hosts[host].engine =
            Engine::recover(MemoryStore::default(), Scanner::new(LogId(2)).finish()).unwrap();
        self.restart(host);
        let (view, now) = (self.view(1), self.now);
        for believer in believers.iter().chain([&host]) {
            self.hosts[*believer].exchanges.on_ring_change(now, &view);
        }
        self.refill(host, &SlotSet::all());
    }

    fn refill(&mut self, host: usize, slots: &SlotSet) {
        let id = self.hosts[host].id;
        let (view, now) = (self.view(1), self.now);
        let owned: SlotSet = slots.iter().filter(|slot| view.slot(*slot).is_owner(id)).collect();
        self.hosts[host].exchanges.refill(now, owned.clone(), owned);
    }

    #[track_caller]
    fn run_until_refilled(&mut self, host: usize, limit: Duration) -> Duration {
        let begun = self.now;
        while self.hosts[host].exchanges.refilling().0 > 0 {
            let left = self.hosts[host].exchanges.refilling();
            assert!(self.now.since(begun) < limit, "not whole after {limit:?}: {left:?}");
            self.run(Duration::from_millis(20));
        }
        self.now.since(begun)
    }
}

/// Each key is held by two of the three others at random, as committed writes are, the one that is lost among them.
#[test]
fn a_lost_disk_gets_back_what_any_quorum_could_have_acknowledged_whatever_the_network_does() {
    for seed in 0..8 {
        let nodes = [3, 3, 4, 5][seed as usize % 4];
        let mut world = World::with(nodes, ExchangeConfig::default(), seed);
        let mut rng = Rng::from_number(seed);
        let view = world.view(0);
        let mut committed = Vec::new();
        for number in 0..300 {
            let key = key(number);
            let owners = view.slot(Slot::of_key(&key)).read_set();
            let mut holders: Vec<usize> =
                owners.iter().map(|id| usize::try_from(id.0).unwrap() - 1).collect();
            rng.shuffle(&mut holders);
            holders.truncate(2);
            let record = record(1 + number as u64, 1, 20);
            world.put(&holders, &key, &record);
            if holders.contains(&0) {
                committed.push((key, record));
            }
        }
        world.loss = if seed % 2 == 0 { 0 } else { 200 };
        let others: Vec<usize> = (1..nodes as usize).collect();
        world.lose_disk(0, &others);
        world.run_until_refilled(0, Duration::from_secs(300));
        for (key, record) in committed {
            assert_eq!(world.hosts[0].holds(&key), Stored::Present(record), "seed {seed}");
        }
        let owned = view.ring().slots_of(NodeId(1)).count();
        assert_eq!((world.hosts[0].refilled.len(), world.hosts[0].fenced.len()), (owned, owned));
    }
}

#[test]
fn one_of_the_two_others_is_not_enough_and_one_that_does_not_know_of_the_loss_does_not_count() {
    let mut world = World::new(3);
    for number in 0..50 {
        world.put(&[0, 1, 2], &key(number), &record(1, number as u64, 20));
    }
    world.lose_disk(0, &[1]);
    world.run(Duration::from_secs(30));
    let host = &world.hosts[0];
    assert_eq!((host.refilled.len(), host.fenced.len()), (0, 0));
    assert_eq!(world.hosts[0].holds(&key(1)), Stored::Present(record(1, 1, 20)), "what there was came");
    world.change_ring(1);
    let took = world.run_until_refilled(0, Duration::from_secs(10));
    assert_eq!(world.hosts[0].refilled.len(), usize::from(SLOTS));
    assert!(took > Duration::ZERO);
}

#[test]
fn what_was_had_from_one_is_enough_as_soon_as_there_is_no_second_one() {
    let mut world = World::new(3);
    for number in 0..50 {
        world.put(&[0, 1, 2], &key(number), &record(1, number as u64, 20));
    }
    world.lose_disk(0, &[1]);
    world.run(Duration::from_secs(30));
    assert!(world.hosts[0].refilled.is_empty());
    let entries = [entry(NodeId(1), 1), entry(NodeId(2), 1)];
    let pair = RingView::build(ClusterId(7), Replicas::default(), &entries).unwrap();
    let now = world.now;
    world.hosts[..2].iter_mut().for_each(|host| host.exchanges.on_ring_change(now, &pair));
    world.run_until_refilled(0, Duration::from_secs(10));
    assert_eq!(world.hosts[0].refilled.len(), usize::from(SLOTS));
}

#[test]
fn an_owner_that_has_no_vote_itself_proves_nothing() {
    let mut world = World::new(3);
    let slot = Slot::of_key(&key(1));
    for number in 0..50 {
        world.put(&[0, 1, 2], &key(number), &record(1, number as u64, 20));
    }
    world.lose_disk(0, &[1, 2]);
    let now = world.now;
    let lost: SlotSet = [slot].into_iter().collect();
    // Something of it may still be unreadable there.
    world.hosts[2].exchanges.refill(now, lost, SlotSet::new());
    world.run(Duration::from_secs(30));
    assert_eq!(world.hosts[0].exchanges.refilling().0, 1);
    assert!(!world.hosts[0].refilled.contains(&slot));
    // It has its vote back.
    world.hosts[2].exchanges.refill(now, SlotSet::new(), SlotSet::new());
    world.run_until_refilled(0, Duration::from_secs(5));
}

#[test]
fn a_large_slot_comes_page_by_page_and_what_is_there_is_not_sent() {
    let mut world = World::new(3);
    let slot = Slot::of_key(&key(0));
    let keys: Vec<Bytes> =
        (0..40_000_000).map(key).filter(|key| Slot::of_key(key) == slot).take(700).collect();
    for (number, key) in keys.iter().enumerate() {
        world.put(&[1, 2], key, &record(1, number as u64, 200));
    }
    let fresh = keys.iter().step_by(2);
    for key in fresh.clone() {
        let number = keys.iter().position(|other| other == key).unwrap();
        world.put(&[0], key, &record(1, number as u64, 200));
    }
    world.change_ring(1);
    world.refill(0, &[slot].into_iter().collect());
    world.run_until_refilled(0, Duration::from_secs(20));
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(world.hosts[0].holds(key), Stored::Present(record(1, number as u64, 200)));
    }
    let (_, records) = world.hosts[0].exchanges.refilling();
    assert_eq!(records, 350, "each of those that were lacking came once");
}

#[test]
fn if_all_others_were_asked_it_does_not_matter_that_one_of_them_is_being_refilled_itself() {
    let mut world = World::new(3);
    for number in 0..50 {
        world.put(&[0, 1, 2], &key(number), &record(1, number as u64, 20));
    }
    // What nobody else has, since two disks are gone.
    world.put(&[1], &key(60), &record(1, 60, 20));
    world.lose_disk(0, &[1, 2]);
    world.lose_disk(2, &[0, 1]);
    world.run_until_refilled(0, Duration::from_secs(20));
    world.run_until_refilled(2, Duration::from_secs(20));
    for host in [0, 2] {
        assert_eq!(world.hosts[host].holds(&key(60)), Stored::Present(record(1, 60, 20)));
    }
}
