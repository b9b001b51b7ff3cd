//! The store is rewritten: while it is used, while the process is killed, and whatever it held.

use super::*;
use crate::server::disk::compaction::Task;

fn folders_of(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("store")).collect()
}

fn rewrite(disk: &mut Disk, mut meanwhile: impl FnMut(&mut Disk)) {
    let before = disk.compaction.count;
    wait_until(disk, Disk::is_verified);
    disk.compaction.want();
    let begun = Instant::now();
    while disk.compaction.is_under_way() {
        meanwhile(disk);
        disk.wait(Duration::from_millis(20), &mut Vec::new()).unwrap();
        assert!(begun.elapsed() < 6 * STEP, "it takes too long");
    }
    assert_eq!(disk.compaction.count, before + 1);
}

#[test]
fn what_is_written_and_removed_during_a_rewriting_is_in_the_new_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions { compact_bytes_per_second: 4 << 20, ..small() };
    let mut disk = Disk::open(folder.path(), options, || {}).unwrap();
    for number in 0..600 {
        update(&mut disk, key(number), put(number + 1, Some(&value(number))));
    }
    let mut version = 10_000;
    let mut removed = 0;
    rewrite(&mut disk, |disk| {
        for _ in 0..5 {
            version += 1;
            // Old keys on either side of the end of the copy, new ones, and removals.
            overwrite(disk, key(version % 500), version, &value(version));
            // Not for ever: a copy that is written to faster than it grows never ends.
            if version <= 10_400 {
                update(disk, key(version), put(version, Some(&value(version))));
            }
        }
        if removed < 100 {
            let number = 500 + removed;
            let Stored::Present(record) = read(disk, key(number)) else { panic!("key {number} is gone") };
            let slot = Slot::of_key(&key(number));
            assert!(disk.remove(slot, key(number), record.hash(&key(number))).unwrap().is_some());
            removed += 1;
        }
    });
    assert!(removed > 10 && version > 10_050, "{removed} removed, {version}");
    assert_eq!(folders_of(folder.path()), ["store-2"]);
    let sums = disk.sums().clone();
    let check = |disk: &mut Disk| {
        assert_eq!(*disk.sums(), sums);
        for number in (500..500 + removed).chain([1_000_000]) {
            assert_eq!(read(disk, key(number)), Stored::Absent);
        }
        for number in (0..500).chain(500 + removed..600).chain(10_001..=version.min(10_400)) {
            assert!(matches!(read(disk, key(number)), Stored::Present(_)), "key {number}");
        }
    };
    check(&mut disk);
    // Without a clean end: the log behind the last checkpoint is replayed over the new store.
    wait_until(&mut disk, |disk| disk.durable() == disk.engine.last());
    drop(disk);
    let mut disk = open(folder.path());
    wait_until(&mut disk, Disk::is_verified);
    assert_eq!(disk.untrusted_slots().len(), 0);
    check(&mut disk);
    rewrite(&mut disk, |_| {});
    check(&mut disk);
    disk.close().unwrap();
    assert_eq!(folders_of(folder.path()), ["store-3"]);
    check(&mut open(folder.path()));
}

#[test]
fn a_store_that_takes_too_much_is_rewritten_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    for round in 0..12 {
        for number in 0..1_000 {
            overwrite(&mut disk, key(number), 10_000 * (round + 1) + number, &value(number));
            if number % 100 == 0 {
                disk.wait(Duration::ZERO, &mut Vec::new()).unwrap();
            }
        }
        let last = disk.engine.last();
        wait_until(&mut disk, |disk| disk.engine.fed_through() >= last);
    }
    disk.close().unwrap();
    let taken = |name: &str| bytes_in(&folder.path().join(name)).unwrap();
    let before = taken("store");
    let options = DiskOptions { compact_floor_bytes: 10 << 20, compact_percent: 300, ..small() };
    let mut disk = Disk::open(folder.path(), options, || {}).unwrap();
    wait_until(&mut disk, |disk| disk.compaction.count == 1 && !disk.compaction.is_under_way());
    assert_eq!(folders_of(folder.path()), ["store-2"]);
    let after = taken("store-2");
    assert!(after * 2 <= before, "{before} bytes before, {after} after");
    let count = |disk: &Disk, wanted: &str| disk.counts().iter().find(|(name, _)| *name == wanted).unwrap().1;
    assert_eq!(count(&disk, "disk_compactions"), 1);
    let live = count(&disk, "live_bytes");
    // Each record remembers the operations of the last minute.
    assert!((1_000_000..2_000_000).contains(&live), "{live} live bytes in 1,000 records of 1,000");
    disk.close().unwrap();
}

#[test]
fn a_copy_that_is_wrong_is_given_up_and_the_store_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    for number in 0..300 {
        update(&mut disk, key(number), put(number + 1, Some(&value(number))));
    }
    wait_until(&mut disk, |disk| disk.engine.fed_through() == Lsn(300));
    disk.compaction.want();
    // Behind the back of the log, between the copy and its comparison: the old store is still whole.
    wait_until(&mut disk, |disk| disk.compaction.is_comparing());
    disk.feeder_busy_since = None;
    disk.employ(FeederJob::Compact(Task::Spoil));
    wait_until(&mut disk, |disk| !disk.compaction.is_under_way());
    assert_eq!((disk.compaction.count, folders_of(folder.path())), (0, vec!["store".to_owned()]));
    assert!(matches!(read(&mut disk, key(7)), Stored::Present(_)));
    assert_eq!(disk.untrusted_slots().len(), 0);
    rewrite(&mut disk, |_| {});
    disk.close().unwrap();
    let mut disk = open(folder.path());
    wait_until(&mut disk, Disk::is_verified);
    assert_eq!(disk.untrusted_slots().len(), 0);
}

#[test]
fn a_disk_that_is_closed_or_short_of_space_during_a_rewriting_gives_it_up() {
    let folder = tempfile::tempdir().unwrap();
    // The next piece would come in hours.
    let waits_for_hours = |disk: &Disk| disk.compaction.due().is_some_and(|due| due > Instant::now() + STEP);
    let slow = || DiskOptions { compact_bytes_per_second: 1, ..small() };
    let mut disk = Disk::open(folder.path(), slow(), || {}).unwrap();
    for number in 0..300 {
        update(&mut disk, key(number), put(number + 1, Some(&value(number))));
    }
    // A store that holds nothing yet is copied in no time.
    wait_until(&mut disk, |disk| disk.engine.fed_through() == Lsn(300));
    disk.compaction.want();
    wait_until(&mut disk, waits_for_hours);
    assert_eq!(folders_of(folder.path()).len(), 2);
    disk.options.free_space_floor = u64::MAX;
    disk.check_space();
    wait_until(&mut disk, |disk| !disk.compaction.is_under_way());
    assert_eq!(folders_of(folder.path()), ["store"]);
    disk.options.free_space_floor = 0;
    disk.compaction.want();
    wait_until(&mut disk, waits_for_hours);
    assert_eq!(folders_of(folder.path()).len(), 2);
    disk.close().unwrap();
    assert_eq!(folders_of(folder.path()), ["store"]);
    let mut disk = open(folder.path());
    assert!((0..300).all(|number| matches!(read(&mut disk, key(number)), Stored::Present(_))));
}

#[test]
fn what_is_left_of_other_stores_and_cannot_be_removed_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    update(&mut disk, key(1), put(1, Some(&value(1))));
    disk.close().unwrap();
    // A file is no folder, and is not removed as one, also not by a test that may do everything.
    for name in ["store-2", "store-9"] {
        fs::write(folder.path().join(name), "in the way").unwrap();
    }
    let mut disk = open(folder.path());
    rewrite(&mut disk, |_| {});
    disk.close().unwrap();
    let mut left = folders_of(folder.path());
    left.sort();
    assert_eq!(left, ["store-2", "store-3", "store-9"]);
    assert!(matches!(read(&mut open(folder.path()), key(1)), Stored::Present(_)));
}

/// Everything that was acknowledged is there, nothing is doubted, and one store is left.
fn check(folder: &Path, durable: &BTreeMap<u64, u64>, story: &str) {
    let mut disk = open(folder);
    assert_eq!(folders_of(folder).len(), 1, "{story}");
    for round in ["at once", "when all is fed"] {
        for (number, version) in durable {
            let Stored::Present(record) = read(&mut disk, key(*number)) else {
                panic!("{story}: key {number} is gone {round}")
            };
            assert!(version_of(&record) >= *version, "{story}: key {number} {round}");
        }
        wait_until(&mut disk, Disk::is_verified);
    }
    assert_eq!(disk.untrusted_slots().len(), 0, "{story}");
}

#[test]
fn a_crash_at_any_point_of_a_rewriting_leaves_one_whole_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut durable = BTreeMap::new();
    for (number, at) in ["begun", "copied", "synced", "chosen", "closed", "removed"].into_iter().enumerate() {
        let settings = [(REWRITES, "1"), ("STARLING_DISK_TEST_DIE_AT", at)];
        let (mut child, lines) = start_child_with(folder.path(), &settings);
        for line in lines {
            if let Some(version) = line.split("durable ").nth(1) {
                let version: u64 = version.parse().unwrap();
                durable.insert(version % 300, version);
            }
        }
        assert_eq!(child.wait().unwrap().code(), None, "it ends by a signal");
        check(folder.path(), &durable, at);
        let switched = number.saturating_sub(2);
        let expected = if switched == 0 { "store".to_owned() } else { format!("store-{}", switched + 1) };
        assert_eq!(folders_of(folder.path()), [expected], "{at}");
    }
    assert_eq!(durable.len(), 300);
}

/// The moments are drawn by the number of acknowledgements and of rewritings; `STARLING_KILLS` sets how many.
#[test]
fn nothing_durable_is_lost_to_kill_9_during_rewritings() {
    let kills = std::env::var("STARLING_KILLS").map_or(10, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut durable = BTreeMap::new();
    let mut rng = crate::protocol::rng::Rng::from_number(30);
    let mut rewritings = 0;
    for round in 0..kills {
        let (mut child, lines) = start_child_with(folder.path(), &[(REWRITES, "1")]);
        let (mut acknowledged, target) = (0, rng.between(1, 2_500));
        // Behind so many lines about rewritings, of which the first says that one begins.
        let (mut told, behind) = (0, rng.between(1, 3));
        for line in lines {
            if let Some(version) = line.split("durable ").nth(1) {
                let version: u64 = version.parse().unwrap();
                durable.insert(version % 300, version);
                acknowledged += u64::from(told >= behind);
            } else if line.contains("rewritten") {
                told += 1;
            }
            if acknowledged == target {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= target, "the child ended by itself");
        rewritings += told - 1;
        check(folder.path(), &durable, &format!("round {round}"));
    }
    assert!(rewritings > kills / 4, "{rewritings} rewritings in {kills} rounds");
    println!("{kills} kills, {rewritings} rewritings");
}
