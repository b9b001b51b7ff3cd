//! What nodes tell each other about members.

use serde::{Deserialize, Serialize};

/// A membership message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gossip {}
