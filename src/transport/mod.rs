//! The transport that a node and a client share: links of frames over QUIC, secured by certificates.
//!
//! ```text
//!  endpoint ── connect / accept ──▶ link { sender, receiver }      frames of bytes; what they mean is for `wire`
//!     │                               │
//!     │ tls ◀── certificate ◀── authority, identity                who may speak to whom
//!     │                               │ outbox                     what waits to be written, in one buffer
//!  quinn (QUIC, RFC 9000) ────────────┘
//!     │ runtime                                                    tasks and timers on async-std
//!  socket ◀── faults, delay                                        UDP, and what the lab does to it
//! ```
//!
//! One QUIC connection per pair of nodes and per client, on it one long-lived stream of length-prefixed frames. That
//! shape costs a fifth of the CPU time of a stream per request. Works from a program on any async runtime.

pub mod afterlife;
pub mod authority;
pub mod certificate;
mod delay;
pub mod endpoint;
pub mod error;
pub mod faults;
pub mod identity;
pub mod link;
mod outbox;
pub mod runtime;
mod socket;
pub mod tls;

pub use afterlife::ResetSecret;
pub use authority::Authority;
pub use certificate::Credentials;
pub use endpoint::{Endpoint, EndpointOptions};
pub use error::{BindError, ConnectError};
pub use faults::Faults;
pub use identity::{Identity, Role};
pub use link::{CloseCode, Link, LinkError, LinkReceiver, LinkSender, PushError};
pub use tls::Protocol;
