//! What a soak is told.

use std::fmt;
use std::time::Duration;

use super::load::Demand;
use super::strike::Kind;

/// What a soak is told. The seed decides the rest, but not when the system lets it happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoakOptions {
    /// Draws the faults and what clients ask.
    pub seed: u64,
    /// How long faults go on.
    pub duration: Duration,
    /// How many nodes.
    pub nodes: u16,
    /// How many clients work at once.
    pub clients: u32,
    /// How many keys they share.
    pub keys: u64,
    /// The size of a value in bytes; one that is too small to name its write is as large as that takes.
    pub value_size: usize,
    /// What goes wrong.
    pub faults: Vec<Kind>,
}

impl SoakOptions {
    /// The default soak of a seed: 5 minutes, 5 nodes, 8 clients, 200 keys, every kind of fault.
    #[must_use]
    pub fn new(seed: u64) -> SoakOptions {
        SoakOptions {
            seed,
            duration: Duration::from_secs(300),
            nodes: 5,
            clients: 8,
            keys: 200,
            value_size: 100,
            faults: Kind::ALL.to_vec(),
        }
    }

    pub(super) fn demand(&self) -> Demand {
        Demand { clients: self.clients, keys: self.keys, value_size: self.value_size, ..Demand::default() }
    }
}

impl fmt::Display for SoakOptions {
    /// As a command line, defaults included: what was the default then may be another one later.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = self.faults.iter().map(|kind| kind.name()).collect();
        write!(
            f,
            "starling soak --seed {} --seconds {} --nodes {} --clients {} --keys {} --value-size {} --faults {}",
            self.seed,
            self.duration.as_secs(),
            self.nodes,
            self.clients,
            self.keys,
            self.value_size,
            if kinds.is_empty() { "none".to_owned() } else { kinds.join(",") },
        )
    }
}
