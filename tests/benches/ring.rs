//! What a ring costs, and how it compares with the classic alternative.
//!
//! `cargo bench --bench ring` first prints balance and movement of our placement beside those of the control, a ring
//! of virtual nodes with the same cap, then measures building and looking up.

#[path = "../support/ring.rs"]
pub mod support;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use starling::protocol::ring::{Replicas, Ring, RingMember, SLOTS, Slot};
use support::{equal, members, movement, overload};
use xxhash_rust::xxh3::xxh3_64;

/// The control: 64 virtual nodes for each member on the hash circle. A slot walks clockwise from its arc and takes the
/// first N distinct members below the cap. Equal members in one zone only; it lives here and nowhere else.
struct VirtualNodes {
    owners: Vec<[usize; 3]>,
    loads: Vec<u32>,
}

impl VirtualNodes {
    const TOKENS: u64 = 64;

    /// `cap` is the largest load of each member.
    fn build(members: &[RingMember], cap: u32) -> VirtualNodes {
        let token = |place: u64, number: u64| xxh3_64(&[place.to_le_bytes(), number.to_le_bytes()].concat());
        let tokens_of = |index: usize| {
            (0..Self::TOKENS).map(move |number| (token(members[index].place.0, number), index))
        };
        let mut tokens: Vec<(u64, usize)> = (0..members.len()).flat_map(tokens_of).collect();
        tokens.sort_unstable();
        let mut order: Vec<Slot> = Slot::all().collect();
        order.sort_by_key(|slot| xxh3_64(&slot.get().to_le_bytes()));
        let mut ring =
            VirtualNodes { owners: vec![[usize::MAX; 3]; usize::from(SLOTS)], loads: vec![0; members.len()] };
        for slot in order {
            let start = tokens.partition_point(|(position, _)| *position < u64::from(slot.get()) << 50);
            let clockwise = tokens[start..].iter().chain(&tokens[..start]).map(|(_, member)| *member);
            let mut chosen = Vec::new();
            // Twice around: the second time without a cap, should all be full.
            for (step, member) in clockwise.clone().chain(clockwise).enumerate() {
                if (ring.loads[member] < cap || step >= tokens.len()) && !chosen.contains(&member) {
                    chosen.push(member);
                }
                if chosen.len() == 3 {
                    break;
                }
            }
            chosen.iter().for_each(|member| ring.loads[*member] += 1);
            ring.owners[slot.index()].copy_from_slice(&chosen);
        }
        ring
    }

    fn overload(&self) -> f64 {
        let fair = 3.0 * f64::from(SLOTS) / self.loads.len() as f64;
        self.loads.iter().map(|load| f64::from(*load) / fair).fold(0.0, f64::max)
    }

    /// The movement to a ring with one member more at the end of the list.
    fn movement(&self, after: &VirtualNodes) -> f64 {
        let pairs = self.owners.iter().zip(&after.owners);
        let gained: usize =
            pairs.map(|(before, after)| after.iter().filter(|member| !before.contains(member)).count()).sum();
        gained as f64 * after.loads.len() as f64 / (3.0 * f64::from(SLOTS))
    }
}

/// Balance and movement of both, averaged over some memberships.
fn compare() {
    println!("{:<8}{:>12}{:>12}{:>16}{:>16}", "nodes", "ours max", "ours moves", "vnodes max", "vnodes move");
    for count in [5, 10, 30, 100, 1_000] {
        let families = if count == 1_000 { 2 } else { 5 };
        let (mut ours, mut control) = ((0.0, 0.0), (0.0, 0.0));
        for family in 0..families {
            let all = equal(count + 1, family);
            let rest = &all[..all.len() - 1];
            let (with, without) = (Ring::build(&all, Replicas::THREE), Ring::build(rest, Replicas::THREE));
            ours = (overload(&without).max(ours.0), ours.1 + movement(&without, &with) / families as f64);
            let cap = |ring: &Ring| ring.load_max(rest[0].node);
            let (with, without) =
                (VirtualNodes::build(&all, cap(&with)), VirtualNodes::build(rest, cap(&without)));
            control =
                (without.overload().max(control.0), control.1 + without.movement(&with) / families as f64);
        }
        println!("{count:<8}{:>12.3}{:>12.3}{:>16.3}{:>16.3}", ours.0, ours.1, control.0, control.1);
    }
}

fn ring(criterion: &mut Criterion) {
    compare();
    let mut group = criterion.benchmark_group("ring");
    group.sample_size(20);
    for count in [3, 10, 100, 1_000] {
        let all = equal(count, 1);
        group.bench_function(format!("build/{count}"), |bencher| {
            bencher.iter(|| Ring::build(black_box(&all), Replicas::THREE));
        });
    }
    for zones in [2, 3, 5] {
        let all = members(1_000, 1, |_, rng| (rng.below(zones), 1 + rng.below(4) as u16));
        group.bench_function(format!("build/1000 weighted in {zones} zones"), |bencher| {
            bencher.iter(|| Ring::build(black_box(&all), Replicas::THREE));
        });
    }
    let ring = Ring::build(&equal(1_000, 1), Replicas::THREE);
    let keys: Vec<String> = (0..1_024).map(|number| format!("user:{number:016}")).collect();
    let mut next = 0;
    group.bench_function("lookup/key to owners", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % keys.len();
            black_box(ring.owners_of_key(black_box(keys[next].as_bytes())))[0]
        });
    });
    let mut slots = Slot::all().cycle();
    group.bench_function("preference list/1000", |bencher| {
        bencher.iter(|| slots.next().map(|slot| ring.preference(slot)));
    });
    group.finish();
}

criterion_group!(benches, ring);
criterion_main!(benches);
