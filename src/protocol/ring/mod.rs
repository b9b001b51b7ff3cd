//! Placement.

pub mod entry;
pub mod member;
pub mod replicas;
pub mod slot;
pub mod view;
