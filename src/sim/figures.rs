//! Figures: whole schedules that a world plays now and then, since a random walk seldom finds its way through twenty
//! events in a row.
//!
//! A figure is a list of [`Act`]s on hosts by their role for one key. It demands nothing by itself: the judges see
//! what its clients did like everything else. While it is played, whatever else the seed drew goes on around it, so
//! that no two plays of a figure are alike.

use std::time::Duration;

use super::faults::both_ways;
use super::workload::Task;
use crate::protocol::rng::Rng;
use crate::protocol::wire::client::Level;

/// One step of a figure. Hosts are indexes, clients are numbers within the figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A client begins an operation on the figure's key; each attempt goes to the next of these hosts.
    Ask(usize, Task, Vec<usize>),
    /// Goes on when this happens, or after a while if it does not.
    Await(Cue),
    /// Goes on after this long.
    Wait(Duration),
    /// The host loses power, and stays down until it is started.
    Crash(usize),
    /// The node ends in good order, and starts again by itself.
    Stop(usize),
    /// A host starts, if it is down.
    Start(usize),
    /// Nothing happens on a host until it wakes.
    Pause(usize),
    /// It does again, beginning with everything that was held back.
    Wake(usize),
    /// These links are cut.
    Cut(Vec<(usize, usize)>),
    /// Everything on these links takes seconds.
    Clog(Vec<(usize, usize)>),
    /// All cuts and clogs of the figure so far end.
    Heal,
    /// A disk takes a hundred times as long, until the figure ends.
    SlowDisk(usize),
}

/// What a figure waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cue {
    /// This client has no operation under way.
    Answered(usize),
    /// The disk of this host applied a write of the key. It is not durable.
    Applied(usize),
    /// The disk of this host applied something that is not per key, such as a new start.
    Noted(usize),
    /// Everything that this host had logged is durable.
    Durable(usize),
    /// A record of the key reached this host.
    Heard(usize),
    /// This host begins to serve.
    Serves(usize),
}

/// Who plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    /// The owners of the key, in any order.
    pub(super) owners: Vec<usize>,
    /// All others.
    pub(super) others: Vec<usize>,
}

/// What a cast plays.
type Figure = fn(&Cast, &mut Rng) -> Vec<Act>;

/// All figures, by name. Those that need three owners leave a smaller cast alone.
pub(super) const FIGURES: [(&str, Figure); 13] = [
    ("the coordinator dies when one replica has the write", coordinator_dies),
    ("one owner after the other is cut off", owners_in_turn),
    ("a write sleeps through a delete", sleeping_write),
    ("a repair sleeps through a delete", sleeping_repair),
    ("a zombie wakes", zombie),
    ("a retry elsewhere, and the first coordinator returns", retry_elsewhere),
    ("writes on both sides of a cut", both_sides),
    ("a rolling restart", rolling_restart),
    ("a crash, and another one while it starts", crash_at_the_start),
    ("a whole repair", whole_repair),
    ("all owners crash", all_crash),
    ("a delete meets an older write", delete_meets_write),
    ("an unknown write comes to light", unknown_write),
];

const MAJORITY: Level = Level::Majority;

fn coordinator_dies(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    vec![
        Act::Cut(vec![(a, c)]),
        Act::SlowDisk(a),
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![a]),
        Act::Await(if rng.chance(500) { Cue::Heard(b) } else { Cue::Durable(b) }),
        Act::Crash(a),
        Act::Heal,
        Act::Ask(1, Task::Read(MAJORITY), vec![b, c]),
        Act::Await(Cue::Answered(1)),
        Act::Start(a),
        Act::Ask(1, Task::Put(MAJORITY), vec![c, b]),
        Act::Await(Cue::Serves(a)),
        Act::Ask(2, Task::Read(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(2)),
    ]
}

fn owners_in_turn(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut owners = cast.owners.clone();
    for round in 0..3 {
        rng.shuffle(&mut owners);
        let (away, near) = (owners[0], owners[1]);
        acts.extend([
            Act::Cut(cast.around(away)),
            Act::Ask(0, if round == 1 { Task::PutBlind(MAJORITY) } else { Task::Put(MAJORITY) }, vec![near]),
            Act::Await(Cue::Answered(0)),
            Act::Heal,
            Act::Cut(cast.around(near)),
            Act::Ask(1, Task::Read(MAJORITY), vec![away, owners[2]]),
            Act::Await(Cue::Answered(1)),
            Act::Heal,
        ]);
    }
    acts
}

/// What the coordinator sends is under way while the write that it belongs to is read and deleted.
fn sleeping_write(cast: &Cast, _: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    vec![
        Act::Clog(vec![(a, c)]),
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(0)),
        Act::Pause(a),
        Act::Ask(1, Task::Read(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(1)),
        Act::Ask(1, Task::Delete(MAJORITY), vec![b, c]),
        Act::Await(Cue::Answered(1)),
        Act::Wake(a),
        Act::Ask(2, Task::Read(MAJORITY), vec![c]),
        Act::Await(Cue::Answered(2)),
        Act::Await(Cue::Heard(c)),
        Act::Ask(2, Task::Read(Level::All), vec![c, a]),
        Act::Await(Cue::Answered(2)),
    ]
}

/// A read finds an owner that missed a write, and what it sends to repair it arrives after the delete.
fn sleeping_repair(cast: &Cast, _: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    let reader = cast.others.first().copied().unwrap_or(b);
    vec![
        Act::Cut(cast.around(c)),
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(0)),
        Act::Heal,
        Act::Clog(vec![(reader, c), (b, c)]),
        Act::Ask(1, Task::Read(Level::All), vec![reader, b]),
        Act::Await(Cue::Answered(1)),
        Act::Ask(1, Task::Delete(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(1)),
        Act::Await(Cue::Heard(c)),
        Act::Ask(2, Task::Read(MAJORITY), vec![c]),
        Act::Await(Cue::Answered(2)),
    ]
}

/// A node is paused at the moment when it has applied a write, and holds everything that it is sent meanwhile.
fn zombie(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    vec![
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(0)),
        Act::Ask(1, Task::Read(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(1)),
        Act::Ask(0, Task::Put(MAJORITY), vec![a, b]),
        Act::Await(Cue::Applied(a)),
        Act::Pause(a),
        Act::Ask(1, Task::Delete(MAJORITY), vec![b, c]),
        Act::Await(Cue::Answered(1)),
        Act::Wait(Duration::from_millis(rng.between(10, 8_000))),
        Act::Ask(2, Task::Read(MAJORITY), vec![c]),
        Act::Await(Cue::Answered(2)),
        Act::Wake(a),
        Act::Ask(2, Task::Read(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(2)),
    ]
}

fn retry_elsewhere(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    let first_arrives = rng.chance(500);
    vec![
        if first_arrives { Act::Clog(vec![(a, b), (a, c)]) } else { Act::Cut(vec![(a, b), (a, c)]) },
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![a, b, c]),
        Act::Await(if rng.chance(500) { Cue::Applied(a) } else { Cue::Durable(a) }),
        Act::Crash(a),
        Act::Await(Cue::Answered(0)),
        Act::Ask(1, Task::Read(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(1)),
        Act::Ask(1, if rng.chance(500) { Task::Delete(MAJORITY) } else { Task::Put(MAJORITY) }, vec![c, b]),
        Act::Await(Cue::Answered(1)),
        Act::Heal,
        Act::Start(a),
        Act::Await(Cue::Serves(a)),
        Act::Ask(2, Task::Read(Level::All), vec![a]),
        Act::Await(Cue::Answered(2)),
    ]
}

fn both_sides(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    let (mut one, mut other) = (vec![a], vec![b, c]);
    for &host in &cast.others {
        if rng.chance(500) { one.push(host) } else { other.push(host) }
    }
    let across = both_ways(&one, &other);
    let first: Vec<(usize, usize)> =
        across.iter().copied().filter(|&(from, to)| from != c && to != c).collect();
    let rest: Vec<(usize, usize)> = across.into_iter().filter(|link| !first.contains(link)).collect();
    vec![
        Act::Cut(first.clone()),
        Act::Cut(rest.clone()),
        Act::Ask(0, Task::PutBlind(Level::One), vec![a]),
        Act::Ask(1, Task::PutBlind(Level::One), vec![b]),
        Act::Await(Cue::Answered(0)),
        Act::Await(Cue::Answered(1)),
        Act::Ask(0, Task::Put(Level::One), vec![a]),
        Act::Ask(1, Task::Delete(MAJORITY), vec![c]),
        Act::Await(Cue::Answered(1)),
        // Healing in two steps: the second cut stays for a while.
        Act::Heal,
        Act::Cut(rest),
        Act::Ask(2, Task::Read(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(2)),
        Act::Ask(3, Task::Read(MAJORITY), vec![c]),
        Act::Await(Cue::Answered(3)),
        Act::Heal,
        Act::Ask(2, Task::Read(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(2)),
        Act::Ask(2, Task::Put(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(2)),
    ]
}

fn rolling_restart(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let mut hosts = [cast.owners.as_slice(), &cast.others].concat();
    rng.shuffle(&mut hosts);
    let mut acts = Vec::new();
    for (place, &host) in hosts.iter().enumerate() {
        let via = hosts[(place + 1) % hosts.len()];
        acts.push(Act::Ask(
            0,
            if place == 0 { Task::PutBlind(MAJORITY) } else { Task::Put(MAJORITY) },
            vec![via],
        ));
        if rng.chance(500) {
            acts.extend([
                Act::Crash(host),
                Act::Wait(Duration::from_millis(rng.between(1, 2_000))),
                Act::Start(host),
            ]);
        } else {
            acts.push(Act::Stop(host));
        }
        acts.extend([Act::Await(Cue::Serves(host)), Act::Await(Cue::Answered(0))]);
    }
    acts.extend([Act::Ask(1, Task::Read(MAJORITY), vec![hosts[0]]), Act::Await(Cue::Answered(1))]);
    acts
}

/// A start that does not get far, a few times: whatever it left on the disk is what the next one begins with.
fn crash_at_the_start(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, _] = cast.three();
    let mut acts = vec![Act::Ask(0, Task::PutBlind(MAJORITY), vec![a]), Act::Await(Cue::Answered(0))];
    for _ in 0..rng.between(2, 4) {
        let cue = match rng.below(3) {
            0 => Act::Await(Cue::Noted(a)),
            1 => Act::Await(Cue::Durable(a)),
            _ => Act::Wait(Duration::from_micros(rng.between(1, 5_000))),
        };
        acts.extend([Act::Crash(a), Act::Start(a), cue]);
    }
    acts.extend([
        Act::Crash(a),
        Act::Start(a),
        Act::Await(Cue::Serves(a)),
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(0)),
        Act::Ask(1, Task::Read(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(1)),
    ]);
    acts
}

/// An owner misses writes, is repaired by a read, and is then all that is left.
fn whole_repair(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    let mut acts = vec![Act::Crash(a)];
    for write in 0..rng.between(2, 5) {
        let task = if write % 2 == 0 { Task::PutBlind(MAJORITY) } else { Task::Put(MAJORITY) };
        acts.extend([Act::Ask(0, task, vec![b, c]), Act::Await(Cue::Answered(0))]);
    }
    acts.extend([
        Act::Start(a),
        Act::Await(Cue::Serves(a)),
        Act::Wait(Duration::from_millis(rng.between(1, 3_000))),
        Act::Ask(1, Task::Read(Level::All), vec![b]),
        Act::Await(Cue::Answered(1)),
        Act::Await(Cue::Durable(a)),
        Act::Crash(b),
        Act::Crash(c),
        Act::Ask(2, Task::Read(Level::One), vec![a]),
        Act::Await(Cue::Answered(2)),
        Act::Start(b),
        Act::Start(c),
        Act::Await(Cue::Serves(c)),
        Act::Ask(1, Task::Put(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(1)),
    ]);
    acts
}

/// Right after a write was committed, or read, every copy has to come back from a disk.
fn all_crash(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    let mut acts = vec![Act::Ask(0, Task::PutBlind(MAJORITY), vec![a])];
    if rng.chance(500) {
        acts.extend([
            Act::Await(Cue::Applied(b)),
            Act::Ask(1, Task::Read(if rng.chance(500) { Level::One } else { MAJORITY }), vec![b]),
            Act::Await(Cue::Answered(1)),
        ]);
    } else {
        acts.push(Act::Await(Cue::Answered(0)));
    }
    acts.extend([a, b, c].map(Act::Crash));
    acts.extend([a, b, c].map(Act::Start));
    acts.extend([
        Act::Await(Cue::Serves(b)),
        Act::Ask(1, Task::Put(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(1)),
        Act::Ask(2, Task::Read(MAJORITY), vec![c, a]),
        Act::Await(Cue::Answered(2)),
    ]);
    acts
}

/// A client that slept writes with a context from before the delete, at an owner that did not hear of it.
fn delete_meets_write(cast: &Cast, _: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    vec![
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![a]),
        Act::Await(Cue::Answered(0)),
        Act::Ask(1, Task::Read(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(1)),
        Act::Cut(cast.around(a)),
        Act::Ask(1, Task::Delete(MAJORITY), vec![b, c]),
        Act::Await(Cue::Answered(1)),
        Act::Ask(0, Task::Put(Level::One), vec![a]),
        Act::Await(Cue::Answered(0)),
        Act::Heal,
        Act::Ask(2, Task::Read(MAJORITY), vec![c]),
        Act::Await(Cue::Answered(2)),
        Act::Ask(2, Task::Read(Level::All), vec![a, b]),
        Act::Await(Cue::Answered(2)),
    ]
}

/// The only copy of a write that nobody answered is on one disk; a read shows it, and from then on it has to stay.
fn unknown_write(cast: &Cast, rng: &mut Rng) -> Vec<Act> {
    let [a, b, c] = cast.three();
    vec![
        Act::Cut(vec![(a, b), (a, c)]),
        Act::Ask(0, Task::PutBlind(MAJORITY), vec![a]),
        Act::Await(Cue::Durable(a)),
        if rng.chance(500) { Act::Crash(a) } else { Act::Pause(a) },
        Act::Heal,
        Act::Ask(1, Task::Read(MAJORITY), vec![b]),
        Act::Await(Cue::Answered(1)),
        Act::Start(a),
        Act::Wake(a),
        Act::Await(Cue::Serves(a)),
        Act::Cut(both_ways(&[a], &[c])),
        Act::Ask(2, Task::Read(MAJORITY), vec![a, b]),
        Act::Await(Cue::Answered(2)),
        Act::Crash(a),
        Act::Heal,
        Act::Ask(1, Task::Read(MAJORITY), vec![c, b]),
        Act::Await(Cue::Answered(1)),
        Act::Start(a),
    ]
}

impl Cast {
    /// Three owners.
    fn three(&self) -> [usize; 3] {
        [self.owners[0], self.owners[1], self.owners[2]]
    }

    /// All links of a host, in both directions.
    fn around(&self, host: usize) -> Vec<(usize, usize)> {
        let all = self.owners.iter().chain(&self.others);
        let others: Vec<usize> = all.copied().filter(|&other| other != host).collect();
        both_ways(&[host], &others)
    }
}

/// The fewest owners that a figure can be played with.
pub(super) const OWNERS_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every act of many plays of a figure.
    fn plays(figure: Figure) -> Vec<Vec<Act>> {
        let casts = [
            Cast { owners: vec![2, 0, 1], others: vec![] },
            Cast { owners: vec![4, 1, 0], others: vec![3, 2] },
        ];
        casts
            .iter()
            .flat_map(|cast| {
                (0..20).map(|seed| figure(cast, &mut Rng::from_number(seed))).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn whoever_is_awaited_was_asked_before() {
        for (name, figure) in FIGURES {
            for acts in plays(figure) {
                for (place, act) in acts.iter().enumerate() {
                    let Act::Await(Cue::Answered(client)) = act else { continue };
                    let asked = |act: &Act| matches!(act, Act::Ask(by, ..) if by == client);
                    assert!(acts[..place].iter().any(asked), "{name}: client {client} was asked nothing");
                }
            }
        }
    }

    #[test]
    fn no_figure_leaves_a_host_down_or_paused() {
        for (name, figure) in FIGURES {
            for acts in plays(figure) {
                let last = |wanted: &dyn Fn(&Act) -> bool| acts.iter().rposition(wanted);
                for host in 0..5 {
                    assert!(
                        last(&|act| *act == Act::Crash(host)) <= last(&|act| *act == Act::Start(host)),
                        "{name}"
                    );
                    assert!(
                        last(&|act| *act == Act::Pause(host)) <= last(&|act| *act == Act::Wake(host)),
                        "{name}"
                    );
                }
            }
        }
    }
}
