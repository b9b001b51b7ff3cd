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
    /// How many attempts of this operation went to it.
    pub(super) tried: u32,
}

/// The node for the next attempt: untried before tried, owners before others unless no owner can be reached, in good
/// standing before doubtful. Among equals at random, which spreads the load over the owners of a key and over all
/// nodes.
pub(super) fn choose(candidates: &[Candidate], rng: &mut Rng) -> Option<NodeId> {
    let rank = |candidate: &Candidate| {
        let class = match (candidate.standing, candidate.owner) {
            (Standing::Good, true) => 0,
            (Standing::Doubtful, true) => 1,
            (Standing::Good, false) => 2,
            (Standing::Doubtful, false) => 3,
            (Standing::Down, true) => 4,
            (Standing::Down, false) => 5,
        };
        (candidate.tried, class)
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

    use super::*;

    fn candidate(node: u64, owner: bool, standing: Standing, tried: u32) -> Candidate {
        Candidate { node: NodeId(node), owner, standing, tried }
    }

    fn chosen(candidates: &[Candidate]) -> BTreeSet<u64> {
        let mut rng = Rng::from_number(3);
        (0..200).filter_map(|_| choose(candidates, &mut rng)).map(|node| node.0).collect()
    }

    #[test]
    fn load_is_spread_over_the_owners_in_good_standing() {
        use Standing::{Doubtful, Down, Good};
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
        use Standing::{Down, Good};
        let all = [candidate(1, true, Good, 1), candidate(2, false, Down, 0)];
        assert_eq!(chosen(&all), [2].into());
        assert_eq!(chosen(&[candidate(1, true, Good, 2), candidate(2, true, Good, 1)]), [2].into());
    }
}
