//! The contract of [`Store`] as a test suite, run over every implementation.

use super::*;
use crate::protocol::causality::{Age, Change, Dot, OperationId, Put};
use crate::protocol::config::Limits;
use crate::protocol::id::Actor;
use crate::protocol::time::{Timestamp, WallTime};

/// A blind put of `value` with a dot of its own.
pub(crate) fn put(number: u64, value: Option<&[u8]>) -> Change {
    Change::Put(Put {
        context: Default::default(),
        dot: Dot { actor: Actor(1), at: Timestamp(number) },
        value: value.map(Bytes::copy_from_slice),
        operation: OperationId { started: WallTime(1_000), nonce: number },
        base: Some(Record::default()),
        age: Age::default(),
        limits: Limits::default(),
    })
}

/// A record with one value.
pub(crate) fn record(number: u64, value: &[u8]) -> Record {
    match Record::apply(&put(number, Some(value)), None) {
        crate::protocol::causality::Applied::Changed { record, .. } => record,
        other => panic!("{other:?}"),
    }
}

/// The slot with this number.
pub(crate) fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn holds(number: u16, key: &'static [u8], value: u64) -> Replacement {
    let sealed = StoredValue::seal(key, &record(value, &value.to_le_bytes()));
    Replacement { slot: slot(number), key: Bytes::from_static(key), value: Some(sealed) }
}

fn lacks(number: u16, key: &'static [u8]) -> Replacement {
    Replacement { slot: slot(number), key: Bytes::from_static(key), value: None }
}

fn listing(store: &impl Store, first: u16, last: u16) -> Vec<(u16, Vec<u8>)> {
    let mut seen = Vec::new();
    store
        .scan(slot(first), slot(last), &mut |slot, key, value| {
            assert!(value.check(key).is_ok());
            seen.push((slot.get(), key.to_vec()));
        })
        .unwrap();
    seen
}

/// Every clause of the contract that does not need a crash. `open` gives a new, empty store each time.
pub(crate) fn check<S: Store>(open: impl Fn() -> S) {
    what_is_put_in_comes_back(open());
    slots_do_not_run_into_each_other(open());
    through_only_rises(open());
    large_values_and_strange_keys_are_kept(open());
    damage_is_told_from_absence(open());
    sums_are_those_of_the_contents(open());
}

fn what_is_put_in_comes_back(mut store: impl Store) {
    assert_eq!(store.get(slot(7), b"a").unwrap(), None);
    store.replace(&[holds(7, b"a", 1), holds(7, b"b", 2)], Lsn(2)).unwrap();
    assert_eq!(store.get(slot(7), b"a").unwrap(), holds(7, b"a", 1).value);
    store.replace(&[holds(7, b"a", 3), lacks(7, b"b"), lacks(7, b"never there")], Lsn(5)).unwrap();
    assert_eq!(store.get(slot(7), b"a").unwrap(), holds(7, b"a", 3).value);
    assert_eq!(store.get(slot(7), b"b").unwrap(), None);
    store.checkpoint().unwrap();
    assert_eq!(store.get(slot(7), b"a").unwrap(), holds(7, b"a", 3).value);
}

fn slots_do_not_run_into_each_other(mut store: impl Store) {
    let everything = [
        holds(16_383, b"z", 1),
        holds(255, b"\xff\xff", 2),
        holds(256, b"", 3),
        holds(0, b"b", 4),
        holds(0, b"a", 5),
    ];
    store.replace(&everything, Lsn(5)).unwrap();
    assert_eq!(listing(&store, 0, 0), [(0, b"a".to_vec()), (0, b"b".to_vec())]);
    assert_eq!(listing(&store, 255, 255), [(255, b"\xff\xff".to_vec())]);
    assert_eq!(listing(&store, 256, 16_382), [(256, b"".to_vec())]);
    assert_eq!(listing(&store, 0, 16_383).len(), 5);
    assert_eq!(listing(&store, 1, 254), []);
    assert_eq!(store.get(slot(256), b"b").unwrap(), None);
    assert_eq!(paged(&store, 0, None), [b"a", b"b"]);
    assert_eq!(paged(&store, 0, Some(b"a")), [b"b"]);
    assert_eq!(paged(&store, 0, Some(b"b")), Vec::<Vec<u8>>::new());
    assert_eq!(paged(&store, 255, None), [b"\xff\xff"]);
    assert_eq!(paged(&store, 256, None), [b""]);
    assert_eq!(paged(&store, 16_383, Some(b"y")), [b"z"]);
    let mut seen = 0;
    let mut once = |_: &[u8], _: &StoredValue| {
        seen += 1;
        false
    };
    store.page(slot(0), None, &mut once).unwrap();
    assert_eq!(seen, 1, "a page ends when it was enough");
}

fn paged(store: &impl Store, number: u16, after: Option<&[u8]>) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut all = |key: &[u8], value: &StoredValue| {
        assert!(value.check(key).is_ok());
        keys.push(key.to_vec());
        true
    };
    store.page(slot(number), after, &mut all).unwrap();
    keys
}

fn through_only_rises(mut store: impl Store) {
    assert_eq!(store.through().unwrap(), Lsn(0));
    store.replace(&[], Lsn(4)).unwrap();
    assert_eq!(store.through().unwrap(), Lsn(4));
    store.replace(&[holds(1, b"a", 1)], Lsn(9)).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.through().unwrap(), Lsn(9));
    assert_eq!(listing(&store, 0, 16_383).len(), 1, "the position does not show among the keys");
}

fn large_values_and_strange_keys_are_kept(mut store: impl Store) {
    let key = Bytes::from(vec![0xff; 4_096]);
    let large = StoredValue::seal(&key, &record(1, &vec![7; 3 << 20]));
    let new = Replacement { slot: slot(16_383), key: key.clone(), value: Some(large.clone()) };
    store.replace(&[new, holds(16_383, b"", 2)], Lsn(2)).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.get(slot(16_383), &key).unwrap(), Some(large));
    assert_eq!(store.get(slot(16_383), b"").unwrap(), holds(16_383, b"", 2).value);
}

fn damage_is_told_from_absence(mut store: impl Store) {
    let good = StoredValue::seal(b"k", &record(1, b"v"));
    assert_eq!(good.open(b"k"), Ok(record(1, b"v")));
    assert_eq!(good.open(b"another key"), Err(Damaged));
    for at in 0..good.as_bytes().len() {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] ^= 0x20;
        let bad = Replacement {
            slot: slot(1),
            key: Bytes::from_static(b"k"),
            value: Some(Bytes::from(bytes).into()),
        };
        store.replace(&[bad], Lsn(1)).unwrap();
        let found = store.get(slot(1), b"k").unwrap();
        assert_eq!(found.map(|value| value.open(b"k")), Some(Err(Damaged)), "byte {at}");
    }
    for length in 0..good.as_bytes().len() {
        let cut = Some(good.as_bytes().slice(..length).into());
        let bad = Replacement { slot: slot(1), key: Bytes::from_static(b"k"), value: cut };
        store.replace(&[bad], Lsn(1)).unwrap();
        let found = store.get(slot(1), b"k").unwrap();
        assert_eq!(found.map(|value| value.open(b"k")), Some(Err(Damaged)), "cut at {length}");
    }
}

fn sums_are_those_of_the_contents(mut store: impl Store) {
    store.replace(&[holds(1, b"a", 1), holds(1, b"b", 2), holds(3, b"a", 3)], Lsn(3)).unwrap();
    let mut expected = Sums::default();
    for (number, key, value) in [(1, &b"a"[..], 1_u64), (1, b"b", 2), (3, b"a", 3)] {
        let hash = record(value, &value.to_le_bytes()).hash(key);
        expected.change(slot(number), RecordHash(0), hash);
    }
    assert_eq!(sums_of(&store, slot(0), slot(16_383)).unwrap(), expected);
    assert_eq!(sums_of(&store, slot(2), slot(9)).unwrap(), expected.between(slot(2), slot(9)));
}

#[test]
fn the_store_in_memory_keeps_the_contract() {
    check(MemoryStore::default);
}

#[test]
fn a_crash_takes_what_no_checkpoint_covers_key_by_key() {
    let mut store = MemoryStore::default();
    store.replace(&[holds(1, b"a", 1)], Lsn(1)).unwrap();
    store.checkpoint().unwrap();
    store.replace(&[holds(1, b"a", 2), lacks(1, b"a"), holds(1, b"b", 3)], Lsn(4)).unwrap();
    for (kept, a, b, through) in [
        (&[true, true, true][..], None, Some(3), 4),
        (&[false, true, false], None, None, 1),
        (&[true, false, true, true], Some(2), Some(3), 4),
        (&[true, false, false, true], Some(1), Some(3), 4),
    ] {
        let mut store = store.clone();
        let mut kept = kept.iter();
        store.crash(|| *kept.next().unwrap());
        assert!(kept.next().is_none());
        assert_eq!(store.get(slot(1), b"a").unwrap(), a.and_then(|value| holds(1, b"a", value).value));
        assert_eq!(store.get(slot(1), b"b").unwrap(), b.and_then(|value| holds(1, b"b", value).value));
        assert_eq!(store.through().unwrap(), Lsn(through));
    }
}
