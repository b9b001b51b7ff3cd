//! The simulated network between the nodes.

use std::time::Duration;

use super::clock::micros;
use crate::protocol::rng::Rng;
use crate::protocol::time::Moment;
use crate::protocol::wire::client::Fault;

/// How the network behaves everywhere, apart from cuts and clogs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The least time that a message takes.
    pub delay_min: Duration,
    /// What is added to that: anything up to this.
    pub delay_spread: Duration,
    /// Messages in a thousand that take up to fifty times as long.
    pub tail_per_mille: u32,
    /// Messages lost in a thousand.
    pub loss_per_mille: u32,
    /// Messages delivered twice in a thousand.
    pub duplicate_per_mille: u32,
    /// Whether messages of one link may overtake each other.
    pub reorders: bool,
}

impl Weather {
    /// A local network on a good day.
    #[must_use]
    pub fn fair() -> Weather {
        Weather {
            delay_min: Duration::from_micros(100),
            delay_spread: Duration::from_micros(400),
            tail_per_mille: 0,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            reorders: false,
        }
    }
}

/// No message is under way for longer than this, so that healing has an end.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(4);

/// A link that delivers everything within this time leaves nobody an excuse.
const PROMPT: Duration = Duration::from_millis(200);

/// One direction between two hosts.
#[derive(Clone, Debug, Default)]
struct Link {
    /// How many of the cuts in force contain it.
    cuts: u32,
    /// Whether the weather on it is fair, whatever it is elsewhere.
    is_fair: bool,
    /// Extra delay of each clog in force.
    clogs: Vec<Duration>,
    /// What a script does to it.
    fault: Fault,
    /// When the latest message so far arrives: without reordering none may come before.
    latest: Moment,
    /// When a message was last sent on it that got lost, or took longer than [`PROMPT`].
    failed: Option<Moment>,
}

/// All links between the hosts, both directions apart.
#[derive(Clone, Debug)]
pub(super) struct Network {
    hosts: usize,
    links: Vec<Link>,
    weather: Weather,
    /// What the weather is on links that have healed: fair, but for messages that overtake each other.
    healed: Weather,
    /// Messages that never arrived.
    pub(super) lost: u64,
    /// Messages that arrived twice.
    pub(super) duplicated: u64,
}

impl Network {
    pub(super) fn new(hosts: usize, weather: Weather) -> Network {
        let healed = Weather { reorders: weather.reorders, ..Weather::fair() };
        Network {
            hosts,
            links: vec![Link::default(); hosts * hosts],
            weather,
            healed,
            lost: 0,
            duplicated: 0,
        }
    }

    /// When a message that is sent now arrives: never, once or twice.
    pub(super) fn route(&mut self, from: usize, to: usize, now: Moment, rng: &mut Rng) -> Arrivals {
        let link = &mut self.links[from * self.hosts + to];
        let weather = if link.is_fair { &self.healed } else { &self.weather };
        let fault = link.fault;
        let mut copies = 1 + usize::from(rng.chance(weather.duplicate_per_mille));
        let mut lost = rng.chance(weather.loss_per_mille);
        let mut reorders = weather.reorders;
        if !fault.is_none() {
            // Nothing is drawn for links without a fault, so that runs without a script stay what they were.
            copies = copies.max(1 + usize::from(rng.chance(u32::from(fault.duplicate_per_mille))));
            lost |= fault.cut || rng.chance(u32::from(fault.loss_per_mille));
            reorders |= fault.jitter_ms > 0 || rng.chance(u32::from(fault.reorder_per_mille));
        }
        if link.cuts > 0 || lost {
            self.lost += 1;
            link.failed = Some(now);
            return Arrivals::default();
        }
        self.duplicated += copies as u64 - 1;
        let mut arrivals = Arrivals::default();
        for arrival in arrivals.0.iter_mut().take(copies) {
            let mut delay = micros(weather.delay_min) + rng.below(micros(weather.delay_spread) + 1);
            if rng.chance(weather.tail_per_mille) {
                delay *= rng.between(2, 50);
            }
            delay += link.clogs.iter().copied().map(micros).sum::<u64>();
            if fault.delay_ms > 0 || fault.jitter_ms > 0 {
                let (mean, jitter) = (u64::from(fault.delay_ms), u64::from(fault.jitter_ms));
                delay += rng.between(mean.saturating_sub(jitter) * 1_000, (mean + jitter) * 1_000);
            }
            if fault.reorder_per_mille > 0 && reorders {
                delay += rng.between(1_000, 20_000);
            }
            let mut at = now + Duration::from_micros(delay).min(DELAY_MAX);
            if !reorders {
                at = at.max(link.latest);
                link.latest = at;
            }
            if at > now + PROMPT {
                link.failed = Some(now);
            }
            *arrival = Some(at);
        }
        arrivals
    }

    /// Whether all that two hosts have sent each other since then arrives, and soon.
    pub(super) fn is_prompt_since(&self, one: usize, other: usize, since: Moment) -> bool {
        let has_failed = |from: usize, to: usize| {
            self.links[from * self.hosts + to].failed.is_some_and(|failed| failed >= since)
        };
        !has_failed(one, other) && !has_failed(other, one)
    }

    /// Drops everything on these links (sender, receiver), until as many calls of [`heal`](Network::heal).
    pub(super) fn cut(&mut self, links: &[(usize, usize)]) {
        for (from, to) in links {
            self.links[from * self.hosts + to].cuts += 1;
        }
    }

    /// Ends one cut.
    pub(super) fn heal(&mut self, links: &[(usize, usize)]) {
        for (from, to) in links {
            let cuts = &mut self.links[from * self.hosts + to].cuts;
            *cuts = cuts.saturating_sub(1);
        }
    }

    /// What a script does to a link from now on.
    pub(super) fn set_fault(&mut self, (from, to): (usize, usize), fault: Fault) {
        self.links[from * self.hosts + to].fault = fault;
    }

    /// Delays everything on a link.
    pub(super) fn clog(&mut self, (from, to): (usize, usize), delay: Duration) {
        self.links[from * self.hosts + to].clogs.push(delay);
    }

    /// Ends the oldest clog of a link.
    pub(super) fn unclog(&mut self, (from, to): (usize, usize)) {
        let clogs = &mut self.links[from * self.hosts + to].clogs;
        if !clogs.is_empty() {
            clogs.remove(0);
        }
    }

    /// Ends every cut and clog between these hosts, and the bad weather there. What is under way stays under way.
    pub(super) fn heal_among(&mut self, hosts: &[usize]) {
        for &from in hosts {
            for &to in hosts {
                let link = &mut self.links[from * self.hosts + to];
                *link = Link { is_fair: true, latest: link.latest, failed: link.failed, ..Link::default() };
            }
        }
    }
}

/// When the copies of one message arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrivals(pub(super) [Option<Moment>; 2]);

#[cfg(test)]
mod tests {
    use super::*;

    fn count(network: &mut Network, from: usize, to: usize) -> usize {
        let mut rng = Rng::from_number(3);
        (0..1_000)
            .map(|_| network.route(from, to, Moment(5), &mut rng).0.iter().flatten().count())
            .sum::<usize>()
    }

    #[test]
    fn a_cut_is_one_way_and_ends_when_the_last_of_them_heals() {
        let mut network = Network::new(3, Weather::fair());
        network.cut(&[(0, 1)]);
        network.cut(&[(0, 1), (2, 1)]);
        assert_eq!((count(&mut network, 0, 1), count(&mut network, 1, 0)), (0, 1_000));
        network.heal(&[(0, 1), (2, 1)]);
        assert_eq!((count(&mut network, 0, 1), count(&mut network, 2, 1)), (0, 1_000));
        network.heal(&[(0, 1)]);
        assert_eq!(count(&mut network, 0, 1), 1_000);
    }

    #[test]
    fn a_link_is_prompt_until_something_is_lost_or_late_on_it_in_either_direction() {
        let mut network = Network::new(3, Weather::fair());
        count(&mut network, 0, 1);
        assert!(network.is_prompt_since(0, 1, Moment(5)));
        network.clog((1, 0), PROMPT);
        count(&mut network, 1, 0);
        assert!(!network.is_prompt_since(0, 1, Moment(5)) && network.is_prompt_since(0, 1, Moment(6)));
        network.cut(&[(2, 1)]);
        count(&mut network, 2, 1);
        assert!(!network.is_prompt_since(1, 2, Moment(5)) && network.is_prompt_since(0, 2, Moment(5)));
    }

    #[test]
    fn healing_some_hosts_heals_the_links_among_them_and_no_others() {
        let mut network = Network::new(3, Weather { loss_per_mille: 300, ..Weather::fair() });
        network.cut(&[(0, 1), (1, 2)]);
        network.clog((1, 0), Duration::from_secs(1));
        network.heal_among(&[0, 1]);
        assert_eq!((count(&mut network, 0, 1), count(&mut network, 1, 2)), (1_000, 0));
        assert!((600..800).contains(&count(&mut network, 2, 1)));
        let arrivals = network.route(1, 0, Moment(5), &mut Rng::from_number(1));
        assert!(arrivals.0[0].is_some_and(|at| at < Moment(5) + Duration::from_millis(1)));
    }

    #[test]
    fn loss_and_duplication_come_in_the_measure_that_was_asked_for() {
        let lossy = Weather { loss_per_mille: 300, ..Weather::fair() };
        assert!((600..800).contains(&count(&mut Network::new(2, lossy), 0, 1)));
        let double = Weather { duplicate_per_mille: 500, ..Weather::fair() };
        assert!((1_400..1_600).contains(&count(&mut Network::new(2, double), 0, 1)));
    }

    #[test]
    fn without_reordering_nothing_overtakes_and_with_it_something_does() {
        for reorders in [false, true] {
            let mut network = Network::new(2, Weather { reorders, ..Weather::fair() });
            let mut rng = Rng::from_number(9);
            let arrivals: Vec<Moment> = (0..100)
                .flat_map(|sent| network.route(0, 1, Moment(sent * 10), &mut rng).0)
                .flatten()
                .collect();
            assert_eq!(arrivals.is_sorted(), !reorders);
        }
    }
}
