//! Whole clusters of memberships, in virtual time.

mod detection;
mod founding;
mod network;
mod partitions;
mod stories;
mod traffic;

use self::network::Network;
use crate::protocol::id::NodeId;

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
    numbers.into_iter().map(Network::id).collect()
}
