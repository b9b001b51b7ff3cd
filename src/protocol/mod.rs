//! The pure world: every rule of the store, and nothing that a test cannot hold still.
//!
//! ```text
//! node ─▶ {replication, membership} ─▶ wire ─▶ {ring, storage} ─▶ causality ─▶ {id, time, rng, codec}
//! ```
//!
//! Time comes in as an argument ([`time::Now`]), randomness from a seed ([`rng::Rng`]), and effects go out as plain
//! data. The same code runs under the real driver and under the simulator.

pub mod codec;
pub mod id;
pub mod ring;
pub mod rng;
pub mod storage;
pub mod time;
pub mod wire;
