//! What has to come of a step, compared with what came of it.

use std::collections::BTreeSet;

use super::stage::{Holding, Where};
use crate::protocol::wire::client::{Health, Outcome};

/// One `expect` of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Where it stands.
    pub line: usize,
    /// As it stands there.
    pub text: String,
    /// The world that it is meant for; both if none is named.
    pub place: Option<Where>,
    /// It holds if one of these does.
    pub any_of: Vec<Fact>,
}

/// Something that is so or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A write was answered so.
    Outcome(Outcome),
    /// A read was not answered.
    Unavailable,
    /// A read found these values, no more and no fewer.
    Values(BTreeSet<String>),
    /// This is the value with the newest timestamp.
    Latest(String),
    /// There were so many values.
    Siblings(usize),
    /// A read found that the key was deleted.
    Deleted,
    /// A read found that nobody knows of the key.
    Absent,
    /// These owners acknowledged a write, and no others.
    Acks(BTreeSet<String>),
    /// These nodes keep hints of a write for owners, and no others.
    Hinted(BTreeSet<String>),
    /// These owners replied to a read, and no others.
    Replies(BTreeSet<String>),
    /// All owners hold equal records, or not.
    ReplicasEqual(bool),
    /// An owner holds this.
    Holds(String, Holding),
    /// What is believed of a member.
    Member(String, Belief),
}

/// What a node may believe of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// What gossip says.
    Health(Health),
    /// Whether the node itself can reach it now.
    Reachable(bool),
}

/// What came of a step, in the words of the script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Of a write.
    pub outcome: Option<Outcome>,
    /// A read or a question that was not answered.
    pub unavailable: bool,
    /// What a read found.
    pub values: Option<BTreeSet<String>>,
    /// The value with the newest timestamp.
    pub latest: Option<String>,
    /// How many values there were.
    pub siblings: Option<usize>,
    /// Whether a read said that the key was deleted.
    pub deleted: bool,
    /// Who acknowledged.
    pub acks: BTreeSet<String>,
    /// Who keeps a hint.
    pub hinted: BTreeSet<String>,
    /// Who replied.
    pub replies: BTreeSet<String>,
    /// Who holds what; `None` for an owner that did not say.
    pub holdings: Vec<(String, Option<Holding>)>,
    /// Whether the records are equal to the last byte.
    pub equal: bool,
    /// What is believed of the members.
    pub members: Vec<(String, Health, bool)>,
    /// Why it did not come to more: the stable name of the problem.
    pub problem: Option<&'static str>,
}

impl Expectation {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, found: &Finding) -> bool {
        self.any_of.iter().any(|fact| fact.holds(found))
    }

    /// Whether it is meant for this world.
    #[must_use]
    pub fn is_for(&self, place: Where) -> bool {
        self.place.is_none_or(|meant| meant == place)
    }
}

impl Fact {
    fn holds(&self, found: &Finding) -> bool {
        let values = found.values.as_ref();
        match self {
            Fact::Outcome(outcome) => found.outcome == Some(*outcome),
            Fact::Unavailable => found.unavailable,
            Fact::Values(wanted) => values == Some(wanted),
            Fact::Latest(wanted) => found.latest.as_ref() == Some(wanted),
            Fact::Siblings(wanted) => found.siblings == Some(*wanted),
            Fact::Deleted => values.is_some_and(BTreeSet::is_empty) && found.deleted,
            Fact::Absent => values.is_some_and(BTreeSet::is_empty) && !found.deleted,
            Fact::Acks(wanted) => found.acks == *wanted,
            Fact::Hinted(wanted) => found.hinted == *wanted,
            Fact::Replies(wanted) => found.replies == *wanted,
            Fact::ReplicasEqual(wanted) => {
                let all_told = found.holdings.iter().all(|(_, held)| held.is_some());
                !found.holdings.is_empty() && all_told && found.equal == *wanted
            }
            Fact::Holds(node, wanted) => {
                found.holdings.iter().any(|(name, held)| name == node && held.as_ref() == Some(wanted))
            }
            Fact::Member(node, belief) => {
                found.members.iter().any(|(name, health, reachable)| match belief {
                    _ if name != node => false,
                    Belief::Health(wanted) => health == wanted,
                    Belief::Reachable(wanted) => reachable == wanted,
                })
            }
        }
    }

    /// The verbs after which it makes sense.
    pub(super) fn verbs(&self) -> &'static [&'static str] {
        match self {
            Fact::Outcome(_) | Fact::Acks(_) | Fact::Hinted(_) => &["put", "delete"],
            Fact::Siblings(_) => &["put", "get", "delete"],
            Fact::Unavailable => &["get", "explain", "members"],
            Fact::Values(_) | Fact::Latest(_) | Fact::Deleted | Fact::Absent | Fact::Replies(_) => &["get"],
            Fact::ReplicasEqual(_) | Fact::Holds(..) => &["explain"],
            Fact::Member(..) => &["members"],
        }
    }
}
