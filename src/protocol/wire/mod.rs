//! What travels between nodes and between a client and a node: frames, and what is in them.

pub mod frame;
