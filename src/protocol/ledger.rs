//! The ledger of repair: what background work costs, and when the next piece of it may begin.

use std::time::Duration;

use crate::protocol::config::ExchangeConfig;
use crate::protocol::time::Moment;

/// So many listed keys cost as much as one record that is read and sent.
pub const LISTED_PER_KEY: u64 = 32;

/// What may be spent at once after a rest: the node does nothing else meanwhile.
const BURST: Duration = Duration::from_millis(4);

/// A wake-up that comes later than this means that the node, or its machine, is busy with something else.
const LATE: Duration = Duration::from_millis(4);

/// One that comes within this is in time: timers are no better.
const IN_TIME: Duration = Duration::from_millis(2);

/// At its slowest, repair goes on at this many thousandths of its rate: it must not starve.
const EASE_MIN: u64 = 50;

/// By how many thousandths it recovers with each wake-up in time.
const EASE_STEP: u64 = 25;

/// One account for all repair of a node (hints, read repair, exchange, refill, reaping and the scrub): token buckets of
/// bytes and of keys, which yield to the foreground.
///
/// Work is done first and charged afterwards, so an account may be in debt; the next piece begins when it is not any
/// more. Whoever waits for that is woken by the clock, and how late that happens is what a request of a client would
/// have had to wait just now: the rate is halved at each late wake-up and recovers slowly (additive increase,
/// multiplicative decrease: Chiu and Jain, 1989).
#[derive(Clone, Debug)]
pub struct Ledger {
    bytes: Account,
    keys: Account,
    at: Moment,
    ease_per_mille: u64,
    read_repairs: ReadRepairs,
    bytes_charged: u64,
}

/// What became of the replicas that reads found to be behind, since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadRepairs {
    /// They were sent what they lacked, deletions included.
    pub done: u64,
    /// The account was in debt: the slot was left to the next exchange.
    pub left: u64,
}

/// One token bucket. Balances are in millionths, since a rate per second times microseconds gives those.
#[derive(Clone, Debug)]
struct Account {
    per_second: u64,
    balance: i64,
}

impl Account {
    fn new(per_second: u64) -> Account {
        Account { per_second: per_second.max(1), balance: 0 }
    }

    fn earn(&mut self, span: Duration, ease_per_mille: u64) {
        let rate = self.per_second.saturating_mul(ease_per_mille) / 1_000;
        let earned = rate.saturating_mul(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
        let most = rate.saturating_mul(BURST.as_micros() as u64);
        let balance = self.balance.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX));
        self.balance = balance.min(i64::try_from(most).unwrap_or(i64::MAX));
    }

    fn spend(&mut self, count: u64) {
        let millionths = i64::try_from(count.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        self.balance = self.balance.saturating_sub(millionths);
    }

    /// How long until it is out of debt.
    fn debt(&self, ease_per_mille: u64) -> Duration {
        let rate = (self.per_second * ease_per_mille / 1_000).max(1);
        let owed = u64::try_from(-self.balance.min(0)).unwrap_or(0);
        Duration::from_micros(owed.div_ceil(rate))
    }
}

impl Ledger {
    /// An account without debt or savings.
    #[must_use]
    pub fn new(config: &ExchangeConfig) -> Ledger {
        Ledger {
            bytes: Account::new(config.bytes_per_second),
            keys: Account::new(config.keys_per_second),
            at: Moment::default(),
            ease_per_mille: 1_000,
            read_repairs: ReadRepairs::default(),
            bytes_charged: 0,
        }
    }

    /// Charges records and other bytes that were sent.
    pub fn charge(&mut self, now: Moment, keys: u64, bytes: u64) {
        self.settle(now);
        self.keys.spend(keys);
        self.bytes.spend(bytes);
        self.bytes_charged += bytes;
    }

    /// Charges keys that were listed, by the thousandth of a record.
    pub fn charge_listing(&mut self, now: Moment, keys: u64) {
        self.settle(now);
        self.keys.balance = self.keys.balance.saturating_sub(
            i64::try_from(keys.saturating_mul(1_000_000) / LISTED_PER_KEY).unwrap_or(i64::MAX),
        );
    }

    /// Charges the repair of one replica behind a read, unless the account is in debt: then the read leaves it to the exchange.
    /// It does not wait, since what waits would hold a whole record, and the next read of the key may find it repaired.
    pub fn charge_read_repair(&mut self, now: Moment, bytes: u64) -> bool {
        if self.opens_at(now) > now {
            self.read_repairs.left += 1;
            return false;
        }
        self.charge(now, 1, bytes);
        self.read_repairs.done += 1;
        true
    }

    /// What became of the replicas that reads found to be behind.
    #[must_use]
    pub fn read_repairs(&self) -> ReadRepairs {
        self.read_repairs
    }

    /// How many bytes were charged since the start of the node, whatever for.
    #[must_use]
    pub fn bytes_charged(&self) -> u64 {
        self.bytes_charged
    }

    /// How many records and bytes may be spent in a second now.
    #[must_use]
    pub fn rates(&self) -> (u64, u64) {
        let eased = |account: &Account| account.per_second.saturating_mul(self.ease_per_mille) / 1_000;
        (eased(&self.keys), eased(&self.bytes))
    }

    /// When the next piece of work may begin.
    #[must_use]
    pub fn opens_at(&mut self, now: Moment) -> Moment {
        self.settle(now);
        let ease = self.ease_per_mille;
        now + self.bytes.debt(ease).max(self.keys.debt(ease))
    }

    /// Somebody who wanted to be woken at `due` was woken.
    pub fn woken(&mut self, now: Moment, due: Moment) {
        self.settle(now);
        let late = now.since(due);
        if late > LATE {
            self.ease_per_mille = (self.ease_per_mille / 2).max(EASE_MIN);
        } else if late <= IN_TIME {
            self.ease_per_mille = (self.ease_per_mille + EASE_STEP).min(1_000);
        }
    }

    /// At how many thousandths of its rate repair goes on now.
    #[must_use]
    pub fn ease_per_mille(&self) -> u64 {
        self.ease_per_mille
    }

    fn settle(&mut self, now: Moment) {
        let span = now.since(self.at);
        self.at = self.at.max(now);
        self.bytes.earn(span, self.ease_per_mille);
        self.keys.earn(span, self.ease_per_mille);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let config = ExchangeConfig {
            keys_per_second: 1_000,
            bytes_per_second: 1_000_000,
            ..ExchangeConfig::default()
        };
        Ledger::new(&config)
    }

    #[test]
    fn over_a_second_no_more_is_done_than_the_rate_allows() {
        for (keys, bytes, done_in_a_second) in [(10, 0, 100..=101), (1, 50_000, 20..=21)] {
            let mut ledger = ledger();
            let (mut now, mut pieces) = (Moment(5_000_000), 0);
            let end = now + Duration::from_secs(1);
            while now < end {
                ledger.charge(now, keys, bytes);
                pieces += 1;
                now = ledger.opens_at(now);
            }
            assert!(done_in_a_second.contains(&pieces), "{pieces}");
        }
    }

    #[test]
    fn read_repairs_are_done_as_far_as_the_account_goes_and_left_beyond() {
        let mut ledger = ledger();
        let mut now = Moment(5_000_000);
        let end = now + Duration::from_secs(1);
        while now < end {
            ledger.charge_read_repair(now, 10);
            now = now + Duration::from_micros(100);
        }
        let ReadRepairs { done, left } = ledger.read_repairs();
        assert!((1_000..=1_010).contains(&done), "{done}");
        assert_eq!(done + left, 10_000);
        // Whoever else has spent it leaves nothing to them.
        ledger.charge(now, 0, 2_000_000);
        assert!(!ledger.charge_read_repair(now, 10));
    }

    #[test]
    fn a_listing_costs_a_fraction_of_a_record() {
        let mut ledger = ledger();
        let now = Moment(5_000_000);
        ledger.charge_listing(now, 1_000 * LISTED_PER_KEY);
        let wait = ledger.opens_at(now).since(now);
        assert!((990..=1_000).contains(&wait.as_millis()), "{wait:?}");
    }

    #[test]
    fn who_is_woken_late_slows_down_and_recovers_but_never_stops() {
        let mut ledger = ledger();
        let wait = |ledger: &Ledger| {
            let mut ledger = ledger.clone();
            ledger.charge(Moment(9_000_000), 100, 0);
            ledger.opens_at(Moment(9_000_000)).since(Moment(9_000_000))
        };
        let before = wait(&ledger);
        let (late, due) = (Moment(8_000_000), Moment(7_990_000));
        ledger.woken(late, due);
        assert_eq!(ledger.ease_per_mille(), 500);
        (0..20).for_each(|_| ledger.woken(late, due));
        assert_eq!(ledger.ease_per_mille(), EASE_MIN);
        assert!(wait(&ledger) > before * 15);
        (0..100).for_each(|_| ledger.woken(late, late));
        assert_eq!(ledger.ease_per_mille(), 1_000);
    }
}
