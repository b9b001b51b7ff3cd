//! What nodes say to each other.

use super::super::host::{self, Process};
use super::super::invariants::canonical;
use super::super::invariants::incarnations::Deed;
use super::super::trace::{self, About};
use super::{Event, World};
use crate::protocol::id::NodeId;
use crate::protocol::input::Input;
use crate::protocol::output::Destination;
use crate::protocol::wire::peer::PeerMessage;

/// Of how many messages one is read back from its bytes.
const DECODED_EVERY: u64 = 64;

impl World {
    pub(super) fn send(&mut self, from: usize, to: Destination, message: PeerMessage) {
        let Some(process) = &self.hosts[from].process else { return };
        // A node that takes a new actor later on goes on talking under its incarnation, which stays.
        if let Some(violation) = self.starts.did(from, Deed::Send, process.has_started) {
            self.violations.push(violation);
            return;
        }
        let id = process.node.id();
        let to = match to {
            Destination::Node { id, .. } => self.ids.get(&id).copied(),
            Destination::Address(address) => host::at_address(address),
        };
        let Some(to) = to.filter(|to| *to < self.hosts.len() && *to != from) else { return };
        #[cfg(test)]
        let message = self.planted.doctor_message(message);
        self.judge_message(&message);
        let secret = self.hosts[from].process.as_ref().and_then(Process::secret);
        if let Some(receiver) = self.hosts[to].id {
            self.witness.sent(from, receiver, self.now, &message, secret);
        }
        self.counts.messages += 1;
        let key = trace::key_of(&message).cloned();
        let about = || match (&key, &message) {
            (Some(key), _) => About::Key(key),
            _ => About::Chatter,
        };
        // A connection is between two processes: what is sent while nobody listens, or to a process that has ended
        // when it arrives, is lost.
        let is_heard = self.hosts[to].process.as_ref().is_some_and(|process| process.has_started);
        let arrivals = self.network.route(from, to, self.now, &mut self.rng);
        self.trace.event(self.now, b'm', from, to as u64);
        let bytes = self.trace.content(&message);
        if self.counts.messages.is_multiple_of(DECODED_EVERY) {
            self.violations.extend(canonical::judge_message(&message, bytes));
        }
        let lost = if !is_heard || arrivals.0[0].is_none() { ", lost" } else { "" };
        self.trace.line(self.now, about(), || {
            format!("{} -> {}  {}{lost}", host::name(from), host::name(to), trace::show_message(&message))
        });
        if !is_heard {
            return;
        }
        let boot = self.hosts[to].boot;
        if let [Some(at), Some(again)] = arrivals.0 {
            self.schedule(again, Event::Deliver { to, boot, from: id, message: Box::new(message.clone()) });
            self.schedule(at, Event::Deliver { to, boot, from: id, message: Box::new(message) });
        } else if let Some(at) = arrivals.0[0] {
            self.schedule(at, Event::Deliver { to, boot, from: id, message: Box::new(message) });
        }
    }

    fn judge_message(&mut self, message: &PeerMessage) {
        let violation = match message {
            PeerMessage::Replicate { key, record, .. } => self.dots.passed(key, record),
            _ => None,
        };
        self.violations.extend(violation);
    }

    pub(super) fn deliver(&mut self, to: usize, boot: u64, from: NodeId, message: PeerMessage) {
        if self.hosts[to].boot != boot || self.hosts[to].process.is_none() {
            return;
        }
        self.trace.event(self.now, b'>', to, from.0);
        if let Some(key) = trace::key_of(&message) {
            let sender = self.ids.get(&from).map_or("?".to_owned(), |&from| host::name(from));
            self.trace.line(self.now, About::Key(key), || {
                format!("{} <- {sender}  {}", host::name(to), trace::show_message(&message))
            });
        }
        self.input(to, Input::Peer { from, message });
    }
}
