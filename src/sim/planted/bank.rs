//! The bank: every planted bug with what finds it, and those that wait for the feature which they would spoil.
//!
//! This table drives the hunts, and a test holds `docs/planted-bugs.md` against it.

use super::Planted;
use super::profiles::{self, Profile};
use crate::sim::invariants::Invariant;

/// One planted bug.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) bug: Planted,
    /// On the project's list; "own" if it is not there.
    pub(super) number: &'static str,
    pub(super) name: &'static str,
    /// The store that shipped it, or the schedule that showed it to us.
    pub(super) seen_in: &'static str,
    pub(super) profile: Profile,
    /// Those that may find it. The others are not asked.
    pub(super) judges: &'static [Invariant],
    /// Within how many seeds it has to be found, whatever the first one.
    pub(super) budget: u64,
}

/// A bug whose feature does not exist yet, or whose harm cannot be done yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: &'static str,
    pub(super) name: &'static str,
    pub(super) waits_for: &'static str,
}

use Invariant::{
    AtomicReads, Convergence, DurableReads, ExactSiblings, HintsDrain, HonestContexts, Incarnations,
    Liveness, NoLostWrite, NoResurrection, OneDotOneValue, Outcomes, RegularReads, Sane,
};

const OWN: &str = "our own model";

/// All planted bugs.
pub(super) const BANK: &[Entry] = &[
    Entry {
        bug: Planted::ActorSurvives,
        number: "1",
        name: "the actor survives a restart",
        seen_in: "Riak kv#679",
        profile: profiles::CRASHES,
        judges: &[NoLostWrite, RegularReads, OneDotOneValue],
        budget: 200,
    },
    Entry {
        bug: Planted::ActorInTheBackup,
        number: "1b",
        name: "the actor survives in a clean backup",
        seen_in: "Riak kv#679",
        profile: profiles::BACKUPS,
        judges: &[NoLostWrite, OneDotOneValue],
        budget: 200,
    },
    Entry {
        bug: Planted::BareWrite,
        number: "3",
        name: "the bare write is shipped instead of the merged record",
        seen_in: "dotted version vector theory",
        profile: profiles::SWARM,
        judges: &[NoLostWrite, RegularReads, NoResurrection],
        budget: 50,
    },
    Entry {
        bug: Planted::DurableBeforeTheSync,
        number: "4",
        name: "acknowledged before the flush",
        seen_in: "sled's default of 500 ms",
        profile: profiles::CRASHES,
        judges: &[NoLostWrite, RegularReads, OneDotOneValue, Incarnations],
        budget: 100,
    },
    Entry {
        bug: Planted::ReadBeforeDurable,
        number: "5",
        name: "a read answers from what is applied but not durable",
        seen_in: "scylladb#6299",
        profile: profiles::READ_AND_CRASH,
        judges: &[DurableReads, RegularReads, NoLostWrite],
        budget: 400,
    },
    Entry {
        bug: Planted::HintForStrict,
        number: "6",
        name: "a hint counts towards a strict W",
        seen_in: "Dynamo's sloppy quorum",
        profile: profiles::HINTS,
        judges: &[RegularReads],
        budget: 50,
    },
    Entry {
        bug: Planted::HintTriedOnce,
        number: "7",
        name: "a hint is dropped after one replay",
        seen_in: "scylladb#7976",
        profile: profiles::HINTS,
        judges: &[HintsDrain],
        budget: 20,
    },
    Entry {
        bug: Planted::PutCoordinatedTwice,
        number: "11",
        name: "a put that is passed on is coordinated twice",
        seen_in: "Riak kv#1046",
        profile: profiles::RETRIES,
        judges: &[NoResurrection, ExactSiblings],
        budget: 400,
    },
    Entry {
        bug: Planted::RetryIsANewPut,
        number: "12",
        name: "a retry makes a second sibling",
        seen_in: "Cassandra's counters",
        profile: profiles::RETRIES,
        judges: &[NoResurrection, ExactSiblings],
        budget: 400,
    },
    Entry {
        bug: Planted::UnknownAsNotApplied,
        number: "13",
        name: "an unknown outcome is answered as not applied",
        seen_in: "scylladb#7258",
        profile: profiles::TIMEOUTS,
        judges: &[Outcomes],
        budget: 200,
    },
    Entry {
        bug: Planted::SumsOutliveACrash,
        number: "14",
        name: "the hash tree is not updated with the record across a crash",
        seen_in: OWN,
        profile: profiles::CRASHES_AMONG_MANY,
        judges: &[Convergence],
        budget: 100,
    },
    Entry {
        bug: Planted::LimitOnRepairs,
        number: "15",
        name: "the limit of siblings holds for repairs too",
        seen_in: "Riak kv#1156",
        profile: profiles::SIBLINGS,
        judges: &[Convergence, Liveness],
        budget: 100,
    },
    Entry {
        bug: Planted::FutureRefused,
        number: "16",
        name: "a record ahead of the local clock is refused",
        seen_in: OWN,
        profile: profiles::SKEW,
        judges: &[Convergence, Liveness],
        budget: 50,
    },
    Entry {
        bug: Planted::OneDotForTwoPuts,
        number: "17",
        name: "two puts of one millisecond get one dot",
        seen_in: "Riak 7954772f",
        profile: profiles::BUSY,
        judges: &[OneDotOneValue],
        budget: 50,
    },
    Entry {
        bug: Planted::EqualDotsDropped,
        number: "17b",
        name: "of equal dots with different bytes either is dropped, and nobody looks at dots",
        seen_in: "Riak 7954772f",
        profile: profiles::BUSY,
        judges: &[NoLostWrite, RegularReads],
        budget: 50,
    },
    Entry {
        bug: Planted::DeadForgotten,
        number: "18",
        name: "the dead are forgotten, so that halves never merge",
        seen_in: "memberlist#222",
        profile: profiles::LONG_PARTITIONS,
        judges: &[Liveness],
        budget: 100,
    },
    Entry {
        bug: Planted::IncarnationStays,
        number: "19",
        name: "the incarnation is not raised at a restart",
        seen_in: "scylladb#3331",
        profile: profiles::CRASHES,
        judges: &[Incarnations],
        budget: 20,
    },
    Entry {
        bug: Planted::HearsayRoutes,
        number: "21",
        name: "indirect liveness is taken for reachability",
        seen_in: "scylladb#8488",
        profile: profiles::HURRY_BEHIND_CUTS,
        judges: &[Liveness],
        budget: 200,
    },
    Entry {
        bug: Planted::LaterClockWins,
        number: "25",
        name: "a merge keeps what has the later wall clock",
        seen_in: "aphyr on last-writer-wins",
        profile: profiles::CONFLICTS,
        judges: &[NoLostWrite, RegularReads],
        budget: 50,
    },
    Entry {
        bug: Planted::ContextOfSiblings,
        number: "26",
        name: "a put answers with the record's context although siblings remain",
        seen_in: OWN,
        profile: profiles::CONFLICTS,
        judges: &[NoLostWrite, RegularReads],
        budget: 50,
    },
    Entry {
        bug: Planted::ContextOfAnotherKey,
        number: "27",
        name: "the context of another key is accepted",
        seen_in: OWN,
        profile: profiles::WRONG_CONTEXTS,
        judges: &[NoLostWrite, RegularReads, Outcomes, ExactSiblings],
        budget: 100,
    },
    Entry {
        bug: Planted::ForgedContext,
        number: "27b",
        name: "a forged context is accepted",
        seen_in: OWN,
        profile: profiles::WRONG_CONTEXTS,
        judges: &[NoLostWrite, RegularReads, Outcomes, ExactSiblings],
        budget: 200,
    },
    Entry {
        bug: Planted::LastAttemptDecides,
        number: "31",
        name: "the outcome of an operation is that of its last attempt",
        seen_in: OWN,
        profile: profiles::TIMEOUTS,
        judges: &[Outcomes],
        budget: 100,
    },
    Entry {
        bug: Planted::LostAsAbsent,
        number: "32",
        name: "a lost record is answered as absent",
        seen_in: OWN,
        profile: profiles::CRASHES,
        judges: &[NoLostWrite, RegularReads],
        budget: 200,
    },
    Entry {
        bug: Planted::ClockFollowsTheWall,
        number: "own 1",
        name: "an actor's clock follows the wall when that goes back",
        seen_in: OWN,
        profile: profiles::JUMPS,
        judges: &[OneDotOneValue],
        budget: 100,
    },
    Entry {
        bug: Planted::AckUnchecked,
        number: "own 2",
        name: "the entry in an acknowledgement is not checked",
        seen_in: OWN,
        profile: profiles::UNMERGED_ACKS,
        judges: &[NoLostWrite, RegularReads],
        budget: 50,
    },
    Entry {
        bug: Planted::ForwardedAgain,
        number: "own 3",
        name: "what was passed on is passed on again, in a circle",
        seen_in: OWN,
        profile: profiles::SKEW,
        judges: &[Sane, Liveness],
        budget: 100,
    },
    Entry {
        bug: Planted::StrangersAnswer,
        number: "own 4",
        name: "a node answers for a slot that it does not own",
        seen_in: OWN,
        profile: profiles::ABSENCES,
        judges: &[NoLostWrite, RegularReads],
        budget: 200,
    },
    Entry {
        bug: Planted::LoggedAsNotApplied,
        number: "own 5",
        name: "a coordinator that has logged answers not applied",
        seen_in: OWN,
        profile: profiles::TIMEOUTS,
        judges: &[Outcomes],
        budget: 50,
    },
    Entry {
        bug: Planted::AtomicInNameOnly,
        number: "own 6",
        name: "an atomic read is answered before its write-back",
        seen_in: "Attiya, Bar-Noy and Dolev, 1995",
        profile: profiles::ATOMIC,
        judges: &[AtomicReads],
        budget: 400,
    },
    Entry {
        bug: Planted::ReapWithoutAll,
        number: "8",
        name: "a tombstone is reaped with one owner down",
        seen_in: "Cassandra's gc_grace",
        profile: profiles::REAPS,
        judges: &[NoResurrection, RegularReads, Convergence, Liveness, ExactSiblings],
        budget: 400,
    },
    Entry {
        bug: Planted::HintsAreNoObstacle,
        number: "9",
        name: "a tombstone is reaped while a hint holds an older dot",
        seen_in: "scylladb#23712",
        profile: profiles::REAPED_HINTS,
        judges: &[NoResurrection, RegularReads, Convergence, ExactSiblings, HonestContexts],
        budget: 400,
    },
    Entry {
        bug: Planted::LateMeetsRecreated,
        number: "10",
        name: "a late fallback record meets a re-created key",
        seen_in: "Riak kv#1094",
        profile: profiles::ECHOES,
        judges: &[NoResurrection, RegularReads, Convergence, ExactSiblings, HonestContexts],
        budget: 400,
    },
    Entry {
        bug: Planted::LateAccepted,
        number: "28",
        name: "a late repair is accepted after a reap",
        seen_in: OWN,
        profile: profiles::ECHOES,
        judges: &[NoResurrection, RegularReads, Convergence, ExactSiblings, HonestContexts],
        budget: 400,
    },
    Entry {
        bug: Planted::FeedMerges,
        number: "29",
        name: "replay or feeding merges instead of replacing",
        seen_in: OWN,
        profile: profiles::LAGGING_REAPS,
        judges: &[NoResurrection, RegularReads, Convergence, ExactSiblings, HonestContexts],
        budget: 400,
    },
    Entry {
        bug: Planted::LogCutInTheMiddle,
        number: "30",
        name: "the log is cut at a bad entry in the middle",
        seen_in: OWN,
        profile: profiles::DAMAGED_LOGS,
        judges: &[NoLostWrite, RegularReads, DurableReads, HonestContexts, Incarnations],
        budget: 400,
    },
    Entry {
        bug: Planted::ActorKept,
        number: "2",
        name: "the actor is kept after what it wrote was lost",
        seen_in: "Riak kv#1643",
        profile: profiles::ROT,
        judges: &[NoLostWrite, RegularReads, HonestContexts],
        budget: 400,
    },
    Entry {
        bug: Planted::VotelessAnswers,
        number: "32b",
        name: "a node without a vote answers that what it lost is absent",
        seen_in: OWN,
        profile: profiles::LOST_DISKS,
        judges: &[RegularReads, AtomicReads, DurableReads],
        budget: 200,
    },
    Entry {
        bug: Planted::VoteBeforeTheRefill,
        number: "own 7",
        name: "a node votes as soon as the others know of its loss",
        seen_in: OWN,
        profile: profiles::LOST_DISKS,
        judges: &[RegularReads, AtomicReads, DurableReads],
        budget: 200,
    },
];

/// What waits, and for what.
pub(super) const WAITING: &[Waiting] = &[
    waiting("20", "a removed member returns by gossip", "removal of members"),
    waiting("22", "reads move to a joining node before its sync is done", "ring changes"),
    waiting("23", "the write quorum is in the new ring only", "ring changes"),
    waiting("24", "two nodes join at once with overlapping ranges", "ring changes"),
    waiting("33-40", "the eight schedules that broke the rules of ring changes", "ring changes"),
];

const fn waiting(number: &'static str, name: &'static str, waits_for: &'static str) -> Waiting {
    Waiting { number, name, waits_for }
}

/// The entry of a bug.
pub(super) fn entry(bug: Planted) -> &'static Entry {
    BANK.iter().find(|entry| entry.bug == bug).expect("every bug is in the bank")
}
