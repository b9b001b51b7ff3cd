//! What goes wrong, and how it is put right again.

use std::time::Duration;

use super::super::faults::{Fault, Kind};
use super::super::host;
use super::super::invariants::{Invariant, Violation};
use super::super::trace::About;
use super::{Event, Relief, World};
use crate::protocol::input::Input;
use crate::protocol::time::Moment;

/// How long exchanges may go on that began before all owners were equal.
const SETTLED: Duration = Duration::from_secs(5);

/// How long nothing may be moved after that: longer than the slowest cycle of exchanges.
const FURTHER_EXCHANGES: Duration = Duration::from_secs(35);

/// After how many faults the views and rings of the nodes are compared again.
const COMPARED_EVERY: u64 = 32;

impl World {
    pub(super) fn fault_begins(&mut self) {
        let Some((kind, fault)) = self.swarm.next(self.hosts.len(), &mut self.fault_rng) else { return };
        if !self.strikes(kind) {
            return;
        }
        self.perhaps_copy_a_disk();
        if self.counts.faults.is_multiple_of(COMPARED_EVERY) {
            self.compare_views();
        }
        match fault {
            Fault::Crash { host, down } => self.lose_power(host, down),
            Fault::Stop { host, down } => self.stop(host, down),
            Fault::Pause { host, span } => self.pause(host, span),
            Fault::Cut { shape, links, span } => {
                self.note(About::All, || format!("cut for {span:?}: {shape}"));
                self.network.cut(&links);
                self.heal_after(span, links);
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
            Fault::SyncError { host } => {
                self.note(About::All, || format!("the next sync of {} is going to fail", host::name(host)));
                self.hosts[host].sync_fails = true;
            }
            Fault::FullDisk { host, span } => {
                self.note(About::All, || format!("the disk of {} is full for {span:?}", host::name(host)));
                self.hosts[host].disk.is_full = true;
                self.schedule(self.now + span, Event::FaultEnds(Relief::DiskHasRoom { host }));
            }
            Fault::Idle { span } => {
                self.note(About::All, || format!("the clients fall silent for {span:?}"));
                self.workload.rest(self.now + span);
            }
            Fault::Figure => self.begin_figure(),
            Fault::Rot { host } => self.rot(host),
        }
    }

    /// Heals a cut, as a whole or piece by piece in any order: routes come back one after the other.
    fn heal_after(&mut self, span: Duration, mut links: Vec<(usize, usize)>) {
        let pieces = if self.rng.chance(300) { 3 } else { 1 };
        self.rng.shuffle(&mut links);
        for piece in links.chunks(links.len().div_ceil(pieces).max(1)) {
            let longest = super::super::clock::micros(span);
            let after = if pieces == 1 { longest } else { self.rng.between(longest / 4, longest) };
            let at = self.now + Duration::from_micros(after);
            self.schedule(at, Event::FaultEnds(Relief::Healed(piece.to_vec())));
        }
    }

    /// Stops a node in good order, or kills it if it takes too long.
    pub(super) fn stop(&mut self, host: usize, down: Duration) {
        let boot = self.hosts[host].boot;
        let Some(process) = &mut self.hosts[host].process else { return };
        if !std::mem::replace(&mut process.is_stopping, true) {
            self.note(About::All, || format!("{} is told to stop", host::name(host)));
            let event = Event::StopTakesTooLong { host, boot, down };
            self.schedule(self.now + Duration::from_secs(10), event);
            self.input(host, Input::Stop);
        }
    }

    /// Lets nothing happen on a host for a while.
    pub(super) fn pause(&mut self, host: usize, span: Duration) {
        self.note(About::All, || format!("{} is paused for {span:?}", host::name(host)));
        let until = (self.now + span).max(self.hosts[host].paused_until);
        self.hosts[host].paused_until = until;
        self.schedule(until, Event::Resumes { host });
    }

    /// Ends a pause by `at` at the latest.
    pub(super) fn resume_by(&mut self, host: usize, at: Moment) {
        if self.hosts[host].paused_until > at {
            self.hosts[host].paused_until = at;
            self.schedule(at, Event::Resumes { host });
        }
    }

    /// What was held back while a host was paused happens now, in its order and before anything that comes later.
    pub(super) fn resume(&mut self, host: usize) {
        if self.hosts[host].paused_until > self.now {
            return;
        }
        for event in std::mem::take(&mut self.held[host]) {
            self.schedule(self.now, event);
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
                self.note(About::All, || "a cut heals, or a part of it".to_owned());
                self.network.heal(&links);
            }
            Relief::Unclogged(link) => self.network.unclog(link),
            Relief::DiskIsFastAgain { host, slowness } => self.hosts[host].slowness -= slowness,
            Relief::DiskHasRoom { host } => self.hosts[host].disk.is_full = false,
        }
    }

    pub(super) fn crash(&mut self, index: usize, down: Duration, how: &str) {
        if self.hosts[index].process.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        self.trace.disk_closed(index);
        let fate = self.hosts[index].disk.crash(&mut self.rng);
        self.hosts[index].paused_until = self.now;
        self.hosts[index].sync_fails = false;
        self.held[index].clear();
        self.note(About::All, || {
            format!("{} {how}, for {down:?}; what it was writing: {fate:?}", host::name(index))
        });
        #[cfg(test)]
        self.planted.crashed(&mut self.hosts[index].disk, &mut self.rng);
        self.schedule(self.now + down, Event::Starts { host: index });
    }

    /// All owners are equal and nobody writes: whatever exchanges still move, they move without need.
    pub(super) fn exchange_once_more(&mut self) {
        // What was begun before the last of them became equal may end.
        self.run_until(self.now + SETTLED, |_| false);
        let moved = |world: &World| {
            let processes = world.hosts.iter().filter_map(|host| host.process.as_ref());
            processes.map(|process| process.node.exchanges().keys_sent).sum::<u64>()
        };
        let before = moved(self);
        self.run_until(self.now + FURTHER_EXCHANGES, |_| false);
        let more = moved(self) - before;
        if more > 0 && self.violations.is_empty() {
            let evidence = format!("{more} records were sent between owners that were equal for {SETTLED:?}");
            self.violations.push(Violation::general(Invariant::Convergence, evidence));
        }
    }

    pub(super) fn down_time(&mut self) -> Duration {
        let longest = self.swarm.span_max.as_micros() as u64;
        Duration::from_micros(self.rng.between(10_000, longest.max(10_000)))
    }

    /// No more faults anywhere, and what is broken is repaired. Wrong clocks stay wrong.
    pub(super) fn heal(&mut self) {
        self.note(About::All, || "everything heals".to_owned());
        self.end_safety();
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.repair(&all);
    }

    /// The end of the safety phase: nothing goes wrong from here on that has not gone wrong already.
    pub(super) fn end_safety(&mut self) {
        self.is_safe = false;
        self.playing = None;
        self.workload.stop();
    }

    /// Repairs these hosts and the links among them.
    pub(super) fn repair(&mut self, hosts: &[usize]) {
        self.network.heal_among(hosts);
        for &index in hosts {
            self.resume_by(index, self.now + Duration::from_secs(1));
            let host = &mut self.hosts[index];
            host.slowness = 0;
            host.disk.is_full = false;
            host.sync_fails = false;
            host.is_frozen = false;
            if host.process.is_none() {
                let at = self.now + Duration::from_millis(self.rng.between(1, 500));
                self.schedule(at, Event::Starts { host: index });
            }
        }
    }
}
