//! The lab: a cluster of real processes on this machine, and the means to break it.
//!
//! ```text
//! starling lab ──┬── node n1 ─┐
//!   (Lab)        ├── node n2  ├─ real processes, each with its own port, data and log below the lab's directory
//!                ├── node n3 ─┘
//!                └── guardian     ends them all if the lab itself is killed
//! ```
//!
//! * [`command`] is the language of the lab, [`faults`] what it remembers of the network's faults.
//! * [`record`] is what is durable of a lab: names, ports, certificates.
//! * [`process`] starts, stops, kills and pauses one node; [`guardian`] sees that nothing outlives the lab.
//! * [`cluster`] is the lab itself; [`control`] lets other processes speak to it.
//! * [`scenario`] lets a script run on a lab.
//! * [`soak`] breaks a lab under load and judges what its clients saw.

pub mod cluster;
pub mod command;
pub mod control;
pub mod faults;
pub mod guardian;
pub mod process;
pub mod record;
pub mod scenario;
pub mod soak;
