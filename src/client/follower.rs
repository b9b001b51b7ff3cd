//! The background task of a client: it follows the cluster as it changes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_io::Timer;

use super::bootstrap;
use super::clock;
use super::cluster::Cluster;
use super::operation::{self, Ask, Judgement, Target};
use super::options::CommonOptions;
use super::outcome::Fate;
use super::view::View;
use crate::protocol::wire::client::{Answer, Problem, Request, Topology};

/// However much seems to change, the topology is not asked for more often than this.
const PAUSE: Duration = Duration::from_millis(100);

/// Learns the topology anew, from time to time and whenever something looks changed, and dials lost nodes again.
/// Ends when the last clone of the client is gone; it is woken for that.
pub(super) async fn follow(cluster: Weak<Cluster>, refresh: Duration) {
    let mut refresh_at = clock::now() + refresh;
    loop {
        Timer::after(PAUSE).await;
        let Some(strong) = cluster.upgrade().filter(|cluster| !cluster.is_closed()) else { return };
        let stale = strong.staleness();
        let redial_at = strong.tidy_up();
        let now = clock::now();
        if strong.take_staleness() || now >= refresh_at {
            // A failure is no news: the old view stays, and the next round comes.
            let _ = learn_anew(&strong).await;
            refresh_at = clock::now() + refresh;
            continue;
        }
        drop(strong);
        let due = async {
            Timer::at(redial_at.map_or(refresh_at, |at| at.min(refresh_at))).await;
        };
        futures_lite::future::or(stale, due).await;
    }
}

/// Learns the topology from whoever answers, from the seeds if no known node does.
pub(super) async fn learn_anew(cluster: &Arc<Cluster>) -> Result<(), Problem> {
    let common = CommonOptions { deadline: cluster.options.deadlines.dial * 2, attempts: 4 };
    let asked = clock::now();
    match operation::run(cluster, Target::Any, common, None, TopologyAsk::of(cluster)).await {
        Ok(success) => {
            let answered = clock::now();
            learn(cluster, success.done, answered - success.took, answered).await
        }
        Err(failure) if cluster.is_closed() => Err(failure.problem),
        Err(failure) => {
            let (seeds, limit) = (&cluster.options.seeds, cluster.options.deadlines.connect);
            let Ok(found) = bootstrap::find(cluster.seed_endpoint(), seeds, limit).await else {
                return Err(failure.problem);
            };
            let node = found.topology.node;
            learn(cluster, found.topology, asked.max(found.asked), found.answered).await?;
            cluster.keep(node, found.link);
            Ok(())
        }
    }
}

async fn learn(
    cluster: &Arc<Cluster>,
    topology: Topology,
    asked: std::time::Instant,
    answered: std::time::Instant,
) -> Result<(), Problem> {
    let previous = cluster.view();
    // Placing the slots of a large cluster takes a while; the threads that carry connections have other work.
    let view = async_std::task::spawn_blocking(move || View::new(topology, asked, answered, Some(&previous)));
    cluster.adopt(view.await)
}

/// Asks for the topology.
pub(super) struct TopologyAsk {
    patience: Duration,
}

impl TopologyAsk {
    pub(super) fn of(cluster: &Cluster) -> TopologyAsk {
        TopologyAsk { patience: cluster.options.deadlines.patience }
    }
}

impl Ask for TopologyAsk {
    type Done = Topology;

    fn request(&self, _attempt: u32) -> Request {
        Request::Topology
    }

    fn judge(&mut self, answer: Answer) -> Judgement<Topology> {
        match answer {
            Answer::Topology(topology) => Judgement::Done(topology),
            Answer::Refused(problem) => Judgement::Failed(Fate::NotApplied, problem),
            _ => Judgement::nonsense(),
        }
    }

    fn patience(&self, _attempt: u32) -> Duration {
        self.patience
    }
}
