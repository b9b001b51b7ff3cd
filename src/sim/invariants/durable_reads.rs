//! Invariant 15: what was read is durable.
//!
//! Once any read, of any level, has shown a value, every later read of all owners shows it, or what took its place by
//! an unbroken chain of writes whose clients had been shown the one before; whatever crashed in between, and however
//! the write itself ended. A replica that answers from a state that a crash can undo breaks this.
//!
//! Without lost disks this holds without exception. A value that was read once, and not by an atomic read, may have been
//! on one disk alone if its write was not committed by a majority: with lost disks it is not owed.
//!
//! The check is linear in the writes that nothing known to have happened took the place of, as that of
//! [`regular_reads`](super::regular_reads).

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Basis, History, WriteId};
use super::supersession::Writes;
use super::{Invariant, Violation, seconds};

/// Judges every read of all owners against all reads that were answered before it began.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    history
        .by_key()
        .into_iter()
        .filter_map(|(key, operations)| judge_key(history, key, &operations))
        .collect()
}

fn judge_key(history: &History, key: &bytes::Bytes, operations: &[usize]) -> Option<Violation> {
    let answered = |index: &&usize| history.operations[**index].as_answered();
    let is_complete =
        |index: &&usize| answered(index).is_some_and(|(r, _)| r.of(history.owners) == history.owners);
    let mut complete: Vec<usize> = operations.iter().filter(is_complete).copied().collect();
    if complete.is_empty() {
        return None;
    }
    complete.sort_by_key(|&index| history.operations[index].invoked);
    let mut earlier: Vec<usize> =
        operations.iter().filter(|index| answered(index).is_some()).copied().collect();
    earlier.sort_by_key(|&index| history.operations[index].ended);
    let mut earlier = earlier.into_iter().peekable();
    let writes = Writes::of(history, operations);
    // What was shown, by which read first, and is not known to have been superseded by something that was shown.
    let mut binding: BTreeMap<WriteId, usize> = BTreeMap::new();
    let mut met: BTreeSet<WriteId> = BTreeSet::new();
    let mut settled: BTreeSet<WriteId> = BTreeSet::new();
    for index in complete {
        let read = &history.operations[index];
        while let Some(before) = earlier.next_if(|&before| history.operations[before].ended < read.invoked) {
            let Some((_, seen)) = history.operations[before].as_answered() else { continue };
            let is_owed = |id: WriteId| {
                let is_committed = writes.get(id).is_some_and(|write| write.is_committed());
                history.shows_for_good(&history.operations[before], is_committed)
            };
            for (id, _) in seen.values.iter().filter(|(id, _)| is_owed(*id) && met.insert(*id)) {
                if let Some(Basis::Shown(shown)) = writes.get(*id).map(|write| write.basis) {
                    // What explains this one explains those as well.
                    shown.iter().for_each(|superseded| {
                        binding.remove(superseded);
                        settled.insert(*superseded);
                    });
                }
                if !settled.contains(id) {
                    binding.insert(*id, before);
                }
            }
        }
        let (_, seen) = read.as_answered()?;
        let visible = seen.ids();
        let lost = binding.iter().find(|(id, _)| !writes.is_explained(**id, &visible, read.ended));
        if let Some((id, &first)) = lost {
            let first = &history.operations[first];
            let evidence = format!(
                "c{} was shown {id} at {}; between {} and {} c{} read from all owners and was shown {visible:?}, and nobody \
                 who had been shown {id} wrote anything that led there",
                first.client,
                seconds(first.ended),
                seconds(read.invoked),
                seconds(read.ended),
                read.client,
            );
            let begun = writes.get(*id).map_or(first.invoked, |write| write.operation.invoked);
            return Some(Violation::of_key(Invariant::DurableReads, key, (begun, read.ended), evidence));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Story;
    use super::*;
    use crate::protocol::time::Moment;
    use crate::protocol::wire::client::Level;

    #[test]
    fn what_was_shown_once_and_is_gone_is_reported_even_if_its_write_is_of_unknown_outcome() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..10).read_of(Level::One, &[1], 20..30).remains(&[]);
        let violations = judge(&story.history);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].evidence.contains("shown v1"), "{}", violations[0]);
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..10).read_of(Level::One, &[1], 20..30).remains(&[1]);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn what_took_its_place_will_do_along_an_unbroken_chain_only() {
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read(&[1], 20..30).unknown_put(2, &[1], 40..50).put(3, &[2], 60..70);
        story.remains(&[3]);
        assert_eq!(judge(&story.history), []);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read(&[1], 20..30).put(3, &[], 60..70).remains(&[3]);
        assert_eq!(judge(&story.history).len(), 1);
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read(&[1], 20..30).put(2, &[1], 40..50).read(&[2], 60..70).remains(&[]);
        assert_eq!(judge(&story.history).len(), 1, "v2 was shown, took the place of v1, and is gone");
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read(&[1], 20..30).delete(2, &[1], 40..50).remains(&[]);
        assert_eq!(judge(&story.history), []);
    }

    #[test]
    fn with_lost_disks_committed_writes_and_atomic_reads_are_owed_and_nothing_else() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..10).read_of(Level::One, &[1], 20..30).remains(&[]);
        story.history.lost_disks = vec![(Moment(35), 0)];
        assert_eq!(judge(&story.history), []);
        story.history.lost_disks = vec![(Moment(15), 0)];
        assert_eq!(judge(&story.history).len(), 1, "no disk was lost since");
        let mut story = Story::new(3);
        story.put(1, &[], 0..10).read_of(Level::One, &[1], 20..30).remains(&[]);
        story.history.lost_disks = vec![(Moment(35), 0)];
        assert_eq!(judge(&story.history).len(), 1);
    }

    #[test]
    fn a_read_beside_the_one_that_showed_it_or_of_fewer_owners_owes_nothing() {
        let mut story = Story::new(3);
        story.unknown_put(1, &[], 0..10).read_of(Level::One, &[1], 20..30);
        story.read_of(Level::All, &[], 25..35).read(&[], 40..50);
        assert_eq!(judge(&story.history), []);
        story.read_of(Level::All, &[], 60..70);
        assert_eq!(judge(&story.history).len(), 1);
    }
}
