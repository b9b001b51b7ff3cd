//! Bugs planted for the proof of the simulator's judges. Compiled into tests only.
//!
//! Most of them are spoiled from outside: by the simulated disk, network or start of a node. The rest can only live
//! inside the protocol, and there one line asks [`is`]. What each of them does, where it was seen and what finds it is in
//! the bank beside the simulator.

use std::cell::Cell;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Planted {
    ActorSurvives,
    ActorInTheBackup,
    BareWrite,
    DurableBeforeTheSync,
    ReadBeforeDurable,
    AtomicInNameOnly,
    PutCoordinatedTwice,
    RetryIsANewPut,
    UnknownAsNotApplied,
    LimitOnRepairs,
    FutureRefused,
    SumsOutliveACrash,
    OneDotForTwoPuts,
    EqualDotsDropped,
    DeadForgotten,
    IncarnationStays,
    HearsayRoutes,
    LaterClockWins,
    ContextOfSiblings,
    ContextOfAnotherKey,
    ForgedContext,
    LastAttemptDecides,
    LostAsAbsent,
    ClockFollowsTheWall,
    AckUnchecked,
    ForwardedAgain,
    ReapWithoutAll,
    StrangersAnswer,
    LoggedAsNotApplied,
    HintForStrict,
    HintTriedOnce,
    /// No bug of the bank: a node panics, which every run has to survive.
    Panics,
    LogCutInTheMiddle,
    VotelessAnswers,
    LateAccepted,
    LateMeetsRecreated,
    HintsAreNoObstacle,
    FeedMerges,
    ActorKept,
    VoteBeforeTheRefill,
    BackupsUnnoticed,
    SilentAcks,
}

thread_local! {
    /// A simulated run has one thread, and a record is changed by a function that knows of no configuration.
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Whether this bug is planted in the run that goes on in this thread.
pub(crate) fn is(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug, or none, until what is returned is dropped.
pub(crate) fn plant(bug: Option<Planted>) -> Bed {
    Bed { before: PLANTED.replace(bug) }
}

/// While it lives a bug is planted.
#[must_use]
#[derive(Debug)]
pub(crate) struct Bed {
    before: Option<Planted>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        PLANTED.set(self.before);
    }
}
