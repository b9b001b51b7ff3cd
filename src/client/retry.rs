//! When another attempt is worth making, and when.

use std::time::Duration;

use crate::protocol::rng::Rng;
use crate::protocol::wire::client::Code;

/// The pause before the first repetition that asks for one.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// No pause is longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Whether the same request may fare better later or through another node. All others fail for what they are.
pub(super) fn may_pass(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::Timeout
        | Code::Overloaded
        | Code::NotReady
        | Code::RingChanged
        | Code::DiskFull
        | Code::RecordLost
        | Code::Connection => true,
        Code::BadKey
        | Code::ValueTooLarge
        | Code::RecordTooLarge
        | Code::TooManySiblings
        | Code::ContextTooLong
        | Code::ContextOfAnotherKey
        | Code::ContextDamaged
        | Code::OperationExpired
        | Code::Forbidden
        | Code::BadRequest => false,
    }
}

/// The pause before the `n`-th repetition (from 1): doubles from 10 ms to 500 ms, and is cut by up to a half at random,
/// so that clients that were refused together do not come back together.
pub(super) fn pause(n: u32, rng: &mut Rng) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << n.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let micros = doubled.as_micros() as u64;
    Duration::from_micros(rng.between(micros / 2, micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_vary() {
        let mut rng = Rng::from_number(1);
        for n in 1..40 {
            let longest = PAUSE_MIN.saturating_mul(1 << (n - 1).min(10)).min(PAUSE_MAX);
            let pause = pause(n, &mut rng);
            assert!(pause >= longest / 2 && pause <= longest, "{n}: {pause:?}");
        }
        assert_ne!(pause(9, &mut rng), pause(9, &mut rng));
    }
}
