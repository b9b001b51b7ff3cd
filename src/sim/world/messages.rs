//! What nodes say to each other.

use std::time::Duration;

use super::super::faults::Kind;
use super::super::host::{self, Process};
use super::super::invariants::canonical;
use super::super::invariants::incarnations::Deed;
use super::super::trace::{About, Fate, key_of};
use super::{Event, World};
use crate::protocol::id::NodeId;
use crate::protocol::input::Input;
use crate::protocol::output::Destination;
#[cfg(test)]
use crate::protocol::ring::slot::Slot;
use crate::protocol::wire::client::Request;
use crate::protocol::wire::exchange::Exchange;
use crate::protocol::wire::peer::PeerMessage;

/// How much later an echo comes, in milliseconds: longer than it takes until a deletion is forgotten, often enough.
const ECHO_MS: (u64, u64) = (2_000, 90_000);

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
        #[cfg(test)]
        let Some(message) = self.planted.doctor_message(&process.node, &to, message) else { return };
        let to = match to {
            Destination::Node { id, .. } => self.ids.get(&id).copied(),
            Destination::Address(address) => host::at_address(address),
        };
        let Some(to) = to.filter(|to| *to < self.hosts.len() && *to != from) else { return };
        #[cfg(test)]
        let to = self.stand_in(from, to, &message).unwrap_or(to);
        self.judge_message(&message);
        let secret = self.hosts[from].process.as_ref().and_then(Process::secret);
        if let Some(receiver) = self.hosts[to].id {
            self.witness.sent(from, receiver, self.now, &message, secret);
        }
        self.counts.messages += 1;
        // A connection is between two processes: what is sent while nobody listens, or to a process that has ended
        // when it arrives, is lost.
        let is_heard = self.hosts[to].process.as_ref().is_some_and(|process| process.has_started);
        let arrivals = self.network.route(from, to, self.now, &mut self.rng);
        self.trace.event(self.now, b'm', from, to as u64);
        let bytes = self.trace.content(&message);
        if self.counts.messages.is_multiple_of(DECODED_EVERY) {
            self.violations.extend(canonical::judge_message(&message, bytes));
        }
        let fate = match arrivals.0[0] {
            _ if !is_heard => Fate::Unheard,
            Some(at) => Fate::Arrives(at),
            None => Fate::Lost,
        };
        self.trace.sent(self.now, from, to, &message, &fate);
        self.perhaps_echo(from, id, to, &message);
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

    /// Now and then a message that carries records arrives once more, much later: it lay in the queue of somebody who tries
    /// again, whatever has become of the connection. Until then a round of reaping may be over.
    fn perhaps_echo(&mut self, host: usize, from: NodeId, to: usize, message: &PeerMessage) {
        let carries_records = matches!(
            message,
            PeerMessage::Replicate { .. }
                | PeerMessage::Hint { .. }
                | PeerMessage::Fetched { .. }
                | PeerMessage::Exchange(Exchange::Records { .. } | Exchange::Drawn { .. })
        );
        if !carries_records || !self.is_safe {
            return;
        }
        let mut after = self.scripted_echo(host, to);
        if self.swarm.echo_per_mille > 0
            && self.rng.chance(self.swarm.echo_per_mille)
            && self.strikes(Kind::Echo)
        {
            after = Some(Duration::from_millis(self.rng.between(ECHO_MS.0, ECHO_MS.1)));
        }
        if let Some(after) = after {
            let event = Event::Echoes { to, from, message: Box::new(message.clone()) };
            self.schedule(self.now + after, event);
        }
    }

    /// What healed has no echoes left: nobody waits so long for the queues of others to be empty.
    pub(super) fn echo(&mut self, to: usize, from: NodeId, message: PeerMessage) {
        if self.is_safe && self.hosts[to].process.as_ref().is_some_and(|process| process.has_started) {
            let about = key_of(&message).map_or(About::Chatter, |key| About::Key(key));
            self.note(about, || format!("{} is told once more, long after it was sent:", host::name(to)));
            let boot = self.hosts[to].boot;
            self.deliver(to, boot, from, message);
        }
    }

    fn judge_message(&mut self, message: &PeerMessage) {
        match message {
            PeerMessage::Replicate { key, record, .. } => {
                let violation = self.dots.passed(key, record);
                self.violations.extend(violation);
            }
            PeerMessage::Exchange(Exchange::Records { items, .. }) => {
                for item in items {
                    let violation = self.dots.passed(&item.key, &item.record);
                    self.violations.extend(violation);
                }
            }
            PeerMessage::Forward { ask: Request::Write(write), .. } => {
                let violation = self.circles.passed_on(write);
                self.violations.extend(violation);
            }
            _ => {}
        }
    }

    pub(super) fn deliver(&mut self, to: usize, boot: u64, from: NodeId, message: PeerMessage) {
        if self.hosts[to].boot != boot || self.hosts[to].process.is_none() {
            return;
        }
        #[cfg(test)]
        let Some((from, message)) = self.doctor_arrival(to, from, message) else { return };
        self.trace.event(self.now, b'>', to, from.0);
        let cue = self.cue_of_message(to, &message);
        self.trace.received(self.now, to, self.ids.get(&from).copied(), &message);
        self.input(to, Input::Peer { from, message });
        if let Some(cue) = cue {
            self.cue(cue);
        }
    }

    /// Who gets a message instead of an owner that does not listen, if strangers answer.
    #[cfg(test)]
    fn stand_in(&mut self, from: usize, to: usize, message: &PeerMessage) -> Option<usize> {
        use super::super::planted::Planted;

        let listens = |host: &super::Host| host.process.as_ref().is_some_and(|process| process.has_started);
        if !self.planted.is(Planted::StrangersAnswer) || listens(&self.hosts[to]) {
            return None;
        }
        let view = self.hosts[from].process.as_ref()?.node.ring_view()?;
        let owners = view.slot(Slot::of_key(key_of(message)?)).read_set();
        let strangers: Vec<NodeId> =
            self.hosts.iter().filter(|host| listens(host)).filter_map(|host| host.id).collect();
        let strangers: Vec<NodeId> = strangers.into_iter().filter(|id| !owners.contains(id)).collect();
        let stranger = self.planted.stand_in(from, self.hosts[to].id?, message, &strangers)?;
        self.ids.get(&stranger).copied()
    }

    /// What becomes of a message that arrives, and from whom it seems to be.
    #[cfg(test)]
    fn doctor_arrival(
        &mut self,
        to: usize,
        from: NodeId,
        message: PeerMessage,
    ) -> Option<(NodeId, PeerMessage)> {
        use super::super::planted::Passage;

        let (wall, limits) = (self.hosts[to].clock.now(self.now).wall, self.hosts[to].config.limits);
        match self.planted.doctor_arrival(to, from, message, wall, &limits, self.is_safe) {
            Passage::As(from, message) => Some((from, message)),
            Passage::Nowhere => None,
            Passage::Answered(answer) => {
                self.send(to, Destination::Node { id: from, address: None }, answer);
                None
            }
        }
    }
}
