//! What a node asks of its disk.
