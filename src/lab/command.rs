//! The language of the lab. It is the language of scenarios too, so it lives beside them.

pub use crate::sim::scenario::command::{Command, FaultChange, Links, VERBS, WAIT_DEFAULT};
