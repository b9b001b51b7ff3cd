use super::*;
use crate::protocol::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

fn gained(a: &Ring, b: &Ring) -> (u32, f64) {
    let mut g = 0;
    for s in Slot::all() {
        let before: BTreeSet<_> = a.owners(s).iter().collect();
        for i in b.owners(s) {
            if !before.contains(i) {
                g += 1;
            }
        }
    }
    let min = b.members().iter().map(|m| (b.fair_share(m.node) - a.fair_share(m.node)).max(0.0)).sum();
    (g, min)
}
fn over(e: &Ring) -> (f64, f64) {
    let r: Vec<f64> = e.members().iter().map(|m| f64::from(e.load(m.node)) / e.fair_share(m.node)).collect();
    (r.iter().copied().fold(0.0, f64::max), r.iter().copied().fold(9.0, f64::min))
}

#[test]
fn table() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let weights: [&[u16]; 3] = [&[1], &[1, 2, 4], &[1, 3, 10, 100]];
    for (n, trials) in [(4, 4), (5, 4), (10, 4), (30, 4), (100, 4), (300, 2), (1000, 2)] {
        for ws in weights {
            for zones in [1, 2, 3, 5] {
                let name = format!("n={n} w={} z={zones}", ws.len());
                if !only.is_empty() && !only.split(',').any(|o| name.starts_with(o)) {
                    continue;
                }
                let mut r = (0.0f64, 9.0f64, Vec::new());
                let mut ms_build = 0;
                for t in 0..trials {
                    let mut rng = Rng::from_number(t * 1000 + n);
                    let ms: Vec<RingMember> = (0..n + 1)
                        .map(|i| {
                            let mut m = RingMember::new(NodeId(rng.bits()));
                            m.weight = crate::protocol::ring::Weight::new(ws[rng.index(ws.len())]).unwrap();
                            m.zone = crate::protocol::ring::Zone::new(format!(
                                "z{}",
                                if std::env::var("ZR").is_ok() { i % zones } else { rng.below(zones) }
                            ))
                            .unwrap();
                            m
                        })
                        .collect();
                    let t0 = std::time::Instant::now();
                    let big = Ring::build(&ms, Replicas::THREE);
                    ms_build = t0.elapsed().as_millis();
                    let small = Ring::build(&ms[..n as usize], Replicas::THREE);
                    for e in [&big, &small] {
                        let (a, b) = over(e);
                        r.0 = r.0.max(a);
                        r.1 = r.1.min(b);
                    }
                    let (g, m) = gained(&small, &big);
                    r.2.push(f64::from(g) / m);
                }
                let f = |v: &[f64]| {
                    format!(
                        "{:.3} (max {:.3})",
                        v.iter().sum::<f64>() / v.len() as f64,
                        v.iter().copied().fold(0.0, f64::max)
                    )
                };
                println!("{name:<18} max {:.3} min {:.3} join {} {ms_build}ms", r.0, r.1, f(&r.2));
            }
        }
    }
}
