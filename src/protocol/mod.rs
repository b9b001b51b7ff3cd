//! The pure world: every rule of the store, and nothing that a test cannot hold still.
//!
//! ```text
//! node ─▶ {replication, membership, antientropy} ─▶ wire ─▶ {ring, storage} ─▶ causality ─▶ {id, time, rng, codec}
//! ```
//!
//! Time comes in as an argument ([`time::Now`]), randomness from a seed ([`rng::Rng`]), and effects go out as plain
//! data ([`output::Output`]). The same code runs under the real driver and under the simulator.

pub mod antientropy;
pub mod causality;
pub mod codec;
pub mod config;
pub mod id;
pub mod input;
pub mod ledger;
pub mod membership;
pub mod node;
pub mod output;
#[cfg(test)]
pub(crate) mod planted;
pub mod replication;
pub mod ring;
pub mod rng;
pub mod storage;
pub mod time;
pub mod wire;
