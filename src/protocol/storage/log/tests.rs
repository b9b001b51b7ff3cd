use std::net::{Ipv4Addr, SocketAddr};

use super::super::store::contract::{record, slot};
use super::*;
use crate::protocol::id::NodeId;

const LOG: LogId = LogId(0x5eed);

fn segment(generation: u64) -> SegmentName {
    SegmentName { log: LOG, generation }
}

fn entries() -> Vec<Entry> {
    let key = Bytes::from_static(b"user:1");
    let value = StoredValue::seal(&key, &record(65_536_007, b"hello"));
    let old = value.hash();
    let seed = SocketAddr::from((Ipv4Addr::LOCALHOST, 7_000));
    let sums = vec![(slot(258), SlotSum { count: 1, sum: old.0 })];
    let meta = vec![(MetaKey::Start, Bytes::from_static(b"start"))];
    vec![
        Entry::Put { slot: slot(258), key: key.clone(), old: RecordHash(0), value },
        Entry::Meta(vec![
            (MetaKey::Start, Some(Bytes::from_static(b"start"))),
            (MetaKey::Member(NodeId(9)), None),
            (MetaKey::Seed(seed), Some(Bytes::new())),
        ]),
        Entry::Checkpoint(Checkpoint { low_water: Lsn(1), meta, sums }),
        Entry::Removed { slot: slot(258), key, old },
        Entry::Mended { slot: slot(258), sum: SlotSum { count: 3, sum: old.0 } },
    ]
}

/// Groups of the given sizes from `first`, as a segment of the log.
fn written(generation: u64, mut first: u64, sizes: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for size in sizes {
        let mut group = Group::new(Lsn(first));
        group.note_synced(Lsn(first - 1));
        for at in 0..*size {
            group.push(&entries()[at % 4]);
        }
        first = group.through().0 + 1;
        bytes.extend(group.seal(segment(generation)));
    }
    bytes
}

fn scan(segments: &[(u64, &[u8])]) -> Result<Scan, Untrusted> {
    let mut scanner = Scanner::new(LOG);
    for (generation, bytes) in segments {
        scanner.segment(*generation, bytes)?;
    }
    Ok(scanner.finish())
}

/// Rewritten with `STARLING_BLESS=1 cargo test`, reviewed as a diff.
#[test]
fn the_bytes_of_a_group_are_pinned() {
    let mut group = Group::new(Lsn(41));
    group.note_synced(Lsn(40));
    entries().iter().for_each(|entry| {
        group.push(entry);
    });
    let length = group.len();
    let bytes = group.seal(segment(3));
    assert_eq!(bytes.len(), length);
    let dump: String = bytes
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ") + "\n")
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/log-group-v1.hex");
    if std::env::var_os("STARLING_BLESS").is_some() {
        std::fs::write(path, &dump).unwrap();
    }
    assert_eq!(dump, std::fs::read_to_string(path).unwrap());
    assert_eq!(scan(&[(3, &bytes)]).unwrap().entries.len(), 5);
}

#[test]
fn what_was_written_is_read_back() {
    let mut bytes = written(1, 1, &[4, 1, 2]);
    bytes.extend([0; 4_096]);
    let found = scan(&[(1, &bytes)]).unwrap();
    assert_eq!((found.end, found.tail), (Lsn(7), Tail::Clean));
    let read: Vec<Entry> = found.entries.iter().map(|(_, entry)| entry.clone()).collect();
    assert_eq!(read[..4], entries()[..4]);
    assert!(found.entries.iter().map(|(lsn, _)| lsn.0).eq(1..=7));
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tears() {
    let whole = written(1, 1, &[2, 3]);
    let first = written(1, 1, &[2]).len();
    for at in first..whole.len() {
        for rest in [&[0_u8; 600][..], &[0xa5; 600]] {
            let mut bytes = whole[..at].to_vec();
            bytes.extend(rest);
            let found = scan(&[(1, &bytes)]).unwrap();
            // The padding behind the body is no part of the group.
            let end = if found.end == Lsn(5) { whole.len() - 7..whole.len() } else { first..whole.len() };
            assert!(end.contains(&at), "cut at {at} gave {:?}", found.end);
        }
    }
}

#[test]
fn a_segment_goes_on_where_the_one_before_was_torn() {
    let mut torn = written(1, 1, &[2, 3]);
    torn.truncate(torn.len() - 20);
    let next = written(2, 3, &[0, 2]);
    let found = scan(&[(1, &torn), (2, &next), (3, &[0; 64])]).unwrap();
    assert_eq!((found.end, found.tail), (Lsn(4), Tail::Clean));
}

#[test]
fn stale_bytes_of_a_recycled_segment_do_not_count() {
    let stale = written(1, 1, &[1, 1, 1, 1, 1, 1]);
    let fresh = written(7, 30, &[2]);
    let mut recycled = stale;
    recycled[..fresh.len()].copy_from_slice(&fresh);
    let found = scan(&[(7, &recycled)]).unwrap();
    assert_eq!((found.end, found.entries.len()), (Lsn(31), 2));
    let mut another_log = Scanner::new(LogId(1));
    assert_eq!(another_log.segment(7, &recycled), Ok(false));
}

/// Planted bug 30, "log cut at a bad entry in the middle", fails here.
#[test]
fn a_flipped_bit_is_untrusted_unless_it_is_in_the_last_group() {
    let bytes = written(1, 1, &[2, 1, 2]);
    let last = written(1, 1, &[2, 1]).len();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        match scan(&[(1, &bad)]) {
            Ok(found) if at >= last => assert!([Lsn(3), Lsn(5)].contains(&found.end)),
            // Padding carries nothing.
            Ok(found) => assert_eq!((found.end, bytes[at]), (Lsn(5), 0)),
            Err(error) => {
                assert!(at < last);
                assert!(matches!(error, Untrusted::Damaged { generation: 1, .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_seal_makes_damage_in_the_last_group_visible() {
    let mut bytes = written(1, 1, &[2]);
    bytes[80] ^= 1;
    assert_eq!(scan(&[(1, &bytes)]).unwrap().end, Lsn(0), "this might be a torn write");
    let hole = Untrusted::Hole { generation: 2, expected: Lsn(3), found: Lsn(6) };
    let (two, six) = (written(1, 1, &[2]), written(2, 6, &[0]));
    assert_eq!(scan(&[(1, &two), (2, &six)]), Err(hole), "the seal says that there were five entries");
    bytes.extend(written(1, 3, &[0]));
    assert!(matches!(scan(&[(1, &bytes)]), Err(Untrusted::Damaged { after: Lsn(0), .. })));
}

#[test]
fn a_missing_segment_is_untrusted() {
    let (one, three) = (written(1, 1, &[2]), written(3, 5, &[1]));
    let hole = Untrusted::Hole { generation: 3, expected: Lsn(3), found: Lsn(5) };
    assert_eq!(scan(&[(1, &one), (3, &three)]), Err(hole));
    let twice = Untrusted::Hole { generation: 2, expected: Lsn(3), found: Lsn(1) };
    assert_eq!(scan(&[(1, &one), (2, &written(2, 1, &[1]))]), Err(twice));
}

#[test]
fn hostile_bytes_never_panic() {
    let mut rng = crate::protocol::rng::Rng::from_number(5);
    let good = written(1, 1, &[2, 1, 2]);
    for _ in 0..2_000 {
        let mut bytes = good.clone();
        for _ in 0..=rng.below(6) {
            let at = rng.index(bytes.len());
            bytes[at] = rng.bits() as u8;
        }
        bytes.truncate(rng.index(good.len()));
        let _ = scan(&[(1, &bytes)]);
    }
}
