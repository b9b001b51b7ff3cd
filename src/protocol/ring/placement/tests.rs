//! What the ring promises, held against rings of up to 100 nodes. Larger ones are in `tests/long/ring.rs`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::ranking::Ranking;
use super::*;
use crate::protocol::id::Place;
use crate::protocol::ring::{Preference, Weight, Zone};
use crate::protocol::rng::Rng;

fn replicas(count: u8) -> Replicas {
    Replicas::new(count).unwrap()
}

/// A member whose id is a hash of its number.
fn member(number: u64, zone: u64, weight: u16) -> RingMember {
    let node = NodeId(xxh3_64(&number.to_le_bytes()));
    let zone = Zone::new(format!("zone-{zone}")).unwrap();
    RingMember { node, place: Place(node.0), zone, weight: Weight::new(weight).unwrap() }
}

/// Members 0..count of a family of their own, with the zone and the weight that each draws.
fn members(count: u64, family: u64, mut draw: impl FnMut(u64, &mut Rng) -> (u64, u16)) -> Vec<RingMember> {
    let mut rng = Rng::from_number(family);
    let one = |number| {
        let (zone, weight) = draw(number, &mut rng);
        member(family << 32 | number, zone, weight)
    };
    (0..count).map(one).collect()
}

fn equal(count: u64, family: u64) -> Vec<RingMember> {
    members(count, family, |_, _| (0, 1))
}

/// How many owners `after` has that `before` had not, slot by slot.
fn gained(before: &Ring, after: &Ring) -> usize {
    let new =
        |slot| after.owners(slot).iter().filter(move |owner| !before.owners(slot).contains(owner)).count();
    Slot::all().map(new).sum()
}

/// The least that must move from one ring to the other: what the fair shares grow by.
fn least_gained(before: &Ring, after: &Ring) -> f64 {
    let grown = |member: &RingMember| after.fair_share(member.node) - before.fair_share(member.node);
    after.members().iter().map(grown).filter(|grown| *grown > 0.0).sum()
}

/// Builds `count + 1` members with the last one and without, for some families. Checks that no load is above `factor`
/// fair shares, rounded up, and returns by how much the join and the removal exceed the least movement on average.
fn measure(factor: f64, families: u64, build: impl Fn(u64) -> Vec<RingMember>) -> f64 {
    let mut ratios = Vec::new();
    for family in 0..families {
        let all = build(family);
        let with = Ring::build(&all, Replicas::THREE);
        let without = Ring::build(&all[1..], Replicas::THREE);
        for ring in [&with, &without] {
            for member in ring.members() {
                let most = (ring.fair_share(member.node) * factor).ceil();
                let load = ring.load(member.node);
                assert!(f64::from(load) <= most, "{load} slots, above {most}; {} members", all.len());
            }
        }
        ratios.push(gained(&without, &with) as f64 / least_gained(&without, &with));
        ratios.push(gained(&with, &without) as f64 / least_gained(&with, &without));
    }
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

#[test]
fn up_to_100_equal_nodes_none_carries_above_1_05_and_changes_move_little() {
    for (count, families) in [(4, 3), (5, 3), (10, 3), (30, 3), (100, 3)] {
        let movement = measure(1.05, families, |family| equal(count + 1, family));
        assert!(movement <= 1.15, "{count} nodes: moved {movement:.3} of the minimum");
    }
}

#[test]
fn zones_as_many_as_replicas_balance_as_well_as_none() {
    for count in [5, 10, 30, 100] {
        let movement = measure(1.05, 3, |family| members(count + 1, family, |number, _| (number % 3, 1)));
        assert!(movement <= 1.15, "{count} nodes: moved {movement:.3} of the minimum");
    }
}

#[test]
fn weights_and_zones_cost_a_little_more() {
    for count in [10, 30, 100] {
        for zones in [1, 2, 5] {
            let weigh = |rng: &mut Rng| *rng.pick(&[1, 2, 4]).unwrap();
            let movement = measure(1.10, 3, |family| {
                members(count + 1, family, |number, rng| (number % zones, weigh(rng)))
            });
            assert!(movement <= 1.3, "{count} nodes in {zones} zones: moved {movement:.3} of the minimum");
        }
    }
}

#[test]
fn three_nodes_own_everything() {
    let ring = Ring::build(&equal(3, 1), Replicas::THREE);
    assert!(ring.members().iter().all(|member| ring.load(member.node) == 16_384));
}

#[test]
fn rings_smaller_than_the_number_of_replicas_use_all_they_have() {
    let none = Ring::build(&[], Replicas::THREE);
    assert!(Slot::all().all(|slot| none.owners(slot).is_empty() && none.preference(slot).is_empty()));
    let two = Ring::build(&equal(2, 1), replicas(7));
    assert!(Slot::all().all(|slot| two.owners(slot).len() == 2));
}

#[test]
fn a_stranger_owns_nothing() {
    let ring = Ring::build(&equal(3, 1), Replicas::THREE);
    let stranger = NodeId(1);
    assert!(!ring.contains(stranger) && ring.member(stranger).is_none());
    assert_eq!((ring.load(stranger), ring.load_max(stranger), ring.slots_of(stranger).count()), (0, 0, 0));
    assert_eq!(ring.fair_share(stranger), 0.0);
}

#[test]
fn a_lone_node_in_one_of_three_zones_holds_a_copy_of_everything() {
    let all = members(5, 3, |number, _| (number.min(2), 1));
    let ring = Ring::build(&all, Replicas::THREE);
    assert_eq!((ring.load(all[0].node), ring.load(all[1].node)), (16_384, 16_384));
    assert_eq!(ring.fair_share(all[4].node).round(), 5_461.0);
}

/// Without a cap in the way a ring change is local: whoever is next in line takes over, and nobody else notices.
#[test]
fn the_first_fallback_inherits_from_an_owner_that_leaves() {
    let all = equal(8, 5);
    let before = Ring::build(&all, Replicas::THREE);
    let after = Ring::build(&all[1..], Replicas::THREE);
    for slot in Slot::all() {
        let expected: Vec<NodeId> =
            before.preference(slot).iter().map(|preference| preference.node).collect();
        let expected: Vec<NodeId> =
            expected.into_iter().filter(|node| *node != all[0].node).take(3).collect();
        assert_eq!(after.owners(slot), expected);
    }
}

#[test]
fn the_preference_list_names_owners_first_and_everyone_once() {
    let ring = Ring::build(&members(20, 6, |number, _| (number % 4, 1)), Replicas::THREE);
    for slot in Slot::all().step_by(97) {
        let list = ring.preference(slot);
        let owners: Vec<NodeId> =
            list.iter().take_while(|entry| entry.owner).map(|entry| entry.node).collect();
        assert_eq!(owners, ring.owners(slot));
        assert!(list[3..].iter().all(|Preference { owner, .. }| !owner));
        assert_eq!(list.iter().map(|entry| entry.node).collect::<BTreeSet<_>>().len(), 20);
    }
}

#[test]
fn one_node_id_counts_once_and_one_place_twice() {
    let (a, b) = (member(1, 1, 1), member(1, 2, 5));
    assert_eq!(Ring::build(&[a.clone(), b.clone()], replicas(2)), Ring::build(&[b, a], replicas(2)));

    let mut twins = equal(4, 9);
    twins[1].place = twins[0].place;
    let ring = Ring::build(&twins, Replicas::THREE);
    assert_eq!(ring.members().len(), 4);
    assert_eq!(ring.members().iter().map(|member| ring.load(member.node)).sum::<u32>(), 3 * 16_384);
}

#[test]
fn where_all_are_full_the_cap_gives_way_evenly() {
    let standings = Standings::new(&members(6, 2, |number, _| (number % 2, 1)), 3);
    let seeds: Vec<u64> = (0..6).collect();
    let ranking = Ranking::new(&seeds, &[score::ONE; 6], &standings);
    let selection = selection::select(&ranking, &standings, &[0; 6]);
    assert_eq!(selection.loads.iter().sum::<u32>(), 3 * 16_384);
    assert!(selection.loads.iter().all(|load| load.abs_diff(8_192) <= 2), "{:?}", selection.loads);
}

#[test]
fn the_bids_kept_are_the_cheapest_and_enough() {
    let all = members(100, 4, |number, rng| (number % 5, 1 + rng.below(9) as u16));
    let ring = Ring::build(&all, Replicas::THREE);
    let (mut cheapest, mut every) = (Vec::new(), Vec::new());
    let mut short = 0;
    for slot in Slot::all() {
        ring.ranking.cheapest(slot, &mut cheapest);
        ring.ranking.all(slot, &mut every);
        assert_eq!(cheapest, every[..cheapest.len()]);
        short += usize::from(cheapest.len() < 8);
    }
    assert!(short < 100, "{short} slots must rank all members");
}

/// Pinned: a change here moves data in every cluster. It needs a new placement version.
#[test]
fn rings_are_the_same_on_every_machine() {
    let fingerprint = |members: &[RingMember], count| {
        let ring = Ring::build(members, replicas(count));
        let owners = Slot::all().flat_map(|slot| ring.owners(slot).to_vec());
        xxh3_64(&owners.flat_map(|node| node.0.to_le_bytes()).collect::<Vec<u8>>())
    };
    let pinned = [
        ("three equal nodes", fingerprint(&equal(3, 1), 3), 0x6134_27c1_cd77_1240),
        ("five equal nodes", fingerprint(&equal(5, 1), 3), 0x500c_f908_5750_6f28),
        ("a hundred equal nodes", fingerprint(&equal(100, 1), 3), 0x98a7_ff0a_52af_ea1b),
        (
            "weights",
            fingerprint(&members(12, 2, |_, rng| (0, 1 + rng.below(9) as u16)), 3),
            0x5f4e_ffbf_7b00_8489,
        ),
        ("two zones", fingerprint(&members(9, 3, |_, rng| (rng.below(2), 1)), 3), 0xbc7f_19ce_623c_1e8d),
        ("three zones", fingerprint(&members(9, 4, |_, rng| (rng.below(3), 1)), 3), 0xe177_1c79_8637_b995),
        (
            "weights in five zones",
            fingerprint(&members(50, 5, |n, rng| (n % 5, 1 + rng.below(4) as u16)), 3),
            0x8c3d_4ac4_69fa_50c2,
        ),
        (
            "seven replicas in four zones",
            fingerprint(&members(20, 6, |_, rng| (rng.below(4), 1)), 7),
            0x5143_4d89_8d6f_9b66,
        ),
    ];
    for (name, found, expected) in pinned {
        assert_eq!(found, expected, "{name}: {found:#018x}");
    }
}

fn any_members() -> impl Strategy<Value = Vec<RingMember>> {
    let one = |zones| (any::<u64>(), 0..zones, prop_oneof![3 => Just(1), 2 => 1..=8_u16, 1 => 1..=1_024_u16]);
    (1..=5_u64).prop_flat_map(move |zones| prop::collection::vec(one(zones), 1..=40)).prop_map(|drawn| {
        let mut members: Vec<RingMember> =
            drawn.into_iter().map(|(id, zone, weight)| member(id, zone, weight)).collect();
        members.sort();
        members.dedup_by_key(|member| member.node);
        members
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_slot_has_its_owners_spread_over_zones(members in any_members(), count in 1..=7_u8) {
        let ring = Ring::build(&members, replicas(count));
        let zone = |node: &NodeId| ring.member(*node).unwrap().zone.clone();
        let mut sizes = std::collections::BTreeMap::new();
        members.iter().for_each(|member| *sizes.entry(member.zone.clone()).or_insert(0_usize) += 1);
        let mut loads = std::collections::BTreeMap::new();
        for slot in Slot::all() {
            let owners = ring.owners(slot);
            prop_assert_eq!(owners.len(), usize::from(count).min(members.len()));
            prop_assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), owners.len());
            // As even as can be: no zone has two more than another one that still had a member to give.
            let held = |name: &Zone| owners.iter().filter(|node| zone(node) == *name).count();
            let most = sizes.keys().map(held).max().unwrap_or(0);
            for (name, size) in &sizes {
                prop_assert!(held(name) + 1 >= most || held(name) == *size, "{} has too few of {}", name, slot);
            }
            owners.iter().for_each(|node| *loads.entry(*node).or_insert(0) += 1);
        }
        for member in &members {
            prop_assert_eq!(ring.load(member.node), loads.get(&member.node).copied().unwrap_or(0));
        }
        let shares: f64 = members.iter().map(|member| ring.fair_share(member.node)).sum();
        prop_assert!((shares - loads.values().sum::<u32>() as f64).abs() < 0.01);
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(members in any_members(), seed: u64) {
        let mut shuffled = members.clone();
        Rng::from_number(seed).shuffle(&mut shuffled);
        prop_assert_eq!(Ring::build(&members, Replicas::THREE), Ring::build(&shuffled, Replicas::THREE));
    }

    #[test]
    fn a_replacement_keeps_exactly_the_slots_of_its_place(members in any_members(), who: prop::sample::Index, id: u64) {
        let old = who.get(&members).node;
        let new = NodeId(id);
        prop_assume!(members.iter().all(|member| member.node != new));
        let mut replaced = members.clone();
        replaced.iter_mut().filter(|member| member.node == old).for_each(|member| member.node = new);
        let (before, after) = (Ring::build(&members, Replicas::THREE), Ring::build(&replaced, Replicas::THREE));
        for slot in Slot::all() {
            let renamed = before.owners(slot).iter().map(|node| if *node == old { new } else { *node });
            prop_assert!(after.owners(slot).iter().copied().eq(renamed), "slot {} changed", slot);
        }
        prop_assert!(after.slots_of(new).eq(before.slots_of(old)));
    }
}
