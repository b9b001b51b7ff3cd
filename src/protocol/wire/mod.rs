//! The messages: plain data, encoded by [`codec`](crate::protocol::codec), framed by [`frame`].

pub mod client;
pub mod exchange;
pub mod fault;
pub mod frame;
pub mod gossip;
pub mod life;
pub mod lineage;
pub mod peer;
pub mod reap;
