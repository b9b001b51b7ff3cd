//! The faults that are in force on the links of a cluster, by directed link.

use std::collections::BTreeMap;

use super::command::{FaultChange, Links};
use crate::protocol::wire::client::Fault;

/// What happens on each directed link (sender, receiver). A lab remembers it, because a node that restarts comes
/// back without faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<(String, String), Fault>);

impl Faults {
    /// Cuts both ways between each two of the groups. Nodes in no group keep all of their links.
    pub fn partition(&mut self, groups: &[Vec<String>]) {
        for (index, group) in groups.iter().enumerate() {
            for other in &groups[index + 1..] {
                let links = Links::Between { from: group.clone(), to: other.clone(), both: true };
                self.change(&links, FaultChange::Cut, &[]);
            }
        }
    }

    /// Changes the faults of some links; `nodes` are all there are.
    pub fn change(&mut self, links: &Links, change: FaultChange, nodes: &[String]) {
        let (from, to, both) = match links {
            Links::All => (nodes, nodes, false),
            Links::Between { from, to, both } => (from.as_slice(), to.as_slice(), *both),
        };
        for sender in from {
            for receiver in to.iter().filter(|receiver| *receiver != sender) {
                self.change_one(sender, receiver, change);
                if both {
                    self.change_one(receiver, sender, change);
                }
            }
        }
    }

    fn change_one(&mut self, sender: &str, receiver: &str, change: FaultChange) {
        let link = (sender.to_owned(), receiver.to_owned());
        let fault = self.0.entry(link.clone()).or_default();
        match change {
            FaultChange::Cut => fault.cut = true,
            FaultChange::Delay { mean_ms, jitter_ms } => {
                (fault.delay_ms, fault.jitter_ms) = (mean_ms, jitter_ms);
            }
            FaultChange::Loss(share) => fault.loss_per_mille = share,
            FaultChange::Duplicate(share) => fault.duplicate_per_mille = share,
            FaultChange::Reorder(share) => fault.reorder_per_mille = share,
        }
        if fault.is_none() {
            self.0.remove(&link);
        }
    }

    /// Removes all faults.
    pub fn heal(&mut self) {
        self.0.clear();
    }

    /// What `node` has to do towards `peer`: to what it sends, and to what it receives.
    ///
    /// A cut is made at both ends, so that a sender that just restarted, and was not told yet, is not heard either. All
    /// other faults are made by the sender alone; at both ends they would happen twice.
    #[must_use]
    pub fn at(&self, node: &str, peer: &str) -> (Fault, Fault) {
        let outbound = self.of(node, peer);
        let inbound = Fault { cut: self.of(peer, node).cut, ..Fault::default() };
        (outbound, inbound)
    }

    /// What happens to what `sender` sends to `receiver`.
    #[must_use]
    pub fn of(&self, sender: &str, receiver: &str) -> Fault {
        self.0.get(&(sender.to_owned(), receiver.to_owned())).copied().unwrap_or_default()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What goes wrong with datagrams that `node` sends, in words, one entry for each kind of fault; for status.
    #[must_use]
    pub fn described(&self, node: &str) -> Vec<String> {
        let mut by_fault: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for ((sender, receiver), fault) in &self.0 {
            if sender == node {
                by_fault.entry(words(fault)).or_default().push(receiver);
            }
        }
        by_fault.into_iter().map(|(fault, receivers)| format!("{fault} > {}", receivers.join(","))).collect()
    }
}

fn words(fault: &Fault) -> String {
    let mut words = Vec::new();
    if fault.cut {
        words.push("cut".to_owned());
    }
    if fault.delay_ms > 0 || fault.jitter_ms > 0 {
        words.push(format!("delay {}±{} ms", fault.delay_ms, fault.jitter_ms));
    }
    for (name, share) in [
        ("loss", fault.loss_per_mille),
        ("duplicate", fault.duplicate_per_mille),
        ("reorder", fault.reorder_per_mille),
    ] {
        if share > 0 {
            words.push(format!("{name} {}.{}%", share / 10, share % 10));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    const CUT: Fault = Fault {
        cut: true,
        delay_ms: 0,
        jitter_ms: 0,
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        reorder_per_mille: 0,
    };

    #[test]
    fn a_partition_cuts_both_ways_at_both_ends_and_only_between_groups() {
        let mut faults = Faults::default();
        faults.partition(&[names("n1 n2"), names("n3 n4")]);
        let none = (Fault::default(), Fault::default());
        for (a, b) in [("n1", "n3"), ("n3", "n1"), ("n2", "n4"), ("n4", "n2")] {
            assert_eq!(faults.at(a, b), (CUT, CUT), "{a} {b}");
        }
        for (a, b) in [("n1", "n2"), ("n3", "n4"), ("n1", "n5"), ("n5", "n3")] {
            assert_eq!(faults.at(a, b), none, "{a} {b}");
        }
        assert_eq!(faults.described("n1"), ["cut > n3,n4"]);
        faults.heal();
        assert!(faults.is_empty());
    }

    #[test]
    fn a_one_way_cut_is_outbound_at_one_end_and_inbound_at_the_other() {
        let mut faults = Faults::default();
        let links = Links::Between { from: names("n1"), to: names("n2"), both: false };
        faults.change(&links, FaultChange::Cut, &[]);
        assert_eq!(faults.at("n1", "n2"), (CUT, Fault::default()));
        assert_eq!(faults.at("n2", "n1"), (Fault::default(), CUT));
    }

    #[test]
    fn faults_of_a_link_add_up_and_zero_ends_them() {
        let nodes = names("n1 n2 n3");
        let mut faults = Faults::default();
        faults.change(&Links::All, FaultChange::Delay { mean_ms: 50, jitter_ms: 5 }, &nodes);
        faults.change(&Links::All, FaultChange::Loss(15), &nodes);
        let (outbound, inbound) = faults.at("n3", "n1");
        assert_eq!((outbound.delay_ms, outbound.loss_per_mille, inbound), (50, 15, Fault::default()));
        assert_eq!(faults.described("n1"), ["delay 50±5 ms loss 1.5% > n2,n3"]);
        faults.change(&Links::All, FaultChange::Loss(0), &nodes);
        faults.change(&Links::All, FaultChange::Delay { mean_ms: 0, jitter_ms: 0 }, &nodes);
        assert!(faults.is_empty());
    }
}
