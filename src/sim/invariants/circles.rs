//! Not on the list: what was passed on to an owner is executed there and never passed on again.
//!
//! Two nodes that each take the other for the better coordinator would else play ping-pong with a write for ever, long
//! after its client has gone.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::protocol::causality::OperationId;
use crate::protocol::wire::client::Write;

/// How often one attempt may be passed on: to each owner, and to each again when it does not answer, and the same by
/// another node when the network repeats what the client sent.
const TIMES_MAX: u32 = 100;

/// How often each attempt of each write was passed on.
#[derive(Clone, Debug, Default)]
pub struct Circles {
    times: BTreeMap<(OperationId, u32), u32>,
}

impl Circles {
    /// A node passes this attempt on.
    pub fn passed_on(&mut self, write: &Write) -> Option<Violation> {
        let times = self.times.entry((write.operation, write.attempt)).or_default();
        *times += 1;
        (*times == TIMES_MAX).then(|| {
            let evidence = format!("attempt {} of a write was passed on {times} times", write.attempt);
            Violation { key: Some(write.key.clone()), ..Violation::general(Invariant::Sane, evidence) }
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::time::WallTime;
    use crate::protocol::wire::client::Level;

    #[test]
    fn an_attempt_that_goes_in_a_circle_is_reported_once() {
        let write = |attempt| Write {
            key: Bytes::from_static(b"k"),
            value: None,
            context: None,
            operation: OperationId { started: WallTime(1), nonce: 1 },
            attempt,
            w: Level::Majority,
            sloppy: false,
        };
        let mut circles = Circles::default();
        // Many attempts are no circle, and neither are a few repeats.
        assert_eq!((1..1_000).find_map(|attempt| circles.passed_on(&write(attempt))), None);
        let reports = (0..300).filter_map(|_| circles.passed_on(&write(1)));
        assert_eq!(reports.count(), 1);
    }
}
