//! Messages that are lost, late or repeated, nodes that restart, slots and records that are lost.

use super::*;

#[test]
fn nothing_that_a_network_does_keeps_owners_apart() {
    for seed in 0..20 {
        let mut world = World::with(3, ExchangeConfig::default(), seed);
        let mut rng = Rng::from_number(seed);
        for number in 0..400 {
            for host in 0..3 {
                if rng.chance(700) {
                    world.put(&[host], &key(number), &record(1 + rng.below(3), rng.between(1, 4), 20));
                }
            }
        }
        world.loss = 200;
        for _ in 0..6 {
            let span = rng.between(50, 3_000);
            world.run(Duration::from_millis(span));
            match rng.below(3) {
                0 => world.restart(rng.index(3)),
                1 => {
                    let host = world.hosts[rng.index(3)].id;
                    let life = world.alive.remove(&host).unwrap();
                    world.run(Duration::from_millis(span));
                    world.alive.insert(host, life);
                }
                _ => {}
            }
        }
        world.loss = 0;
        world.run_until_equal(Duration::from_secs(70));
        world.run(Duration::from_secs(5));
        let moved = world.moved();
        world.run(Duration::from_secs(70));
        assert_eq!(world.moved(), moved, "seed {seed}: a further exchange moves nothing");
    }
}

#[test]
fn a_slot_that_is_not_trusted_takes_nothing_from_anybody_and_gets_nothing() {
    let mut world = World::new(3);
    for number in 0..500 {
        world.put(&[0, 1, 2], &key(number), &record(1, number as u64, 20));
    }
    let slot = Slot::of_key(&key(7));
    world.hosts[1].untrusted.insert(slot);
    let fresh = (500..).map(key).find(|key| Slot::of_key(key) == slot).unwrap();
    world.put(&[0], &fresh, &record(2, 9, 20));
    let elsewhere = (500..).map(key).find(|key| Slot::of_key(key) != slot).unwrap();
    world.put(&[0], &elsewhere, &record(2, 9, 20));
    world.run(Duration::from_secs(100));
    assert_eq!(world.hosts[2].holds(&fresh), Stored::Present(record(2, 9, 20)), "the sound owners are equal");
    assert_eq!(world.hosts[1].holds(&fresh), Stored::Absent, "an untrusted slot is refilled by other means");
    assert_eq!(world.hosts[1].holds(&elsewhere), Stored::Present(record(2, 9, 20)));
    for host in [0, 2] {
        assert_eq!(world.hosts[host].holds(&key(7)), Stored::Present(record(1, 7, 20)));
    }
    // The difference remains, and costs marks, but no records.
    let moved = world.moved();
    world.run(Duration::from_secs(100));
    assert_eq!(world.moved(), moved);
}

#[test]
fn a_lost_record_is_not_offered_as_absent_and_overwrites_nothing() {
    let mut world = World::new(2);
    for number in 0..100 {
        world.put(&[0, 1], &key(number), &record(1, number as u64, 20));
    }
    world.hosts.iter_mut().for_each(Host::flush);
    let (lost, slot) = (key(3), Slot::of_key(&key(3)));
    assert!(world.hosts[1].engine.store_mut().damage(slot, &lost));
    // A second record of that slot differs, so that the slot is listed.
    let beside = (100..).map(key).find(|key| Slot::of_key(key) == slot).unwrap();
    world.put(&[0], &beside, &record(2, 9, 20));
    world.run(Duration::from_secs(10));
    assert_eq!(world.hosts[1].holds(&beside), Stored::Present(record(2, 9, 20)));
    assert_eq!(world.hosts[1].holds(&lost), Stored::Lost);
    assert_eq!(world.hosts[0].holds(&lost), Stored::Present(record(1, 3, 20)));
    assert_eq!(world.moved(), 1);
}

#[test]
fn who_believes_in_another_ring_is_refused_and_nothing_is_moved() {
    let mut world = World::new(2);
    world.put(&[0], &key(1), &record(1, 1, 20));
    let (view, now) = (world.view(1), world.now);
    world.hosts[1].exchanges.on_ring_change(now, &view);
    world.run(Duration::from_secs(20));
    assert_eq!(world.moved(), 0);
    assert_eq!(world.hosts[1].holds(&key(1)), Stored::Absent);
    assert!(world.bytes > 0, "it was tried");
    world.change_ring(1);
    world.run_until_equal(Duration::from_secs(40));
}
