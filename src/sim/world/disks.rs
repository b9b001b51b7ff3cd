//! What nodes ask of their disks, and what the disks make of it.

use std::time::Duration;

use bytes::Bytes;

use super::super::faults::Kind;
use super::super::host;
#[cfg(test)]
use super::super::planted::Planted;
use super::super::trace::About;
use super::{Event, World};
use crate::protocol::causality::{Change, Record};
use crate::protocol::input::Input;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Ticket};
use crate::protocol::time::Moment;

/// How many records are looked at until there is one that may rot.
const TRIED_FOR_ROT: usize = 8;

impl World {
    pub(super) fn ask_disk(&mut self, index: usize, request: DiskRequest) {
        self.trace.disk_asked(index, &request);
        if let DiskRequest::Update { key, change: Change::Merge { record, .. }, .. } = &request {
            self.violations.extend(self.dots.passed(key, record));
        }
        self.witness.disk_is_asked(index, self.now, &request);
        if let DiskRequest::Remove { ticket, slot, .. } = &request {
            self.hint_is_dropped(index, *ticket, *slot);
        }
        self.figure_saw_disk_request(index, &request);
        #[cfg(test)]
        self.planted.saw_disk_request(&request);
        let delay = Duration::from_micros(self.rng.between(5, 100));
        let host = &mut self.hosts[index];
        host.disk.submit(request);
        let Some(process) = &mut host.process else { return };
        if !process.disk_is_busy {
            process.disk_is_busy = true;
            let (at, boot) = (self.now + host.slowed(delay), host.boot);
            self.schedule(at, Event::DiskWorks { host: index, boot });
        }
    }

    /// A removal from the disk of a node that does not own the slot gives up a hint.
    fn hint_is_dropped(&mut self, index: usize, ticket: Ticket, slot: Slot) {
        let Some(node) = self.hosts[index].process.as_ref().map(|process| &process.node) else { return };
        let Some(view) = node.ring_view().map(|view| view.slot(slot)) else { return };
        if !view.is_owner(node.id()) {
            let owners = view.read_set().iter().filter_map(|id| self.ids.get(id).copied()).collect();
            self.witness.hint_is_dropped(index, ticket, owners);
        }
    }

    pub(super) fn disk_works(&mut self, index: usize, boot: u64) {
        let host = &mut self.hosts[index];
        let Some(process) = &mut host.process else { return };
        if host.boot != boot {
            return;
        }
        process.disk_is_busy = false;
        match host.disk.execute() {
            Ok(replies) => {
                let may_crash = replies.iter().any(|reply| matches!(reply, DiskReply::Applied { .. }));
                self.disk_replies(index, boot, replies);
                self.disk_writes(index);
                if may_crash
                    && self.may_strike()
                    && self.rng.chance(self.swarm.crash_after_applied_per_mille)
                    && self.strikes(Kind::CrashApplied)
                {
                    let down = self.down_time();
                    self.crash(index, down, "crashes after applying, before anything is durable");
                }
            }
            Err(error) => self.insane(index, &format!("cannot work on its disk: {error}")),
        }
    }

    /// Whether machines may crash: not while a cluster is founded whose founding is not to be disturbed.
    fn may_strike(&self) -> bool {
        self.is_safe && (self.swarm.from_the_start || self.begun > Moment::default())
    }

    fn disk_writes(&mut self, index: usize) {
        let longest = u64::try_from(self.swarm.sync_max.as_micros()).unwrap_or(u64::MAX);
        let host = &mut self.hosts[index];
        #[cfg(test)]
        let has_started = host.process.as_ref().is_some_and(|process| process.has_started);
        if let Some(_through) = host.disk.write() {
            let delay = host.slowed(Duration::from_micros(self.rng.between(100, longest.max(100))));
            let (at, boot) = (self.now + delay, host.boot);
            self.schedule(at, Event::DiskSynced { host: index, boot });
            #[cfg(test)]
            if has_started && self.planted.is(Planted::DurableBeforeTheSync) {
                self.disk_replies(index, boot, vec![DiskReply::Durable { through: _through }]);
            }
        }
    }

    pub(super) fn disk_synced(&mut self, index: usize, boot: u64) {
        if self.hosts[index].boot != boot || self.hosts[index].process.is_none() {
            return;
        }
        if std::mem::take(&mut self.hosts[index].sync_fails) {
            // After a failed sync nobody knows what is on the disk: some systems forget the pages that they could not
            // write. The node must end; what it finds when it comes back is what it has.
            let down = self.down_time();
            return self.crash(index, down, "cannot sync, and stops rather than guess");
        }
        match self.hosts[index].disk.sync(&mut self.rng) {
            Ok(replies) => {
                self.disk_replies(index, boot, replies);
                self.disk_writes(index);
                if self.may_strike()
                    && self.rng.chance(self.swarm.crash_after_durable_per_mille)
                    && self.strikes(Kind::CrashDurable)
                {
                    let down = self.down_time();
                    self.crash(index, down, "crashes after a sync");
                }
            }
            Err(error) => self.insane(index, &format!("cannot sync its disk: {error}")),
        }
    }

    fn disk_replies(&mut self, index: usize, boot: u64, replies: Vec<DiskReply>) {
        for reply in replies {
            // The node may have stopped at the one before.
            if self.hosts[index].boot != boot || self.hosts[index].process.is_none() {
                return;
            }
            #[cfg(test)]
            let reply = self.planted.doctor_disk_reply(reply);
            let (kind, number) = match &reply {
                DiskReply::Applied { lsn, ticket, .. } => (b'u', lsn.0 << 32 | ticket.0),
                DiskReply::Read { lsn, ticket, .. } => (b'r', lsn.0 << 32 | ticket.0),
                DiskReply::Removed { lsn, ticket, .. } => (b'x', lsn.0 << 32 | ticket.0),
                DiskReply::Sums { ticket, .. } => (b's', ticket.0),
                DiskReply::Listed { ticket, .. } => (b'l', ticket.0),
                DiskReply::ReadMany { ticket, .. } => (b'R', ticket.0),
                DiskReply::MetaApplied { lsn, .. } => (b'm', lsn.0),
                DiskReply::Mended { ticket, .. } => (b'M', ticket.0),
                DiskReply::Doubted { slots, .. } => (b'D', slots.len() as u64),
                DiskReply::Durable { through } => (b'd', through.0),
            };
            self.trace.event(self.now, kind, index, number);
            let cue = self.cue_of(index, &reply);
            self.trace.disk_replied(self.now, index, &reply);
            self.input(index, Input::Disk(reply));
            if let Some(cue) = cue {
                self.cue(cue);
            }
        }
    }

    /// Something in the store of a node rots: of one node at a time, and only what as many others hold durably as the
    /// key has further owners. Only then is there somebody to refill it from. A bit flips at once; what a store loses
    /// without a trace it loses when it is opened.
    pub(super) fn rot(&mut self, index: usize) {
        if self.rng.chance(500) {
            self.hosts[index].loses_a_record = true;
            return self.note(About::All, || {
                format!("the store of {} is going to be opened without a record", host::name(index))
            });
        }
        let Some((slot, key)) = self.can_rot(index) else { return };
        self.hosts[index].disk.damage(slot, &key);
        self.rots(index, slot, &key, "is damaged");
    }

    /// A bit of what the store of a node holds of this key flips.
    pub(super) fn damage(&mut self, index: usize, key: &Bytes) -> Result<(), String> {
        let (slot, disk) = (Slot::of_key(key), &mut self.hosts[index].disk);
        // It is damaged in the store, and not in the log, from where it would come once more.
        disk.catch_up().map_err(|error| error.to_string())?;
        disk.damage(slot, key);
        if !disk.is_rotten() {
            return Err(format!("the disk of {} holds nothing of it", host::name(index)));
        }
        self.rots(index, slot, key, "is damaged");
        Ok(())
    }

    /// A machine starts and has opened its disk: now and then its store lacks something.
    pub(super) fn perhaps_lose_a_record(&mut self, index: usize) {
        if self.is_safe
            && std::mem::take(&mut self.hosts[index].loses_a_record)
            && let Some((slot, key)) = self.can_rot(index)
        {
            self.hosts[index].disk.lose(slot, &key);
            self.rots(index, slot, &key, "is gone");
        }
    }

    fn rots(&mut self, index: usize, slot: Slot, key: &Bytes, what: &str) {
        self.witness.rots(index, key);
        self.note(About::All, || {
            let key = String::from_utf8_lossy(key);
            format!("what the store of {} holds of {key} in slot {slot} {what}", host::name(index))
        });
        let at = self.now + Duration::from_millis(self.rng.between(100, 10_000));
        self.schedule(at, Event::Scrubs { host: index });
    }

    /// A record that may be lost on this machine.
    fn can_rot(&mut self, index: usize) -> Option<(Slot, Bytes)> {
        if self.hosts.iter().any(|host| host.disk.is_rotten()) {
            return None;
        }
        let others = self.hosts.len().min(self.options.replicas.get()) - 1;
        let keys = self.hosts[index].disk.keys_in_store();
        for _ in 0..TRIED_FOR_ROT {
            let (slot, key) = self.rng.pick(&keys)?;
            let records = self.hosts.iter_mut().map(|host| host.disk.holds_durably(*slot, key));
            let records: Vec<Option<Record>> = records.collect();
            let equal = records.iter().filter(|record| **record == records[index]).count() - 1;
            if others > 0 && records[index].is_some() && equal >= others {
                return Some((*slot, key.clone()));
            }
        }
        None
    }

    /// The scrub of a node comes by, and comes again until nothing is left to find.
    pub(super) fn disk_scrubs(&mut self, index: usize) {
        // A pause only puts it off. What is held back by one is forgotten if a crash ends it, and the scrub comes after that.
        if self.hosts[index].process.is_some() && self.hosts[index].paused_until <= self.now {
            let boot = self.hosts[index].boot;
            // It waits until the store has caught up with its log, which with few writes may never happen by itself.
            let disk = &mut self.hosts[index].disk;
            match disk.catch_up().and_then(|()| disk.scrub()) {
                Ok(replies) => self.disk_replies(index, boot, replies),
                Err(error) => self.insane(index, &format!("cannot read its disk: {error}")),
            }
        }
        if self.hosts[index].disk.is_rotten() {
            let at = self.now + Duration::from_secs(1);
            self.schedule(at, Event::Scrubs { host: index });
        }
    }
}
