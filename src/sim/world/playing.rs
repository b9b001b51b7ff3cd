//! How a figure is played: one act after the other, each when its cue has come.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::super::figures::{Act, Cast, Cue, FIGURES, OWNERS_MIN};
use super::super::host;
use super::super::trace::{self, About};
use super::{Event, World};
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::{DiskReply, DiskRequest, Ticket};
use crate::protocol::wire::peer::PeerMessage;

/// How long a figure waits for a cue.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a figure breaks stays broken for this long at most, whatever becomes of the figure.
const LONGEST: Duration = Duration::from_secs(120);

/// How much longer everything takes on a clogged link.
const CLOG: Duration = Duration::from_secs(3);

/// How much slower a slow disk is, in thousandths more.
const SLOWNESS: u64 = 100_000;

/// A figure that is being played.
pub(super) struct Playing {
    number: u64,
    key: Bytes,
    acts: Vec<Act>,
    /// The next act.
    place: usize,
    cue: Option<Cue>,
    clients: Vec<usize>,
    /// What the disks were asked to write of the key, and have not applied.
    tickets: BTreeSet<(usize, Ticket)>,
    cuts: Vec<Vec<(usize, usize)>>,
    clogs: Vec<(usize, usize)>,
    slow: Vec<usize>,
}

impl World {
    /// Begins a figure on some key, unless one is being played or the cluster is too small.
    pub(super) fn begin_figure(&mut self) {
        let number = self.figures + 1;
        // Now and then a key that everybody uses.
        let key = match self.rng.chance(300) {
            true => Bytes::from_static(b"k0"),
            false => Bytes::from(format!("f{number}")),
        };
        let Some(cast) = self.cast(&key).filter(|_| self.playing.is_none()) else { return };
        let (name, figure) = FIGURES[self.rng.index(FIGURES.len())];
        let acts = figure(&cast, &mut self.rng);
        self.figures = number;
        let hired =
            acts.iter().filter_map(|act| if let Act::Ask(by, ..) = act { Some(by + 1) } else { None });
        let clients = (0..hired.max().unwrap_or(0)).map(|_| self.workload.hire(&mut self.rng)).collect();
        self.note(About::All, || format!("figure {number} begins, on {}: {name}", trace::show_key(&key)));
        self.playing = Some(Playing {
            number,
            key,
            acts,
            place: 0,
            cue: None,
            clients,
            tickets: BTreeSet::new(),
            cuts: Vec::new(),
            clogs: Vec::new(),
            slow: Vec::new(),
        });
        self.figure_goes_on(number, 0);
    }

    fn cast(&mut self, key: &Bytes) -> Option<Cast> {
        let view = self.hosts.iter().find_map(|host| host.process.as_ref()?.node.ring_view())?;
        let owners = view.slot(Slot::of_key(key)).read_set();
        let mut owners: Vec<usize> = owners.iter().filter_map(|id| self.ids.get(id).copied()).collect();
        if owners.len() < OWNERS_MIN {
            return None;
        }
        self.rng.shuffle(&mut owners);
        let mut others: Vec<usize> = (0..self.hosts.len()).filter(|host| !owners.contains(host)).collect();
        self.rng.shuffle(&mut others);
        Some(Cast { owners, others })
    }

    /// Plays on from an act, if the figure is still there and waits at it.
    pub(super) fn figure_goes_on(&mut self, number: u64, place: usize) {
        let Some(playing) = &mut self.playing else { return };
        // The timeout of an act that is over, or of a figure that is.
        if playing.number != number || playing.place != place {
            return;
        }
        playing.cue = None;
        self.play(number);
    }

    fn play(&mut self, number: u64) {
        loop {
            let Some(playing) = &mut self.playing else { return };
            let Some(act) = playing.acts.get(playing.place).cloned() else { return self.end_figure() };
            playing.place += 1;
            let place = playing.place;
            let wait = match act {
                Act::Await(cue) => {
                    let client = match cue {
                        Cue::Answered(by) => playing.clients.get(by).copied(),
                        _ => None,
                    };
                    if self.has_happened(cue, client) {
                        continue;
                    }
                    let Some(playing) = &mut self.playing else { return };
                    playing.cue = Some(cue);
                    PATIENCE
                }
                Act::Wait(span) => span,
                act => {
                    self.perform(act);
                    continue;
                }
            };
            let event = Event::FigureGoesOn { figure: number, act: place };
            return self.schedule(self.now + wait, event);
        }
    }

    /// Whether there is nothing to wait for.
    fn has_happened(&self, cue: Cue, client: Option<usize>) -> bool {
        match cue {
            Cue::Answered(_) => client.is_none_or(|client| !self.workload.is_waiting(client)),
            Cue::Serves(host) => self.serves(host),
            _ => false,
        }
    }

    fn perform(&mut self, act: Act) {
        let Some(playing) = &mut self.playing else { return };
        match act {
            Act::Ask(by, task, route) => {
                let (client, key) = (playing.clients[by], playing.key.clone());
                self.see(|workload, sight, wishes| {
                    workload.perform(client, &key, task, route, sight, wishes);
                });
            }
            Act::Crash(host) => self.crash(host, LONGEST, "crashes"),
            Act::Stop(host) => self.stop(host, Duration::from_millis(1)),
            Act::Start(host) => self.schedule(self.now, Event::Starts { host }),
            Act::Pause(host) => self.pause(host, LONGEST),
            Act::Wake(host) => self.wake_up(host),
            Act::Cut(links) => {
                self.network.cut(&links);
                playing.cuts.push(links);
            }
            Act::Clog(links) => {
                for &link in &links {
                    self.network.clog(link, CLOG);
                }
                playing.clogs.extend(links);
            }
            Act::Heal => {
                for links in std::mem::take(&mut playing.cuts) {
                    self.network.heal(&links);
                }
                for link in std::mem::take(&mut playing.clogs) {
                    self.network.unclog(link);
                }
            }
            Act::SlowDisk(host) => {
                self.hosts[host].slowness += SLOWNESS;
                playing.slow.push(host);
            }
            Act::Await(_) | Act::Wait(_) => {}
        }
    }

    fn wake_up(&mut self, host: usize) {
        if self.hosts[host].paused_until > self.now {
            self.note(About::All, || format!("{} wakes", host::name(host)));
            self.resume_by(host, self.now);
        }
    }

    fn end_figure(&mut self) {
        self.perform(Act::Heal);
        let Some(playing) = self.playing.take() else { return };
        for host in playing.slow {
            self.hosts[host].slowness -= SLOWNESS;
        }
        self.note(About::All, || format!("figure {} ends", playing.number));
    }

    /// Something happened that a figure may wait for.
    pub(super) fn cue(&mut self, cue: Cue) {
        let Some(playing) = &mut self.playing else { return };
        if playing.cue == Some(cue) {
            let (figure, act) = (playing.number, playing.place);
            // Not from within whatever is going on.
            self.schedule(self.now, Event::FigureGoesOn { figure, act });
        }
    }

    /// A client may have been answered.
    pub(super) fn cue_client(&mut self, client: usize) {
        let Some(playing) = &self.playing else { return };
        let number = playing.clients.iter().position(|&hired| hired == client);
        if let Some(number) = number.filter(|_| !self.workload.is_waiting(client)) {
            self.cue(Cue::Answered(number));
        }
    }

    pub(super) fn figure_saw_disk_request(&mut self, index: usize, request: &DiskRequest) {
        if let (Some(playing), DiskRequest::Update { ticket, key, .. }) = (&mut self.playing, request)
            && playing.key == *key
        {
            playing.tickets.insert((index, *ticket));
        }
    }

    /// What a reply of a disk is a cue for.
    pub(super) fn cue_of(&mut self, index: usize, reply: &DiskReply) -> Option<Cue> {
        let playing = self.playing.as_mut()?;
        match reply {
            DiskReply::Applied { ticket, .. } => {
                playing.tickets.remove(&(index, *ticket)).then_some(Cue::Applied(index))
            }
            DiskReply::MetaApplied { .. } => Some(Cue::Noted(index)),
            DiskReply::Durable { .. } => Some(Cue::Durable(index)),
            DiskReply::Read { .. }
            | DiskReply::Removed { .. }
            | DiskReply::Sums { .. }
            | DiskReply::Listed { .. }
            | DiskReply::ReadMany { .. }
            | DiskReply::Mended { .. }
            | DiskReply::Doubted { .. } => None,
        }
    }

    /// What the arrival of a message is a cue for.
    pub(super) fn cue_of_message(&self, to: usize, message: &PeerMessage) -> Option<Cue> {
        match (&self.playing, message) {
            (Some(playing), PeerMessage::Replicate { key, .. }) if playing.key == *key => {
                Some(Cue::Heard(to))
            }
            _ => None,
        }
    }
}
