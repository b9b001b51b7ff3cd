//! Scenarios: readable scripts of what is done to a cluster and what has to come of it.
//!
//! ```text
//!                       ┌── Stage: World   a simulated cluster, virtual time, what each disk holds
//! text ─▶ Scenario ─▶ perform
//!                       └── Stage: Lab     real processes (in `lab`), real time
//!              │
//!              ├──▶ story         time, what was done, what was answered, which expectations held
//!              └──▶ History ──▶ invariants        the judges of random runs judge scripted ones too
//! ```
//!
//! * [`script`] is what a scenario says, [`parse`] reads it from text, [`command`] is the part of the language that the
//!   lab's prompt shares, [`links`] the faults of the network that its verbs add up to.
//! * [`expectation`] compares what came of a step with what was expected.
//! * [`performance`] runs the steps on a [`stage::Stage`]; [`cast`] is its clients, [`story`] what is told of it.
//!
//! The language is described in `docs/scenarios.md`.

pub mod cast;
pub mod command;
pub mod expectation;
pub mod links;
pub mod parse;
pub mod performance;
pub mod script;
pub mod stage;
pub mod story;

pub use parse::ScenarioError;
pub use performance::{Outcome, perform};
pub use script::Scenario;
pub use stage::{Stage, Where};

use super::options::Recording;
use super::world::scripted;

impl Scenario {
    /// Runs it in the simulator, telling the story line by line as it goes on. The same script gives the same story on every
    /// machine. With a recording, the outcome has a time line of what the nodes did, too.
    pub fn simulate(&self, recording: Recording, say: &mut dyn FnMut(&str)) -> Outcome {
        scripted::simulate(self, recording, say)
    }
}
