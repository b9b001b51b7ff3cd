mod crashes;

use super::super::log::{LogId, Scanner, SegmentName};
use super::super::op::Ticket;
use super::super::store::contract::{put, record, slot};
use super::super::store::{MemoryStore, sums_of};
use super::super::sums::SlotSum;
use super::*;
use crate::protocol::causality::{Age, Dot, OperationId, Put};
use crate::protocol::config::Limits;
use crate::protocol::id::{Actor, NodeId};
use crate::protocol::rng::Rng;
use crate::protocol::time::{Timestamp, WallTime};

const LOG: LogId = LogId(77);
const TICKET: Ticket = Ticket(0);
const ALL: (u16, u16) = (0, 16_383);

fn fresh() -> Engine<MemoryStore> {
    Engine::recover(MemoryStore::default(), Scanner::new(LOG).finish()).unwrap()
}

fn update(engine: &mut Engine<MemoryStore>, key: &'static [u8], change: Change) -> (Lsn, Applied) {
    let mut replies = Vec::new();
    let key = Bytes::from_static(key);
    engine.submit(DiskRequest::Update { ticket: TICKET, slot: slot(1), key, change }, &mut replies).unwrap();
    match replies.pop() {
        Some(DiskReply::Applied { lsn, applied, .. }) => (lsn, applied),
        other => panic!("{other:?}"),
    }
}

fn read(engine: &mut Engine<MemoryStore>, key: &'static [u8]) -> (Lsn, Stored) {
    let mut replies = Vec::new();
    let key = Bytes::from_static(key);
    engine.submit(DiskRequest::Read { ticket: TICKET, slot: slot(1), key }, &mut replies).unwrap();
    match replies.pop() {
        Some(DiskReply::Read { lsn, stored, .. }) => (lsn, stored),
        other => panic!("{other:?}"),
    }
}

fn sync(engine: &mut Engine<MemoryStore>) -> Vec<DiskReply> {
    let mut replies = Vec::new();
    while let Some(group) = engine.take_group() {
        engine.synced(group.through(), &mut replies);
    }
    replies
}

fn feed(engine: &mut Engine<MemoryStore>) {
    while let Some(feed) = engine.take_feed(100) {
        engine.store_mut().replace(&feed.batch, feed.through).unwrap();
        engine.fed(feed);
    }
}

fn merge(record: Record) -> Change {
    Change::Merge { record, own: Actor(99), age: Age::default() }
}

#[test]
fn an_update_is_applied_at_once_and_durable_with_its_group() {
    let mut engine = fresh();
    let (first, applied) = update(&mut engine, b"k", put(1, Some(b"v")));
    assert!(matches!(applied, Applied::Changed { .. }));
    assert_eq!(first, Lsn(1));
    let group = engine.take_group().unwrap();
    let (second, _) = update(&mut engine, b"k", put(2, Some(b"w")));
    assert!(engine.take_group().is_none(), "one group is under way");
    let mut replies = Vec::new();
    engine.synced(group.through(), &mut replies);
    assert_eq!(replies, [DiskReply::Durable { through: first }]);
    assert_eq!(sync(&mut engine), [DiskReply::Durable { through: second }]);
    assert!(engine.take_group().is_none());
}

#[test]
fn a_read_names_the_newest_entry_that_its_record_rests_on() {
    let mut engine = fresh();
    assert_eq!(read(&mut engine, b"k"), (Lsn(0), Stored::Absent));
    update(&mut engine, b"k", put(1, Some(b"v")));
    update(&mut engine, b"another", put(2, Some(b"v")));
    assert_eq!(read(&mut engine, b"k"), (Lsn(1), Stored::Present(record(1, b"v"))));
    sync(&mut engine);
    feed(&mut engine);
    assert_eq!(read(&mut engine, b"k"), (Lsn(0), Stored::Present(record(1, b"v"))));
}

#[test]
fn what_changes_nothing_is_not_logged_and_names_what_the_record_rests_on() {
    let mut engine = fresh();
    update(&mut engine, b"k", put(1, Some(b"v")));
    let (lsn, applied) = update(&mut engine, b"k", merge(record(1, b"v")));
    assert_eq!((lsn, applied), (Lsn(1), Applied::Unchanged { record: record(1, b"v") }));
    let (lsn, applied) = update(&mut engine, b"k", put(1, Some(b"v")));
    assert_eq!(lsn, Lsn(1));
    assert!(matches!(applied, Applied::Adopted { changed: false, .. }));
    assert_eq!(engine.last(), Lsn(1));
    sync(&mut engine);
    feed(&mut engine);
    assert_eq!(update(&mut engine, b"k", merge(record(1, b"v"))).0, Lsn(0));
}

#[test]
fn the_store_is_never_fed_what_is_not_synced() {
    let mut engine = fresh();
    update(&mut engine, b"k", put(1, Some(b"v")));
    assert!(engine.take_feed(100).is_none());
    sync(&mut engine);
    update(&mut engine, b"k", put(2, Some(b"w")));
    let fed = engine.take_feed(100).unwrap();
    // The log may forget entry 1 once the store is fed that far, so that its record must go in although a newer one
    // is waiting.
    assert_eq!((fed.through, fed.batch.len()), (Lsn(1), 1));
    assert_eq!(fed.batch[0].value, Some(StoredValue::seal(b"k", &record(1, b"v"))));
    engine.store_mut().replace(&fed.batch, fed.through).unwrap();
    engine.fed(fed);
    assert_eq!(read(&mut engine, b"k").0, Lsn(2));
}

#[test]
fn a_damaged_record_is_lost_and_neither_absent_nor_overwritten() {
    let mut engine = fresh();
    update(&mut engine, b"k", put(1, Some(b"v")));
    sync(&mut engine);
    feed(&mut engine);
    assert!(engine.store_mut().damage(slot(1), b"k"));
    assert_eq!(read(&mut engine, b"k"), (Lsn(0), Stored::Lost));
    assert_eq!(update(&mut engine, b"k", put(2, Some(b"w"))).1, Applied::Refused(Refusal::Lost));
    assert_eq!(update(&mut engine, b"k", merge(record(3, b"x"))).1, Applied::Refused(Refusal::Lost));
    let found = sums_of(engine.store(), slot(ALL.0), slot(ALL.1)).unwrap();
    assert_eq!(found.differing(&engine.sums_in_store(slot(ALL.0), slot(ALL.1))), [slot(1)]);
}

#[test]
fn a_refusing_engine_still_knows_what_was_done_and_keeps_its_own_state() {
    let mut engine = fresh();
    update(&mut engine, b"k", put(1, Some(b"v")));
    engine.refuse(Some(Refusal::DiskFull));
    assert_eq!(update(&mut engine, b"k", put(2, Some(b"w"))).1, Applied::Refused(Refusal::DiskFull));
    assert!(matches!(update(&mut engine, b"k", put(1, Some(b"v"))).1, Applied::Adopted { .. }));
    assert!(matches!(update(&mut engine, b"k", merge(record(1, b"v"))).1, Applied::Unchanged { .. }));
    let entries = vec![(MetaKey::Start, Some(Bytes::from_static(b"s")))];
    let mut replies = Vec::new();
    engine.submit(DiskRequest::Meta { ticket: TICKET, entries }, &mut replies).unwrap();
    assert_eq!(replies, [DiskReply::MetaApplied { ticket: TICKET, lsn: Lsn(2) }]);
    engine.refuse(None);
    assert!(matches!(update(&mut engine, b"k", put(2, Some(b"w"))).1, Applied::Changed { .. }));
}

#[test]
fn a_reap_removes_only_what_it_certified() {
    let mut engine = fresh();
    update(&mut engine, b"k", put(1, Some(b"v")));
    let hash = record(1, b"v").hash(b"k");
    let key = Bytes::from_static(b"k");
    assert_eq!(engine.remove(slot(1), key.clone(), RecordHash(5)).unwrap(), None);
    assert_eq!(engine.remove(slot(1), key.clone(), hash).unwrap(), Some(Lsn(2)));
    assert_eq!(read(&mut engine, b"k"), (Lsn(2), Stored::Absent));
    assert_eq!(engine.remove(slot(1), key, hash).unwrap(), None);
    assert_eq!(engine.sums().iter().count(), 0);
}

fn mend(engine: &mut Engine<MemoryStore>) -> (Lsn, u64) {
    let mut replies = Vec::new();
    engine.submit(DiskRequest::Mend { ticket: TICKET, slot: slot(1) }, &mut replies).unwrap();
    match replies.pop() {
        Some(DiskReply::Mended { lsn, dropped, .. }) => (lsn, dropped),
        other => panic!("{other:?}"),
    }
}

/// Whether the store holds in the slot what it should.
fn is_right(engine: &Engine<MemoryStore>) -> bool {
    sums_of(engine.store(), slot(1), slot(1)).unwrap() == engine.sums_in_store(slot(1), slot(1))
}

#[test]
fn a_mended_slot_has_lost_what_could_not_be_read_and_nothing_else() {
    let mut engine = fresh();
    let (_, applied) = update(&mut engine, b"a", put(1, Some(b"v")));
    let Applied::Changed { record: whole, .. } = applied else { panic!("{applied:?}") };
    update(&mut engine, b"b", put(2, Some(b"w")));
    sync(&mut engine);
    feed(&mut engine);
    assert!(is_right(&engine));
    assert!(engine.store_mut().damage(slot(1), b"b"));
    assert_eq!(read(&mut engine, b"b").1, Stored::Lost);
    assert!(!is_right(&engine));
    assert_eq!(mend(&mut engine), (Lsn(4), 1));
    assert!(is_right(&engine), "the sum is true at once, and not only when the store is fed");
    assert_eq!(read(&mut engine, b"b").1, Stored::Absent);
    assert_eq!(read(&mut engine, b"a").1, Stored::Present(whole.clone()));
    let left = SlotSum::default().with(whole.hash(b"a"));
    assert_eq!(engine.sums().get(slot(1)), left);
    assert_eq!(mend(&mut engine), (Lsn(4), 0), "doing it again changes nothing");
    sync(&mut engine);
    feed(&mut engine);
    assert!(is_right(&engine));
    assert_eq!(sums_of(engine.store(), slot(1), slot(1)).unwrap().get(slot(1)), left);
}

#[test]
fn a_record_that_is_gone_without_a_trace_is_given_up_by_mending() {
    let mut engine = fresh();
    update(&mut engine, b"a", put(1, Some(b"v")));
    update(&mut engine, b"b", put(2, Some(b"w")));
    sync(&mut engine);
    feed(&mut engine);
    let (first, through) = (Bytes::from_static(b"a"), engine.fed_through());
    let gone = Replacement { slot: slot(1), key: first, value: None };
    engine.store_mut().replace(&[gone], through).unwrap();
    // An entry of the same key waits for the store, and follows on a record that is no longer there.
    update(&mut engine, b"a", put(3, Some(b"x")));
    update(&mut engine, b"a", put(4, Some(b"y")));
    assert!(!is_right(&engine));
    mend(&mut engine);
    assert!(is_right(&engine));
    sync(&mut engine);
    feed(&mut engine);
    assert!(is_right(&engine));
    assert!(matches!(read(&mut engine, b"a").1, Stored::Present(_)));
}

/// The log is cut behind each of its entries: what is recovered has the sum of what it holds, or shows that it has not.
#[test]
fn a_crash_in_the_middle_of_mending_leaves_no_slot_that_only_looks_whole() {
    let mut engine = fresh();
    let mut entries = Vec::new();
    let write = |engine: &mut Engine<MemoryStore>, entries: &mut Vec<Vec<u8>>| {
        while let Some(group) = engine.take_group() {
            let through = group.through();
            entries.push(group.seal(SegmentName { log: LOG, generation: 1 }));
            engine.synced(through, &mut Vec::new());
        }
    };
    for (number, key) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
        update(&mut engine, key, put(number as u64 + 1, Some(b"v")));
        write(&mut engine, &mut entries);
    }
    feed(&mut engine);
    // So that the log cannot repair the store.
    engine.checkpoint(engine.fed_through());
    write(&mut engine, &mut entries);
    for key in [b"b", b"c"] {
        engine.store_mut().damage(slot(1), key);
    }
    let damaged = engine.store().clone();
    let before = entries.len();
    assert_eq!(mend(&mut engine).1, 2);
    update(&mut engine, b"a", put(9, Some(b"w")));
    // Each entry in a group of its own, so that the log can end behind any.
    let mut scanner = Scanner::new(LOG);
    write(&mut engine, &mut entries);
    scanner.segment(1, &entries.concat()).unwrap();
    let scan = scanner.finish();
    let sums = engine.sums().get(slot(1));
    let (mut whole, mut doubtful) = (0, 0);
    for kept in before..=scan.entries.len() {
        let cut = Scan { entries: scan.entries[..kept].to_vec(), end: Lsn(kept as u64), tail: scan.tail };
        let mut again = Engine::recover(damaged.clone(), cut).unwrap();
        feed(&mut again);
        if is_right(&again) {
            whole += 1;
        } else {
            doubtful += 1;
            mend(&mut again);
            sync(&mut again);
            feed(&mut again);
            assert!(is_right(&again));
        }
        if kept == scan.entries.len() {
            assert_eq!(again.sums().get(slot(1)), sums);
        }
    }
    // Nothing of the mending, one removal, both; then the sum, then the write behind it.
    assert_eq!((doubtful, whole), (3, 2));
}
