//! The lives of the nodes: how they start, what they say of themselves, and how they end in good order.

use std::time::Duration;

use super::super::figures::Cue;
use super::super::host::{self, Process};
use super::super::invariants::incarnations::Deed;
use super::super::trace::About;
use super::{Copied, Event, World};
use crate::protocol::node::Node;
use crate::protocol::output::Notice;
use crate::protocol::storage::op::MetaKey;
use crate::protocol::time::Moment;

impl World {
    pub(super) fn start(&mut self, index: usize) {
        if self.hosts[index].process.is_some() {
            return;
        }
        self.perhaps_lose_disk(index);
        self.perhaps_restore_copy(index);
        self.perhaps_damage_log(index);
        let origin = self.rng.below(1 << 40);
        #[cfg_attr(not(test), expect(unused_mut, reason = "bugs are planted in tests only"))]
        let mut rng = self.rng.fork();
        let host = &mut self.hosts[index];
        host.boot += 1;
        host.started_at = self.now;
        host.clock.restart(origin);
        #[cfg_attr(not(test), expect(unused_mut, reason = "bugs are planted in tests only"))]
        let mut meta = match host.disk.open() {
            Ok(meta) => meta,
            Err(error) => match self.give_up_disk(index, &error) {
                Some(meta) => meta,
                None => return self.insane(index, &format!("cannot open its disk: {error}")),
            },
        };
        self.hosts[index].log_is_damaged = false;
        self.perhaps_lose_a_record(index);
        // A machine that was a member and finds nothing has lost its disk.
        let known = match self.hosts[index].id.filter(|_| !meta.contains_key(&MetaKey::Identity)) {
            None => None,
            Some(id) => match self.known_to_others(index, id) {
                Some(known) => {
                    // A copy that was made before anything was durable holds nothing, like a lost disk.
                    self.hosts[index].copied = Copied::No;
                    Some(known)
                }
                None => return self.start_later(index),
            },
        };
        #[cfg(test)]
        self.planted.doctor_start(index, &mut meta, &mut rng);
        let host = &mut self.hosts[index];
        let mut outputs = std::mem::take(&mut self.outputs);
        let (config, now, end) =
            (host.config.clone(), host.clock.now(self.now), host.disk.end().unwrap_or_default());
        let started = match &known {
            Some(known) => Node::recover(config, known, now, rng, &mut outputs),
            None => Node::start(config, &meta, end, now, rng, &mut outputs),
        };
        match started {
            Ok(node) => {
                self.witness.started(index, node.id());
                host.process = Some(Process {
                    node,
                    has_started: false,
                    wakes_at: Moment::NEVER,
                    disk_is_busy: false,
                    is_stopping: false,
                });
                self.counts.starts += 1;
                self.trace.event(self.now, b's', index, self.hosts[index].boot);
                self.note(About::All, || format!("{} starts", host::name(index)));
                self.carry_out(index, outputs);
            }
            Err(error) => {
                self.outputs = outputs;
                self.insane(index, &format!("does not start: {error}"));
            }
        }
    }

    pub(super) fn notice(&mut self, index: usize, notice: Notice) {
        let is_durable = self.hosts[index].disk.start_is_durable();
        match &notice {
            Notice::Started => {
                let host = &mut self.hosts[index];
                let Some(process) = &mut host.process else { return };
                process.has_started = true;
                let (id, incarnation) = (process.node.id(), process.node.incarnation());
                host.nonce = process.node.membership().milestone().nonce;
                host.id = Some(id);
                self.ids.insert(id, index);
                self.violations.extend(self.starts.started(index, id, incarnation));
                self.violations.extend(self.starts.did(index, Deed::Start, is_durable));
            }
            Notice::Issued(dot) => {
                self.violations.extend(self.dots.issued(index, *dot));
                self.witness.issued(index, *dot);
                self.violations.extend(self.starts.did(index, Deed::Issue, is_durable));
            }
            Notice::Amnesia => self.counts.amnesia += 1,
            Notice::Stopped => return self.stopped(index),
            Notice::Serving => {
                self.hosts[index].has_served = true;
                self.cue(Cue::Serves(index));
                self.compare_views();
            }
            Notice::Whole { .. } => self.hosts[index].has_lost = false,
            Notice::Fenced { .. } => {
                let down = self.down_time();
                self.note(About::All, || format!("{} says {notice:?}", host::name(index)));
                self.crash(index, down, "ends, since a later life of its node was heard of");
                // Its operator does what it is told: puts the directory aside and recovers the node.
                return self.lose_disk(index);
            }
            Notice::Denied { .. } => {
                self.note(About::All, || format!("{} says {notice:?}", host::name(index)));
                return self.was_denied(index);
            }
            Notice::Health { .. }
            | Notice::Trouble(_)
            | Notice::Doubted { .. }
            | Notice::Refilling { .. } => {}
        }
        let about = match notice {
            Notice::Issued(_) | Notice::Health { .. } => About::Chatter,
            _ => About::All,
        };
        self.note(about, || format!("{} says {notice:?}", host::name(index)));
    }

    pub(super) fn stopped(&mut self, index: usize) {
        self.note(About::All, || format!("{} has stopped in good order", host::name(index)));
        if let Err(error) = self.hosts[index].disk.shut(&mut self.rng) {
            self.insane(index, &format!("cannot close its disk: {error}"));
        }
        #[cfg(test)]
        self.planted.stopped(index, &mut self.hosts[index].disk);
        self.hosts[index].process = None;
        self.trace.disk_closed(index);
        let down = Duration::from_millis(self.rng.between(1, 1_000));
        self.schedule(self.now + down, Event::Starts { host: index });
    }
}
