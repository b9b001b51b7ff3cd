//! What one simulated run is told. Everything else is drawn from the seed.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::faults::Kind;
use crate::protocol::ring::replicas::Replicas;

/// What one run is told. What is `None` is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Decides everything that is left open here.
    pub seed: u64,
    /// How many nodes the cluster has. Drawn: mostly 5, else 3 to 7, seldom 1 or 9.
    pub nodes: Option<u16>,
    /// How many replicas it keeps of every key. Default 3.
    pub replicas: Replicas,
    /// How many clients work at once. Drawn: 1 to 40.
    pub clients: Option<u32>,
    /// How many keys they use, with skew. Drawn: 1 to 1,000.
    pub keys: Option<u32>,
    /// How many operations they all begin in a second while nothing slows them down. Drawn: 10 to 150.
    pub rate: Option<u32>,
    /// How long the faults go on, in virtual time and whole milliseconds. Default 60 s.
    pub duration: Duration,
    /// Which kinds of faults there are, none if it is empty. Drawn.
    pub faults: Option<BTreeSet<Kind>>,
    /// Of the single faults that come up only those with these numbers, counted from 1. All of them.
    pub only_faults: Option<BTreeSet<u32>>,
    /// Whether to run twice and compare the traces. Default false.
    pub twice: bool,
    /// What to record of the run. Has no influence on what happens.
    pub recording: Recording,
    /// A bug planted for the proof of the judges; never in a normal build.
    #[cfg(test)]
    pub(super) planted: Option<super::planted::Planting>,
}

/// What to record of a run, as lines for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Recording {
    /// Only the hash.
    #[default]
    Nothing,
    /// Faults, starts and stops.
    Faults,
    /// Those, and everything that touches one key.
    Key(Bytes),
    /// Everything, gossip included.
    Everything,
}

impl Options {
    /// The default run of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            nodes: None,
            replicas: Replicas::default(),
            clients: None,
            keys: None,
            rate: None,
            duration: Duration::from_secs(60),
            faults: None,
            only_faults: None,
            twice: false,
            recording: Recording::Nothing,
            #[cfg(test)]
            planted: None,
        }
    }

    /// The command that repeats the run.
    #[must_use]
    pub fn command(&self) -> String {
        format!("starling {self}")
    }
}

impl fmt::Display for Options {
    /// As the arguments of the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Options::new(self.seed);
        write!(f, "sim --seed {}", self.seed)?;
        if let Some(nodes) = self.nodes {
            write!(f, " --nodes {nodes}")?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(keys) = self.keys {
            write!(f, " --keys {keys}")?;
        }
        if let Some(rate) = self.rate {
            write!(f, " --rate {rate}")?;
        }
        if self.replicas != default.replicas {
            write!(f, " --replicas {}", self.replicas)?;
        }
        if self.duration != default.duration {
            let (seconds, millis) = (self.duration.as_secs(), self.duration.subsec_millis());
            match (seconds % 60, millis) {
                (0, 0) => write!(f, " --minutes {}", seconds / 60)?,
                (_, 0) => write!(f, " --seconds {seconds}")?,
                _ => write!(f, " --seconds {seconds}.{millis:03}")?,
            }
        }
        if let Some(kinds) = &self.faults {
            write!(f, " --faults {}", list(kinds.iter().map(|kind| kind.name().to_owned())))?;
        }
        if let Some(numbers) = &self.only_faults {
            write!(f, " --only-faults {}", list(numbers.iter().map(u32::to_string)))?;
        }
        Ok(())
    }
}

/// What an option that takes a list is given.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_what_differs_from_the_default_and_nothing_else() {
        assert_eq!(Options::new(7).command(), "starling sim --seed 7");
        let options = Options {
            nodes: Some(3),
            duration: Duration::from_secs(120),
            faults: Some(BTreeSet::new()),
            twice: true,
            ..Options::new(7)
        };
        assert_eq!(options.command(), "starling sim --seed 7 --nodes 3 --minutes 2 --faults none");
        let faults = Some(BTreeSet::from([Kind::OneWay, Kind::Crash]));
        assert_eq!(
            Options { faults, ..Options::new(1) }.command(),
            "starling sim --seed 1 --faults crash,one-way"
        );
        let options = Options { duration: Duration::from_secs(90), ..Options::new(1) };
        assert_eq!(options.command(), "starling sim --seed 1 --seconds 90");
        let options = Options {
            duration: Duration::from_millis(1_050),
            only_faults: Some(BTreeSet::from([3, 11])),
            ..Options::new(1)
        };
        assert_eq!(options.command(), "starling sim --seed 1 --seconds 1.050 --only-faults 3,11");
    }
}
