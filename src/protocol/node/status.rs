//! What a node tells of itself.

use std::time::Duration;

use super::{Life, Node};
use crate::protocol::antientropy::Counts;
use crate::protocol::id::NodeId;
use crate::protocol::replication::scope::node_time;
use crate::protocol::time::Now;
use crate::protocol::wire::client::{Status, Topology};

impl Node {
    /// What its exchanges with other owners have done since its start.
    #[must_use]
    pub fn exchanges(&self) -> Counts {
        self.antientropy.counts()
    }

    pub(super) fn why_not_ready(&self) -> String {
        match self.life {
            Life::Starting => "the node is starting".to_owned(),
            Life::Stopping | Life::Stopped => "the node is stopping; use another one".to_owned(),
            Life::Running => match self.membership.waiting_for() {
                Some(waiting) => format!("the node does not serve yet: {waiting}"),
                None => "the node does not serve yet: it knows no ring".to_owned(),
            },
        }
    }

    pub(super) fn topology(&self, now: Now) -> Topology {
        Topology {
            node: self.id(),
            cluster: self.cluster(),
            replicas: self.membership.cluster().map_or(self.config.replicas, |cluster| cluster.replicas),
            members: self.membership.members(),
            time: node_time(now.wall, self.membership.clock_offset()),
            version: self.membership.version(),
        }
    }

    pub(super) fn status(&self, now: Now) -> Status {
        let slots_owned = self.view.as_ref().map_or(0, |view| view.ring().load(self.id()));
        let (exchange, hints) = (self.antientropy.counts(), self.hints.counts());
        let account = self.antientropy.account();
        let (repairs, (keys_per_second, bytes_per_second)) = (account.read_repairs(), account.rates());
        let reaping = self.reaper.counts();
        let counts = [
            ("actor_changes", self.counts.amnesia),
            ("exchange_bytes_received", exchange.bytes_received),
            ("exchange_bytes_sent", exchange.bytes_sent),
            ("exchange_keys_received", exchange.keys_received),
            ("exchange_keys_sent", exchange.keys_sent),
            ("exchange_rounds", exchange.rounds),
            ("exchange_rounds_equal", exchange.rounds_equal),
            ("exchange_slots_compared", exchange.slots_compared),
            ("exchange_slots_differing", self.antientropy.slots_differing()),
            ("hint_bytes", self.hints.bytes()),
            ("hint_holders_registered", self.register.len() as u64),
            ("hints", self.hints.len() as u64),
            ("hints_delivered", hints.delivered),
            ("hints_refused", hints.refused),
            ("read_repairs", repairs.done),
            ("read_repairs_left", repairs.left),
            ("reap_rounds", reaping.rounds),
            ("reap_rounds_agreed", reaping.agreed),
            ("records_compacted", reaping.compacted),
            ("slots_to_reap", self.reaper.waiting() as u64),
            ("tombstones_reaped", reaping.reaped),
            ("reads", self.counts.reads),
            ("records_dropped", self.losses.dropped),
            ("records_fetched_for_peers", self.counts.fetched),
            ("records_refilled", self.antientropy.refilling().1),
            ("records_replicated_from_peers", self.counts.replicated),
            ("repair_bytes_charged", account.bytes_charged()),
            ("repair_bytes_per_second", bytes_per_second),
            ("repair_debt_bytes", self.antientropy.debt_bytes() + self.hints.bytes_to_move()),
            ("repair_debt_keys", self.antientropy.debt_keys() + self.hints.len() as u64),
            ("repair_keys_per_second", keys_per_second),
            ("repair_rate_per_mille", self.antientropy.ease_per_mille()),
            ("slots_doubted", self.losses.doubted),
            ("slots_refilled", self.losses.refilled),
            ("slots_refilling", self.losses.trust.voteless().len() as u64),
            ("writes", self.counts.writes),
        ];
        let mut status = Status {
            node: self.id(),
            name: self.config.name.clone(),
            address: self.config.addresses.first().copied(),
            cluster: self.cluster(),
            waiting_for: (!self.is_serving()).then(|| self.why_not_ready()),
            incarnation: self.incarnation,
            uptime_ms: u64::try_from(now.monotonic.since(self.started_at).as_millis()).unwrap_or(u64::MAX),
            slots_owned,
            requests: u32::try_from(self.coordinator.len()).unwrap_or(u32::MAX),
            clock_offset_ms: self.membership.clock_offset(),
            counts: counts.map(|(name, count)| (name.to_owned(), count)).to_vec(),
            dirty: Vec::new(),
            unreachable: self.out_of_reach(),
        };
        status.add_dirty(self.antientropy.dirty());
        if let Some(view) = &self.view {
            // What it may not vote for is being refilled. The rest of that set is of slots that it does not own.
            let withdrawn = self.losses.trust.voteless().iter().chain(self.losses.trust.unasked().iter());
            status.add_dirty(withdrawn.filter(|slot| view.slot(*slot).is_owner(self.id())));
        }
        status
    }

    /// The shell has read so much of its store to find damage. That is charged to the account of all repair; gives back how long the
    /// next piece has to wait for it.
    pub fn charge_scrub(&mut self, now: Now, bytes: u64) -> Duration {
        let ledger = self.antientropy.ledger();
        if bytes > 0 {
            ledger.charge(now.monotonic, 0, bytes);
        }
        ledger.opens_at(now.monotonic).since(now.monotonic)
    }

    /// The members that own slots and that this node cannot reach now.
    fn out_of_reach(&self) -> Vec<NodeId> {
        let Some(view) = &self.view else { return Vec::new() };
        let members = view.ring().members().iter().map(|member| member.node);
        members.filter(|node| *node != self.id() && !self.membership.is_reachable(*node)).collect()
    }
}
