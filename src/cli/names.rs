//! Which name belongs to which node id.

use std::collections::BTreeMap;

use crate::protocol::id::NodeId;
use crate::protocol::wire::client::MemberView;

/// Names of nodes. A node that is not known by name appears as its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// The names that a node's view gives.
    pub(crate) fn of_members(members: &[MemberView]) -> Names {
        members.iter().map(|member| (member.entry.id, member.entry.name.as_str().to_owned())).collect()
    }

    /// Whether the node has a name here.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// One name.
    pub(crate) fn of(&self, node: NodeId) -> String {
        self.0.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// The names in alphabetical order, so that equal answers read equal.
    pub(crate) fn all(&self, nodes: &[NodeId]) -> Vec<String> {
        let mut names: Vec<_> = nodes.iter().map(|node| self.of(*node)).collect();
        names.sort();
        names
    }
}

impl FromIterator<(NodeId, String)> for Names {
    fn from_iter<I: IntoIterator<Item = (NodeId, String)>>(pairs: I) -> Names {
        Names(pairs.into_iter().collect())
    }
}
