use super::*;
use crate::protocol::storage::engine::Engine;
use crate::protocol::storage::log::{Entry, Tail, Untrusted};
use crate::protocol::storage::op::MetaKey;
use bytes::Bytes;

const LOG: LogId = LogId(9);
const SEGMENT: u64 = 1 << 20;

fn open(folder: &Path) -> Result<(SegmentedLog, Scan), OpenError> {
    let (found, scan) = FoundLog::read(folder, LOG)?;
    Ok((found.resume(SEGMENT).unwrap(), scan))
}

/// Appends one entry of about `bytes` as a group of its own.
fn append(log: &mut SegmentedLog, lsn: u64, bytes: usize) {
    let mut group = Group::new(Lsn(lsn));
    group.push(&Entry::Meta(vec![(MetaKey::Start, Some(Bytes::from(vec![lsn as u8; bytes])))]));
    log.append(group).unwrap();
}

fn file(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{generation:020}.seg"))
}

#[test]
fn what_was_appended_is_found_again_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, scan) = open(folder.path()).unwrap();
    assert_eq!((scan.end, scan.entries.len()), (Lsn(0), 0));
    (1..=9).for_each(|lsn| append(&mut log, lsn, 300_000));
    assert_eq!(log.files(), (3, 0));
    drop(log);
    let (mut log, scan) = open(folder.path()).unwrap();
    assert_eq!((scan.end, scan.entries.len(), scan.tail), (Lsn(9), 9, Tail::Clean));
    append(&mut log, 10, 10);
    drop(log);
    assert_eq!(open(folder.path()).unwrap().1.end, Lsn(10));
}

#[test]
fn a_group_larger_than_a_segment_gets_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path()).unwrap();
    append(&mut log, 1, 10);
    append(&mut log, 2, 3 << 20);
    append(&mut log, 3, 10);
    drop(log);
    assert_eq!(open(folder.path()).unwrap().1.end, Lsn(3));
}

#[test]
fn freed_segments_are_recycled_and_what_they_held_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path()).unwrap();
    (1..=12).for_each(|lsn| append(&mut log, lsn, 300_000));
    assert_eq!(log.files(), (4, 0));
    log.free(Lsn(5)).unwrap();
    assert_eq!(log.files(), (3, 1), "entry 6 is still needed");
    log.free(Lsn(9)).unwrap();
    assert_eq!(log.files(), (1, 1), "the second is not needed as a spare");
    append(&mut log, 13, 300_000);
    assert_eq!(log.files(), (2, 0), "the spare was recycled");
    drop(log);
    let (_, scan) = open(folder.path()).unwrap();
    assert!(scan.entries.iter().map(|(lsn, _)| lsn.0).eq(10..=13));
}

#[test]
fn zeros_are_kept_ahead_only_as_far_as_is_sensible() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = FoundLog::read(folder.path(), LOG).unwrap().0.resume(64 << 20).unwrap();
    assert_eq!(file(folder.path(), 1).metadata().unwrap().len(), FILL_BYTES);
    while log.fill_ahead().unwrap() {}
    let length = file(folder.path(), 1).metadata().unwrap().len();
    assert!((FILL_AHEAD_BYTES..=FILL_AHEAD_BYTES + FILL_BYTES).contains(&length), "{length}");
    append(&mut log, 1, 10);
    assert_eq!(
        file(folder.path(), 1).metadata().unwrap().len(),
        length,
        "a write within the zeros adds nothing"
    );
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path()).unwrap();
    append(&mut log, 1, 100);
    let begin = log.current.position;
    append(&mut log, 2, 100);
    drop(log);
    let torn = OpenOptions::new().write(true).open(file(folder.path(), 1)).unwrap();
    torn.write_all_at(&[0; 64], begin + 90).unwrap();
    let (mut log, scan) = open(folder.path()).unwrap();
    assert_eq!((scan.end, scan.tail), (Lsn(1), Tail::Torn));
    append(&mut log, 2, 50);
    drop(log);
    let (_, scan) = open(folder.path()).unwrap();
    assert_eq!((scan.end, scan.tail), (Lsn(2), Tail::Clean));
}

/// The tail that a start has found whole is sealed by that start, so that damage to it shows later.
#[test]
fn a_flipped_byte_is_untrusted_and_so_is_a_missing_segment() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path()).unwrap();
    append(&mut log, 1, 100);
    append(&mut log, 2, 100);
    let position = log.current.position;
    drop(log);
    let good = fs::read(file(folder.path(), 1)).unwrap();
    let flip = |at: u64| {
        let mut bad = good.clone();
        bad[at as usize] ^= 1;
        fs::write(file(folder.path(), 1), bad).unwrap();
    };
    flip(200);
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Untrusted(Untrusted::Damaged { generation: 1, .. })), "{error}");
    fs::write(file(folder.path(), 1), &good).unwrap();
    open(folder.path()).unwrap();
    flip(position - 20);
    let error = open(folder.path()).unwrap_err();
    let hole = Untrusted::Hole { generation: 2, expected: Lsn(2), found: Lsn(3) };
    assert!(matches!(error, OpenError::Untrusted(reason) if reason == hole), "{error}");
    fs::remove_file(file(folder.path(), 1)).unwrap();
    let (_, scan) = open(folder.path()).unwrap();
    assert!(Engine::recover(crate::protocol::storage::store::MemoryStore::default(), scan).is_err());
}

#[test]
fn a_quota_that_is_used_up_is_a_full_disk() {
    // Of what only looks further ahead: a group that does not fit is a failure of the disk.
    for (number, expected) in [
        (nix::errno::Errno::ENOSPC, true),
        (nix::errno::Errno::EDQUOT, true),
        (nix::errno::Errno::EIO, false),
    ] {
        assert_eq!(is_full(&io::Error::from_raw_os_error(number as i32)), expected, "{number}");
    }
}
