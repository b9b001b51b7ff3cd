//! The single faults of a run: numbered as they come up, so that each can be left out by itself.
//!
//! Which faults come up, and when, is drawn from a generator of their own. So one that is left out takes its draws with it and
//! changes nothing about the next ones; what changes is what the cluster makes of it. The crashes at chosen moments
//! ([`Kind::CrashApplied`], [`Kind::CrashDurable`]) and the lost disks ([`Kind::LostDisk`]) are numbered in the same row, but depend on what the nodes do.

use std::collections::BTreeSet;

use super::faults::Kind;
use crate::protocol::time::Moment;

/// A fault that struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Its number in the run, from 1; numbers of faults that were left out are missing.
    pub number: u32,
    /// What it was.
    pub kind: Kind,
    /// When it struck.
    pub at: Moment,
}

/// Whether faults of this kind strike one by one, now and then or at a chosen moment. The other kinds hold throughout.
#[must_use]
pub fn is_single(kind: Kind) -> bool {
    !kind.is_condition()
        || matches!(
            kind,
            Kind::CrashApplied | Kind::CrashDurable | Kind::LostDisk | Kind::RotLog | Kind::Backup
        )
}

/// Counts the faults that come up and lets those strike that are wanted.
#[derive(Debug)]
pub(super) struct Strikes {
    only: Option<BTreeSet<u32>>,
    last: u32,
    pub(super) struck: Vec<Strike>,
}

impl Strikes {
    /// With `only`, all but these are left out.
    pub(super) fn new(only: Option<BTreeSet<u32>>) -> Strikes {
        Strikes { only, last: 0, struck: Vec::new() }
    }

    /// A fault comes up. Returns its number if it strikes.
    pub(super) fn comes_up(&mut self, kind: Kind, at: Moment) -> Option<u32> {
        self.last += 1;
        let number = self.last;
        let strikes = self.only.as_ref().is_none_or(|only| only.contains(&number));
        if strikes {
            self.struck.push(Strike { number, kind, at });
        }
        strikes.then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_is_left_out_keeps_its_number() {
        let mut strikes = Strikes::new(Some(BTreeSet::from([1, 3])));
        let came: Vec<_> = (0..4).map(|at| strikes.comes_up(Kind::Crash, Moment(at))).collect();
        assert_eq!(came, [Some(1), None, Some(3), None]);
        assert_eq!(strikes.struck[1], Strike { number: 3, kind: Kind::Crash, at: Moment(2) });
        let mut all = Strikes::new(None);
        assert_eq!(
            (all.comes_up(Kind::Stop, Moment(0)), all.comes_up(Kind::Stop, Moment(0))),
            (Some(1), Some(2))
        );
    }
}
