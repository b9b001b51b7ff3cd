//! The first half of the liveness phase: a random core is healed, the rest stays as broken as it is.
//!
//! ```text
//!      core: a majority, healed          rest: frozen
//!   ┌──────────────────────────┐   ┌───────────────────────┐
//!   │ n1 ◀────▶ n4 ◀────▶ n2   │──▶│ n3 down    n5 deaf    │    whatever is cut between the two stays cut,
//!   └──────────────────────────┘   └───────────────────────┘    in one direction as likely as in both
//! ```
//!
//! A cluster has to get on with what works: every key with a majority of its owners inside of the core, with a vote for
//! its slot, has to be served by every node of the core. What makes that hard is the half-dead: nodes that are heard but
//! do not hear, or that are reached by some of the core and not by others.

use std::time::Duration;

use bytes::Bytes;

use super::super::faults::Kind;
use super::super::host;
use super::super::trace::About;
use super::super::workload::CorePart;
use super::{RECOVERY_MAX, World};

use crate::protocol::id::NodeId;
use crate::protocol::ring::slot::Slot;
use crate::protocol::time::Moment;

/// How long the core may take to find out who is out of reach.
const DETECTION: Duration = Duration::from_secs(10);

/// How long the operations of the core may take, all together.
const CORE_PART_MAX: Duration = Duration::from_secs(60);

/// How many keys are demanded at most.
const KEYS_MAX: usize = 12;

/// What becomes of a node that is not in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Whatever it met last.
    AsItIs,
    Down,
    Paused,
    /// It neither hears the core nor is heard.
    Apart,
    Deaf,
    Mute,
    /// Any of its links with the core are cut, each direction for itself.
    Odd,
}

impl World {
    /// Ends the safety phase, heals a core, freezes the rest, and demands progress of the core.
    pub(super) fn core_part(&mut self) {
        // Before its founding a cluster waits for all of its nodes, and rightly so.
        let is_founded = self.hosts.iter().all(|host| host.has_served);
        let hosts = self.hosts.len();
        if hosts < 3 || !is_founded || !self.violations.is_empty() {
            return;
        }
        let mut order: Vec<usize> = (0..hosts).collect();
        self.rng.shuffle(&mut order);
        let outside = self.rng.between(1, (hosts as u64 - 1) / 2) as usize;
        let (core, rest) = order.split_at(hosts - outside);
        self.note(About::All, || {
            let names: Vec<String> = core.iter().map(|&index| host::name(index)).collect();
            format!("{} heal; the others stay as they are", names.join(", "))
        });
        self.end_safety();
        self.repair(core);
        for &index in rest {
            self.freeze(index, core);
        }
        self.run_until(self.now + RECOVERY_MAX, World::all_serve);
        self.demand_service("after its core healed", RECOVERY_MAX);
        self.run_until(self.now + DETECTION, |_| false);
        let keys = self.keys_of(core);
        let mut rng = self.rng.fork();
        let part = CorePart { hosts: core.to_vec(), keys };
        self.workload.begin_core_part(part, self.now, &mut rng, &mut self.wishes);
        self.grant_wishes();
        self.run_until(self.now + CORE_PART_MAX, |world| world.workload.is_idle());
    }

    fn freeze(&mut self, index: usize, core: &[usize]) {
        let has = |kind: Kind| self.swarm.kinds.contains(&kind);
        let mut fates = vec![Fate::AsItIs];
        let drawn = [
            (Fate::Down, has(Kind::Crash) || has(Kind::Stop)),
            (Fate::Paused, has(Kind::Pause)),
            (Fate::Apart, has(Kind::Partition)),
            (Fate::Deaf, has(Kind::OneWay)),
            (Fate::Mute, has(Kind::OneWay)),
            (Fate::Odd, has(Kind::Odd)),
        ];
        fates.extend(drawn.into_iter().filter(|(_, is_on)| *is_on).map(|(fate, _)| fate));
        let fate = fates[self.rng.index(fates.len())];
        self.note(About::All, || format!("{} from here on: {fate:?}", host::name(index)));
        let from_core = core.iter().map(|&other| (other, index));
        let to_core = core.iter().map(|&other| (index, other));
        match fate {
            Fate::AsItIs => {}
            // It is started again when everything heals.
            Fate::Down => self.crash(index, Duration::ZERO, "crashes for good"),
            Fate::Paused => self.pause(index, CORE_PART_MAX * 10),
            Fate::Apart => self.network.cut(&from_core.chain(to_core).collect::<Vec<_>>()),
            Fate::Deaf => self.network.cut(&from_core.collect::<Vec<_>>()),
            Fate::Mute => self.network.cut(&to_core.collect::<Vec<_>>()),
            Fate::Odd => {
                let all = from_core.chain(to_core);
                let links: Vec<_> = all.filter(|_| self.rng.chance(500)).collect();
                self.network.cut(&links);
            }
        }
        // Not for ever: what waits for a host that is paused now has to happen in the end.
        if self.hosts[index].paused_until > self.now {
            self.hosts[index].paused_until = Moment::NEVER;
        }
        self.hosts[index].is_frozen = true;
    }

    /// Keys that were used and that have a majority of their owners in the core, some of them if there are many.
    pub(super) fn keys_of(&mut self, core: &[usize]) -> Vec<Bytes> {
        let used = self.workload.keys();
        let Some(process) = core.first().and_then(|&index| self.hosts[index].process.as_ref()) else {
            return Vec::new();
        };
        let Some(view) = process.node.ring_view() else { return Vec::new() };
        let has_majority = |key: &Bytes| {
            let slot = Slot::of_key(key);
            let owners = view.slot(slot).read_set();
            // One that has lost the slot may need an owner outside of the core to get it back. What it has lost of others is
            // no excuse.
            let is_inside =
                |id: &&NodeId| self.ids.get(*id).is_some_and(|at| core.contains(at) && self.votes(*at, slot));
            owners.iter().filter(is_inside).count() > owners.len() / 2
        };
        let mut keys: Vec<Bytes> = used.into_iter().filter(has_majority).collect();
        self.rng.shuffle(&mut keys);
        // A client for each: no more at once than a node is told to take, or it would rightly answer that it is overloaded.
        keys.truncate(KEYS_MAX.min(self.workload.requests_max()));
        keys
    }
}
