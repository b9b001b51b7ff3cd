//! What it costs to become equal: at most three times the bytes that differ, and one mark for each pair that is equal.

use super::*;
use crate::protocol::wire::exchange::EXCHANGE_BYTES_MAX;

/// What finding a single record costs: a mark, and the marks on the way down to it, in five questions and answers; once
/// more for the look after the repair.
const PATH_BYTES: u64 = 1_600;

/// How two nodes differ.
struct Shape {
    name: &'static str,
    /// Keys that both hold alike.
    equal: usize,
    /// Keys that only the first, or only the second, holds.
    only: [usize; 2],
    /// Keys of which one of them holds an older record.
    stale: [usize; 2],
    /// Keys of which each holds a value that the other has not seen.
    torn: usize,
    value_bytes: usize,
}

/// Lets two nodes of that shape become equal; returns bytes that differed and bytes that were moved.
fn measure(shape: &Shape) -> (u64, u64) {
    let mut world = World::new(2);
    let (mut number, mut divergent) = (0, 0);
    let mut next = || {
        number += 1;
        (key(number), number as u64)
    };
    for _ in 0..shape.equal {
        let (key, at) = next();
        world.put(&[0, 1], &key, &record(1, at, shape.value_bytes));
    }
    for host in [0, 1] {
        for _ in 0..shape.only[host] {
            let (key, at) = next();
            let record = record(2, at, shape.value_bytes);
            divergent += key.len() as u64 + record.encoded_len();
            world.put(&[host], &key, &record);
        }
        for _ in 0..shape.stale[host] {
            let (key, at) = next();
            let old = record(3, at, shape.value_bytes);
            let mut new = record(4, at + 1_000_000, shape.value_bytes);
            new.merge(&old);
            divergent += key.len() as u64 + new.encoded_len();
            world.put(&[0, 1], &key, &old);
            world.put(&[1 - host], &key, &new);
        }
    }
    for _ in 0..shape.torn {
        let (key, at) = next();
        let (mine, theirs) = (record(5, at, shape.value_bytes), record(6, at, shape.value_bytes));
        let mut merged = mine.clone();
        merged.merge(&theirs);
        divergent += key.len() as u64 + merged.encoded_len();
        world.put(&[0], &key, &mine);
        world.put(&[1], &key, &theirs);
    }
    world.run_until_equal(Duration::from_secs(120));
    // The look that follows a repair belongs to its price.
    world.run(Duration::from_secs(3));
    assert!(
        world.longest <= EXCHANGE_BYTES_MAX as u64,
        "{}: a message of {} bytes",
        shape.name,
        world.longest
    );
    (divergent, world.bytes)
}

#[test]
fn bytes_moved_stay_within_three_times_the_divergent_bytes() {
    let shape =
        |name, equal, only, stale, torn, value_bytes| Shape { name, equal, only, stale, torn, value_bytes };
    let shapes = [
        shape("one of many is missing", 20_000, [1, 0], [0, 0], 0, 100),
        shape("one of many is missing on the other side", 20_000, [0, 1], [0, 0], 0, 100),
        shape("one of many is stale", 20_000, [0, 0], [1, 0], 0, 100),
        shape("one large of many is stale", 2_000, [0, 0], [0, 1], 0, 1 << 20),
        shape("one in a hundred", 20_000, [0, 0], [200, 0], 0, 100),
        shape("one in a hundred, either way", 20_000, [50, 50], [50, 50], 0, 100),
        shape("every second slot", 40_000, [0, 0], [8_000, 0], 0, 100),
        shape("all of them", 0, [0, 0], [5_000, 5_000], 0, 100),
        shape("one side is empty", 0, [10_000, 0], [0, 0], 0, 100),
        shape("the other side is empty", 0, [0, 10_000], [0, 0], 0, 100),
        shape("tiny values", 0, [5_000, 5_000], [0, 0], 0, 1),
        shape("large values", 50, [10, 10], [10, 10], 10, 300_000),
        shape("both have written", 10_000, [0, 0], [0, 0], 1_000, 100),
    ];
    for shape in shapes {
        let (divergent, moved) = measure(&shape);
        let times = moved as f64 / divergent as f64;
        println!("{}: {divergent} bytes differed, {moved} were moved, {times:.2} times", shape.name);
        let most = 3 * divergent + PATH_BYTES;
        assert!(moved <= most, "{}: {moved} bytes for {divergent}", shape.name);
        assert!(moved >= divergent / 2, "{}: the measurement is wrong", shape.name);
    }
}

#[test]
fn an_equal_pair_exchanges_one_mark_in_a_cycle() {
    let mut world = World::new(3);
    for number in 0..1_000 {
        world.put(&[0, 1, 2], &key(number), &record(1, number as u64, 100));
    }
    world.run(Duration::from_secs(3));
    let (before, rounds) = (world.bytes, rounds(&world));
    assert!(rounds.0 >= 3, "everybody was compared at the start");
    world.run(Duration::from_secs(60));
    let (after, rounds_after) = (world.bytes, self::rounds(&world));
    let done = rounds_after.0 - rounds.0;
    assert!((6..=8).contains(&done), "{done} exchanges of three pairs in two cycles");
    assert_eq!(rounds_after.1 - rounds.1, done, "all of them were equal");
    // A mark of eight bytes in a question with its digest, salt and number; an empty answer.
    assert_eq!(after - before, done * (52 + 32));
    assert_eq!(world.moved(), 0);
}

fn rounds(world: &World) -> (u64, u64) {
    let counts = world.hosts.iter().map(|host| host.exchanges.counts());
    counts.fold((0, 0), |sum, counts| (sum.0 + counts.rounds, sum.1 + counts.rounds_equal))
}
