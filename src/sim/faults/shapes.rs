//! The shapes in which a network falls apart.

use std::time::Duration;

use super::super::host;
use super::Fault;
use crate::protocol::rng::Rng;

/// Links (sender, receiver) on which nothing arrives, and what that looks like for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    text: String,
    links: Vec<(usize, usize)>,
}

impl Shape {
    pub(super) fn during(self, span: Duration) -> Fault {
        Fault::Cut { shape: self.text, links: self.links, span }
    }
}

/// Groups of the hosts, at least two and in random `order`, that do not hear each other.
pub(super) fn partition(order: &[usize], rng: &mut Rng) -> Shape {
    let hosts = order.len();
    let somewhere = |rng: &mut Rng, from: usize| rng.between(from as u64, hosts as u64 - 1) as usize;
    match rng.below(10) {
        0 | 1 if hosts > 2 => {
            let first = rng.between(1, hosts as u64 - 2) as usize;
            let second = somewhere(rng, first + 1);
            let groups = [&order[..first], &order[first..second], &order[second..]];
            let mut links = both_ways(groups[0], groups[1]);
            links.extend(both_ways(groups[0], groups[2]));
            links.extend(both_ways(groups[1], groups[2]));
            Shape { text: groups.map(names).join(" | "), links }
        }
        2 | 3 if hosts > 2 => {
            let at = somewhere(rng, 2);
            let (bridge, one, other) = (&order[..1], &order[1..at], &order[at..]);
            let text = format!("{} | {}, and {} is a bridge", names(one), names(other), names(bridge));
            Shape { text, links: both_ways(one, other) }
        }
        _ => {
            let (one, other) = order.split_at(somewhere(rng, 1));
            Shape { text: format!("{} | {}", names(one), names(other)), links: both_ways(one, other) }
        }
    }
}

/// Some hosts do not hear the others, who hear them well.
pub(super) fn one_way(order: &[usize], rng: &mut Rng) -> Shape {
    let is_group = order.len() > 2 && rng.chance(300);
    let size = if is_group { rng.between(1, order.len() as u64 - 1) as usize } else { 1 };
    let (some, others) = order.split_at(size);
    let is_deaf = rng.chance(500);
    let pairs = some.iter().flat_map(|&s| others.iter().map(move |&o| if is_deaf { (o, s) } else { (s, o) }));
    let what = match (is_deaf, size) {
        (true, 1) => "is deaf".to_owned(),
        (false, 1) => "is mute".to_owned(),
        (true, _) => format!("do not hear {}", names(others)),
        (false, _) => format!("are not heard by {}", names(others)),
    };
    Shape { text: format!("{} {what}", names(some)), links: pairs.collect() }
}

/// A single link one way, a ring in which everybody only reaches both neighbours, or any links at all.
pub(super) fn odd(order: &[usize], rng: &mut Rng) -> Shape {
    let hosts = order.len();
    match rng.below(4) {
        0 | 1 if hosts > 3 => {
            let near = |a: usize, b: usize| (a + 1) % hosts == b || (b + 1) % hosts == a;
            let all = order.iter().flat_map(|&from| order.iter().map(move |&to| (from, to)));
            let links = all.filter(|&(from, to)| from != to && !near(place(order, from), place(order, to)));
            Shape { text: format!("a ring of {}", names(order)), links: links.collect() }
        }
        2 if hosts > 2 => {
            let links: Vec<(usize, usize)> = both_ways(&order[..1], &order[1..])
                .into_iter()
                .chain(both_ways(&order[1..2], &order[2..]))
                .filter(|_| rng.chance(400))
                .collect();
            let arrows: Vec<String> =
                links.iter().map(|&(from, to)| format!("{} to {}", names(&[from]), names(&[to]))).collect();
            if links.is_empty() { single(order) } else { Shape { text: arrows.join(", "), links } }
        }
        _ => single(order),
    }
}

fn single(order: &[usize]) -> Shape {
    let text = format!("{} to {}", names(&order[..1]), names(&order[1..2]));
    Shape { text, links: vec![(order[0], order[1])] }
}

/// Every link between two groups, in both directions.
pub(in super::super) fn both_ways(one: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    one.iter().flat_map(|&a| other.iter().flat_map(move |&b| [(a, b), (b, a)])).collect()
}

fn place(order: &[usize], host: usize) -> usize {
    order.iter().position(|&h| h == host).unwrap_or_default()
}

fn names(hosts: &[usize]) -> String {
    let names: Vec<String> = hosts.iter().map(|&host| host::name(host)).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Who hears whom, under any of many draws of a shape.
    fn shapes(hosts: usize, draw: fn(&[usize], &mut Rng) -> Shape) -> BTreeSet<Vec<(usize, usize)>> {
        let mut rng = Rng::from_number(hosts as u64);
        let mut seen = BTreeSet::new();
        for _ in 0..500 {
            let mut order: Vec<usize> = (0..hosts).collect();
            rng.shuffle(&mut order);
            let mut links = draw(&order, &mut rng).links;
            assert!(
                links.iter().all(|&(from, to)| from != to && from < hosts && to < hosts) && !links.is_empty()
            );
            links.sort_unstable();
            assert!(links.windows(2).all(|pair| pair[0] != pair[1]), "a link is cut twice");
            seen.insert(links);
        }
        seen
    }

    #[test]
    fn three_hosts_fall_apart_in_every_way() {
        // One apart from two others; all three apart; a bridge: two that do not hear each other.
        assert_eq!(shapes(3, partition).len(), 3 + 1 + 3);
        for hosts in 2..10 {
            for draw in [partition, one_way, odd] {
                shapes(hosts, draw);
            }
        }
    }

    #[test]
    fn a_one_way_shape_never_cuts_both_ways() {
        for links in shapes(5, one_way) {
            assert!(links.iter().all(|&(from, to)| !links.contains(&(to, from))));
        }
    }
}
