//! Flipped bits and lost records: found by whoever comes across them, never served, told once, mended.

use super::*;
use crate::protocol::storage::log::{Entry, LogId};
use crate::protocol::storage::store::StoredValue;

/// Flips a bit of what the store holds of a key, or removes it, behind the back of the log.
fn spoil(disk: &mut Disk, number: u64, is_lost: bool) -> Slot {
    let last = disk.engine.last();
    wait_until(disk, |disk| disk.engine.fed_through() == last && disk.feeder_busy_since.is_none());
    let (key, slot) = (key(number), Slot::of_key(&key(number)));
    let store = disk.engine.store_mut();
    let mut bytes = store.get(slot, &key).unwrap().unwrap().as_bytes().to_vec();
    bytes[40] ^= 4;
    let value = (!is_lost).then(|| StoredValue::from(Bytes::from(bytes)));
    store.replace(&[Replacement { slot, key, value }], last).unwrap();
    slot
}

fn told(disk: &mut Disk) -> Vec<DiskReply> {
    let mut replies = Vec::new();
    disk.poll(&mut replies).unwrap();
    replies.retain(|reply| matches!(reply, DiskReply::Doubted { .. }));
    replies
}

fn mend(disk: &mut Disk, slot: Slot) -> (Lsn, u64) {
    let mut replies = Vec::new();
    disk.submit(DiskRequest::Mend { ticket: Ticket(77), slot }, &mut replies).unwrap();
    let begun = Instant::now();
    loop {
        for reply in replies.drain(..) {
            if let DiskReply::Mended { ticket: Ticket(77), lsn, dropped } = reply {
                return (lsn, dropped);
            }
        }
        disk.wait(Duration::from_millis(50), &mut replies).unwrap();
        assert!(begun.elapsed() < STEP);
    }
}

/// A disk with 200 keys that was verified, and whose scrub is off.
fn filled(path: &Path, scrub_bytes_per_second: u64) -> Disk {
    let options = DiskOptions { scrub_bytes_per_second, ..small() };
    let mut disk = Disk::open(path, options, || {}).unwrap();
    for number in 0..200 {
        update(&mut disk, key(number), put(number + 1, Some(&value(number))));
    }
    disk
}

#[test]
fn a_read_that_meets_damage_puts_the_slot_in_doubt_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = filled(folder.path(), 0);
    let slot = spoil(&mut disk, 7, false);
    let mut replies = Vec::new();
    for _ in 0..2 {
        disk.submit(DiskRequest::Read { ticket: Ticket(1), slot, key: key(7) }, &mut replies).unwrap();
    }
    let lost = || DiskReply::Read { ticket: Ticket(1), lsn: Lsn(0), stored: Stored::Lost };
    let doubted = DiskReply::Doubted { slots: vec![slot], why: DoubtReason::Damaged };
    assert_eq!(replies, [lost(), doubted, lost()], "told once");
    assert!(told(&mut disk).is_empty());
    assert!(disk.untrusted_slots().iter().eq([&slot]));

    let (lsn, dropped) = mend(&mut disk, slot);
    assert_eq!((dropped, disk.untrusted_slots().len()), (1, 0));
    assert_eq!(read(&mut disk, key(7)), Stored::Absent);
    // As a refill would.
    update(&mut disk, key(7), put(900, Some(b"again")));
    wait_until(&mut disk, |disk| disk.durable() > lsn);
    drop(disk);
    let mut disk = open(folder.path());
    wait_until(&mut disk, Disk::is_verified);
    assert_eq!(disk.untrusted_slots().len(), 0, "what was mended stays mended");
    assert_eq!(read(&mut disk, key(7)), Stored::Present(record(900, b"again")));
}

#[test]
fn the_scrub_finds_what_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = filled(folder.path(), 1 << 30);
    let expected = [
        (spoil(&mut disk, 7, false), DoubtReason::Damaged),
        (spoil(&mut disk, 8, true), DoubtReason::Mismatch),
    ];
    let mut replies = Vec::new();
    let begun = Instant::now();
    let passes = disk.scrub.passes;
    while disk.scrub.passes < passes + 3 {
        disk.wait(Duration::from_millis(50), &mut replies).unwrap();
        assert!(begun.elapsed() < STEP);
    }
    let mut found: Vec<_> = replies
        .iter()
        .filter_map(|reply| match reply {
            DiskReply::Doubted { slots, why } => Some(slots.iter().map(|slot| (*slot, *why))),
            _ => None,
        })
        .flatten()
        .collect();
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected, "told once, however often it is found");
    assert_eq!(disk.doubts.damaged(), 1);
    for (slot, why) in expected {
        let (_, dropped) = mend(&mut disk, slot);
        assert_eq!(dropped, u64::from(why == DoubtReason::Damaged));
    }
    let passes = disk.scrub.passes;
    wait_until(&mut disk, |disk| disk.scrub.passes >= passes + 2);
    assert_eq!(disk.untrusted_slots().len(), 0);
    assert_eq!(read(&mut disk, key(7)), Stored::Absent);
    assert_eq!(read(&mut disk, key(8)), Stored::Absent);
    assert!(disk.scrub.bytes > 0);
    disk.close().unwrap();
    let mut disk = open(folder.path());
    wait_until(&mut disk, Disk::is_verified);
    assert_eq!(disk.untrusted_slots().len(), 0);
}

#[test]
fn damage_from_before_a_start_is_told_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = filled(folder.path(), 0);
    let last = disk.engine.last();
    wait_until(&mut disk, |disk| disk.durable() == last && disk.engine.fed_through() == last);
    disk.begin_checkpoint();
    wait_until(&mut disk, |disk| disk.schedule.unconfirmed.is_none() && disk.feeder_busy_since.is_none());
    let slot = spoil(&mut disk, 7, false);
    disk.close().unwrap();
    let mut disk = open(folder.path());
    let mut replies = Vec::new();
    while !disk.is_verified() {
        disk.wait(Duration::from_millis(50), &mut replies).unwrap();
    }
    assert!(replies.contains(&DiskReply::Doubted { slots: vec![slot], why: DoubtReason::Damaged }));
}

/// The verification after the start need not have come to it: whoever asks has the slot compared first.
#[test]
fn what_a_store_is_opened_without_is_lost_from_the_first_answer_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = filled(folder.path(), 0);
    let last = disk.engine.last();
    wait_until(&mut disk, |disk| disk.durable() == last && disk.engine.fed_through() == last);
    disk.begin_checkpoint();
    wait_until(&mut disk, |disk| disk.schedule.unconfirmed.is_none() && disk.feeder_busy_since.is_none());
    spoil(&mut disk, 8, true);
    disk.close().unwrap();
    let mut disk = open(folder.path());
    assert_eq!(read_lost(&mut disk, 8), Stored::Lost);
    assert!(disk.untrusted_slots().contains(&Slot::of_key(&key(8))));
}

/// A rewriting copies damage as it is, so that it stays what it is: found, and mended.
#[test]
fn a_store_with_damage_in_it_can_be_rewritten_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = filled(folder.path(), 0);
    let slot = spoil(&mut disk, 7, false);
    assert_eq!(read_lost(&mut disk, 7), Stored::Lost);
    disk.compaction.want();
    wait_until(&mut disk, |disk| !disk.compaction.is_under_way());
    assert_eq!(disk.compaction.count, 1);
    assert_eq!(read_lost(&mut disk, 7), Stored::Lost);
    assert_eq!(mend(&mut disk, slot).1, 1);
    let last = disk.engine.last();
    wait_until(&mut disk, |disk| disk.engine.fed_through() == last);
    disk.close().unwrap();
    let mut disk = open(folder.path());
    wait_until(&mut disk, Disk::is_verified);
    assert_eq!(disk.untrusted_slots().len(), 0);
    assert_eq!(read(&mut disk, key(7)), Stored::Absent);
}

fn read_lost(disk: &mut Disk, number: u64) -> Stored {
    let mut replies = Vec::new();
    let (slot, key) = (Slot::of_key(&key(number)), key(number));
    disk.submit(DiskRequest::Read { ticket: Ticket(2), slot, key }, &mut replies).unwrap();
    match replies.swap_remove(0) {
        DiskReply::Read { stored, .. } => stored,
        other => panic!("{other:?}"),
    }
}

/// Each byte of a log of several segments is flipped, one at a time. Whatever was acknowledged is there, or the
/// directory is not trusted; only the last group of a log that has no seal behind it passes for torn.
#[test]
fn no_flipped_byte_of_a_log_is_served_or_cut_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let identity = LogId(9);
    let log = folder.path().join("log");
    let scan = |folder: &Path| FoundLog::read(folder, identity).map(|(_, scan)| scan);
    for run in 0..3_u64 {
        // No clean end, so that nothing but the next start seals the log.
        let mut segments = FoundLog::read(&log, identity).unwrap().0.resume(1 << 20).unwrap();
        for number in 10 * run + 1..=10 * run + 10 {
            let (key, record) = (key(number), record(number, b"a value"));
            let (slot, value) = (Slot::of_key(&key), StoredValue::seal(&key, &record));
            let mut group = Group::new(Lsn(number));
            group.push(&Entry::Put { slot, key, old: RecordHash(0), value });
            segments.append(group).unwrap();
        }
    }
    let good = scan(&log).unwrap();
    let mut segments: Vec<PathBuf> = fs::read_dir(&log).unwrap().map(|file| file.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    assert!(segments.len() >= 3);
    let (mut refused, mut cut, mut padding) = (0, 0, 0);
    let mut cut_at = BTreeSet::new();
    for (number, path) in segments.iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // Only what is used is written again, to keep the test fast: behind it there are zeros.
        for at in 0..used {
            let mut bad = bytes[..used + 64].to_vec();
            bad[at] ^= 1 << (at % 8);
            fs::write(path, &bad).unwrap();
            match scan(&log) {
                Err(OpenError::Untrusted(_)) => refused += 1,
                Err(error) => panic!("{error}"),
                Ok(found) if found.end == good.end => {
                    assert_eq!(found.entries, good.entries);
                    padding += 1;
                }
                Ok(found) => {
                    assert_eq!(number, segments.len() - 1, "byte {at} of {}", path.display());
                    assert_eq!(found.entries, good.entries[..found.entries.len()]);
                    cut_at.insert(found.end);
                    cut += 1;
                }
            }
        }
        fs::write(path, &bytes).unwrap();
    }
    assert_eq!(cut_at.len(), 1, "no more than the last group: {cut_at:?}");
    assert!(refused > 10 * padding && cut > 56, "{refused} {cut} {padding}");
}
