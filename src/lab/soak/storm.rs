//! The storm: strikes that fall on the nodes of a lab, one after the other, and end again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::cluster::Lab;
use super::chronicle::Chronicle;
use super::strike::{Blow, Kind, Strike};
use crate::protocol::rng::Rng;
use crate::sim::invariants::{Invariant, Violation};

/// How long the storm looks away.
const TICK: Duration = Duration::from_millis(10);

/// How many strikes last at once at most: under more of them nothing would ever be committed.
const LASTING_MAX: usize = 4;

/// How long a healed cluster may take until all see all.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// How often nodes are told again what they could not be told.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// What happened so long before a node fell over may have to do with it.
const BEFORE: Duration = Duration::from_secs(30);

/// Strikes that fall on a lab.
#[derive(Debug)]
pub struct Storm {
    lab: Lab,
    chronicle: Arc<Chronicle>,
    nodes: Vec<String>,
    kinds: Vec<Kind>,
    rng: Rng,
    lasting: Vec<Lasting>,
    /// Nodes that would not start again, and that nobody tries to start any more.
    lost: BTreeSet<String>,
    calamities: Calamities,
}

/// A strike that has fallen and not ended.
#[derive(Debug)]
struct Lasting {
    blow: Blow,
    ends: Instant,
}

/// What came of the storm, apart from what clients saw.
#[derive(Clone, Debug, Default)]
pub struct Calamities {
    /// How many strikes of each kind fell.
    pub strikes: BTreeMap<Kind, u64>,
    /// How often a node was killed while it started.
    pub killed_as_they_started: u64,
    /// How often no majority of the nodes was up and awake after a strike.
    pub majorities_lost: u64,
    /// Nodes that ended by themselves, would not start, or did not find each other again.
    pub violations: Vec<Violation>,
    /// What is no violation but worth a look.
    pub remarks: Vec<String>,
}

impl Storm {
    /// A storm of these kinds over a lab that runs.
    #[must_use]
    pub fn new(lab: Lab, chronicle: Arc<Chronicle>, kinds: Vec<Kind>, rng: Rng) -> Storm {
        let nodes = lab.record().names();
        let (lasting, lost, calamities) = (Vec::new(), BTreeSet::new(), Calamities::default());
        Storm { lab, chronicle, nodes, kinds, rng, lasting, lost, calamities }
    }

    /// Rages until then, or until `stop` is raised.
    pub fn rage(&mut self, until: Instant, stop: &AtomicBool) {
        let mut next = self.draw();
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            self.end_those_that_are_over();
            self.look_after_the_dead();
            let may_fall = self.lasting.len() < LASTING_MAX;
            if let Some((strike, _)) = next.take_if(|(_, falls)| may_fall && *falls <= Instant::now()) {
                self.fall(strike);
                next = self.draw();
            }
            std::thread::sleep(TICK);
        }
    }

    /// Ends all strikes and waits until all nodes see all.
    pub fn heal(&mut self) {
        self.chronicle.is_now("healing");
        let lasting = std::mem::take(&mut self.lasting);
        self.weather();
        lasting.iter().for_each(|lasting| self.end_one(&lasting.blow));
        self.look_after_the_dead();
        let begun = Instant::now();
        match self.lab.wait(WHOLE_WITHIN, &mut |_| {}) {
            Ok(()) => self.chronicle.event(format!("healed, all see all after {:.1?}", begun.elapsed())),
            Err(why) => self.violated(Invariant::Liveness, format!("healed, but {why}")),
        }
        self.look_after_the_dead();
    }

    /// Ends the nodes, and tells what happened.
    #[must_use]
    pub fn end(self) -> Calamities {
        let mut calamities = self.calamities;
        let killed = self.lab.shutdown();
        if !killed.is_empty() {
            let text =
                format!("{} did not stop in good order at the end and had to be killed", killed.join(", "));
            calamities.remarks.push(text);
        }
        calamities
    }

    /// The next strike, and when it falls.
    fn draw(&mut self) -> Option<(Strike, Instant)> {
        let strike = Strike::draw(&self.kinds, &self.nodes, &mut self.rng)?;
        let falls = Instant::now() + strike.wait;
        Some((strike, falls))
    }

    fn fall(&mut self, Strike { mut blow, span, .. }: Strike) {
        // Who is down or stands still already is not struck again.
        let spared: Vec<String> = self.down();
        if let Blow::Kill(nodes, _) | Blow::Stop(nodes) | Blow::Pause(nodes) = &mut blow {
            nodes.retain(|node| !spared.contains(node));
            if nodes.is_empty() {
                return;
            }
        }
        match &blow {
            Blow::Kill(nodes, _) => {
                self.lab.kill(nodes);
            }
            Blow::Stop(nodes) => {
                let late = self.lab.stop(nodes);
                if !late.is_empty() {
                    let text = format!(
                        "{} did not stop in good order in time and had to be killed",
                        late.join(", ")
                    );
                    self.chronicle.event(text.clone());
                    self.calamities.remarks.push(text);
                }
            }
            Blow::Pause(nodes) => {
                self.lab.pause(nodes);
            }
            Blow::Links(..) => {}
        }
        self.chronicle.event(format!("{blow}, for {span:.1?}"));
        *self.calamities.strikes.entry(blow.kind()).or_default() += 1;
        let is_of_links = matches!(blow, Blow::Links(..));
        self.lasting.push(Lasting { blow, ends: Instant::now() + span });
        if is_of_links {
            self.weather();
        }
        if 2 * self.down().len() >= self.nodes.len() {
            self.calamities.majorities_lost += 1;
        }
        self.tell();
    }

    fn end_those_that_are_over(&mut self) {
        let now = Instant::now();
        while let Some(at) = self.lasting.iter().position(|lasting| lasting.ends <= now) {
            let Lasting { blow, .. } = self.lasting.remove(at);
            self.end_one(&blow);
            if matches!(blow, Blow::Links(..)) {
                self.weather();
            }
            self.tell();
        }
    }

    fn end_one(&mut self, blow: &Blow) {
        match blow {
            Blow::Kill(nodes, again) => {
                if let Some(patience) = again {
                    self.kill_as_they_start(nodes, *patience);
                }
                self.restart(nodes);
            }
            Blow::Stop(nodes) => self.restart(nodes),
            Blow::Pause(nodes) => {
                if let Err(why) = self.lab.resume(nodes) {
                    self.chronicle.event(format!("not told their faults: {why}"));
                }
                self.chronicle.event(format!("{} resumed", nodes.join(",")));
            }
            Blow::Links(..) => self.chronicle.event(format!("no more {blow}")),
        }
    }

    /// A node that dies in the middle of its recovery is as good as one that dies later.
    fn kill_as_they_start(&mut self, nodes: &[String], patience: Duration) {
        for node in nodes {
            if let Err(error) = self.lab.launch_without_waiting(node) {
                self.calamities.remarks.push(error.to_string());
            }
        }
        std::thread::sleep(patience);
        // Whoever ended by itself before the kill would be lost in it.
        self.look_after_the_dead();
        self.lab.kill(nodes);
        self.calamities.killed_as_they_started += nodes.len() as u64;
        self.chronicle.event(format!("{} killed {patience:.0?} after the start", nodes.join(",")));
    }

    fn restart(&mut self, nodes: &[String]) {
        // One after the other: one that will not start must not keep the others down.
        for node in nodes.iter().filter(|node| !self.lost.contains(*node)).cloned().collect::<Vec<_>>() {
            let begun = Instant::now();
            match self.lab.restart(std::slice::from_ref(&node)) {
                Ok(_) => self.chronicle.event(format!("{node} answers again after {:.1?}", begun.elapsed())),
                Err(why) if !self.down().contains(&node) => {
                    // It runs, and was not told its faults; the next change of the weather tells it.
                    self.chronicle.event(format!("{node} runs again, but {why}"));
                }
                Err(why) => {
                    self.violated(Invariant::Sane, format!("{node} does not start again: {why}"));
                    self.lost.insert(node);
                }
            }
        }
    }

    /// Tells the nodes which strikes of the network last.
    fn weather(&mut self) {
        let blows: Vec<Blow> = self.lasting.iter().map(|lasting| lasting.blow.clone()).collect();
        let deadline = Instant::now() + TOLD_WITHIN;
        loop {
            let told = self.lab.change_faults(|faults, nodes| {
                faults.heal();
                blows.iter().for_each(|blow| blow.add_to(faults, nodes));
            });
            let Err(why) = told else { return };
            self.look_after_the_dead();
            if Instant::now() > deadline {
                return self.violated(Invariant::Liveness, format!("a node does not answer the lab: {why}"));
            }
        }
    }

    /// Nodes that ended though nobody told them to are what a soak looks for. They are started again.
    fn look_after_the_dead(&mut self) {
        for (node, how) in self.lab.failures() {
            if self.lost.contains(&node) {
                continue;
            }
            self.violated(Invariant::Sane, format!("{node} {how}"));
            self.restart(&[node]);
        }
    }

    /// Who does not run, or stands still.
    fn down(&mut self) -> Vec<String> {
        self.lab.down()
    }

    fn violated(&mut self, invariant: Invariant, evidence: String) {
        self.chronicle.event(evidence.clone());
        let span = (self.chronicle.now() - BEFORE, self.chronicle.now());
        self.calamities
            .violations
            .push(Violation { span: Some(span), ..Violation::general(invariant, evidence) });
    }

    /// For those who watch: what is wrong now.
    fn tell(&self) {
        let blows: Vec<String> = self.lasting.iter().map(|lasting| lasting.blow.to_string()).collect();
        self.chronicle.is_now(&if blows.is_empty() { "calm".to_owned() } else { blows.join("; ") });
    }
}
