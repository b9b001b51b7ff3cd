//! Whom this node can reach, by its own round trips and by nobody's word.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::protocol::id::NodeId;
use crate::protocol::time::Moment;

/// How many pings to one member may be unanswered and still be answered late.
const OUTSTANDING_MAX: usize = 4;

/// A member that is believed down and is not this node's to watch is tried at every period first, then ever more
/// rarely, down to once in so many.
const BACKOFF_MAX: u32 = 16;

/// What this node's own pings say of one member.
#[derive(Clone, Debug, Default)]
struct Link {
    /// Whether a ping was ever answered, and none has been waiting for too long.
    reachable: bool,
    /// When the first ping since the last answer left.
    unanswered_since: Option<Moment>,
    /// When it was last heard of directly, in whatever way.
    heard: Option<Moment>,
    /// When it last answered.
    answered: Option<Moment>,
    next_ping: Moment,
    last_ping: Option<Moment>,
    backoff: u32,
    outstanding: VecDeque<(u64, Moment)>,
}

/// The own view of the network, kept apart from what gossip believes: routing goes by this. A member counts as reachable
/// once it answered a ping of *this* node, until pings have gone unanswered for the silence that is allowed. What others
/// say of it, be it good or bad, is only a reason to ask it.
#[derive(Clone, Debug)]
pub(super) struct Links {
    links: BTreeMap<NodeId, Link>,
    /// Those that should be asked, or are being asked: never reached, in doubt, or with an answer outstanding.
    open: BTreeSet<NodeId>,
    next_number: u64,
    period: Duration,
    /// How long pings may go unanswered before a member counts as unreachable.
    patience: Duration,
    /// Counts the changes of reachability.
    version: u64,
}

/// An answer that belonged to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// When the ping left.
    pub(super) sent: Moment,
}

impl Links {
    /// No links yet. `first_number` must be random: an answer to a ping of an earlier life must not count in this one.
    pub(super) fn new(period: Duration, silence_max: Duration, first_number: u64) -> Links {
        // The first unanswered ping left up to a period after the last answer came, so this bounds the silence on average.
        let patience = silence_max.saturating_sub(period / 2).max(silence_max / 2);
        Links {
            links: BTreeMap::new(),
            open: BTreeSet::new(),
            next_number: first_number,
            period,
            patience,
            version: 0,
        }
    }

    /// How long pings may go unanswered before a member counts as unreachable, and is asked for by way of others.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Keeps links to exactly the members that `ids` tells; new ones are to be asked.
    pub(super) fn align(&mut self, ids: &BTreeSet<NodeId>) {
        self.links.retain(|id, _| ids.contains(id));
        self.open.retain(|id| ids.contains(id));
        for &id in ids {
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.links.entry(id) {
                vacant.insert(Link::default());
                self.open.insert(id);
            }
        }
    }

    /// Those that should be asked, or are being asked.
    pub(super) fn open(&self) -> impl Iterator<Item = NodeId> {
        self.open.iter().copied()
    }

    /// Notes that a ping leaves now; returns its number.
    pub(super) fn ping(&mut self, now: Moment, id: NodeId, is_rare: bool) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
        let (number, period, patience) = (self.next_number, self.period, self.patience);
        self.open.insert(id);
        let link = self.links.entry(id).or_default();
        let waiting = now.since(*link.unanswered_since.get_or_insert(now));
        // While an answer is overdue and not yet given up, ask twice as often: one lost message must not look like a lost member.
        let pause = if waiting < patience {
            link.backoff = 1;
            period / 2
        } else if is_rare {
            link.backoff = (link.backoff * 2).clamp(1, BACKOFF_MAX);
            period * link.backoff
        } else {
            link.backoff = 1;
            period
        };
        link.next_ping = now + pause;
        link.last_ping = Some(now);
        link.outstanding.push_back((number, now));
        if link.outstanding.len() > OUTSTANDING_MAX {
            link.outstanding.pop_front();
        }
        number
    }

    /// Takes an answer; `None` if it answers no ping that still counts.
    pub(super) fn answered(&mut self, now: Moment, id: NodeId, number: u64) -> Option<Answered> {
        let period = self.period;
        let link = self.links.get_mut(&id)?;
        let at = link.outstanding.iter().position(|&(sent, _)| sent == number)?;
        let (_, sent) = link.outstanding[at];
        link.outstanding.drain(..=at);
        self.open.remove(&id);
        link.unanswered_since = None;
        link.answered = Some(now);
        link.heard = Some(now);
        link.backoff = 1;
        // Not exactly a period: the observers of a member must not ask in step, so that one of them finds a death out early.
        let tenths = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 5;
        link.next_ping = (sent + period * (8 + tenths as u32) / 10).max(now + period / 4);
        if !link.reachable {
            link.reachable = true;
            self.version += 1;
        }
        Some(Answered { sent })
    }

    /// A message came directly from the member. That proves one direction only; the other is asked for at once.
    pub(super) fn heard(&mut self, now: Moment, id: NodeId) {
        let retry = self.period / 4;
        let link = self.links.entry(id).or_default();
        link.heard = Some(now);
        if !link.reachable {
            link.next_ping = link.next_ping.min(link.last_ping.map_or(now, |last| last + retry));
            link.backoff = 1;
        }
    }

    /// There is reason to doubt, or to hope, that the member can be reached: ask it now.
    pub(super) fn question(&mut self, now: Moment, id: NodeId) {
        let retry = self.period / 4;
        self.open.insert(id);
        let link = self.links.entry(id).or_default();
        link.next_ping = link.next_ping.min(link.last_ping.map_or(now, |last| (last + retry).max(now)));
        link.backoff = 1;
    }

    /// Gives up members whose answers are overdue.
    pub(super) fn expire(&mut self, now: Moment) {
        for id in &self.open {
            let Some(link) = self.links.get_mut(id) else { continue };
            if link.reachable && link.unanswered_since.is_some_and(|since| now.since(since) >= self.patience)
            {
                link.reachable = false;
                self.version += 1;
            }
        }
    }

    /// This node was not running for a while: that nobody answered meanwhile says nothing about the others.
    pub(super) fn forgive(&mut self, pause: Duration) {
        for link in self.links.values_mut() {
            link.unanswered_since = link.unanswered_since.map(|since| since + pause);
            link.heard = link.heard.map(|heard| heard + pause);
        }
    }

    /// Whether this node can reach the member now.
    pub(super) fn is_reachable(&self, id: NodeId) -> bool {
        self.links.get(&id).is_some_and(|link| link.reachable)
    }

    /// For how long pings have gone unanswered; zero if the last one was answered.
    pub(super) fn unanswered(&self, now: Moment, id: NodeId) -> Duration {
        let since = self.links.get(&id).and_then(|link| link.unanswered_since);
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// When it was last heard of directly.
    pub(super) fn last_heard(&self, id: NodeId) -> Option<Moment> {
        self.links.get(&id).and_then(|link| link.heard)
    }

    /// When it last answered a ping.
    pub(super) fn last_answered(&self, id: NodeId) -> Option<Moment> {
        self.links.get(&id).and_then(|link| link.answered)
    }

    /// When it should be asked again.
    pub(super) fn next_ping(&self, id: NodeId) -> Moment {
        self.links.get(&id).map_or(Moment::default(), |link| link.next_ping)
    }

    /// When the member is given up if no answer comes.
    pub(super) fn given_up_at(&self, id: NodeId) -> Moment {
        match self.links.get(&id) {
            Some(Link { reachable: true, unanswered_since: Some(since), .. }) => *since + self.patience,
            _ => Moment::NEVER,
        }
    }

    /// Changes whenever somebody becomes reachable or unreachable.
    pub(super) fn version(&self) -> u64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    fn links() -> Links {
        Links::new(Duration::from_secs(1), Duration::from_secs(2), 100)
    }

    #[test]
    fn only_an_answer_to_an_own_ping_makes_a_member_reachable() {
        let mut links = links();
        links.heard(at(0), PEER);
        assert!(!links.is_reachable(PEER), "being heard proves one direction only");
        let number = links.ping(at(0), PEER, false);
        assert_eq!(links.answered(at(10), PEER, number + 1), None);
        assert!(!links.is_reachable(PEER));
        assert_eq!(links.answered(at(20), PEER, number), Some(Answered { sent: at(0) }));
        assert!(links.is_reachable(PEER));
    }

    #[test]
    fn silence_is_asked_about_twice_as_often_and_then_believed() {
        let mut links = links();
        let number = links.ping(at(0), PEER, false);
        links.answered(at(10), PEER, number);
        let next = links.next_ping(PEER);
        assert!(next >= at(800) && next <= at(1_200), "{next:?}");
        links.links.get_mut(&PEER).unwrap().next_ping = at(1_000);
        for ms in [1_000, 1_500, 2_000] {
            assert_eq!(links.next_ping(PEER), at(ms));
            links.ping(at(ms), PEER, false);
            links.expire(at(ms));
            assert!(links.is_reachable(PEER));
        }
        assert_eq!(links.given_up_at(PEER), at(2_500));
        links.expire(at(2_500));
        assert!(!links.is_reachable(PEER));
    }

    #[test]
    fn a_lost_ping_is_made_up_for() {
        let mut links = links();
        links.ping(at(0), PEER, false);
        let second = links.ping(at(500), PEER, false);
        assert!(links.answered(at(600), PEER, second).is_some());
        links.expire(at(2_000));
        assert!(links.is_reachable(PEER));
        assert_eq!(links.unanswered(at(2_000), PEER), Duration::ZERO);
    }

    #[test]
    fn the_dead_are_tried_ever_more_rarely_until_there_is_hope() {
        let mut links = links();
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            links.ping(now, PEER, true);
            let next = links.next_ping(PEER);
            pauses.push(next.since(now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [500, 500, 500, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000, 16_000]);
        links.heard(now - Duration::from_secs(5), PEER);
        assert!(links.next_ping(PEER) <= now);
    }

    #[test]
    fn time_asleep_is_no_evidence() {
        let mut links = links();
        let number = links.ping(at(0), PEER, false);
        links.answered(at(10), PEER, number);
        links.ping(at(1_000), PEER, false);
        links.forgive(Duration::from_secs(300));
        links.expire(at(301_500));
        assert!(links.is_reachable(PEER));
    }
}
