//! Owners become equal, and nothing is moved any more when they are.

use super::*;

#[test]
fn a_node_that_was_away_gets_what_it_missed_and_nobody_sends_it_twice() {
    let mut world = World::new(3);
    for number in 0..3_000 {
        world.put(&[0, 1], &key(number), &record(1, number as u64, 50));
        if number % 10 != 0 {
            world.put(&[2], &key(number), &record(1, number as u64, 50));
        }
    }
    world.run_until_equal(Duration::from_secs(10));
    world.run(Duration::from_secs(5));
    let moved = world.moved();
    // Both other owners offered all of it at about the same time.
    assert!((300..=330).contains(&moved), "{moved} records were sent to make up for 300");
    world.run(Duration::from_secs(120));
    assert_eq!(world.moved(), moved, "a further exchange moves nothing");
    assert!(world.hosts.iter().all(|host| host.exchanges.slots_differing() == 0));
}

#[test]
fn owners_of_parts_of_the_ring_converge_too() {
    let mut world = World::with(6, ExchangeConfig::default(), 3);
    let view = world.view(0);
    let mut rng = Rng::from_number(9);
    for number in 0..2_000 {
        let key = key(number);
        let owners: Vec<usize> =
            (0..6).filter(|host| view.slot(Slot::of_key(&key)).is_owner(world.hosts[*host].id)).collect();
        assert_eq!(owners.len(), 3);
        for host in owners {
            // Anybody may hold a write that the others have not seen.
            if rng.chance(600) {
                world.put(&[host], &key, &record(1 + rng.below(3), rng.between(1, 5), 20));
            }
        }
    }
    let before: BTreeMap<Bytes, Record> =
        (0..2_000).filter_map(|number| merged(&mut world, &key(number))).collect();
    world.run_until_equal(Duration::from_secs(60));
    let after: BTreeMap<Bytes, Record> =
        (0..2_000).filter_map(|number| merged(&mut world, &key(number))).collect();
    assert_eq!(before, after, "what there was is what there is, merged, and nothing else");
    for host in &mut world.hosts {
        for (key, record) in &after {
            if view.slot(Slot::of_key(key)).is_owner(host.id) {
                assert_eq!(host.holds(key), Stored::Present(record.clone()));
            }
        }
    }
}

fn merged(world: &mut World, key: &Bytes) -> Option<(Bytes, Record)> {
    let mut all: Option<Record> = None;
    for host in &mut world.hosts {
        if let Stored::Present(record) = host.holds(key) {
            match &mut all {
                Some(all) => {
                    all.merge(&record);
                }
                None => all = Some(record),
            }
        }
    }
    Some((key.clone(), all?))
}

/// Under writes the sums of two owners differ at every moment. What is merely under way is not sent again.
#[test]
fn what_is_on_its_way_is_not_shipped() {
    let config = ExchangeConfig { cycle: Duration::from_secs(1), ..ExchangeConfig::default() };
    let mut world = World::with(2, config, 4);
    let mut rng = Rng::from_number(5);
    let mut late: Vec<(Moment, Bytes, Record)> = Vec::new();
    for number in 0..6_000 {
        let (key, record) = (key(rng.index(5_000)), record(1, number as u64, 50));
        world.put(&[0], &key, &record);
        late.push((world.now + Duration::from_millis(20), key, record));
        world.run(Duration::from_millis(5));
        let now = world.now;
        for (_, key, record) in late.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            world.put(&[1], &key, &record);
        }
    }
    let counts = world.hosts[0].exchanges.counts();
    assert!(counts.rounds > 15 && counts.rounds_equal < counts.rounds, "{counts:?}: differences were seen");
    assert!(counts.slots_compared > 30, "{counts:?}: and looked at a second time");
    assert!(world.moved() <= 3, "{} records were sent without need", world.moved());
}

#[test]
fn a_write_that_was_missed_is_seen_to_before_the_next_cycle() {
    let slow = ExchangeConfig { cycle: Duration::from_secs(3_600), ..ExchangeConfig::default() };
    for (writer, other) in [(0, 1), (1, 0)] {
        let mut world = World::with(2, slow.clone(), 6);
        world.run(Duration::from_secs(5));
        world.put(&[writer], &key(1), &record(1, 1, 50));
        let (slot, missing) = (Slot::of_key(&key(1)), world.hosts[other].id);
        world.run(Duration::from_secs(5));
        assert!(!world.are_equal(), "nobody knows");
        let dirty = |world: &World| -> BTreeSet<Slot> {
            world.hosts.iter().flat_map(|host| host.exchanges.dirty()).collect()
        };
        assert_eq!(dirty(&world), [].into());
        world.hosts[writer].exchanges.missed(missing, slot);
        world.alive.remove(&missing);
        world.run(Duration::from_secs(5));
        assert_eq!(dirty(&world), [slot].into());
        world.alive.insert(missing, 2);
        let took = world.run_until_equal(Duration::from_secs(10));
        assert!(took < Duration::from_secs(4), "{took:?}");
        // That they are equal is known when the next comparison has shown it.
        world.run(Duration::from_secs(5));
        assert_eq!(dirty(&world), [].into());
    }
}

/// The hash of a slot whose records are many, and the pages in which they are listed.
#[test]
fn a_slot_with_many_keys_is_mended_in_pieces() {
    let mut world = World::new(2);
    let slot = Slot::of_key(&key(0));
    let keys: Vec<Bytes> = (0..).map(key).filter(|key| Slot::of_key(key) == slot).take(300).collect();
    for (number, key) in keys.iter().enumerate() {
        world.put(&[number % 2], key, &record(1, number as u64, 20_000));
    }
    world.run_until_equal(Duration::from_secs(60));
    let hash = |record: &Record, key: &Bytes| record.hash(key);
    let sum = keys
        .iter()
        .enumerate()
        .fold(0_u128, |sum, (number, key)| sum.wrapping_add(hash(&record(1, number as u64, 20_000), key).0));
    assert_eq!(world.hosts[0].engine.sums().get(slot).sum, sum);
    assert_ne!(RecordHash(sum), RecordHash(0));
}
