//! The soak: the history and the judges of the simulator over a cluster of real processes.
//!
//! ```text
//! seed ──▶ Storm   kills, stops, pauses, cuts, delays, loses ──▶ Lab ═══ real nodes
//!     └──▶ Load    reads, writes, deletes through the client library ═════╯
//!                      │
//!          Chronicle ◀─┴─ what clients did and saw, what was broken when, by one monotonic clock
//!              │
//!              ▼   heal, then read every key from all owners
//!           History ──▶ invariants::judge ──▶ Verdict ──▶ Story of each violation, Evidence on disk
//! ```
//!
//! The judges see what clients saw and nothing else, so they are the simulator's, unchanged. What differs is that a run cannot
//! be repeated: the seed decides which faults are drawn and what clients ask, but the system decides when each of
//! them gets its turn. So the evidence is kept instead: [`evidence`] can be judged again.

pub mod chronicle;
pub mod evidence;
pub mod load;
pub mod options;
pub mod remains;
pub mod storm;
pub mod story;
pub mod strike;
pub mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_lite::future::block_on;

use super::cluster::Lab;
use super::record::{LabError, LabRecord};
use crate::client::Client;
use crate::protocol::ring::entry::Name;
use crate::protocol::rng::Rng;

use chronicle::Chronicle;
use evidence::Evidence;
use load::{Load, Roads};
use options::SoakOptions;
use storm::Storm;
use verdict::Verdict;

/// How many owners a key of the soak's cluster has, if there are so many nodes.
const REPLICAS: u8 = 3;

/// How long clients go on when everything is healed, so that what the storm left behind meets new writes too.
const CALM: Duration = Duration::from_secs(1);

/// A cluster that is up, and everything that is to happen to it.
pub struct Soak {
    options: SoakOptions,
    lab: Lab,
    roads: Roads,
    chronicle: Arc<Chronicle>,
}

impl Soak {
    /// Starts the nodes in `dir`, which must not hold a lab, and connects the clients. `say` hears what it waits for.
    pub fn start(options: SoakOptions, dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Soak, LabError> {
        if LabRecord::exists(dir) {
            // Its keys would hold values that no client of this run has written.
            let text = format!("there is a lab in {} already; name a new directory", dir.display());
            return Err(LabError::Mismatch(text));
        }
        // Nothing interrupts the lab itself: a soak that is interrupted still heals and judges.
        let never = Arc::new(AtomicBool::new(false));
        let mut lab = Lab::open(dir, Some(options.nodes), Some(REPLICAS), never)?;
        let started =
            lab.start(say).and_then(|()| Roads::open(&lab, options.clients).map_err(LabError::Process));
        let roads = match started {
            Ok(roads) => roads,
            Err(error) => {
                lab.shutdown();
                return Err(error);
            }
        };
        let owners = usize::from(options.nodes).min(usize::from(REPLICAS));
        Ok(Soak { options, lab, roads, chronicle: Chronicle::begin(owners) })
    }

    /// What it was told.
    #[must_use]
    pub fn options(&self) -> &SoakOptions {
        &self.options
    }

    /// What happens, as it happens.
    #[must_use]
    pub fn chronicle(&self) -> &Arc<Chronicle> {
        &self.chronicle
    }

    /// Lets the storm rage over the load until its time is over or `stop` is raised; heals, reads every key from all of
    /// its owners, judges, and ends the nodes.
    pub fn run(self, stop: &AtomicBool) -> Verdict {
        let Soak { options, lab, roads, chronicle } = self;
        let mut rng = Rng::from_number(options.seed);
        let (storm_rng, load_rng) = (rng.fork(), rng.fork());
        let load = Load::start(&roads, &chronicle, options.demand(), load_rng);
        let begun = Instant::now();
        let mut storm = Storm::new(lab, Arc::clone(&chronicle), options.faults.clone(), storm_rng);
        storm.rage(begun + options.duration, stop);
        storm.heal();
        let calm = Instant::now() + CALM;
        while Instant::now() < calm && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        chronicle.is_now("the clients finish");
        load.stop();
        chronicle.is_now("every key is read from all owners");
        let loaded = chronicle.now();
        block_on(remains::read_all(&chronicle, &roads.free[0], remains::OWED_WITHIN));
        chronicle.is_now("the judges judge");
        let (history, events) = chronicle.close();
        let calamities = storm.end();
        block_on(roads.close());
        Verdict::of(Evidence { options: options.to_string(), history, events }, calamities, loaded)
    }
}

/// A client of the lab's cluster that finds its way, or one that sends everything through one node.
fn connect(lab: &Lab, via: Option<&str>) -> Result<Client, String> {
    let mut options = lab.connect_options(lab.record().addresses())?;
    options.via = via.map(Name::new).transpose()?;
    block_on(Client::connect(options)).map_err(|error| error.to_string())
}
