//! The real world around a node: what touches disks, sockets, clocks and signals.

pub mod config;
pub mod disk;
