//! What people are told while a cluster is being founded.

use std::net::SocketAddr;

use crate::protocol::id::ClusterId;
use crate::protocol::ring::entry::{Entry, Name};
use crate::protocol::ring::replicas::Replicas;

type Terms = (Option<u16>, Replicas);

fn terms((size, replicas): Terms) -> String {
    let size = size.map_or_else(|| "no size".to_owned(), |size| format!("{size} nodes"));
    format!("{size} and {replicas} replicas")
}

/// Candidates want different clusters.
pub(super) fn other_terms(own: &Name, mine: Terms, other: &Name, theirs: Terms) -> String {
    format!(
        "the cluster cannot be founded: {own} was told to found one of {}, but {other} one of {}; start all of them with the same --found and --replicas",
        terms(mine),
        terms(theirs)
    )
}

/// The name that two of them share.
pub(super) fn shared_name<'a>(entries: &[&'a Entry]) -> Option<&'a Name> {
    let mut names: Vec<&'a Name> = entries.iter().map(|entry| &entry.name).collect();
    names.sort();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Names are how people and certificates tell nodes apart.
pub(super) fn two_of_a_name(name: &Name) -> String {
    format!("two nodes are called {name}; give one of them another --name")
}

/// The founding is over.
pub(super) fn surplus(cluster: ClusterId) -> String {
    format!(
        "the cluster {cluster} was founded without this node; start it without --found to join it as a learner"
    )
}

/// A cluster of another identity speaks to this one.
pub(super) fn other_cluster(from: &str, theirs: ClusterId, mine: ClusterId) -> String {
    format!(
        "{from} belongs to cluster {theirs}, this node to cluster {mine}: they are never merged; check the seeds of both, or give one of them an empty data directory"
    )
}

pub(super) fn gathering(here: &[String], size: u16) -> String {
    let verb = if here.len() == 1 { "is" } else { "are" };
    format!(
        "founding: {} of {size} nodes {verb} here ({})",
        here.len().min(usize::from(size)),
        here.join(", ")
    )
}

pub(super) fn unconfirmed(missing: &[String]) -> String {
    if missing.is_empty() {
        "founding: all have confirmed, the cluster is being written".to_owned()
    } else {
        format!("founding: waiting for {} to confirm", missing.join(", "))
    }
}

pub(super) fn bound(proposer: &str) -> String {
    format!(
        "founding: this node has confirmed the proposal of {proposer} and waits for it to found the cluster"
    )
}

pub(super) fn no_cluster(seeds: &[SocketAddr]) -> String {
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    format!("a cluster: none of the seeds ({}) belongs to one yet", seeds.join(", "))
}

pub(super) fn entries(known: usize, founders: usize) -> String {
    format!("the entries of all founders: {known} of {founders} are here")
}
