//! placeholder until the ring lands
use serde::{Deserialize, Serialize};
/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(u16);
