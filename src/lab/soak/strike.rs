//! One blow of the storm: what goes wrong next, for whom, and for how long. Drawn from the seed alone.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::super::command::{FaultChange, Links};
use super::super::faults::Faults;
use crate::protocol::rng::Rng;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, sometimes again while the node starts.
    Kill,
    /// A stop in good order.
    Stop,
    /// SIGSTOP.
    Pause,
    /// The network falls into two parts.
    Cut,
    /// A node is deaf or mute, or one link carries one way only.
    OneWay,
    /// Datagrams arrive late.
    Delay,
    /// Datagrams are lost.
    Loss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::Kill, Kind::Stop, Kind::Pause, Kind::Cut, Kind::OneWay, Kind::Delay, Kind::Loss];

    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Pause => "pause",
            Kind::Cut => "cut",
            Kind::OneWay => "oneway",
            Kind::Delay => "delay",
            Kind::Loss => "loss",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let known = || Kind::ALL.map(Kind::name).join(", ");
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("there is no fault {text:?}; there are {}", known()))
    }
}

/// One blow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// How long after the blow before it falls.
    pub wait: Duration,
    /// What happens.
    pub blow: Blow,
    /// How long it lasts; for a node that was ended, how long it stays so.
    pub span: Duration,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blow {
    /// These nodes are killed. With a span: as they start again, they are killed once more after it.
    Kill(Vec<String>, Option<Duration>),
    /// These nodes are stopped in good order.
    Stop(Vec<String>),
    /// These nodes stand still.
    Pause(Vec<String>),
    /// These links are bad.
    Links(Kind, Links, FaultChange),
}

impl Blow {
    /// Of which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Blow::Kill(..) => Kind::Kill,
            Blow::Stop(_) => Kind::Stop,
            Blow::Pause(_) => Kind::Pause,
            Blow::Links(kind, ..) => *kind,
        }
    }

    /// Adds it to the faults of the network, if it is one.
    pub fn add_to(&self, faults: &mut Faults, nodes: &[String]) {
        if let Blow::Links(_, links, change) = self {
            faults.change(links, *change, nodes);
        }
    }
}

impl Strike {
    /// Draws the next blow; `None` if there are no kinds.
    pub fn draw(kinds: &[Kind], nodes: &[String], rng: &mut Rng) -> Option<Strike> {
        // Blows come in bursts with quiet spells between them: what a node does while it recovers matters as much as how it
        // takes the first blow.
        let wait = if rng.chance(400) { rng.between(50, 500) } else { rng.between(500, 4_000) };
        let span = if rng.chance(300) { rng.between(100, 800) } else { rng.between(800, 10_000) };
        let mut order = nodes.to_vec();
        rng.shuffle(&mut order);
        let kind = *rng.pick(kinds)?;
        // A cut of a single node is none.
        let can_cut = nodes.len() > 1;
        let blow = match kind {
            Kind::Kill => {
                let again = rng.chance(300).then(|| Duration::from_millis(rng.between(1, 300)));
                Blow::Kill(some(order, rng), again)
            }
            Kind::Stop => Blow::Stop(some(order, rng)),
            Kind::Pause => Blow::Pause(some(order, rng)),
            Kind::Cut if can_cut => {
                let other = order.split_off(rng.between(1, nodes.len() as u64 - 1) as usize);
                Blow::Links(kind, Links::Between { from: order, to: other, both: true }, FaultChange::Cut)
            }
            Kind::OneWay if can_cut => {
                let mut others = order.split_off(1);
                if rng.chance(300) {
                    others.truncate(1);
                }
                let (from, to) = if rng.chance(500) { (order, others) } else { (others, order) };
                Blow::Links(kind, Links::Between { from, to, both: false }, FaultChange::Cut)
            }
            Kind::Delay => {
                let mean_ms = [5, 50, 200, 1_000][rng.index(4)];
                let change = FaultChange::Delay { mean_ms, jitter_ms: mean_ms / 2 };
                Blow::Links(kind, links(order, rng), change)
            }
            Kind::Loss => {
                let change = FaultChange::Loss([10, 50, 200, 500][rng.index(4)]);
                Blow::Links(kind, links(order, rng), change)
            }
            Kind::Cut | Kind::OneWay => Blow::Pause(order),
        };
        Some(Strike { wait: Duration::from_millis(wait), blow, span: Duration::from_millis(span) })
    }
}

/// Mostly one node, sometimes two, and sometimes so many that no majority is left: then nothing can be read or written,
/// and nothing may be lost either.
fn some(mut order: Vec<String>, rng: &mut Rng) -> Vec<String> {
    let count = match rng.below(100) {
        0..60 => 1,
        60..80 => 2,
        _ => rng.between(1, order.len() as u64) as usize,
    };
    order.truncate(count);
    order.sort();
    order
}

/// All links, or those of one node.
fn links(mut order: Vec<String>, rng: &mut Rng) -> Links {
    if order.len() < 2 || rng.chance(500) {
        return Links::All;
    }
    let others = order.split_off(1);
    Links::Between { from: order, to: others, both: rng.chance(500) }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blow::Kill(nodes, None) => write!(f, "kill {}", nodes.join(",")),
            Blow::Kill(nodes, Some(_)) => write!(f, "kill {}, and again as it starts", nodes.join(",")),
            Blow::Stop(nodes) => write!(f, "stop {}", nodes.join(",")),
            Blow::Pause(nodes) => write!(f, "pause {}", nodes.join(",")),
            Blow::Links(_, links, change) => {
                match change {
                    FaultChange::Cut => write!(f, "cut")?,
                    FaultChange::Delay { mean_ms, jitter_ms } => write!(f, "delay {mean_ms}±{jitter_ms} ms")?,
                    FaultChange::Loss(share) => write!(f, "loss {}%", share / 10)?,
                    FaultChange::Duplicate(share) => write!(f, "duplicate {}%", share / 10)?,
                    FaultChange::Reorder(share) => write!(f, "reorder {}%", share / 10)?,
                }
                match links {
                    Links::All => write!(f, " everywhere"),
                    Links::Between { from, to, both } => {
                        let arrow = if *both { "<>" } else { ">" };
                        write!(f, " {} {arrow} {}", from.join(","), to.join(","))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("n{number}")).collect()
    }

    #[test]
    fn a_seed_draws_the_same_storm_and_every_kind_of_it() {
        let nodes = names(5);
        let storm = |seed| {
            let mut rng = Rng::from_number(seed);
            (0..200).map(|_| Strike::draw(&Kind::ALL, &nodes, &mut rng).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(storm(3), storm(3));
        assert_ne!(storm(3), storm(4));
        let kinds: BTreeSet<Kind> = storm(3).iter().map(|strike| strike.blow.kind()).collect();
        assert_eq!(kinds, BTreeSet::from(Kind::ALL));
        let dead = |strike: &Strike| match &strike.blow {
            Blow::Kill(nodes, _) => nodes.len(),
            _ => 0,
        };
        let sizes: BTreeSet<usize> = storm(3).iter().map(dead).collect();
        assert!(sizes.contains(&1) && sizes.iter().any(|size| *size >= 3), "majorities die too: {sizes:?}");
        assert!(storm(3).iter().any(|strike| matches!(strike.blow, Blow::Kill(_, Some(_)))));
    }

    #[test]
    fn strikes_name_nodes_that_exist_in_clusters_of_every_size() {
        for count in 1..8 {
            let nodes = names(count);
            let mut rng = Rng::from_number(count as u64);
            for _ in 0..300 {
                let strike = Strike::draw(&Kind::ALL, &nodes, &mut rng).unwrap();
                let named = match &strike.blow {
                    Blow::Kill(nodes, _) | Blow::Stop(nodes) | Blow::Pause(nodes) => nodes.clone(),
                    Blow::Links(_, Links::All, _) => continue,
                    Blow::Links(_, Links::Between { from, to, .. }, _) => {
                        assert!(!to.is_empty() && from.iter().all(|node| !to.contains(node)), "{strike:?}");
                        [from.as_slice(), to].concat()
                    }
                };
                assert!(!named.is_empty() && named.iter().all(|node| nodes.contains(node)), "{strike:?}");
            }
        }
        assert_eq!(Strike::draw(&[], &names(3), &mut Rng::from_number(1)), None);
    }

    #[test]
    fn kinds_have_their_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("earthquake".parse::<Kind>().unwrap_err().contains("kill, stop, pause"));
    }
}
