//! Who has seen what: dots, version vectors, siblings and the records that replicas keep of a key.
//!
//! ```text
//! a client's write ──▶ Dot ──▶ Sibling { dot, value } ─┐
//!                                                       ├─▶ Record ──merge──▶ Record (equal everywhere, byte for byte)
//! what its client had seen ──▶ VersionVector ───────────┘
//!                    ▲                                   │
//!                    └──── ContextToken (sealed) ◀───────┘  shown together with all values
//! ```
//!
//! The scheme is the *dotted version vector set* (Almeida, Baquero, Gonçalves, Preguiça, Fonte: *Scalable and Accurate
//! Causality Tracking for Eventually Consistent Stores*, 2014) with two departures. The counters are hybrid timestamps,
//! so that they need not be contiguous and a restart needs no memory of the last one. And actors live for one start of
//! a node only, so that a restored backup can never issue a dot for the second time.

mod age;
mod context;
mod dot;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod laws;
mod operation;
mod record;
mod version_vector;

pub use age::Age;
pub use context::{ClusterSecret, ContextError, ContextToken};
pub use dot::Dot;
pub use operation::{OPERATION_LIFETIME, OPERATIONS_MAX, OperationId, OperationMark, Operations};
pub use record::{Applied, Change, Compact, Put, Record, RecordHash, Refusal, Sibling};
pub use version_vector::VersionVector;
