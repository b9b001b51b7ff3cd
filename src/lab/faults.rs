//! The faults that a lab has in force, by directed link.

pub use crate::sim::scenario::links::Faults;
