//! The score of a member for a slot: weighted rendezvous hashing in integers.
//!
//! A hash of (place, slot) is read as a uniform number u in (0, 1]. A member of rate w *costs* −log₂(u) / w there,
//! an exponentially distributed time with that rate, and the cheapest members win the slot. Whatever joins or leaves,
//! the costs of the others stay in the same order: that is why so little moves.
//!
//! Platforms disagree in the last bits of `f64::ln`, and one bit is enough to give a slot two sets of owners. So the
//! logarithm is a table with linear interpolation, made by the compiler with integer arithmetic.

use crate::protocol::id::Place;
use crate::protocol::ring::slot::Slot;

/// How many bits after the binary point a logarithm or a rate has; six remain before it.
pub(super) const FRACTION_BITS: u32 = 57;

/// 1 as a logarithm or rate.
pub(super) const ONE: u64 = 1 << FRACTION_BITS;

/// The table has 2 to this power segments between one power of two and the next.
const SEGMENT_BITS: u32 = 9;

const SEGMENTS: usize = 1 << SEGMENT_BITS;

/// −log₂((SEGMENTS + i) / (2 SEGMENTS)): from exactly 1 down to exactly 0.
const TABLE: [u64; SEGMENTS + 1] = {
    let mut table = [0; SEGMENTS + 1];
    let mut i = 0;
    while i < SEGMENTS {
        table[i] = ONE - log2_of_mantissa(((SEGMENTS + i) as u64) << (63 - SEGMENT_BITS));
        i += 1;
    }
    table
};

/// log₂(m / 2⁶³) for a number m with its top bit set, bit by bit: squaring doubles the logarithm, and whether the
/// square passes 2 is its next digit.
const fn log2_of_mantissa(mut m: u64) -> u64 {
    let mut log = 0;
    let mut bit = ONE;
    while bit > 1 {
        bit >>= 1;
        let square = (m as u128) * (m as u128);
        if square >> 127 == 1 {
            log |= bit;
            m = (square >> 64) as u64;
        } else {
            m = (square >> 63) as u64;
        }
    }
    log
}

/// −log₂(h / 2⁶⁴) as a fixed-point number of [`FRACTION_BITS`]; at most 64, for h = 0 as for h = 1.
///
/// It never rises as h grows, and it is exact at the powers of two. Between the points of the table it errs by less
/// than 1 / (2 SEGMENTS) of itself, always to the same side, near h = 2⁶⁴ as elsewhere.
pub(super) fn neg_log2(h: u64) -> u64 {
    let h = h.max(1);
    let zeros = h.leading_zeros();
    let mantissa = h << zeros;
    // The top bit is always set, the next SEGMENT_BITS choose the segment, the rest say how far along it we are.
    let segment = (mantissa >> (63 - SEGMENT_BITS)) as usize & (SEGMENTS - 1);
    let along = mantissa << (1 + SEGMENT_BITS);
    let drop = TABLE[segment] - TABLE[segment + 1];
    (u64::from(zeros) << FRACTION_BITS) + TABLE[segment] - high_product(drop, along)
}

/// 2⁻ˣ as a fraction of 2⁶⁴, for a fixed-point x: the smallest h whose [`neg_log2`] is at most x.
pub(super) fn exp2_neg(x: u64) -> u64 {
    smallest(|h| neg_log2(h) <= x)
}

/// The smallest number for which `holds`, for a condition that turns true once and holds for the largest number.
fn smallest(holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, u64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// The upper half of a product: a · b / 2⁶⁴.
fn high_product(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

/// Scrambles 64 bits so that flipping any of them flips each bit of the result half of the time (the finaliser of
/// SplitMix64, Stafford's variant 13). A bijection.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The scrambled half of a hash that a slot contributes.
pub(super) fn slot_seed(slot: Slot) -> u64 {
    mix(0x9e37_79b9_7f4a_7c15 ^ u64::from(slot.get()))
}

/// The scrambled half of a hash that a place contributes.
pub(super) fn place_seed(place: Place) -> u64 {
    mix(place.0.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// What one member bids with: its place and its rate, prepared for 16,384 scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bidder {
    seed: u64,
    /// The smallest rate of all members divided by this one's, as a fraction of 2⁶⁴: a division saved per score.
    scale: u64,
}

impl Bidder {
    /// `seed` is the [`place_seed`]; `rate` and `rate_min`, the smallest of all members, are above zero.
    pub(super) fn new(seed: u64, rate: u64, rate_min: u64) -> Bidder {
        let scale = (u128::from(rate_min) * u128::from(u64::MAX) / u128::from(rate)) as u64;
        Bidder { seed, scale }
    }

    /// The hash of place and slot. Of one member's hashes, the larger is never the dearer.
    pub(super) fn hash(&self, slot_seed: u64) -> u64 {
        mix(self.seed ^ slot_seed)
    }

    /// The cost of a hash to this member; the cheapest members own the slot.
    pub(super) fn cost(&self, hash: u64) -> u64 {
        high_product(neg_log2(hash), self.scale)
    }

    /// The smallest hash that costs at most `limit`: one comparison then tells who need not be ranked.
    pub(super) fn hash_min(&self, limit: u64) -> u64 {
        smallest(|hash| self.cost(hash) <= limit)
    }

    /// Bidders of equal scale have equal costs for equal hashes.
    pub(super) fn scale(&self) -> u64 {
        self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_exact_at_powers_of_two_and_close_between_them() {
        assert_eq!(neg_log2(1 << 63), ONE);
        assert_eq!(neg_log2(1 << 40), 24 * ONE);
        assert_eq!(neg_log2(0), 64 * ONE);
        assert_eq!(neg_log2(1), 64 * ONE);
        // log2(1.5), log2(1.25) and log2(1.999), computed elsewhere.
        for (numerator, log) in
            [(1_500, 0.584_962_500_721), (1_250, 0.321_928_094_887), (1_999, 0.999_278_472_083)]
        {
            let mantissa = (numerator << 63) / 1_000_u128;
            let found = log2_of_mantissa(mantissa as u64) as f64 / ONE as f64;
            assert!((found - log).abs() < 1e-10, "{numerator}: {found}");
        }
        // The table with its interpolation, against the logarithm taken bit by bit.
        for k in 1..2_000_u64 {
            let h = (mix(k) >> (k % 50)).max(1);
            let zeros = u64::from(h.leading_zeros());
            let exact = (zeros + 1) * ONE - log2_of_mantissa(h << zeros);
            let error = neg_log2(h).abs_diff(exact);
            assert!(error <= exact / (2 * SEGMENTS) as u64 + 64, "{h:x}: {error} off {exact}");
        }
    }

    #[test]
    fn a_larger_hash_never_costs_more() {
        for k in 0..50_000_u64 {
            let h = mix(k) >> (k % 60);
            assert!(neg_log2(h) >= neg_log2(h.saturating_add(1)), "{h:x}");
            assert!(neg_log2(h) >= neg_log2(h.saturating_add(1 << (k % 60))), "{h:x}");
        }
    }

    #[test]
    fn powers_undo_logarithms() {
        assert_eq!(exp2_neg(ONE), 1 << 63);
        assert_eq!(exp2_neg(64 * ONE), 0);
        for k in 0..1_000 {
            let h = mix(k) >> (k % 60);
            let back = exp2_neg(neg_log2(h));
            assert!(back <= h && neg_log2(back) == neg_log2(h), "{h:x} came back as {back:x}");
        }
    }

    #[test]
    fn the_smallest_hash_within_a_limit_is_the_smallest() {
        let bidder = Bidder::new(1, 5 * ONE, 2 * ONE);
        for limit in [ONE / 1_000, ONE / 3, ONE, 7 * ONE] {
            let least = bidder.hash_min(limit);
            assert!(bidder.cost(least) <= limit);
            assert!(bidder.cost(least - 1) > limit);
        }
    }

    /// Pinned: a change here moves every slot of every cluster.
    #[test]
    fn the_table_and_the_hash_are_pinned() {
        let table = TABLE.iter().fold(0, |sum, entry| mix(sum ^ entry));
        let hash = Bidder::new(place_seed(Place(7)), ONE, ONE).hash(slot_seed(Slot::of_hash(1 << 63)));
        assert_eq!(
            (table, hash, neg_log2(hash)),
            (7_633_305_390_121_341_995, 8_006_195_255_509_258_584, 173_540_280_897_604_290)
        );
    }
}
