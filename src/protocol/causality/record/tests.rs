//! The rules of records as small stories. Ann, Bob and Cat are nodes; their actors write dots like `ann(1)`.

use super::*;
use crate::protocol::causality::{OPERATION_LIFETIME, OPERATIONS_MAX};
use crate::protocol::time::WallTime;

fn ann(at: u64) -> Dot {
    Dot { actor: Actor(1), at: Timestamp(at) }
}

fn bob(at: u64) -> Dot {
    Dot { actor: Actor(2), at: Timestamp(at) }
}

fn cat(at: u64) -> Dot {
    Dot { actor: Actor(3), at: Timestamp(at) }
}

fn seen(dots: &[Dot]) -> VersionVector {
    dots.iter().copied().collect()
}

/// Operations of these tests start at the millisecond of their number.
fn operation(number: u64) -> OperationId {
    OperationId { started: WallTime(number), nonce: number }
}

/// A put of its own operation, with the context of a client that has seen these dots.
fn put(context: &[Dot], dot: Dot, value: &str) -> Put {
    Put {
        context: seen(context),
        dot,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        operation: operation(100 * dot.actor.0 + dot.at.0),
        base: Some(Record::default()),
        limits: Limits::default(),
    }
}

fn delete(context: &[Dot], dot: Dot) -> Put {
    Put { value: None, ..put(context, dot, "") }
}

fn attempt_of(number: u64, put: Put) -> Put {
    Put { operation: operation(number), ..put }
}

fn apply(record: &Record, put: Put) -> Applied {
    Record::apply(&Change::Put(put), Some(record))
}

/// The record after a put that is expected to be executed.
fn after(record: &Record, put: Put) -> Record {
    match apply(record, put) {
        Applied::Changed { record, amnesia: false } => record,
        other => panic!("the put came out as {other:?}"),
    }
}

fn absent() -> Record {
    Record::default()
}

fn dots(record: &Record) -> Vec<Dot> {
    record.siblings().iter().map(|sibling| sibling.dot).collect()
}

#[test]
fn blind_puts_stay_side_by_side() {
    let record = after(&absent(), put(&[], ann(1), "tea"));
    let record = after(&record, put(&[], ann(2), "coffee"));
    assert_eq!(record.values(), ["tea", "coffee"]);
    assert_eq!(record.context(), &seen(&[ann(2)]));
}

#[test]
fn a_context_supersedes_what_its_client_had_seen_and_nothing_else() {
    let record = after(&absent(), put(&[], ann(1), "tea"));
    let record = after(&record, put(&[], ann(2), "coffee"));
    let record = after(&record, put(&[ann(1)], ann(3), "milk"));
    assert_eq!(record.values(), ["coffee", "milk"]);
    assert!(record.is_dead(ann(1)) && !record.is_dead(ann(2)) && !record.is_dead(bob(1)));
}

#[test]
fn a_context_also_supersedes_what_its_coordinator_has_not_heard_of_yet() {
    let at_ann = after(&absent(), put(&[], ann(1), "tea"));
    let at_bob = after(&absent(), put(&[ann(1)], bob(1), "coffee"));
    assert_eq!(at_bob.merged(&at_ann).values(), ["coffee"]);
    assert_eq!(at_ann.merged(&at_bob), at_bob.merged(&at_ann));
}

#[test]
fn a_delete_is_a_sibling_without_a_value() {
    let record = after(&absent(), put(&[], ann(1), "tea"));
    let deleted = after(&record, delete(&[ann(1)], ann(2)));
    assert!(deleted.is_tombstone() && deleted.values().is_empty());
    assert!(!absent().is_tombstone() && !record.is_tombstone());

    let beside = after(&deleted, put(&[ann(1)], ann(3), "coffee"));
    assert_eq!(dots(&beside), [ann(2), ann(3)]);
    assert!(!beside.is_tombstone());
    assert_eq!(beside.values(), ["coffee"]);
}

#[test]
fn siblings_with_equal_bytes_read_as_one() {
    let record = after(&absent(), put(&[], ann(1), "tea"));
    let record = after(&record, put(&[], bob(1), "coffee"));
    let record = after(&record, put(&[], cat(1), "tea"));
    assert_eq!(dots(&record), [ann(1), bob(1), cat(1)]);
    assert_eq!(record.values(), ["tea", "coffee"]);
}

#[test]
fn a_coordinator_that_knows_the_operation_adopts_its_dot() {
    let record = after(&absent(), attempt_of(7, put(&[], ann(1), "tea")));
    let again = apply(&record, attempt_of(7, put(&[], ann(2), "tea")));
    assert_eq!(
        again,
        Applied::Adopted { record: record.clone(), dot: ann(1), changed: false, amnesia: false }
    );

    // Bob hears of the first attempt only by the majority read that his attempt begins with.
    let at_bob = after(&absent(), put(&[], bob(1), "coffee"));
    let retry = Put { base: Some(record.clone()), ..attempt_of(7, put(&[], bob(2), "tea")) };
    let merged = at_bob.merged(&record);
    assert_eq!(
        apply(&at_bob, retry),
        Applied::Adopted { record: merged, dot: ann(1), changed: true, amnesia: false }
    );
}

#[test]
fn an_adopted_operation_may_have_been_superseded_since() {
    let record = after(&absent(), attempt_of(7, put(&[], ann(1), "tea")));
    let record = after(&record, put(&[ann(1)], ann(2), "coffee"));
    let again = apply(&record, attempt_of(7, put(&[], ann(3), "tea")));
    assert_eq!(
        again,
        Applied::Adopted { record: record.clone(), dot: ann(1), changed: false, amnesia: false }
    );
    assert!(record.is_dead(ann(1)));
}

#[test]
fn what_was_done_is_adopted_and_never_refused() {
    let strict = Limits { siblings_max: 1, record_bytes_max: 1, ..Limits::default() };
    let record = after(&absent(), attempt_of(7, put(&[], ann(1), "tea")));
    let record = after(&record, put(&[], ann(2), "coffee"));
    let again = Put { limits: strict, ..attempt_of(7, put(&[], ann(3), "tea")) };
    assert!(matches!(apply(&record, again), Applied::Adopted { dot, .. } if dot == ann(1)));
}

#[test]
fn a_retry_through_another_node_that_surfaces_after_the_overwrite_stays_dead() {
    // The answer of Ann is lost, and she cannot be reached; the client tries again through Bob.
    let at_ann = after(&absent(), attempt_of(7, put(&[], ann(1), "tea")));
    let at_bob = after(&absent(), attempt_of(7, put(&[], bob(1), "tea")));
    // Somebody reads Bob's and writes coffee; somebody else reads Bob's and deletes.
    for overwritten in
        [after(&at_bob, put(&[bob(1)], bob(2), "coffee")), after(&at_bob, delete(&[bob(1)], bob(2)))]
    {
        let healed = overwritten.merged(&at_ann);
        assert_eq!(dots(&healed), [bob(2)]);
        assert!(healed.is_dead(ann(1)));
        assert_eq!(at_ann.merged(&overwritten), healed);
    }
}

#[test]
fn a_context_that_covers_one_attempt_covers_them_all() {
    let at_ann = after(&absent(), attempt_of(7, put(&[], ann(1), "tea")));
    let at_bob = after(&absent(), attempt_of(7, put(&[], bob(1), "tea")));
    let both = at_ann.merged(&at_bob);
    assert_eq!(both.values(), ["tea"]);
    assert_eq!(dots(&both), [ann(1), bob(1)]);
    let record = after(&both, put(&[bob(1)], cat(1), "coffee"));
    assert_eq!(dots(&record), [cat(1)]);
}

#[test]
fn limits_refuse_with_nothing_changed() {
    let two = after(&after(&absent(), put(&[], ann(1), "tea")), put(&[], bob(1), "coffee"));
    let refused = |limits| {
        let applied = apply(&two, Put { limits, ..put(&[], cat(1), "milk") });
        let Applied::Refused(refusal) = applied else { panic!("not refused: {applied:?}") };
        refusal
    };
    let all = Limits::default();
    assert_eq!(refused(Limits { siblings_max: 2, ..all }), Refusal::TooManySiblings(2));
    assert_eq!(refused(Limits { context_entries_max: 2, ..all }), Refusal::ContextTooLong(3));
    let bytes = after(&two, put(&[], cat(1), "milk")).encoded_len();
    assert_eq!(refused(Limits { record_bytes_max: bytes - 1, ..all }), Refusal::RecordTooLarge(bytes));
    // At the limits themselves there is room.
    let exact = Limits { siblings_max: 3, record_bytes_max: bytes, context_entries_max: 3, ..all };
    after(&two, Put { limits: exact, ..put(&[], cat(1), "milk") });
    // And what resolves the siblings is never too much.
    let tight = Limits { siblings_max: 1, ..all };
    after(&two, Put { limits: tight, ..put(&[ann(1), bob(1)], ann(2), "milk") });
}

#[test]
fn under_the_tightest_limits_that_are_allowed_no_key_is_locked() {
    let actors = Limits::CONTEXT_ENTRIES_LEAST;
    let loose = Limits { value_bytes_max: 10, context_entries_max: actors, ..Limits::default() };
    let tightest = Limits { record_bytes_max: loose.record_bytes_least(), siblings_max: 1, ..loose };
    assert_eq!(tightest.check(), Ok(()));
    assert!(Limits { record_bytes_max: tightest.record_bytes_max - 1, ..tightest }.check().is_err());
    // Every owner writes in turn, far more often within a minute than a record remembers, and each has seen what is there.
    let write_often = |limits: Limits| {
        (1..=4 * OPERATIONS_MAX as u64).try_fold(absent(), |record, number| {
            let dot = Dot { actor: Actor(number % actors as u64), at: Timestamp(number) };
            let put = Put { limits, operation: operation(number), ..put(&dots(&record), dot, "0123456789") };
            match apply(&record, put) {
                Applied::Changed { record, .. } => Ok(record),
                refused => Err(refused),
            }
        })
    };
    let record = write_often(tightest).unwrap();
    assert_eq!((record.operations().len(), record.context().len()), (OPERATIONS_MAX, actors));
    assert_eq!(record.encoded_len(), tightest.record_bytes_max, "there is nothing to spare");
    let locked = write_often(Limits { record_bytes_max: 2_000, ..tightest }).unwrap_err();
    assert!(matches!(locked, Applied::Refused(Refusal::RecordTooLarge(_))), "{locked:?}");
}

#[test]
fn a_record_that_merges_took_beyond_the_limits_can_still_be_written_as_long_as_it_does_not_grow() {
    let many =
        (1..=5).map(|actor| Dot { actor: Actor(actor), at: Timestamp(1) }).fold(absent(), |record, dot| {
            after(&record, put(&[], dot, "a value with some bytes to give away: an actor and a mark take 48"))
        });
    let tight = Limits { siblings_max: 2, record_bytes_max: 1, context_entries_max: 0, ..Limits::default() };
    // One goes, one comes; the shorter value makes up for the mark of the operation.
    let record = after(&many, Put { limits: tight, ..put(&[bob(1)], ann(2), "") });
    assert_eq!(record.siblings().len(), 5);

    let refused = |put: Put| apply(&many, Put { limits: tight, ..put });
    assert_eq!(refused(put(&[], ann(2), "")), Applied::Refused(Refusal::TooManySiblings(5)));
    let stranger = Dot { actor: Actor(9), at: Timestamp(1) };
    assert_eq!(refused(put(&[bob(1)], stranger, "")), Applied::Refused(Refusal::ContextTooLong(6)));
    let longer = put(&[bob(1)], ann(2), "a value that is not so much shorter than the one it replaces");
    assert!(matches!(refused(longer), Applied::Refused(Refusal::RecordTooLarge(_))));
}

#[test]
fn a_record_that_knows_more_of_a_nodes_actor_than_the_node_proves_amnesia() {
    let before = after(&absent(), put(&[], ann(1), "tea"));
    let lost = after(&before, put(&[ann(1)], ann(2), "coffee"));
    let told = |record: &Record, own| {
        let change = Change::Merge { record: record.clone(), own };
        match Record::apply(&change, Some(&before)) {
            Applied::Changed { amnesia, .. } => amnesia,
            other => panic!("the merge came out as {other:?}"),
        }
    };
    assert!(told(&lost, Actor(1)), "Ann has forgotten her second write");
    assert!(!told(&lost, Actor(2)), "for Bob the same record is news");
    let change = Change::Merge { record: before.clone(), own: Actor(1) };
    assert_eq!(Record::apply(&change, Some(&lost)), Applied::Unchanged { record: lost });
}

#[test]
fn a_coordinator_whose_base_proves_amnesia_makes_no_dot() {
    let before = after(&absent(), put(&[], ann(1), "tea"));
    let lost = after(&before, attempt_of(7, put(&[], ann(2), "coffee")));
    let retry = |number| {
        let put = attempt_of(number, put(&[], ann(9), "coffee"));
        apply(&before, Put { base: Some(lost.clone()), ..put })
    };
    assert_eq!(retry(8), Applied::Refused(Refusal::Amnesia));
    // What was done already is no lie and no new dot; but the alarm must ring all the same.
    assert_eq!(
        retry(7),
        Applied::Adopted { record: lost.clone(), dot: ann(2), changed: true, amnesia: true }
    );
}

#[test]
fn a_dot_that_was_seen_already_is_not_used_again() {
    let record = after(&absent(), put(&[], ann(5), "tea"));
    for (context, dot) in [(vec![], ann(5)), (vec![], ann(4)), (vec![ann(6)], ann(6))] {
        let other = attempt_of(7, put(&context, dot, "coffee"));
        assert_eq!(apply(&record, other), Applied::Refused(Refusal::Amnesia));
    }
    // The same put once more is nothing but a retry.
    assert!(matches!(apply(&record, put(&[], ann(5), "tea")), Applied::Adopted { changed: false, .. }));
    // A client may hold a context from before the key was reaped; that is no amnesia.
    after(&absent(), put(&[ann(5)], ann(6), "coffee"));
}

#[test]
fn equal_dots_with_different_bytes_end_equal_on_both_sides() {
    // It must never happen. If it does, the replicas at least agree.
    let tea = after(&absent(), put(&[], ann(1), "tea"));
    let rum = after(&absent(), put(&[], ann(1), "rum"));
    let gone = after(&absent(), delete(&[], ann(1)));
    for (a, b, winner) in [(&tea, &rum, &tea), (&rum, &gone, &rum), (&gone, &tea, &tea)] {
        assert_eq!(&a.merged(b), winner);
        assert_eq!(&b.merged(a), winner);
        assert_eq!(a.includes(b), a == winner);
        assert_eq!(b.includes(a), b == winner);
    }
}

#[test]
fn one_operation_from_far_ahead_makes_its_key_forget_the_others() {
    let mut record = after(&absent(), attempt_of(7, put(&[], ann(1), "tea")));
    let lifetime = OPERATION_LIFETIME.as_millis() as u64;
    record = after(&record, attempt_of(7 + lifetime, put(&[], ann(2), "tea")));
    assert_eq!(record.operations().find(operation(7)), Some(ann(1)));
    record = after(&record, attempt_of(8 + lifetime, put(&[], ann(3), "tea")));
    assert_eq!(record.operations().find(operation(7)), None);
    // A retry that comes so late would make a second sibling; coordinators refuse it by its age before it gets here.
    record = after(&record, attempt_of(7, put(&[], ann(4), "tea")));
    assert_eq!(dots(&record), [ann(1), ann(2), ann(3), ann(4)]);
    assert_eq!(record.operations().find(operation(7)), None);
}

#[test]
fn merging_marks_that_are_beyond_the_window_changes_nothing() {
    let old = after(&absent(), attempt_of(1, put(&[], ann(1), "tea")));
    let busy = (2..2 + OPERATIONS_MAX as u64)
        .fold(old.clone(), |record, at| after(&record, attempt_of(at, put(&[ann(at - 1)], ann(at), "tea"))));
    assert_eq!(busy.operations().len(), OPERATIONS_MAX);
    assert!(busy.includes(&old));
    assert!(!busy.clone().merge(&old));
}

#[test]
fn the_epoch_of_a_merge_is_the_later_one() {
    let old = after(&absent(), put(&[], ann(1), "tea"));
    let mut new = old.clone();
    new.parts.epoch = ReapEpoch(3);
    assert!(!old.includes(&new) && new.includes(&old));
    assert_eq!(old.merged(&new), new);
    assert_eq!(new.merged(&old), new);
}

#[test]
fn what_is_not_canonical_does_not_decode() {
    let sound = after(&after(&absent(), put(&[], ann(1), "tea")), put(&[], bob(1), "coffee"));
    let decodes = |change: fn(&mut Parts)| {
        let mut parts = sound.parts.clone();
        change(&mut parts);
        codec::decode::<Record>(&codec::encode(&parts)).is_ok()
    };
    assert!(decodes(|_| ()));
    assert!(!decodes(|parts| parts.siblings.reverse()), "unsorted siblings");
    assert!(!decodes(|parts| parts.siblings[0] = parts.siblings[1].clone()), "a dot twice");
    assert!(!decodes(|parts| parts.context = seen(&[ann(1)])), "a sibling or a mark that was not seen");
    assert!(!decodes(|parts| parts.siblings[0].dot.at = Timestamp(0)), "a dot before every write");
}
