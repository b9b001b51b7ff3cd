//! Asking owners for their records until enough have answered.

use std::time::Duration;

use bytes::Bytes;

use super::desk::Reply;
use super::quorum::{Quorum, Verdict};
use super::scope::Scope;
use crate::protocol::causality::Record;
use crate::protocol::id::{NodeId, ReapEpoch, RequestId};
use crate::protocol::time::Moment;
use crate::protocol::wire::client::{Code, Level, Problem};
use crate::protocol::wire::peer::{PeerMessage, PeerRefusal};

/// One round of questions to the owners of a key: as many as are needed at first, the others when one of those is slow
/// (a hedge after the usual time, Dean and Barroso, *The Tail at Scale*, 2013) or refuses.
#[derive(Debug)]
pub(super) struct Gather {
    request: RequestId,
    key: Bytes,
    quorum: Quorum,
    /// Who was asked, and when first.
    asked: Vec<(NodeId, Moment)>,
    replies: Vec<(NodeId, Reply)>,
    /// Who replied from before a round of reaping that another one has completed.
    outdated: Vec<NodeId>,
    hedge_at: Moment,
    resend_at: Moment,
    pause: Duration,
}

/// What a round of questions found.
#[derive(Debug)]
pub(super) struct Gathered {
    /// All replies merged; `None` if no replica knows of the key.
    pub(super) record: Option<Record>,
    /// Who replied, in the order of arrival.
    pub(super) replies: Vec<NodeId>,
    /// Who replied with less than the merged record.
    pub(super) stale: Vec<NodeId>,
    /// The reap epoch under which all of it was read: the least of all repliers.
    pub(super) epoch: ReapEpoch,
}

impl Gather {
    /// Asks enough owners, this node first if it is one, for it answers soonest.
    pub(super) fn start(
        request: RequestId,
        key: &Bytes,
        level: Level,
        scope: &mut Scope<'_>,
    ) -> Result<Gather, Problem> {
        let slot = scope.slot_of(key);
        let mut quorum = Quorum::of_reads(&slot, level);
        if !scope.votes_for(key) {
            quorum.decline(scope.own);
        }
        if !quorum.could_be_reached(|node| scope.can_reach(node)) {
            let are_there = slot.read_set().iter().filter(|node| scope.can_reach(**node)).count();
            return Err(if are_there >= quorum.need() {
                lost(&quorum, scope)
            } else {
                scope.unavailable(slot.read_set(), quorum.need())
            });
        }
        let now = scope.now.monotonic;
        let mut gather = Gather {
            request,
            key: key.clone(),
            quorum,
            asked: Vec::new(),
            replies: Vec::new(),
            outdated: Vec::new(),
            hedge_at: now + scope.latency.p95().max(scope.config.hedge_min),
            resend_at: now + scope.config.resend_after,
            pause: scope.config.resend_after,
        };
        gather.ask_more(gather.quorum.need(), scope);
        Ok(gather)
    }

    /// The owners are under another digest: what they said under the last one does not count beside what they say now.
    /// Begins anew under a number that nobody has answered yet.
    pub(super) fn restart(
        &self,
        request: RequestId,
        level: Level,
        scope: &mut Scope<'_>,
    ) -> Result<Gather, Problem> {
        Gather::start(request, &self.key, level, scope)
    }

    /// An owner replied. Who was not asked is not heard.
    pub(super) fn on_reply(&mut self, from: NodeId, reply: Reply, scope: &mut Scope<'_>) -> Verdict {
        let asked = self.asked.iter().find(|(node, _)| *node == from);
        if let Some((_, at)) = asked
            && !self.replies.iter().any(|(node, _)| *node == from)
        {
            if from != scope.own {
                scope.latency.note(scope.now.monotonic.since(*at));
            }
            if from == scope.own && !scope.votes_for(&self.key) {
                // The vote was lost while the disk was reading.
                self.quorum.decline(from);
                self.ask_more(1, scope);
                return self.quorum.verdict();
            }
            self.replies.push((from, reply));
            self.quorum.accept(from);
            self.drop_outdated(scope);
        }
        self.quorum.verdict()
    }

    /// A reply that was read before its owner raised the epoch, beside one of an owner that has completed that round, may
    /// hold a value whose deletion everybody has forgotten. It is asked for again, once: an owner that still replies
    /// from before that round has lost what it promised.
    fn drop_outdated(&mut self, scope: &mut Scope<'_>) {
        let committed = self.replies.iter().map(|(_, reply)| reply.committed).max().unwrap_or_default();
        let outdated: Vec<NodeId> = self
            .replies
            .extract_if(.., |(_, reply)| reply.raised < committed)
            .map(|(node, _)| node)
            .collect();
        for node in outdated {
            self.quorum.withdraw(node);
            if self.outdated.contains(&node) {
                self.quorum.decline(node);
                self.ask_more(1, scope);
            } else {
                self.outdated.push(node);
                self.ask(node, scope);
            }
        }
    }

    /// An owner refused. What it has lost it will not find within this request; everything else may pass.
    pub(super) fn on_refusal(
        &mut self,
        from: NodeId,
        reason: &PeerRefusal,
        scope: &mut Scope<'_>,
    ) -> Verdict {
        if matches!(reason, PeerRefusal::Lost | PeerRefusal::Refilling) {
            self.quorum.decline(from);
        }
        self.ask_more(1, scope);
        self.quorum.verdict()
    }

    /// When to call [`on_deadline`](Gather::on_deadline).
    pub(super) fn due(&self) -> Moment {
        self.hedge_at.min(self.resend_at)
    }

    /// Hedges and repeats what is due. `Impossible` if too few owners are left that can be reached.
    pub(super) fn on_deadline(&mut self, scope: &mut Scope<'_>) -> Verdict {
        let now = scope.now.monotonic;
        if now >= self.hedge_at {
            self.hedge_at = Moment::NEVER;
            self.ask_more(usize::MAX, scope);
        }
        if now >= self.resend_at {
            self.pause *= 2;
            self.resend_at = now + self.pause;
            if !self.quorum.could_be_reached(|node| scope.can_reach(node)) {
                return Verdict::Impossible;
            }
            for node in self.quorum.silent() {
                // The own disk loses no requests.
                if node != scope.own && self.was_asked(node) && scope.can_reach(node) {
                    scope.doubt(node);
                    self.ask(node, scope);
                }
            }
            self.ask_more(usize::MAX, scope);
        }
        self.quorum.verdict()
    }

    /// Why it cannot be done, for people.
    pub(super) fn problem(&self, scope: &Scope<'_>) -> Problem {
        if !self.quorum.declined().is_empty() {
            return lost(&self.quorum, scope);
        }
        scope.unavailable(scope.slot_of(&self.key).read_set(), self.quorum.need())
    }

    /// Merges what came.
    pub(super) fn finish(&mut self) -> Gathered {
        let replies = std::mem::take(&mut self.replies);
        let names = replies.iter().map(|(node, _)| *node).collect();
        let epoch = replies.iter().map(|(_, reply)| reply.raised).min().unwrap_or_default();
        let mut replies: Vec<(NodeId, Option<Record>)> =
            replies.into_iter().map(|(node, reply)| (node, reply.record)).collect();
        // The first record that there is grows into the merged one, so that equal replies cost no copy.
        let Some(first) = replies.iter().position(|(_, record)| record.is_some()) else {
            return Gathered { record: None, replies: names, stale: Vec::new(), epoch };
        };
        let (first, mut merged) = replies.swap_remove(first);
        let mut has_grown = false;
        if let Some(merged) = &mut merged {
            for record in replies.iter().filter_map(|(_, record)| record.as_ref()) {
                has_grown |= record != merged && merged.merge(record);
            }
        }
        let behind = replies.iter().filter(|(_, record)| *record != merged).map(|(node, _)| *node);
        let stale = has_grown.then_some(first).into_iter().chain(behind).collect();
        Gathered { record: merged, replies: names, stale, epoch }
    }

    fn was_asked(&self, node: NodeId) -> bool {
        self.asked.iter().any(|(asked, _)| *asked == node)
    }

    /// Asks up to `count` owners that were not asked yet and can be reached.
    fn ask_more(&mut self, count: usize, scope: &mut Scope<'_>) {
        let mut open: Vec<NodeId> =
            self.quorum.silent().filter(|node| !self.was_asked(*node) && scope.can_reach(*node)).collect();
        open.sort_by_key(|node| *node != scope.own);
        for node in open.into_iter().take(count) {
            self.asked.push((node, scope.now.monotonic));
            self.ask(node, scope);
        }
    }

    fn ask(&self, node: NodeId, scope: &mut Scope<'_>) {
        if node == scope.own {
            scope.read_own(self.request, &self.key);
        } else {
            let digest = scope.slot_of(&self.key).digest;
            scope.send(node, PeerMessage::Fetch { request: self.request, digest, key: self.key.clone() });
        }
    }
}

/// Owners that can be reached have lost their copies.
fn lost(quorum: &Quorum, scope: &Scope<'_>) -> Problem {
    let names: Vec<String> = quorum.declined().iter().map(|node| scope.peers.name(*node)).collect();
    let message = format!(
        "{} of the key's owners have to reply, and the copy of {} is damaged or being refilled; a lost copy is no answer",
        quorum.need(),
        names.join(", ")
    );
    Problem::new(Code::RecordLost, message)
}
