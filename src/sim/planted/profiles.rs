//! What favours which bug: nodes, faults and clients under which it shows early. All of it is fair: things that a run of
//! the whole swarm may draw too, only more often, so that a hunt takes tens of seeds and not thousands.

use std::time::Duration;

use super::super::faults::{Kind, Swarm};
use super::super::network::Weather;
use super::super::workload::Profile as Clients;
use crate::protocol::config::{HintConfig, Limits};

/// What a run is like in which a bug is looked for. What is `None` is drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// For people.
    pub(super) says: &'static str,
    pub(super) nodes: Option<u16>,
    pub(super) keys: Option<u32>,
    /// How long the faults go on, in seconds.
    pub(super) seconds: u64,
    /// How many clients there are.
    pub(super) crowd: Option<u32>,
    /// A trouble that a sound node survives as far as the judges of the bug go.
    pub(super) scaffold: Option<Scaffold>,
    pub(super) faults: fn(&mut Swarm),
    pub(super) clients: fn(&mut Clients),
}

/// A trouble that no fault of the swarm makes yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scaffold {
    /// The directory of one node is copied after a stop in good order and put back after later ones.
    RestoredBackup,
    /// Now and then a replica loses a record on its way to the disk and acknowledges it with what it has.
    UnmergedAcks,
    /// Hints come home under an epoch that no round has reached, so that nobody takes them for late.
    AgelessHints,
}

/// Whatever the seed draws.
pub(super) const SWARM: Profile = Profile {
    says: "whatever the seed draws",
    nodes: None,
    keys: None,
    seconds: 20,
    crowd: Some(8),
    scaffold: None,
    faults: |_| {},
    clients: |_| {},
};

/// Machines crash often, and three of ten come back without their disk, over a slow network.
pub(super) const LOST_DISKS: Profile = Profile {
    says: "3 nodes, 20 keys, every third write blind; a slow network; crashes, three in ten of which cost the disk",
    nodes: Some(3),
    keys: Some(20),
    seconds: 30,
    crowd: Some(12),
    clients: |clients| {
        calm(clients);
        clients.weights = [30, 30, 20, 10, 5, 0, 0];
    },
    faults: |swarm| {
        *swarm = strikes(&[Kind::Crash], 700, 1_500);
        swarm.weather.delay_spread = Duration::from_millis(100);
        swarm.kinds.insert(Kind::LostDisk);
        swarm.lost_disk_per_mille = 300;
        swarm.from_the_start = false;
    },
    ..SWARM
};

/// Machines crash often, and some of them come back with an older copy of their disk, over a slow network.
pub(super) const OLD_COPIES: Profile = Profile {
    says: "3 nodes, 20 keys, every third write blind; a slow network; crashes, after some of which an old copy of the disk is back",
    faults: |swarm| {
        *swarm = strikes(&[Kind::Crash], 700, 1_500);
        swarm.weather.delay_spread = Duration::from_millis(100);
        swarm.kinds.insert(Kind::Backup);
        swarm.from_the_start = false;
    },
    ..LOST_DISKS
};

/// Nothing goes wrong; few keys, and clients that get in each other's way.
pub(super) const CONFLICTS: Profile = Profile {
    says: "no faults; 3 keys, every third write blind",
    keys: Some(3),
    seconds: 5,
    faults: |swarm| *swarm = Swarm::calm(),
    clients: |clients| {
        calm(clients);
        clients.weights = [30, 30, 20, 10, 5, 0, 0];
    },
    ..SWARM
};

/// Crashes right after a disk has applied something, and syncs that take long.
pub(super) const CRASHES: Profile = Profile {
    says: "crashes, many right after *applied*; slow syncs",
    keys: Some(6),
    faults: |swarm| {
        *swarm = strikes(&[Kind::Crash], 1_000, 3_000);
        swarm.crash_after_applied_per_mille = 20;
        swarm.sync_max = Duration::from_millis(200);
    },
    clients: |clients| {
        calm(clients);
        clients.weights = [40, 30, 30, 0, 0, 0, 0];
    },
    ..SWARM
};

/// The same among many keys that are hardly ever read: what a crash took is still missing in the end.
pub(super) const CRASHES_AMONG_MANY: Profile = Profile {
    says: "crashes, many right after *applied*; slow syncs; blind puts to 400 keys",
    keys: Some(400),
    clients: |clients| {
        calm(clients);
        clients.weights = [1, 1, 98, 0, 0, 0, 0];
    },
    ..CRASHES
};

/// One node is stopped over and over, and old directories of it come back.
pub(super) const BACKUPS: Profile = Profile {
    says: "stops in good order; a copy of one node's directory is put back now and then",
    nodes: Some(3),
    keys: Some(3),
    seconds: 30,
    scaffold: Some(Scaffold::RestoredBackup),
    faults: |swarm| *swarm = strikes(&[Kind::Stop], 700, 500),
    clients: |clients| {
        calm(clients);
        clients.weights = [20, 10, 40, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Clients and nodes that try again, in a network that loses and delays.
pub(super) const RETRIES: Profile = Profile {
    says: "answers and messages lost or late; up to 4 attempts; overwrites and deletes; 2 keys",
    nodes: Some(5),
    keys: Some(2),
    seconds: 20,
    faults: |swarm| {
        *swarm = strikes(&[Kind::Clog, Kind::Pause], 700, 3_000);
        swarm.weather.delay_spread = Duration::from_millis(100);
        swarm.weather.loss_per_mille = 100;
        swarm.client_loss_per_mille = 200;
    },
    clients: |clients| {
        calm(clients);
        clients.attempt = Duration::from_millis(250);
        clients.patience = Duration::from_millis(3_000);
        clients.attempts_max = 4;
        clients.weights = [20, 40, 5, 10, 20, 0, 0];
    },
    ..SWARM
};

/// The same for clients that do not wait for long.
pub(super) const TIMEOUTS: Profile = Profile {
    says: "partitions and pauses; clients that wait for less than a second",
    keys: Some(6),
    seconds: 15,
    faults: |swarm| *swarm = strikes(&[Kind::Partition, Kind::Pause, Kind::Clog], 500, 3_000),
    clients: |clients| {
        calm(clients);
        clients.attempt = Duration::from_millis(300);
        clients.patience = Duration::from_millis(900);
        clients.attempts_max = 3;
    },
    ..SWARM
};

/// Separated coordinators that each fill a key with siblings. More keys than the healed core writes, since a write there
/// resolves them.
pub(super) const SIBLINGS: Profile = Profile {
    says: "partitions; blind puts to 24 keys; at most 3 siblings",
    nodes: Some(5),
    keys: Some(24),
    seconds: 10,
    faults: |swarm| *swarm = strikes(&[Kind::Partition], 1_000, 3_000),
    clients: |clients| {
        calm(clients);
        clients.odd_level_per_mille = 400;
        clients.weights = [20, 10, 70, 0, 0, 0, 0];
        clients.limits.siblings_max = 3;
    },
    ..SWARM
};

/// Wall clocks that are off by up to an hour.
pub(super) const SKEW: Profile = Profile {
    says: "wall clocks off by up to an hour",
    keys: Some(6),
    seconds: 5,
    faults: |swarm| {
        *swarm = Swarm::calm();
        swarm.skew_ms = 3_600_000;
    },
    clients: calm,
    ..SWARM
};

/// Wall clocks that are set back and forth by little, and many writes.
pub(super) const JUMPS: Profile = Profile {
    says: "wall clocks that jump by up to 300 ms; many writes",
    nodes: Some(3),
    keys: Some(6),
    seconds: 20,
    faults: |swarm| {
        *swarm = strikes(&[Kind::Jump], 300, 500);
        swarm.jump_ms = 300;
    },
    clients: |clients| {
        calm(clients);
        clients.think_max = Duration::from_millis(20);
        clients.weights = [5, 20, 40, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Many writes in the same millisecond.
pub(super) const BUSY: Profile = Profile {
    says: "no faults; many writes at once to few keys",
    nodes: Some(3),
    keys: Some(2),
    seconds: 5,
    faults: |swarm| *swarm = Swarm::calm(),
    clients: |clients| {
        calm(clients);
        clients.think_max = Duration::from_millis(10);
        clients.weights = [5, 20, 60, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Halves that are apart for long enough to give each other up.
pub(super) const LONG_PARTITIONS: Profile = Profile {
    says: "partitions that last until the halves believe each other dead",
    nodes: Some(5),
    keys: Some(6),
    seconds: 40,
    faults: |swarm| *swarm = strikes(&[Kind::Partition], 10_000, 30_000),
    clients: calm,
    ..SWARM
};

/// Clients that mix up their contexts, or damage them.
pub(super) const WRONG_CONTEXTS: Profile = Profile {
    says: "no faults; writes with a context of another key or with a bit of it changed",
    clients: |clients| {
        calm(clients);
        clients.weights = [30, 30, 10, 0, 0, 0, 20];
    },
    ..CONFLICTS
};

/// Coordinators that crash before what they applied is durable, and whose messages are lost.
pub(super) const READ_AND_CRASH: Profile = Profile {
    says: "crashes right after *applied*, slow syncs, lost messages; reads of every level",
    nodes: Some(3),
    keys: Some(3),
    faults: |swarm| {
        *swarm = strikes(&[Kind::Crash, Kind::Partition], 1_000, 2_000);
        swarm.crash_after_applied_per_mille = 20;
        swarm.sync_max = Duration::from_millis(200);
        swarm.weather.loss_per_mille = 300;
    },
    clients: |clients| {
        calm(clients);
        clients.think_max = Duration::from_millis(50);
        clients.odd_level_per_mille = 700;
        clients.weights = [60, 20, 30, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Atomic reads beside writes whose messages are late.
pub(super) const ATOMIC: Profile = Profile {
    says: "messages late or lost; most reads atomic; 2 keys",
    nodes: Some(5),
    keys: Some(2),
    seconds: 15,
    faults: |swarm| {
        *swarm = Swarm::calm();
        swarm.weather.delay_spread = Duration::from_millis(100);
        swarm.weather.loss_per_mille = 200;
        swarm.weather.reorders = true;
    },
    clients: |clients| {
        calm(clients);
        clients.atomic_per_mille = 700;
        clients.weights = [70, 20, 10, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Deletes that are forgotten at once, while nodes come and go.
pub(super) const REAPS: Profile = Profile {
    says: "crashes and partitions; many deletes, forgotten after a second; 8 keys",
    nodes: Some(4),
    keys: Some(8),
    seconds: 30,
    faults: |swarm| *swarm = strikes(&[Kind::Crash, Kind::Partition], 2_000, 6_000),
    clients: |clients| {
        calm(clients);
        clients.attempts_max = 1;
        clients.reap_rest = Duration::from_secs(1);
        clients.weights = [30, 20, 20, 0, 30, 0, 0];
    },
    ..SWARM
};

/// Deletes that are forgotten at once, and messages that come again after that.
pub(super) const ECHOES: Profile = Profile {
    says: "many deletes, forgotten after a second; messages that arrive once more, much later; 4 keys",
    nodes: Some(4),
    keys: Some(4),
    seconds: 40,
    faults: |swarm| {
        *swarm = Swarm::calm();
        swarm.kinds.insert(Kind::Echo);
        swarm.echo_per_mille = 100;
    },
    clients: |clients| {
        calm(clients);
        clients.think_max = Duration::from_millis(2_000);
        clients.attempts_max = 1;
        clients.reap_rest = Duration::from_secs(1);
        clients.weights = [20, 10, 25, 0, 35, 0, 0];
    },
    ..SWARM
};

/// Owners that are away for so long that others keep hints for them, and come back to deletes that are forgotten at once.
pub(super) const REAPED_HINTS: Profile = Profile {
    says: "links and groups cut off for seconds among 6 nodes; many deletes, forgotten after a second; hints look ageless; 6 keys",
    nodes: Some(6),
    keys: Some(6),
    seconds: 40,
    scaffold: Some(Scaffold::AgelessHints),
    faults: |swarm| *swarm = strikes(&[Kind::Odd, Kind::Partition], 2_000, 10_000),
    clients: |clients| {
        calm(clients);
        clients.think_max = Duration::from_millis(1_000);
        clients.attempts_max = 1;
        clients.reap_rest = Duration::from_secs(1);
        clients.weights = [20, 10, 25, 0, 35, 0, 0];
    },
    ..SWARM
};

/// Stores that are hardly ever fed, and deletes that are forgotten at once.
pub(super) const LAGGING_REAPS: Profile = Profile {
    says: "stores that lag behind their logs; many deletes, forgotten after a second; 4 keys",
    nodes: Some(3),
    keys: Some(4),
    seconds: 40,
    faults: |swarm| {
        *swarm = Swarm::calm();
        swarm.feed_per_mille = 5;
    },
    clients: ECHOES.clients,
    ..SWARM
};

/// Logs that are damaged in the middle, before stores that are hardly ever fed.
pub(super) const DAMAGED_LOGS: Profile = Profile {
    says: "crashes, some of which damage the log; stores that lag behind their logs; 6 keys",
    nodes: Some(3),
    keys: Some(6),
    faults: |swarm| {
        *swarm = strikes(&[Kind::Crash], 1_000, 1_500);
        swarm.kinds.insert(Kind::RotLog);
        swarm.feed_per_mille = 1;
    },
    clients: |clients| {
        calm(clients);
        clients.weights = [40, 30, 30, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Records that rot while they are written blind, over a network so bad that a refill takes its time.
pub(super) const ROT: Profile = Profile {
    says: "records that rot; a slow network that loses every fifth message; blind puts to 2 keys",
    nodes: Some(3),
    keys: Some(2),
    seconds: 40,
    faults: |swarm| {
        *swarm = strikes(&[Kind::Rot], 500, 1_000);
        swarm.weather.delay_spread = Duration::from_millis(100);
        swarm.weather.loss_per_mille = 200;
    },
    clients: |clients| {
        calm(clients);
        clients.weights = [30, 10, 60, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Replicas that acknowledge what they lost on the way.
pub(super) const UNMERGED_ACKS: Profile = Profile {
    says: "now and then a replica loses a record on its way to the disk and acknowledges it with what it has",
    keys: Some(4),
    scaffold: Some(Scaffold::UnmergedAcks),
    clients: |clients| {
        (CONFLICTS.clients)(clients);
        clients.attempts_max = 1;
    },
    ..CONFLICTS
};

/// Owners that are away when they are asked.
pub(super) const ABSENCES: Profile = Profile {
    says: "short crashes one after the other",
    nodes: Some(5),
    keys: Some(4),
    seconds: 15,
    faults: |swarm| *swarm = strikes(&[Kind::Crash], 400, 800),
    clients: |clients| {
        calm(clients);
        clients.weights = [50, 30, 20, 0, 0, 0, 0];
    },
    ..SWARM
};

/// Owners that are out of reach for long enough to be known for it, with enough other nodes to stand in for them.
pub(super) const HINTS: Profile = Profile {
    says: "partitions and crashes of several seconds among 6 nodes; 6 keys; some writes sloppy",
    nodes: Some(6),
    keys: Some(6),
    seconds: 30,
    faults: |swarm| *swarm = strikes(&[Kind::Partition, Kind::Crash], 3_000, 10_000),
    clients: |clients| {
        calm(clients);
        clients.sloppy_per_mille = 200;
    },
    ..SWARM
};

/// Nodes that some reach and others do not, and clients of those who do not that are in a hurry: there is time for one
/// attempt, and none to wait for somebody who cannot be heard.
pub(super) const HURRY_BEHIND_CUTS: Profile = Profile {
    says: "single links cut, some of them for good; the healed core owes an answer within 800 ms; 24 keys",
    nodes: Some(5),
    keys: Some(24),
    seconds: 5,
    faults: |swarm| *swarm = strikes(&[Kind::Odd], 1_000, 2_000),
    clients: |clients| {
        calm(clients);
        clients.attempt = Duration::from_secs(2);
        clients.core_deadline = Duration::from_millis(800);
    },
    ..SWARM
};

/// Only these kinds of faults strike.
fn strikes(kinds: &[Kind], interval_ms: u64, span_max_ms: u64) -> Swarm {
    Swarm {
        kinds: kinds.iter().copied().collect(),
        striking: kinds.to_vec(),
        weather: Weather::fair(),
        interval: Duration::from_millis(interval_ms),
        span_max: Duration::from_millis(span_max_ms),
        ..Swarm::calm()
    }
}

/// Clients that read, read and write back, and write blind, by majorities, at leisure.
fn calm(clients: &mut Clients) {
    clients.think_max = Duration::from_millis(100);
    clients.attempt = Duration::from_millis(500);
    clients.patience = Duration::from_millis(1_500);
    clients.attempts_max = 2;
    clients.odd_level_per_mille = 0;
    clients.atomic_per_mille = 0;
    clients.limits = Limits::default();
    clients.requests_max = 4_096;
    clients.sloppy_per_mille = 0;
    clients.hint_bytes_max = HintConfig::default().bytes_max;
    clients.weights = [40, 30, 10, 5, 5, 0, 0];
}
