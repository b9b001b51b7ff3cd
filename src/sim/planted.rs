//! Bugs planted for the proof of the judges: a judge that finds nothing in a world that is sound proves little.
//!
//! Each stands for a bug that some store shipped. They exist in tests only, and outside of the protocol: what they
//! spoil is the disk, the network or the start of a node, on its way through the simulated world.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::disk::Disk;
use super::faults::{Kind, Swarm};
use super::network::Weather;
use crate::protocol::causality::{Applied, Change, Dot, Put, Record};
use crate::protocol::rng::Rng;
use crate::protocol::storage::op::{DiskRequest, MetaKey};
use crate::protocol::wire::client::{Answer, Outcome};
use crate::protocol::wire::peer::PeerMessage;

mod tests;

/// A planted bug. The numbers are those of the project's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// 1: the actor survives a restart.
    ActorSurvives,
    /// 3: the bare write is shipped instead of the merged record.
    BareWrite,
    /// 4: the disk calls durable what it has only begun to write.
    DurableBeforeTheSync,
    /// 13: an unknown outcome is answered as *not applied*.
    UnknownAsNotApplied,
    /// 19: the incarnation is not raised at a restart.
    IncarnationStays,
    /// 31: the outcome of an operation is that of its last attempt.
    LastAttemptDecides,
    /// 32: a lost record is answered as *absent*.
    LostAsAbsent,
}

/// Makes the faults more frequent in which a bug shows: a profile of its own for each that would need many seeds.
pub(super) fn favour(planted: Option<Planted>, swarm: &mut Swarm) {
    if matches!(planted, Some(Planted::ActorSurvives | Planted::DurableBeforeTheSync)) {
        swarm.striking = vec![Kind::Crash];
        swarm.crash_after_applied_per_mille = 20;
        swarm.sync_max = Duration::from_millis(200);
        swarm.span_max = Duration::from_secs(3);
        swarm.weather = Weather::fair();
    }
}

/// Where a planted bug keeps what it needs.
pub(super) struct Bench {
    planted: Option<Planted>,
    rngs: BTreeMap<usize, Rng>,
    starts: BTreeMap<usize, Bytes>,
    puts: BTreeMap<Dot, Put>,
}

impl Bench {
    pub(super) fn new(planted: Option<Planted>) -> Bench {
        Bench { planted, rngs: BTreeMap::new(), starts: BTreeMap::new(), puts: BTreeMap::new() }
    }

    pub(super) fn is(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }

    /// Before a node starts.
    pub(super) fn doctor_start(&mut self, host: usize, meta: &mut BTreeMap<MetaKey, Bytes>, rng: &mut Rng) {
        let has_run = meta.contains_key(&MetaKey::Identity);
        match self.planted {
            // The second and all later starts draw the same numbers, the actor among them.
            Some(Planted::ActorSurvives) if has_run => {
                *rng = self.rngs.entry(host).or_insert_with(|| rng.clone()).clone();
            }
            Some(Planted::IncarnationStays) if has_run => {
                if let Some(start) = meta.get(&MetaKey::Start).cloned() {
                    meta.insert(MetaKey::Start, self.starts.entry(host).or_insert(start).clone());
                }
            }
            _ => {}
        }
    }

    /// Before a message leaves.
    pub(super) fn doctor_message(&self, message: PeerMessage) -> PeerMessage {
        let PeerMessage::Replicate { request, digest, epoch, actor, key, record } = message else {
            return message;
        };
        let newest = record.siblings().iter().filter_map(|sibling| self.puts.get(&sibling.dot)).next_back();
        let record = match newest.map(|put| Record::apply(&Change::Put(put.clone()), None)) {
            Some(Applied::Changed { record, .. }) if self.is(Planted::BareWrite) => record,
            _ => record,
        };
        PeerMessage::Replicate { request, digest, epoch, actor, key, record }
    }

    /// Before an answer leaves.
    pub(super) fn doctor_answer(&self, mut answer: Answer) -> Answer {
        if let Answer::Written(written) = &mut answer
            && self.is(Planted::UnknownAsNotApplied)
            && written.outcome == Outcome::Unknown
        {
            written.outcome = Outcome::NotApplied;
        }
        answer
    }

    /// After a node asked its disk for something.
    pub(super) fn saw_disk_request(&mut self, request: &DiskRequest) {
        if let DiskRequest::Update { change: Change::Put(put), .. } = request
            && self.is(Planted::BareWrite)
        {
            self.puts.insert(put.dot, Put { base: None, ..put.clone() });
        }
    }

    /// After a crash.
    pub(super) fn crashed(&self, disk: &mut Disk, rng: &mut Rng) {
        if self.is(Planted::LostAsAbsent) {
            disk.forget(rng);
        }
    }
}
