use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::protocol::causality::{Applied, Change, Record};
use crate::protocol::storage::log::Untrusted;
use crate::protocol::storage::op::{Stored, Ticket};
use crate::protocol::storage::store::contract::{put, record};
use crate::protocol::storage::store::{Replacement, Store};

mod compaction;
mod doubts;

const STEP: Duration = Duration::from_secs(10);

fn small() -> DiskOptions {
    DiskOptions {
        segment_bytes: 1 << 20,
        checkpoint_bytes: 512 << 10,
        checkpoint_interval: Duration::from_secs(3_600),
        cache_bytes: 8 << 20,
        free_space_floor: 0,
        compact_percent: 0,
        ..DiskOptions::default()
    }
}

fn open(path: &Path) -> Disk {
    Disk::open(path, small(), || {}).unwrap()
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key {number}"))
}

fn update(disk: &mut Disk, key: Bytes, change: Change) -> (Lsn, Applied) {
    let mut replies = Vec::new();
    let slot = Slot::of_key(&key);
    disk.submit(DiskRequest::Update { ticket: Ticket(1), slot, key, change }, &mut replies).unwrap();
    match replies.pop() {
        Some(DiskReply::Applied { lsn, applied, .. }) => (lsn, applied),
        other => panic!("{other:?}"),
    }
}

fn read(disk: &mut Disk, key: Bytes) -> Stored {
    let mut replies = Vec::new();
    let slot = Slot::of_key(&key);
    disk.submit(DiskRequest::Read { ticket: Ticket(2), slot, key }, &mut replies).unwrap();
    match replies.pop() {
        Some(DiskReply::Read { stored, .. }) => stored,
        other => panic!("{other:?}"),
    }
}

/// Reads, and writes with the context of that read.
fn overwrite(disk: &mut Disk, key: Bytes, version: u64, value: &[u8]) -> Lsn {
    let mut change = put(version, Some(value));
    if let (Change::Put(put), Stored::Present(record)) = (&mut change, read(disk, key.clone())) {
        put.context = record.context().clone();
    }
    let (lsn, applied) = update(disk, key, change);
    assert!(matches!(applied, Applied::Changed { .. }), "{applied:?}");
    lsn
}

fn wait_until(disk: &mut Disk, mut done: impl FnMut(&Disk) -> bool) {
    let begun = Instant::now();
    while !done(disk) {
        disk.wait(Duration::from_millis(50), &mut Vec::new()).unwrap();
        assert!(begun.elapsed() < STEP, "it takes too long");
    }
}

fn value(number: u64) -> Vec<u8> {
    vec![number as u8; 1_000]
}

#[test]
fn what_was_written_is_there_after_a_clean_end_and_after_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    for number in 0..3_000 {
        update(&mut disk, key(number), put(number + 1, Some(&value(number))));
    }
    let meta = vec![(MetaKey::Start, Some(Bytes::from_static(b"start")))];
    disk.submit(DiskRequest::Meta { ticket: Ticket(0), entries: meta }, &mut Vec::new()).unwrap();
    let (last, sums) = (Lsn(3_001), disk.sums().clone());
    wait_until(&mut disk, |disk| disk.durable() == last);
    // No clean end: the store may lie anywhere, and the log brings it up to date.
    drop(disk);
    let check = |disk: &mut Disk| {
        assert_eq!(*disk.sums(), sums);
        assert_eq!(disk.meta().get(&MetaKey::Start), Some(&Bytes::from_static(b"start")));
        for number in (0..3_000).step_by(97) {
            assert_eq!(read(disk, key(number)), Stored::Present(record(number + 1, &value(number))));
        }
        assert_eq!(read(disk, key(3_000)), Stored::Absent);
    };
    let mut disk = open(folder.path());
    assert!(disk.durable() >= last);
    check(&mut disk);
    wait_until(&mut disk, Disk::is_verified);
    assert_eq!(disk.untrusted_slots().len(), 0);
    check(&mut disk);
    disk.close().unwrap();
    let mut disk = open(folder.path());
    check(&mut disk);
    wait_until(&mut disk, Disk::is_verified);
    assert_eq!(disk.untrusted_slots().len(), 0);
}

#[test]
fn checkpoints_keep_the_log_short() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    for round in 0..20 {
        for number in 0..400 {
            overwrite(&mut disk, key(number), 1_000 * (round + 1) + number, &value(round));
        }
        let last = disk.engine.last();
        wait_until(&mut disk, |disk| disk.durable() >= last && disk.engine.fed_through() >= last);
    }
    wait_until(&mut disk, |disk| disk.schedule.unconfirmed.is_none() && disk.feeder_busy_since.is_none());
    disk.close().unwrap();
    let log_bytes: u64 = fs::read_dir(folder.path().join("log"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(log_bytes <= 4 << 20, "{log_bytes} bytes of log are left of many more");
    let mut disk = open(folder.path());
    assert!(matches!(read(&mut disk, key(399)), Stored::Present(_)));
}

#[test]
fn a_second_opener_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let _disk = open(folder.path());
    let error = Disk::open(folder.path(), small(), || {}).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn updates_are_refused_below_the_space_floor_and_everything_else_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions { free_space_floor: u64::MAX, ..small() };
    let mut disk = Disk::open(folder.path(), options, || {}).unwrap();
    let (_, applied) = update(&mut disk, key(1), put(1, Some(b"v")));
    assert_eq!(applied, Applied::Refused(Refusal::DiskFull));
    assert_eq!(read(&mut disk, key(1)), Stored::Absent);
    let meta = vec![(MetaKey::Start, Some(Bytes::from_static(b"start")))];
    disk.submit(DiskRequest::Meta { ticket: Ticket(0), entries: meta }, &mut Vec::new()).unwrap();
    wait_until(&mut disk, |disk| disk.durable() == Lsn(1));
}

#[test]
fn a_backlog_over_its_bound_refuses_updates_until_it_is_fed() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions { backlog_bytes_max: 20_000, ..small() };
    let mut disk = Disk::open(folder.path(), options, || {}).unwrap();
    let refused = (0..100).find(|number| {
        let (_, applied) = update(&mut disk, key(*number), put(number + 1, Some(&value(1))));
        applied == Applied::Refused(Refusal::Overloaded)
    });
    assert!((10..30).contains(&refused.unwrap()), "{refused:?}");
    assert!(disk.is_saturated());
    wait_until(&mut disk, |disk| !disk.is_saturated());
    let (_, applied) = update(&mut disk, key(99), put(100, Some(b"v")));
    assert!(matches!(applied, Applied::Changed { .. }));
}

#[test]
fn a_store_that_lost_records_is_found_out_slot_by_slot() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    for number in 0..200 {
        update(&mut disk, key(number), put(number + 1, Some(b"v")));
    }
    disk.close().unwrap();
    // Behind the back of the log, as a truncated or damaged file would.
    let mut store = SledStore::open(&folder.path().join("store"), 8 << 20).unwrap();
    let lost = key(7);
    let slot = Slot::of_key(&lost);
    let through = store.through().unwrap();
    store.replace(&[Replacement { slot, key: lost, value: None }], through).unwrap();
    drop(store);
    let mut disk = open(folder.path());
    wait_until(&mut disk, Disk::is_verified);
    assert!(disk.untrusted_slots().iter().eq([&slot]));
    // Such a slot does not vote: neither its absent key nor any other is answered, and nothing is written to it.
    let mut replies = Vec::new();
    disk.submit(DiskRequest::Read { ticket: Ticket(1), slot, key: key(7) }, &mut replies).unwrap();
    assert!(matches!(replies.pop(), Some(DiskReply::Read { stored: Stored::Lost, .. })));
    let change = put(1_000, Some(b"v"));
    disk.submit(DiskRequest::Update { ticket: Ticket(2), slot, key: key(7), change }, &mut replies).unwrap();
    assert!(matches!(
        replies.pop(),
        Some(DiskReply::Applied { applied: Applied::Refused(Refusal::Lost), .. })
    ));
}

/// sled itself opens most damaged files without a word and without some or all of their keys.
#[test]
fn no_damage_to_the_store_goes_unnoticed() {
    const KEYS: u64 = 400;
    let folder = tempfile::tempdir().unwrap();
    // Several runs, so that sled has several places to be damaged in.
    for run in 0..8 {
        let mut disk = open(folder.path());
        for number in (0..KEYS).filter(|number| number % 8 == run) {
            update(&mut disk, key(number), put(number + 1, Some(&value(number))));
        }
        disk.close().unwrap();
    }
    let file = folder.path().join("store/db");
    let good = fs::read(&file).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    let mut rng = crate::protocol::rng::Rng::from_number(11);
    let mut found = 0;
    for round in 0..12 {
        let other = tempfile::tempdir().unwrap();
        let mut bad = good.clone();
        let at = rng.index(used);
        match round % 3 {
            0 => bad[at] ^= 0x10,
            1 => bad[at..used.min(at + 4_096)].fill(0),
            _ => bad.truncate(at),
        }
        copy(folder.path(), other.path());
        fs::write(other.path().join("store/db"), bad).unwrap();
        let Ok(mut disk) = Disk::open(other.path(), small(), || {}) else {
            found += 1;
            continue;
        };
        let begun = Instant::now();
        let mut outcome = Ok(());
        while outcome.is_ok() && !disk.is_verified() && begun.elapsed() < STEP {
            outcome = disk.wait(Duration::from_millis(50), &mut Vec::new());
        }
        if outcome.is_err() {
            found += 1;
            continue;
        }
        assert!(disk.is_verified());
        let untrusted = disk.untrusted_slots().clone();
        found += usize::from(!untrusted.is_empty());
        for number in (0..KEYS).filter(|number| !untrusted.contains(&Slot::of_key(&key(*number)))) {
            let expected = Stored::Present(record(number + 1, &value(number)));
            assert_eq!(read(&mut disk, key(number)), expected, "round {round}, key {number}");
        }
    }
    assert!(found >= 6, "the damage was harmless too often for this test to mean anything: {found}");
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.unwrap(), to.to_owned());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(to.join(entry.file_name())).unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_lost_store_and_a_damaged_log_are_untrusted() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    for number in 0..50 {
        update(&mut disk, key(number), put(number + 1, Some(b"v")));
    }
    disk.close().unwrap();
    let (store, aside) = (folder.path().join("store"), folder.path().join("aside"));
    fs::rename(&store, &aside).unwrap();
    let error = Disk::open(folder.path(), small(), || {}).unwrap_err();
    assert!(matches!(error, OpenError::Untrusted(Untrusted::StoreBehindCheckpoint { .. })), "{error}");
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    let log = folder.path().join("log");
    let mut segments: Vec<PathBuf> = fs::read_dir(&log).unwrap().map(|file| file.unwrap().path()).collect();
    segments.sort();
    let first = fs::OpenOptions::new().read(true).write(true).open(&segments[0]).unwrap();
    let mut byte = [0];
    first.read_exact_at(&mut byte, 300).unwrap();
    first.write_all_at(&[byte[0] ^ 1], 300).unwrap();
    let error = Disk::open(folder.path(), small(), || {}).unwrap_err();
    assert!(matches!(error, OpenError::Untrusted(_)), "{error}");
    assert!(error.to_string().contains("lost disk"), "{error}");
}

#[test]
fn a_failed_log_poisons_the_disk_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    update(&mut disk, key(1), put(1, Some(b"v")));
    disk.kick();
    wait_until(&mut disk, |disk| disk.durable() == Lsn(1));
    // The next segment cannot be begun: its name is taken by a folder that is not empty.
    fs::create_dir_all(folder.path().join("log/00000000000000000002.seg/x")).unwrap();
    let begun = Instant::now();
    let mut number = 2;
    let poisoned = loop {
        let mut replies = Vec::new();
        let request = DiskRequest::Update {
            ticket: Ticket(1),
            slot: Slot::of_key(&key(number)),
            key: key(number),
            change: put(number, Some(&vec![1; 100_000])),
        };
        if let Err(poisoned) = disk.submit(request, &mut replies).and_then(|()| disk.wait(STEP, &mut replies))
        {
            break poisoned;
        }
        number += 1;
        assert!(begun.elapsed() < STEP);
    };
    assert!(poisoned.0.contains("the log could not be written"), "{poisoned}");
    assert_eq!(disk.poll(&mut Vec::new()), Err(poisoned.clone()));
    assert_eq!(disk.close(), Err(poisoned));
}

#[test]
fn a_thread_that_hangs_is_a_failed_disk() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions { stall_limit: Duration::ZERO, ..small() };
    let mut disk = Disk::open(folder.path(), options, || {}).unwrap();
    let begun = Instant::now();
    let mut replies = Vec::new();
    let poisoned = loop {
        let change = put(1 + begun.elapsed().as_nanos() as u64, Some(b"v"));
        let request = DiskRequest::Update {
            ticket: Ticket(1),
            slot: Slot::of_key(b"k"),
            key: Bytes::from_static(b"k"),
            change,
        };
        let outcome = disk.submit(request, &mut replies).and_then(|()| {
            disk.kick();
            disk.poll(&mut replies)
        });
        if let Err(poisoned) = outcome {
            break poisoned;
        }
        assert!(begun.elapsed() < STEP);
    };
    assert!(poisoned.0.contains("has not answered"), "{poisoned}");
}

#[test]
fn whoever_waits_elsewhere_is_woken() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, woken) = channel();
    let mut disk = Disk::open(folder.path(), small(), move || sender.send(()).unwrap_or_default()).unwrap();
    update(&mut disk, key(1), put(1, Some(b"v")));
    disk.kick();
    let mut replies = Vec::new();
    while replies.is_empty() {
        woken.recv_timeout(STEP).unwrap();
        disk.poll(&mut replies).unwrap();
    }
    assert_eq!(replies, [DiskReply::Durable { through: Lsn(1) }]);
}

const CHILD: &str = "STARLING_DISK_TEST_CHILD";

/// Makes the child rewrite its store again and again.
const REWRITES: &str = "STARLING_DISK_TEST_REWRITES";

/// Not a test of its own: what [`nothing_durable_is_lost_to_kill_9`] starts and kills. Writes rising versions of a few
/// hundred keys and prints each version that was reported durable.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    println!("opening");
    let rewrites = std::env::var_os(REWRITES).is_some();
    let mut disk = Disk::open(Path::new(&path), small(), || {}).unwrap();
    let (mut waiting, mut replies) = (VecDeque::new(), Vec::new());
    // Versions go on where the directory ends, so that no dot is ever used twice.
    let mut version = disk.durable().0 + 1;
    loop {
        for _ in 0..50 {
            version += 1;
            let lsn = overwrite(&mut disk, key(version % 300), version, &version.to_le_bytes().repeat(60));
            waiting.push_back((lsn, version));
        }
        disk.wait(STEP, &mut replies).unwrap();
        if rewrites && disk.is_verified() && !disk.compaction.is_under_way() {
            println!("rewritten {} times", disk.compaction.count);
            disk.compaction.want();
        }
        while let Some((_, version)) = waiting.pop_front_if(|(lsn, _)| *lsn <= disk.durable()) {
            println!("durable {version}");
        }
    }
}

fn version_of(record: &Record) -> u64 {
    let values = record.values();
    assert_eq!(values.len(), 1);
    u64::from_le_bytes(values[0][..8].try_into().unwrap())
}

fn start_child(folder: &Path) -> (std::process::Child, impl Iterator<Item = String> + use<>) {
    start_child_with(folder, &[])
}

fn start_child_with(
    folder: &Path,
    settings: &[(&str, &str)],
) -> (std::process::Child, impl Iterator<Item = String> + use<>) {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server::disk::tests::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, folder)
        .envs(settings.iter().copied())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map_while(Result::ok))
}

#[test]
fn nothing_durable_is_lost_to_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut durable = BTreeMap::new();
    for round in 0_u64..15 {
        let (mut child, lines) = start_child(folder.path());
        // Killed after a number of acknowledgements that differs from round to round, at whatever it is doing then.
        let mut acknowledged = 0;
        let target = 1 + round * round * 40;
        for line in lines {
            if let Some(version) = line.split("durable ").nth(1) {
                let version: u64 = version.parse().unwrap();
                durable.insert(version % 300, version);
                acknowledged += 1;
            }
            if acknowledged == target {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= target, "the child ended by itself");

        // And once more, in the middle of its start.
        let (mut child, mut lines) = start_child(folder.path());
        assert!(lines.any(|line| line.contains("opening")));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(round * 700) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let mut disk = open(folder.path());
        let check = |disk: &mut Disk| {
            for (number, version) in &durable {
                let Stored::Present(record) = read(disk, key(*number)) else {
                    panic!("round {round}: key {number} is gone")
                };
                assert!(version_of(&record) >= *version, "round {round}: key {number}");
            }
        };
        check(&mut disk);
        if round % 3 == 0 {
            wait_until(&mut disk, Disk::is_verified);
            assert_eq!(disk.untrusted_slots().len(), 0, "round {round}");
            check(&mut disk);
        }
        if round % 4 == 0 {
            disk.close().unwrap();
        }
    }
    assert_eq!(durable.len(), 300);
}
