//! Faults: what a partition, a slow or a bad network does to datagrams, on purpose.
//!
//! A node that was started with faults allowed holds one table of rules, by the address of the other side and the
//! direction. The socket asks it about each datagram, under QUIC: QUIC itself sees a bad network, not
//! a test. Rules match addresses, so that a cut between two nodes leaves the way of an administrator open.
//!
//! What happens to a datagram is decided by [`Fault::fate`], which is pure: a rule and a seeded generator in, a
//! [`Fate`] out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use crate::protocol::rng::Rng;
pub use crate::protocol::wire::fault::{Direction, Fault, FaultRule, Injected};

/// How much longer than others a reordered datagram is held back, at least and at most: enough for those behind it to
/// overtake, too little to be taken for lost.
const REORDER_HOLD_MILLIS: (u64, u64) = (2, 10);

/// Delays, with their jitter, are at most this long. A datagram that is held for longer than QUIC's own timeouts is
/// better described as lost.
pub const DELAY_MILLIS_MAX: u32 = 60_000;

/// A rule cannot be in force. The table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FaultError {
    /// A probability above one.
    #[error("a probability is at most 1000 per mille")]
    Probability,
    /// A delay beyond [`DELAY_MILLIS_MAX`].
    #[error("a delay with its jitter is at most {DELAY_MILLIS_MAX} ms")]
    Delay,
    /// Inbound datagrams have already travelled.
    #[error("inbound datagrams can be cut or lost; delay, duplicate and reorder them where they are sent")]
    InboundOnlyCutOrLoss,
}

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stops here, by a cut.
    Cut,
    /// It stops here, by loss.
    Lost,
    /// It goes out after a delay, and perhaps a second time.
    Delivered {
        /// How long it is held back; zero for none.
        after: Duration,
        /// A second copy, with a delay of its own.
        again_after: Option<Duration>,
        /// Whether `after` holds a share meant to reorder.
        is_reordered: bool,
    },
}

impl Fate {
    const UNTOUCHED: Fate = Fate::Delivered { after: Duration::ZERO, again_after: None, is_reordered: false };

    /// The delay of every copy that is to be sent.
    pub fn deliveries(self) -> impl Iterator<Item = Duration> {
        let copies = match self {
            Fate::Cut | Fate::Lost => [None, None],
            Fate::Delivered { after, again_after, .. } => [Some(after), again_after],
        };
        copies.into_iter().flatten()
    }
}

impl Fault {
    /// A cut, for whichever direction.
    pub const CUT: Fault = Fault {
        cut: true,
        delay_ms: 0,
        jitter_ms: 0,
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        reorder_per_mille: 0,
    };

    /// Decides what becomes of one datagram. Pure: all chance comes from `rng`.
    #[must_use]
    pub fn fate(&self, rng: &mut Rng) -> Fate {
        if self.cut {
            return Fate::Cut;
        }
        if rng.chance(self.loss_per_mille.into()) {
            return Fate::Lost;
        }
        let mut after = self.delay(rng);
        let is_reordered = rng.chance(self.reorder_per_mille.into());
        if is_reordered {
            after += Duration::from_millis(rng.between(REORDER_HOLD_MILLIS.0, REORDER_HOLD_MILLIS.1));
        }
        let again_after = rng.chance(self.duplicate_per_mille.into()).then(|| self.delay(rng));
        Fate::Delivered { after, again_after, is_reordered }
    }

    fn delay(&self, rng: &mut Rng) -> Duration {
        if self.delay_ms == 0 && self.jitter_ms == 0 {
            return Duration::ZERO;
        }
        let (mean, jitter) = (u64::from(self.delay_ms) * 1_000, u64::from(self.jitter_ms) * 1_000);
        Duration::from_micros(rng.between(mean.saturating_sub(jitter), mean + jitter))
    }

    fn check(&self, direction: Direction) -> Result<(), FaultError> {
        let probabilities = [self.loss_per_mille, self.duplicate_per_mille, self.reorder_per_mille];
        if probabilities.into_iter().any(|probability| probability > 1_000) {
            return Err(FaultError::Probability);
        }
        if self.delay_ms.saturating_add(self.jitter_ms) > DELAY_MILLIS_MAX {
            return Err(FaultError::Delay);
        }
        let inbound_part = Fault { cut: self.cut, loss_per_mille: self.loss_per_mille, ..Fault::default() };
        if direction == Direction::Inbound && *self != inbound_part {
            return Err(FaultError::InboundOnlyCutOrLoss);
        }
        Ok(())
    }
}

impl Injected {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Cut => self.cut += 1,
            Fate::Lost => self.lost += 1,
            Fate::Delivered { after, again_after, is_reordered } => {
                self.delayed += u64::from(!after.is_zero());
                self.duplicated += u64::from(again_after.is_some());
                self.reordered += u64::from(is_reordered);
            }
        }
    }
}

/// The table of rules of one node, shared by its socket and its administration.
#[derive(Debug)]
pub struct Faults {
    /// Whether there is any rule: all that a socket looks at in good times.
    is_active: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    rules: BTreeMap<(SocketAddr, Direction), (Fault, Injected)>,
    total: Injected,
    rng: Rng,
}

impl Faults {
    /// A table without rules. Its chances come from `rng`.
    #[must_use]
    pub fn new(rng: Rng) -> Faults {
        let table = Table { rules: BTreeMap::new(), total: Injected::default(), rng };
        Faults { is_active: AtomicBool::new(false), table: Mutex::new(table) }
    }

    /// Puts a rule into force, in place of the one that was there for this address and direction.
    pub fn set(&self, peer: SocketAddr, direction: Direction, fault: Fault) -> Result<(), FaultError> {
        fault.check(direction)?;
        let mut table = self.table();
        table.rules.insert((canonical(peer), direction), (fault, Injected::default()));
        self.is_active.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes the rules of both directions for this address. Datagrams that were delayed already still arrive.
    pub fn clear(&self, peer: SocketAddr) {
        let mut table = self.table();
        for direction in [Direction::Inbound, Direction::Outbound] {
            table.rules.remove(&(canonical(peer), direction));
        }
        self.is_active.store(!table.rules.is_empty(), Ordering::Release);
    }

    /// Removes all rules.
    pub fn clear_all(&self) {
        self.table().rules.clear();
        self.is_active.store(false, Ordering::Release);
    }

    /// All rules in force, in the order of their addresses.
    #[must_use]
    pub fn list(&self) -> Vec<FaultRule> {
        self.table()
            .rules
            .iter()
            .map(|(&(peer, direction), &(fault, injected))| FaultRule { peer, direction, fault, injected })
            .collect()
    }

    /// What was injected since the node started, by rules that are gone as well.
    #[must_use]
    pub fn injected(&self) -> Injected {
        self.table().total
    }

    pub(super) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// Decides about one datagram to `peer`, and counts.
    pub(super) fn fate_outbound(&self, peer: SocketAddr) -> Fate {
        self.table().fate(peer, Direction::Outbound)
    }

    /// Removes from `batch`, which holds datagrams of `stride` bytes (the last may be shorter) from `peer`, those that
    /// do not arrive. Returns how many bytes are left, at the beginning of `batch`.
    pub(super) fn filter_inbound(&self, peer: SocketAddr, batch: &mut [u8], stride: usize) -> usize {
        let mut table = self.table();
        let (mut kept, mut next) = (0, 0);
        while next < batch.len() {
            let end = batch.len().min(next + stride.max(1));
            if table.fate(peer, Direction::Inbound).deliveries().next().is_some() {
                batch.copy_within(next..end, kept);
                kept += end - next;
            }
            next = end;
        }
        kept
    }

    pub(super) fn count_overflow(&self) {
        self.table().total.overflowed += 1;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock, and if it did, the table would still be whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn fate(&mut self, peer: SocketAddr, direction: Direction) -> Fate {
        let Some((fault, injected)) = self.rules.get_mut(&(canonical(peer), direction)) else {
            return Fate::UNTOUCHED;
        };
        let fate = fault.fate(&mut self.rng);
        injected.count(fate);
        self.total.count(fate);
        fate
    }
}

/// A socket that serves both families sees IPv4 peers under mapped IPv6 addresses; rules name the plain ones.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7_001);

    fn faults() -> Faults {
        Faults::new(Rng::from_number(1))
    }

    fn fates(fault: Fault) -> Vec<Fate> {
        let mut rng = Rng::from_number(2);
        (0..10_000).map(|_| fault.fate(&mut rng)).collect()
    }

    fn share(fates: &[Fate], is: impl Fn(&Fate) -> bool) -> usize {
        fates.iter().filter(|fate| is(fate)).count() * 1_000 / fates.len()
    }

    #[test]
    fn no_rule_and_an_empty_rule_leave_datagrams_alone() {
        assert!(fates(Fault::default()).iter().all(|fate| *fate == Fate::UNTOUCHED));
        let faults = faults();
        assert!(!faults.is_active());
        faults.set(PEER, Direction::Outbound, Fault::CUT).unwrap();
        assert_eq!(faults.fate_outbound("127.0.0.1:7002".parse().unwrap()), Fate::UNTOUCHED);
        assert_eq!(faults.injected(), Injected::default());
    }

    #[test]
    fn probabilities_are_met() {
        let fault = Fault {
            loss_per_mille: 300,
            duplicate_per_mille: 100,
            reorder_per_mille: 50,
            ..Fault::default()
        };
        let fates = fates(fault);
        assert!((280..=320).contains(&share(&fates, |fate| *fate == Fate::Lost)));
        // Of the seven tenths that are not lost.
        let twice = share(&fates, |fate| fate.deliveries().count() == 2);
        assert!((55..=85).contains(&twice), "{twice}");
        let held = share(&fates, |fate| matches!(fate, Fate::Delivered { is_reordered: true, .. }));
        assert!((25..=45).contains(&held), "{held}");
    }

    #[test]
    fn delays_lie_within_the_jitter_and_use_all_of_it() {
        let fates = fates(Fault { delay_ms: 20, jitter_ms: 30, ..Fault::default() });
        let delays: Vec<Duration> = fates.into_iter().flat_map(Fate::deliveries).collect();
        assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(50)));
        assert!(delays.iter().any(|delay| *delay < Duration::from_millis(2)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(48)));
    }

    #[test]
    fn the_same_seed_decides_the_same() {
        let fault = Fault { loss_per_mille: 500, jitter_ms: 9, ..Fault::default() };
        assert_eq!(fates(fault), fates(fault));
    }

    #[test]
    fn inbound_loss_keeps_the_others_whole_and_in_order() {
        let faults = faults();
        faults.set(PEER, Direction::Inbound, Fault { loss_per_mille: 400, ..Fault::default() }).unwrap();
        // Datagrams of three bytes, the last of two, each filled with its number.
        let mut batch: Vec<u8> = (0..200_u8).flat_map(|n| [n; 3]).collect();
        batch.pop();
        let kept = faults.filter_inbound(PEER, &mut batch, 3);
        let numbers: Vec<u8> = batch[..kept].chunks(3).map(|datagram| datagram[0]).collect();
        assert!(batch[..kept].chunks(3).all(|datagram| datagram.iter().all(|byte| *byte == datagram[0])));
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(faults.injected().lost, 200 - numbers.len() as u64);
        assert!((90..150).contains(&numbers.len()), "{}", numbers.len());
    }

    #[test]
    fn mapped_addresses_meet_the_plain_rule_and_counters_tell() {
        let faults = faults();
        faults.set(PEER, Direction::Outbound, Fault::CUT).unwrap();
        assert_eq!(faults.fate_outbound("[::ffff:127.0.0.1]:7001".parse().unwrap()), Fate::Cut);
        let [rule] = faults.list()[..] else { panic!("one rule is expected") };
        assert_eq!((rule.peer, rule.direction, rule.fault), (PEER, Direction::Outbound, Fault::CUT));
        assert_eq!(rule.injected.cut, 1);
        faults.clear(PEER);
        assert!(faults.list().is_empty() && !faults.is_active());
        assert_eq!(faults.injected().cut, 1);
    }

    #[test]
    fn impossible_rules_are_refused_and_change_nothing() {
        let faults = faults();
        let set = |direction, fault| faults.set(PEER, direction, fault);
        let late = Fault { delay_ms: 5, ..Fault::default() };
        assert_eq!(set(Direction::Inbound, late), Err(FaultError::InboundOnlyCutOrLoss));
        let sure = Fault { loss_per_mille: 1_001, ..Fault::default() };
        assert_eq!(set(Direction::Outbound, sure), Err(FaultError::Probability));
        let never = Fault { delay_ms: u32::MAX, jitter_ms: 1, ..Fault::default() };
        assert_eq!(set(Direction::Outbound, never), Err(FaultError::Delay));
        assert!(faults.list().is_empty() && !faults.is_active());
    }

    #[test]
    fn rules_travel_in_frames() {
        let rule = FaultRule {
            peer: PEER,
            direction: Direction::Inbound,
            fault: Fault::CUT,
            injected: Injected::default(),
        };
        let bytes = crate::protocol::codec::encode(&rule);
        assert_eq!(crate::protocol::codec::decode::<FaultRule>(&bytes).unwrap(), rule);
    }
}
