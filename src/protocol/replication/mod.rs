//! Reads and writes by quorum: what a coordinator does for a client, what a replica does for a coordinator.
//!
//! ```text
//!  client ──write──▶ coordinator ──Update──▶ own disk ──Applied──▶ coordinator ──Replicate──▶ the other owners
//!                        │                      └─────Durable────▶ one acknowledgement            │
//!                        ◀──────────────────────Stored (durable there)─────────────────────────────┘
//!  client ◀──Written──── as soon as W owners have it on disk
//! ```
//!
//! One operation, one file, one struct with its own small state: the Request Waiting List (*Patterns of Distributed
//! Systems*) is [`coordinator::Coordinator`].

pub mod author;
pub mod coordinator;
pub mod desk;
mod explain;
#[cfg(test)]
mod fixture;
mod forward;
mod gather;
mod get;
mod hinting;
pub mod hints;
pub mod latency;
mod put;
pub mod quorum;
mod receiver;
pub mod recount;
pub mod register;
pub mod replay;
pub mod replica;
pub mod scope;
