//! What a node asks of its disk.

pub mod op;
