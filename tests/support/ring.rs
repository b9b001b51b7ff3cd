//! Memberships to measure rings with, and the two figures that matter: how even a ring is, and what a change moves.

#![allow(clippy::unwrap_used, reason = "a test that cannot build its members should panic")]

use starling::protocol::id::{NodeId, Place};
use starling::protocol::ring::{Ring, RingMember, Slot, Weight, Zone};
use starling::protocol::rng::Rng;

/// Members drawn from a seed; `draw` gives the zone and the weight of each number.
pub fn members(count: u64, seed: u64, draw: impl Fn(u64, &mut Rng) -> (u64, u16)) -> Vec<RingMember> {
    let mut rng = Rng::from_number(seed);
    let one = |number| {
        let node = NodeId(rng.bits());
        let (zone, weight) = draw(number, &mut rng);
        let zone = Zone::new(format!("zone-{zone}")).unwrap();
        RingMember { node, place: Place(node.0), zone, weight: Weight::new(weight).unwrap() }
    };
    (0..count).map(one).collect()
}

/// Members in one zone, of one weight.
pub fn equal(count: u64, seed: u64) -> Vec<RingMember> {
    members(count, seed, |_, _| (0, 1))
}

/// The largest load relative to the fair share.
pub fn overload(ring: &Ring) -> f64 {
    let relative = |member: &RingMember| f64::from(ring.load(member.node)) / ring.fair_share(member.node);
    ring.members().iter().map(relative).fold(0.0, f64::max)
}

/// How many replicas must be copied from one ring to the other, and the least that any placement would copy: what
/// the fair shares grow by.
pub fn moved(before: &Ring, after: &Ring) -> (u32, f64) {
    let new =
        |slot| after.owners(slot).iter().filter(|owner| !before.owners(slot).contains(owner)).count() as u32;
    let grown =
        |member: &RingMember| (after.fair_share(member.node) - before.fair_share(member.node)).max(0.0);
    (Slot::all().map(new).sum(), after.members().iter().map(grown).sum())
}

/// Movement relative to its minimum.
pub fn movement(before: &Ring, after: &Ring) -> f64 {
    let (moved, least) = moved(before, after);
    f64::from(moved) / least
}
