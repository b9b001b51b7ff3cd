//! What clients ask of nodes, and what they are answered.

use std::time::Duration;

use super::super::host::Process;
use super::super::trace::About;
use super::super::witness::Origin;
use super::super::workload::{Sight, Wish, Workload};
use super::{Event, World};
use crate::protocol::id::SessionId;
use crate::protocol::time::{Moment, WallTime};
use crate::protocol::wire::client::{Answer, Code, Problem, Request};

impl World {
    /// Lets the clients act on what they see.
    pub(super) fn see(&mut self, act: impl FnOnce(&mut Workload, &Sight<'_>, &mut Vec<Wish>)) {
        let times: Vec<WallTime> = self.hosts.iter().map(|host| host.told_time(self.now)).collect();
        act(&mut self.workload, &Sight { now: self.now, times: &times }, &mut self.wishes);
        self.grant_wishes();
    }

    pub(super) fn grant_wishes(&mut self) {
        for wish in std::mem::take(&mut self.wishes) {
            match wish {
                Wish::Wake { at: Moment::NEVER, .. } => {}
                Wish::Wake { client, at } => self.schedule(at, Event::ClientWakes { client }),
                Wish::Ask { client, host, id, deadline_ms, request } => {
                    self.asked(client, host, id, deadline_ms, request);
                }
            }
        }
    }

    pub(super) fn asked(&mut self, client: usize, host: usize, id: u64, deadline_ms: u32, request: Request) {
        #[cfg(test)]
        let request = self.planted.doctor_request(request);
        self.trace.event(self.now, b'c', client, id);
        self.trace.content(&request);
        self.trace.asked(self.now, client, host, &request);
        let delay = Duration::from_micros(self.rng.between(50, 1_000));
        if self.hosts[host].process.is_none() {
            let problem = Problem::new(Code::Connection, "nobody listens there");
            let answer = Box::new(Answer::Refused(problem));
            return self.schedule(self.now + delay, Event::Answered { client, id, answer });
        }
        if self.is_safe && self.rng.chance(self.swarm.client_loss_per_mille) {
            return;
        }
        let boot = self.hosts[host].boot;
        let event = Event::Asked { host, boot, client, id, deadline_ms, request: Box::new(request) };
        self.schedule(self.now + delay, event);
    }

    pub(super) fn respond(&mut self, from: usize, session: SessionId, id: u64, answer: Answer) {
        #[cfg(test)]
        let answer = self.planted.doctor_answer(answer);
        let secret = self.hosts[from].process.as_ref().and_then(Process::secret);
        self.witness.answered(from, Origin::Client(session, id), self.now, &answer, secret);
        let client = session.0 as usize;
        if let Answer::Explained(explanation) = &answer {
            self.trace.line(self.now, About::Chatter, || format!("slot {}", explanation.slot));
        }
        let key = self.workload.key_of(client, id).cloned();
        self.trace.answered(self.now, from, client, key.as_ref(), &answer);
        if self.is_safe && self.rng.chance(self.swarm.client_loss_per_mille) {
            return;
        }
        let delay = Duration::from_micros(self.rng.between(50, 1_000));
        self.schedule(self.now + delay, Event::Answered { client, id, answer: Box::new(answer) });
    }
}
