//! The storage below a node, without a disk: what is asked of it, the bytes of the log, and the engine that both the
//! real disk and the simulated one run.
//!
//! ```text
//!            submit                    one group in flight             synced entries only, replacing
//! DiskRequest ─────▶ Engine ──Group──▶ log: write, sync ──synced──▶ Engine ──Feed──▶ Store ──fed──▶ Engine
//!                      │ applied, at once                 durable │                    │
//!                      └──────▶ DiskReply ◀────────────────────────┘        checkpoint ┘ moves the low-water mark
//! ```

pub mod doubts;
pub mod engine;
pub mod epochs;
mod feed;
pub mod log;
pub mod op;
pub mod store;
pub mod sums;
pub mod trust;
