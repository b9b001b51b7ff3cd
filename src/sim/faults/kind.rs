//! The kinds of faults, and their names.

/// A kind of fault: either one that strikes now and then, or a condition that holds throughout the safety phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A machine loses power and starts again.
    Crash,
    /// A node is stopped in good order and starts again.
    Stop,
    /// A process stands still for a while.
    Pause,
    /// The network falls into groups: two, three, or two that share one node.
    Partition,
    /// One node hears nothing or is not heard, or a group does not hear the rest.
    OneWay,
    /// One link is cut, or any of them, or each node only reaches the next one.
    Odd,
    /// A link delays everything by seconds.
    Clog,
    /// A wall clock is set.
    Jump,
    /// A disk becomes slow.
    SlowDisk,
    /// A sync fails: the node has to stop rather than guess what reached the disk.
    SyncError,
    /// A disk is full for a while: writes are refused, reads go on.
    FullDisk,
    /// The clients fall silent for a while.
    Idle,
    /// A whole scripted figure is played: see `figures.rs`.
    Figures,
    /// Condition: machines lose power right after their disk applied a write, before it is durable.
    CrashApplied,
    /// Condition: machines lose power right after a sync.
    CrashDurable,
    /// Condition: every message takes its time, some very long.
    Delay,
    /// Condition: messages are lost.
    Loss,
    /// Condition: messages arrive twice.
    Duplicate,
    /// Condition: messages overtake each other.
    Reorder,
    /// Condition: syncs take their time.
    Sync,
    /// Condition: what clients ask or are answered is lost.
    ClientLoss,
    /// Condition: wall clocks are off.
    Skew,
    /// Condition: monotonic clocks run too fast or too slow.
    Drift,
    /// A bit of a record in a store flips, or a store is opened without one of its records; of one node at a time, and
    /// only what the other owners hold.
    Rot,
    /// Condition: machines come back without their disk, never a second one before the first is whole again.
    LostDisk,
    /// Condition: machines come back with a log that is damaged in the middle, which is as good as a lost disk.
    RotLog,
    /// Condition: messages with records in them arrive once more, much later, even at a node that has restarted meanwhile.
    Echo,
    /// Condition: machines start from a copy of their disk that was made earlier, often a moment before they lost power, and
    /// that somebody can tell from what he remembers; the disk that was in its place may come back later.
    Backup,
}

/// All kinds, with the names by which people choose them.
pub const KINDS: [(Kind, &str); 28] = [
    (Kind::Crash, "crash"),
    (Kind::Stop, "stop"),
    (Kind::Pause, "pause"),
    (Kind::Partition, "partition"),
    (Kind::OneWay, "one-way"),
    (Kind::Odd, "odd"),
    (Kind::Clog, "clog"),
    (Kind::Jump, "jump"),
    (Kind::SlowDisk, "slow-disk"),
    (Kind::SyncError, "sync-error"),
    (Kind::FullDisk, "full-disk"),
    (Kind::Idle, "idle"),
    (Kind::Figures, "figures"),
    (Kind::CrashApplied, "crash-applied"),
    (Kind::CrashDurable, "crash-durable"),
    (Kind::Delay, "delay"),
    (Kind::Loss, "loss"),
    (Kind::Duplicate, "duplicate"),
    (Kind::Reorder, "reorder"),
    (Kind::Sync, "sync"),
    (Kind::ClientLoss, "client-loss"),
    (Kind::Skew, "skew"),
    (Kind::Drift, "drift"),
    (Kind::Rot, "rot"),
    (Kind::LostDisk, "lost-disk"),
    (Kind::RotLog, "rot-log"),
    (Kind::Echo, "echo"),
    (Kind::Backup, "backup"),
];

/// Faults that nothing strikes with yet, since what defends against them is a later feature: the fault, and what it waits for.
pub const WAITING: [(&str, &str); 1] = [("joins, leaves, removals and replacements", "ring changes")];

impl Kind {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("?", |(_, name)| name)
    }

    /// The kind of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Kind> {
        KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// Whether it holds throughout instead of striking now and then.
    #[must_use]
    pub fn is_condition(self) -> bool {
        self >= Kind::CrashApplied && self != Kind::Rot
    }

    /// How many seeds in a thousand draw it.
    pub(super) fn per_mille(self) -> u32 {
        match self {
            Kind::Delay | Kind::Sync | Kind::Skew => 750,
            Kind::Loss => 600,
            Kind::Drift => 650,
            kind if kind.is_condition() => 500,
            _ => 400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_kinds() {
        for (kind, name) in KINDS {
            assert_eq!((Kind::of_name(name), kind.name()), (Some(kind), name));
        }
        assert_eq!(Kind::of_name("earthquake"), None);
    }
}
