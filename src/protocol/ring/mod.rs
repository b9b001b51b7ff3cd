//! Placement.
pub mod slot;
