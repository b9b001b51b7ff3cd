//! Who watches whom, and when silence becomes a suspicion, and a suspicion a verdict.
//!
//! ```text
//!             no answer for           no helper           no refutation
//!             silence_max             got one either      for suspicion
//!   Alive ─────────────────▶ asking ───────────────▶ Suspect ───────────▶ Down
//!     ▲                        │ a helper vouches       │                   │
//!     └────────────────────────┘                        │                   │
//!     └──────────── the member raises its version ◀─────┴───────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::book::Book;
use super::reachability::Links;
use crate::protocol::config::MembershipConfig;
use crate::protocol::id::NodeId;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::Health;

/// Up to so many live members, everybody watches everybody: then each node's own view of reachability, by which
/// requests are routed, is complete and never older than a period.
pub(super) const ALL_WATCH_MAX: usize = 8;

/// The most members believed gone that a node watches: whoever is left alone with the names of a thousand others tries these at
/// every period, and the rest now and then.
const GONE_WATCHED_MAX: usize = 32;

/// A member that is heard but does not answer is believed to be slow, for so many times the silence that is allowed. After that
/// it counts as deaf.
const DEAF_AFTER: u32 = 3;

/// The most steps by which an unsteady observer stretches its timeouts.
const UNSTEADY_MAX: u32 = 3;

/// The most steps for an observer to which nobody answers: it cannot tell whether it is cut off or the only survivor, and
/// must reach a verdict in the end.
const CUT_OFF_MAX: u32 = 2;

/// What is to be done about a member that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Ask others whether they can reach it.
    Ask(NodeId),
    /// Believe this of it, and say so.
    Accuse(NodeId, Health),
}

/// One member's silence, as far as it was followed up.
#[derive(Clone, Copy, Debug, Default)]
struct Case {
    asked: Option<Moment>,
    vouched: Option<Moment>,
    suspected: Option<Moment>,
}

/// The failure detector: HeartBeat (*Patterns of Distributed Systems*) with the indirect probes and refutable suspicions of
/// SWIM (Das, Gupta, Motivala, 2002) and the local health of Lifeguard (Dadgar, Phillips, Currey, 2017).
///
/// Its verdicts are opinions: they change what people see and where hints go, never the ring.
#[derive(Clone, Debug)]
pub(super) struct Detector {
    period: Duration,
    suspicion: Duration,
    observers: usize,
    cases: BTreeMap<NodeId, Case>,
    /// How far this node distrusts itself: its timeouts are multiplied by one more than this.
    unsteady: u32,
}

impl Detector {
    pub(super) fn new(config: &MembershipConfig) -> Detector {
        Detector {
            period: config.period,
            suspicion: config.suspicion,
            observers: config.observers.max(1),
            cases: BTreeMap::new(),
            unsteady: 0,
        }
    }

    /// The members that `own` watches: those whose first successors in the order of hashed ids it belongs to. The members that
    /// are believed gone are watched too, for they may come back, but they watch nobody.
    pub(super) fn watched(&self, own: NodeId, book: &Book) -> BTreeSet<NodeId> {
        let is_live =
            |id| id == own || !matches!(book.health(id), None | Some(Health::Down | Health::Stopped));
        let mut circle: Vec<(u64, NodeId)> =
            book.iter().map(|news| (position(news.entry.id), news.entry.id)).collect();
        circle.sort_unstable();
        let live = circle.iter().filter(|&&(_, id)| is_live(id)).count();
        let enough = if live <= ALL_WATCH_MAX { live } else { self.observers };
        let Some(here) = circle.iter().position(|&(_, id)| id == own) else { return BTreeSet::new() };
        let backwards = circle[..here].iter().rev().chain(circle[here + 1..].iter().rev());
        let mut watched = BTreeSet::new();
        let (mut live_watched, mut gone_watched) = (0, 0);
        for &(_, id) in backwards {
            if live_watched == enough {
                break;
            }
            if is_live(id) {
                live_watched += 1;
                watched.insert(id);
            } else if gone_watched < GONE_WATCHED_MAX && book.health(id) == Some(Health::Down) {
                gone_watched += 1;
                watched.insert(id);
            }
        }
        watched
    }

    /// This node ran `late`: it trusts itself less, and what it did not hear meanwhile is held against nobody.
    pub(super) fn was_late(&mut self, late: Duration) {
        let steps = if late > self.period * 2 { UNSTEADY_MAX } else { 1 };
        self.unsteady = (self.unsteady + steps).min(UNSTEADY_MAX);
        for case in self.cases.values_mut() {
            for moment in [&mut case.asked, &mut case.vouched, &mut case.suspected].into_iter().flatten() {
                *moment = *moment + late;
            }
        }
    }

    /// Once a period: looks at how this node itself is doing. If of several members that it asks nobody answers, the fault is
    /// more likely its own.
    pub(super) fn look_inward(
        &mut self,
        now: Moment,
        watched: &BTreeSet<NodeId>,
        book: &Book,
        links: &Links,
    ) {
        let tried: Vec<NodeId> = watched
            .iter()
            .copied()
            .filter(|&id| book.health(id) != Some(Health::Down) && links.last_answered(id).is_some())
            .collect();
        let silent = tried.iter().filter(|&&id| links.unanswered(now, id) >= self.period).count();
        if tried.len() >= 2 && silent == tried.len() {
            if self.unsteady < CUT_OFF_MAX {
                self.unsteady += 1;
            }
        } else {
            self.unsteady = self.unsteady.saturating_sub(1);
        }
    }

    /// How much its timeouts are stretched.
    fn stretch(&self) -> u32 {
        1 + self.unsteady
    }

    /// A helper got an answer from the member.
    pub(super) fn vouched(&mut self, now: Moment, id: NodeId) {
        if let Some(case) = self.cases.get_mut(&id) {
            case.vouched = Some(now);
            case.asked = None;
        }
    }

    /// Follows up the silence of the watched members.
    pub(super) fn judge(
        &mut self,
        now: Moment,
        watched: &BTreeSet<NodeId>,
        book: &Book,
        links: &Links,
    ) -> Vec<Judgement> {
        let mut judgements = Vec::new();
        self.cases.retain(|id, _| watched.contains(id));
        let patience = links.patience() * self.stretch();
        let verdict_after = self.suspicion * self.stretch();
        let answer_within = self.period * self.stretch();
        for &id in watched {
            let silence = links.unanswered(now, id);
            let health = book.health(id);
            let (Some(Health::Alive | Health::Suspect), false) = (health, silence < patience) else {
                self.cases.remove(&id);
                continue;
            };
            let case = self.cases.entry(id).or_default();
            if health == Some(Health::Suspect) {
                case.suspected.get_or_insert(now);
            } else if case.suspected.take().is_some() {
                // It refuted, and may go on without answering this node, as a member does that is heard one way only.
                // Helpers are asked anew before the next accusation: otherwise each refutation would call forth the next
                // accusation at once, for ever, at the speed of the network.
                *case = Case::default();
            }
            let heard = links.last_heard(id).is_some_and(|at| now.since(at) < patience);
            if heard && silence < patience * DEAF_AFTER {
                continue;
            }
            if case.vouched.is_some_and(|at| now.since(at) < patience) {
                continue;
            }
            match case.asked {
                None => {
                    case.asked = Some(now);
                    judgements.push(Judgement::Ask(id));
                }
                Some(at) if now.since(at) < answer_within => {}
                Some(_) => match case.suspected {
                    None => {
                        case.suspected = Some(now);
                        judgements.push(Judgement::Accuse(id, Health::Suspect));
                    }
                    Some(since) if now.since(since) >= verdict_after => {
                        judgements.push(Judgement::Accuse(id, Health::Down));
                    }
                    Some(_) => {}
                },
            }
        }
        judgements
    }

    /// Whether some silence is being followed up, so that time alone may lead to a verdict.
    pub(super) fn is_busy(&self) -> bool {
        !self.cases.is_empty()
    }
}

/// Where a member stands on the circle of observers: hashed, so that neighbours there are no neighbours elsewhere.
fn position(id: NodeId) -> u64 {
    xxh3_64(&id.0.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entry, news};
    use super::*;

    const PEER: NodeId = NodeId(2);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    fn book(members: u64) -> Book {
        let mut book = Book::new(entry(1), None, Vec::new(), 100);
        (2..=members).for_each(|id| {
            book.learn(news(id, Health::Alive));
        });
        book
    }

    fn detector() -> Detector {
        Detector::new(&MembershipConfig::default())
    }

    fn links() -> Links {
        Links::new(Duration::from_secs(1), Duration::from_secs(2), 0)
    }

    #[test]
    fn everybody_watches_everybody_while_there_are_few() {
        assert_eq!(detector().watched(NodeId(1), &book(8)).len(), 7);
    }

    #[test]
    fn each_of_many_is_watched_by_as_many_as_configured() {
        let book = book(50);
        let mut watchers: BTreeMap<NodeId, usize> = BTreeMap::new();
        for own in 1..=50 {
            let watched = detector().watched(NodeId(own), &book);
            assert_eq!(watched.len(), 5);
            watched.into_iter().for_each(|id| *watchers.entry(id).or_default() += 1);
        }
        assert!(watchers.values().all(|&count| count == 5));
    }

    #[test]
    fn the_dead_watch_nobody_and_are_still_watched() {
        let mut book = book(50);
        (2..=40).for_each(|id| {
            book.accuse(NodeId(id), Health::Down);
        });
        let mut watchers: BTreeMap<NodeId, usize> = BTreeMap::new();
        for own in (41..=50).chain([1]) {
            for id in detector().watched(NodeId(own), &book) {
                *watchers.entry(id).or_default() += 1;
            }
        }
        assert!((2..=40).all(|id| watchers[&NodeId(id)] >= 5));
    }

    /// Judges every 100 ms and returns what was said when.
    fn run(
        detector: &mut Detector,
        book: &mut Book,
        links: &Links,
        from: u64,
        until: u64,
    ) -> Vec<(u64, Judgement)> {
        let watched = BTreeSet::from([PEER]);
        let mut said = Vec::new();
        for ms in (from..=until).step_by(100) {
            for judgement in detector.judge(at(ms), &watched, book, links) {
                if let Judgement::Accuse(id, health) = judgement {
                    book.accuse(id, health);
                }
                said.push((ms, judgement));
            }
        }
        said
    }

    #[test]
    fn silence_is_asked_about_then_suspected_then_judged() {
        let (mut detector, mut book, mut links) = (detector(), book(2), links());
        links.ping(at(0), PEER, false);
        let said = run(&mut detector, &mut book, &links, 0, 10_000);
        let suspect = Judgement::Accuse(PEER, Health::Suspect);
        let down = Judgement::Accuse(PEER, Health::Down);
        assert_eq!(said, [(1_500, Judgement::Ask(PEER)), (2_500, suspect), (5_500, down)]);
    }

    #[test]
    fn a_vouched_member_is_not_accused_and_a_refutation_starts_over() {
        let (mut detector, mut book, mut links) = (detector(), book(2), links());
        links.ping(at(0), PEER, false);
        run(&mut detector, &mut book, &links, 0, 2_000);
        detector.vouched(at(2_000), PEER);
        assert_eq!(run(&mut detector, &mut book, &links, 2_000, 3_400), []);
        let said = run(&mut detector, &mut book, &links, 3_500, 4_500);
        assert_eq!(said, [(3_500, Judgement::Ask(PEER)), (4_500, Judgement::Accuse(PEER, Health::Suspect))]);
        let mut refutation = news(2, Health::Alive);
        refutation.entry.version += 1;
        book.learn(refutation);
        let number = links.ping(at(4_600), PEER, false);
        links.answered(at(4_650), PEER, number);
        assert_eq!(run(&mut detector, &mut book, &links, 4_700, 20_000), []);
    }

    #[test]
    fn one_that_is_heard_but_does_not_answer_is_given_more_time() {
        let (mut detector, mut book, mut links) = (detector(), book(2), links());
        links.ping(at(0), PEER, false);
        let mut first = None;
        for ms in (0..20_000).step_by(100) {
            links.heard(at(ms), PEER);
            if let Some(&(when, judgement)) = run(&mut detector, &mut book, &links, ms, ms).first() {
                first.get_or_insert((when, judgement));
            }
        }
        assert_eq!(first, Some((4_500, Judgement::Ask(PEER))));
    }

    #[test]
    fn an_observer_that_was_late_stretches_its_timeouts() {
        let (mut detector, mut book, mut links) = (detector(), book(2), links());
        links.ping(at(0), PEER, false);
        detector.was_late(Duration::from_millis(700));
        let said = run(&mut detector, &mut book, &links, 0, 10_000);
        assert_eq!(said.first(), Some(&(3_000, Judgement::Ask(PEER))));
    }

    #[test]
    fn an_observer_to_which_nobody_answers_doubts_itself() {
        let (mut detector, book, mut links) = (detector(), book(4), links());
        let watched: BTreeSet<NodeId> = (2..=4).map(NodeId).collect();
        for &id in &watched {
            let number = links.ping(at(0), id, false);
            links.answered(at(10), id, number);
            links.ping(at(1_000), id, false);
        }
        (0..5).for_each(|_| detector.look_inward(at(2_000), &watched, &book, &links));
        assert_eq!(detector.stretch(), 3);
        let number = links.ping(at(2_100), PEER, false);
        links.answered(at(2_110), PEER, number);
        detector.look_inward(at(2_200), &watched, &book, &links);
        assert_eq!(detector.stretch(), 2);
    }
}
