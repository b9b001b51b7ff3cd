//! Which node to ask.

use crate::protocol::id::NodeId;
use crate::protocol::rng::Rng;

/// How a node looks from here, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Connected and answering, or not tried so far.
    Good,
    /// Connected and silent for a while, or out of the reach of the node that told the topology.
    Doubtful,
    /// It could not be reached a moment ago.
    Down,
}

/// What is known of a node that might take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    /// Whether it owns the key. Other nodes pass requests on to an owner, which costs a hop.
    pub(super) owner: bool,
    pub(super) standing: Standing,
    /// Whether there is a connection to it.
    pub(super) connected: bool,
    /// How many attempts of this operation went to it.
    pub(super) tried: u32,
}

/// A node that is no owner is turned to when every owner was tried this often: it can only pass the request on to the
/// same owners, which helps if it reaches them and this client does not.
const OWNERS_FIRST: u32 = 3;

/// A node that could not be reached is tried when all others were tried this often.
const OTHERS_FIRST: u32 = 6;

/// The node for the next attempt: untried before tried, owners before others, in good standing before doubtful. Among
/// equal owners at random, which spreads the load; among equal others the ones with a connection, so that a client
/// does not end up with a connection to every node of a large cluster.
pub(super) fn choose(candidates: &[Candidate], rng: &mut Rng) -> Option<NodeId> {
    let rank = |candidate: &Candidate| {
        let handicap = if candidate.owner { 0 } else { OWNERS_FIRST };
        let down = if candidate.standing == Standing::Down { OTHERS_FIRST } else { 0 };
        let new_connection = !candidate.owner && !candidate.connected;
        (candidate.tried + handicap + down, candidate.standing, new_connection)
    };
    let best = candidates.iter().map(rank).min()?;
    let equals: Vec<NodeId> = candidates
        .iter()
        .filter(|candidate| rank(candidate) == best)
        .map(|candidate| candidate.node)
        .collect();
    rng.pick(&equals).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Standing::{Doubtful, Down, Good};
    use super::*;

    fn candidate(node: u64, owner: bool, standing: Standing, tried: u32) -> Candidate {
        Candidate { node: NodeId(node), owner, standing, connected: false, tried }
    }

    fn chosen(candidates: &[Candidate]) -> BTreeSet<u64> {
        let mut rng = Rng::from_number(3);
        (0..200).filter_map(|_| choose(candidates, &mut rng)).map(|node| node.0).collect()
    }

    #[test]
    fn load_is_spread_over_the_owners_in_good_standing() {
        let all = [
            candidate(1, true, Good, 0),
            candidate(2, true, Good, 0),
            candidate(3, true, Doubtful, 0),
            candidate(4, false, Good, 0),
            candidate(5, true, Down, 0),
        ];
        assert_eq!(chosen(&all), [1, 2].into());
        assert_eq!(chosen(&all[2..]), [3].into());
        assert_eq!(chosen(&all[3..]), [4].into());
        assert_eq!(chosen(&all[4..]), [5].into());
        assert_eq!(chosen(&[]), [].into());
    }

    #[test]
    fn whoever_was_tried_comes_after_whoever_was_not() {
        assert_eq!(chosen(&[candidate(1, true, Good, 1), candidate(2, true, Doubtful, 0)]), [2].into());
        assert_eq!(chosen(&[candidate(1, true, Good, 2), candidate(2, true, Good, 1)]), [2].into());
    }

    #[test]
    fn others_come_in_when_the_owners_were_tried_in_vain_and_the_lost_last_of_all() {
        let after = |tried| {
            chosen(&[
                candidate(1, true, Doubtful, tried),
                candidate(2, false, Good, 0),
                candidate(3, true, Down, 0),
            ])
        };
        assert_eq!(after(2), [1].into());
        assert_eq!(after(4), [2].into());
        let lost = [candidate(1, true, Good, 7), candidate(2, false, Good, 4), candidate(3, true, Down, 0)];
        assert_eq!(chosen(&lost), [3].into());
    }

    #[test]
    fn connections_are_not_opened_to_everybody() {
        let mut nodes: Vec<Candidate> = (1..=9).map(|node| candidate(node, false, Good, 0)).collect();
        nodes[3].connected = true;
        nodes[6].connected = true;
        assert_eq!(chosen(&nodes), [4, 7].into());
    }
}
