pub mod command;
pub mod faults;
