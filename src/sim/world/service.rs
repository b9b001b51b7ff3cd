//! Whether the nodes serve that have to.

use std::time::Duration;

use super::super::host;
use super::super::invariants::{Invariant, Violation};
use super::World;

impl World {
    pub(super) fn all_serve(&self) -> bool {
        (0..self.hosts.len()).all(|host| self.serves(host))
    }

    /// Whether a host serves that has to: one that is frozen need not.
    pub(super) fn serves(&self, host: usize) -> bool {
        // One that has lost its disk waits for those that know it, and rightly so.
        let waits = |id| self.hosts[host].has_lost && self.known_to_others(host, id).is_none();
        let is_waiting = self.hosts[host].process.is_none() && self.hosts[host].id.is_some_and(waits);
        let host = &self.hosts[host];
        is_waiting || host.is_frozen || host.process.as_ref().is_some_and(|process| process.node.is_serving())
    }

    pub(super) fn demand_service(&mut self, when: &str, within: Duration) {
        if !self.violations.is_empty() || self.all_serve() {
            return;
        }
        let silent = (0..self.hosts.len()).filter(|&host| !self.serves(host));
        let names: Vec<String> = silent.map(host::name).collect();
        let evidence = format!("{} did not serve within {within:?} {when}", names.join(", "));
        self.violations.push(Violation::general(Invariant::Liveness, evidence));
    }
}
