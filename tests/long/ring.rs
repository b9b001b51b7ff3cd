//! Rings of up to 1,000 nodes: too slow for every `cargo test`. Run with `cargo test --release --test long_ring`, and
//! with `-- --nocapture --test-threads 1` to see the figures as a table.

#[path = "../support/ring.rs"]
pub mod support;

use starling::protocol::ring::{Replicas, Ring, RingMember};
use starling::protocol::rng::Rng;
use support::{equal, members, moved, movement, overload};

/// What was measured over several families of members.
#[derive(Default)]
struct Figures {
    overload: f64,
    ratios: Vec<f64>,
}

impl Figures {
    /// Joins and removals of one member. They mirror each other: what a join gains, the removal gives back.
    fn measure(families: u64, build: impl Fn(u64) -> Vec<RingMember>) -> Figures {
        let mut figures = Figures::default();
        for family in 0..families {
            let all = build(family);
            let with = Ring::build(&all, Replicas::THREE);
            // The first, not the last: with zones dealt out in turn, that one is no special case.
            let without = Ring::build(&all[1..], Replicas::THREE);
            figures.overload = figures.overload.max(overload(&with)).max(overload(&without));
            figures.ratios.push(movement(&without, &with));
            figures.ratios.push(movement(&with, &without));
            check_caps(&with);
            check_caps(&without);
        }
        figures
    }

    fn mean(&self) -> f64 {
        self.ratios.iter().sum::<f64>() / self.ratios.len() as f64
    }

    fn worst(&self) -> f64 {
        self.ratios.iter().copied().fold(0.0, f64::max)
    }

    fn print(&self, name: &str) {
        let (mean, worst) = (self.mean(), self.worst());
        println!("{name:<44} max/fair {:.3}  movement {mean:.3} (worst {worst:.3})", self.overload);
    }
}

fn check_caps(ring: &Ring) {
    for member in ring.members() {
        let (load, most) = (ring.load(member.node), ring.load_max(member.node));
        // A few slots may find all who could complete them full.
        assert!(load <= most + most / 50, "{load} slots where {most} should be the most");
    }
}

#[test]
fn equal_nodes_from_3_to_100() {
    for count in [3, 5, 10, 30, 60, 100] {
        let figures = Figures::measure(8, |family| equal(count + 1, family));
        figures.print(&format!("{count} equal nodes"));
        assert!(figures.mean() <= 1.15, "{count} nodes move {:.3}", figures.mean());
    }
}

#[test]
fn equal_nodes_from_200_to_1000() {
    for count in [200, 300, 500, 700, 710] {
        let figures = Figures::measure(4, |family| equal(count + 1, family));
        figures.print(&format!("{count} equal nodes"));
        assert!(figures.mean() <= 1.3, "{count} nodes move {:.3}", figures.mean());
    }
}

/// The cap in whole slots has steps, so this looks at a stretch of sizes instead of one: the step falls into it.
#[test]
fn a_thousand_equal_nodes() {
    let all = equal(1_024, 1);
    let mut before = Ring::build(&all[..984], Replicas::THREE);
    let mut figures = Figures::default();
    for count in 985..=1_024 {
        let after = Ring::build(&all[..count], Replicas::THREE);
        figures.ratios.push(movement(&before, &after));
        for member in after.members() {
            let most = (after.fair_share(member.node) * 1.25).ceil();
            assert!(f64::from(after.load(member.node)) <= most);
        }
        figures.overload = figures.overload.max(overload(&after));
        before = after;
    }
    figures.print("984 to 1024 equal nodes, one by one");
    assert!(figures.mean() <= 1.2, "a join moves {:.3}", figures.mean());
    assert!(figures.worst() <= 1.5, "the worst join moves {:.3}", figures.worst());
}

#[test]
fn weights_and_zones() {
    for count in [10, 30, 100, 1_000] {
        for (zones, weights) in
            [(1, &[1, 2, 4][..]), (2, &[1]), (3, &[1]), (5, &[1]), (3, &[1, 2, 4]), (5, &[1, 2, 4])]
        {
            for even in [true, false] {
                if zones == 1 && !even {
                    continue;
                }
                let families = if count == 1_000 { 2 } else { 8 };
                let figures = Figures::measure(families, |family| {
                    members(count + 1, family, |number, rng| {
                        let zone = if even { number % zones } else { rng.below(zones) };
                        (zone, weights[rng.index(weights.len())])
                    })
                });
                let sizes = if even { "even" } else { "random" };
                figures.print(&format!("{count} nodes, weights {weights:?}, {zones} {sizes} zones"));
                assert!(figures.mean() <= 1.3, "moves {:.3}", figures.mean());
            }
        }
    }
}

/// A node a day, from 3 to 100, and back down in another order: the sum of all that moves.
#[test]
fn growing_and_shrinking_a_cluster_step_by_step() {
    let all = equal(100, 77);
    let mut sizes: Vec<&[RingMember]> = (3..=100).map(|count| &all[..count]).collect();
    sizes.extend((1..=97).map(|gone| &all[gone..]));
    let (mut total, mut least) = (0, 0.0);
    let rings: Vec<Ring> = sizes.into_iter().map(|members| Ring::build(members, Replicas::THREE)).collect();
    for pair in rings.windows(2) {
        let (one, one_least) = moved(&pair[0], &pair[1]);
        total += one;
        least += one_least;
    }
    let ratio = f64::from(total) / least;
    println!("3 to 100 and back to 3, one by one           movement {ratio:.3}");
    assert!(ratio <= 1.05, "{ratio:.3}");
}

/// Zones of any sizes, weights of any mix, two to five replicas: nowhere may caps and zones set off an avalanche. What
/// a join moves beyond its minimum is held against all data here, for the minimum itself can be next to nothing.
#[test]
fn no_membership_makes_a_change_costly() {
    let (mut excess_worst, mut excess_sum, mut overload_worst) = (0.0_f64, 0.0, 0.0_f64);
    let seeds = 600;
    for seed in 0..seeds {
        let mut rng = Rng::from_number(seed);
        let (count, zones, skewed) = (rng.between(5, 61), rng.between(1, 8), rng.chance(500));
        let weight_max = [1, 3, 10, 200][rng.index(4)];
        let replicas = Replicas::new([2, 3, 3, 3, 5][rng.index(5)]).unwrap();
        let all = members(count, seed, |_, rng| {
            let zone = rng.below(zones);
            (if skewed { zone.min(rng.below(zones)) } else { zone }, rng.between(1, weight_max) as u16)
        });
        let (without, with) = (Ring::build(&all[1..], replicas), Ring::build(&all, replicas));
        let (moved, least) = moved(&without, &with);
        let data = with.members().iter().map(|member| f64::from(with.load(member.node))).sum::<f64>();
        let excess = (f64::from(moved) - least) / data;
        excess_worst = excess_worst.max(excess);
        excess_sum += excess;
        // Below 50 slots rounding to whole ones weighs more than the cap.
        for member in with.members().iter().filter(|member| with.fair_share(member.node) >= 50.0) {
            let relative = f64::from(with.load(member.node)) / with.fair_share(member.node);
            overload_worst = overload_worst.max(relative);
        }
    }
    let mean = excess_sum / seeds as f64;
    println!(
        "{seeds} random memberships: moved beyond the minimum {mean:.4} of all data (worst {excess_worst:.3}),"
    );
    println!("    max/fair {overload_worst:.3}");
    assert!(mean <= 0.01 && excess_worst <= 0.1, "moved {mean:.4}, at worst {excess_worst:.3}");
    assert!(overload_worst <= 1.16, "{overload_worst:.3}");
}
