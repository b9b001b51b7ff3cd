//! Starling is a leaderless, replicated key-value store in the manner of Amazon's Dynamo.
//!
//! Three worlds live in this crate and meet only at one seam:
//!
//! ```text
//! server ──▶ protocol ◀── sim        the real world, the pure rules, the simulated world
//! client ──▶ protocol::{wire, ring}  a library for programs
//! cli    ──▶ {client, lab, sim, server}
//! ```
//!
//! * [`protocol`] holds everything that can be wrong about a distributed system. It is pure: no clock, socket,
//!   disk, thread, hash-map order or random source of its own.
//! * `server` runs a [`protocol::node::Node`] over QUIC, a write-ahead log and sled.
//! * `sim` runs whole clusters of the same `Node` in virtual time.
//!
//! Start at [`protocol::node::Node`] for the rules, at `client::Client` for programs, and at the README for people.

#[cfg(feature = "cli")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real world")]
pub mod cli;
#[cfg(feature = "client")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real world")]
pub mod client;
#[cfg(feature = "cli")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real world")]
pub mod lab;
pub mod protocol;

// The real world has clocks and hash maps; the bans of `.clippy.toml` are for the two worlds that must be repeatable.
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real world")]
pub mod server;
pub mod sim;
#[cfg(feature = "transport")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real world")]
pub mod transport;
