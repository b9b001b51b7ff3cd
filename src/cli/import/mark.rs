//! How far an import has come: a Low-Water Mark (*Patterns of Distributed Systems*) over records that finish in any
//! order.

use std::collections::BTreeMap;

/// The position up to which everything is done. Records are handed out in the order of the file and finish in any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Unfinished and finished records above the mark: where each begins, and where it ends if it is done.
    open: BTreeMap<u64, Option<u64>>,
    done: u64,
}

impl Mark {
    /// Everything below `done` is done.
    pub(crate) fn new(done: u64) -> Mark {
        Mark { open: BTreeMap::new(), done }
    }

    /// A record that begins at `start` is under way.
    pub(crate) fn begin(&mut self, start: u64) {
        self.open.insert(start, None);
    }

    /// The record that began at `start` and ends at `end` is done.
    pub(crate) fn finish(&mut self, start: u64, end: u64) {
        self.open.insert(start, Some(end));
        while let Some(first) = self.open.first_entry() {
            let Some(end) = *first.get() else { return };
            self.done = end;
            first.remove();
        }
    }

    /// The position below which nothing is missing.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stops_at_the_first_record_that_is_not_done() {
        let mut mark = Mark::new(5);
        for start in [5, 10, 20] {
            mark.begin(start);
        }
        mark.finish(10, 20);
        assert_eq!(mark.done(), 5);
        mark.finish(5, 10);
        assert_eq!(mark.done(), 20);
        mark.finish(20, 31);
        assert_eq!(mark.done(), 31);
    }
}
