//! What goes wrong, and how it is put right again.

use std::time::Duration;

use super::super::faults::{Fault, Kind};
use super::super::host;
use super::super::trace::About;
use super::{Event, Relief, World};
use crate::protocol::input::Input;

/// After how many faults the views and rings of the nodes are compared again.
const COMPARED_EVERY: u64 = 32;

impl World {
    pub(super) fn fault_begins(&mut self) {
        let Some((kind, fault)) = self.swarm.next(self.hosts.len(), &mut self.fault_rng) else { return };
        if !self.strikes(kind) {
            return;
        }
        if self.counts.faults.is_multiple_of(COMPARED_EVERY) {
            self.compare_views();
        }
        match fault {
            Fault::Crash { host, down } => self.crash(host, down, "crashes"),
            Fault::Stop { host, down } => {
                let boot = self.hosts[host].boot;
                let Some(process) = &mut self.hosts[host].process else { return };
                if !std::mem::replace(&mut process.is_stopping, true) {
                    self.note(About::All, || format!("{} is told to stop", host::name(host)));
                    let event = Event::StopTakesTooLong { host, boot, down };
                    self.schedule(self.now + Duration::from_secs(10), event);
                    self.input(host, Input::Stop);
                }
            }
            Fault::Pause { host, span } => {
                self.note(About::All, || format!("{} is paused for {span:?}", host::name(host)));
                let until = self.now + span;
                self.hosts[host].paused_until = self.hosts[host].paused_until.max(until);
            }
            Fault::Cut { shape, links, span } => {
                self.note(About::All, || format!("cut for {span:?}: {shape}"));
                self.network.cut(&links);
                self.schedule(self.now + span, Event::FaultEnds(Relief::Healed(links)));
            }
            Fault::Clog { link, delay, span } => {
                let (from, to) = (host::name(link.0), host::name(link.1));
                self.note(About::All, || format!("{from} to {to} takes {delay:?} longer for {span:?}"));
                self.network.clog(link, delay);
                self.schedule(self.now + span, Event::FaultEnds(Relief::Unclogged(link)));
            }
            Fault::Jump { host, by_ms } => {
                self.note(About::All, || {
                    format!("the wall clock of {} jumps by {by_ms} ms", host::name(host))
                });
                self.hosts[host].clock.jump(by_ms);
            }
            Fault::SlowDisk { host, slowness, span } => {
                self.note(About::All, || format!("the disk of {} is slow for {span:?}", host::name(host)));
                self.hosts[host].slowness += slowness;
                let ending = Relief::DiskIsFastAgain { host, slowness };
                self.schedule(self.now + span, Event::FaultEnds(ending));
            }
        }
    }

    /// A fault comes up: whether it strikes, since single ones can be left out.
    pub(super) fn strikes(&mut self, kind: Kind) -> bool {
        let Some(number) = self.strikes.comes_up(kind, self.now) else { return false };
        self.trace.event(self.now, b'f', kind as usize, u64::from(number));
        self.trace.fault(Some(number));
        self.counts.faults += 1;
        true
    }

    pub(super) fn fault_ends(&mut self, ending: Relief) {
        match ending {
            Relief::Healed(links) => {
                self.note(About::All, || "a cut heals".to_owned());
                self.network.heal(&links);
            }
            Relief::Unclogged(link) => self.network.unclog(link),
            Relief::DiskIsFastAgain { host, slowness } => self.hosts[host].slowness -= slowness,
        }
    }

    pub(super) fn crash(&mut self, index: usize, down: Duration, how: &str) {
        if self.hosts[index].process.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        let fate = self.hosts[index].disk.crash(&mut self.rng);
        self.hosts[index].paused_until = self.now;
        self.note(About::All, || {
            format!("{} {how}, for {down:?}; what it was writing: {fate:?}", host::name(index))
        });
        #[cfg(test)]
        self.planted.crashed(&mut self.hosts[index].disk, &mut self.rng);
        self.schedule(self.now + down, Event::Starts { host: index });
    }

    pub(super) fn down_time(&mut self) -> Duration {
        let longest = self.swarm.span_max.as_micros() as u64;
        Duration::from_micros(self.rng.between(10_000, longest.max(10_000)))
    }

    /// The end of the safety phase: no more faults, and what is broken is repaired. Wrong clocks stay wrong.
    pub(super) fn heal(&mut self) {
        self.is_safe = false;
        self.note(About::All, || "everything heals".to_owned());
        self.network.heal_all();
        self.workload.stop();
        for host in 0..self.hosts.len() {
            // What waits for a paused host keeps its order.
            self.hosts[host].paused_until =
                self.hosts[host].paused_until.min(self.now + Duration::from_secs(1));
            self.hosts[host].slowness = 0;
            if self.hosts[host].process.is_none() {
                let at = self.now + Duration::from_millis(self.rng.between(1, 500));
                self.schedule(at, Event::Starts { host });
            }
        }
    }
}
