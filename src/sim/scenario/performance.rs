//! Runs the steps of a scenario on a stage, and judges what came of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::super::invariants::{self, Violation};
use super::super::report::Line;
use super::cast::Cast;
use super::expectation::Finding;
use super::script::{Begins, Deed, Scenario, Step};
use super::stage::{Holding, Order, Reply, Stage, Wanted};
use super::story;
use crate::protocol::wire::client::Level;

/// How long the cluster may take after the last step until the owners of a key hold the same.
const CONVERGENCE_MAX: Duration = Duration::from_secs(30);

/// How long a `then` waits for what goes on behind the last answer: the third owner's acknowledgement, a repair.
const SETTLING: Duration = Duration::from_millis(100);

/// The number of the requests after the last step; no script has so many.
const LAST_NUMBER: usize = 999_999;

/// How long one read of all owners at the end may take.
const LAST_READ_MAX: Duration = Duration::from_secs(5);

/// What came of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What happened, line by line, as it was told.
    pub story: Vec<String>,
    /// How many expectations held.
    pub held: usize,
    /// What was expected and did not come, and steps that could not be done.
    pub failures: Vec<String>,
    /// What the judges found.
    pub violations: Vec<Violation>,
    /// What the nodes did, if it was recorded; the simulator only.
    pub timeline: Vec<Line>,
}

impl Outcome {
    /// Whether all expectations held and nothing was violated.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty() && self.violations.is_empty()
    }

    /// A scenario that could not even begin.
    #[must_use]
    pub fn not_begun(why: String) -> Outcome {
        Outcome { story: vec![why.clone()], failures: vec![why], ..Outcome::default() }
    }
}

/// Performs a scenario on a cluster that is complete and healthy. `say` gets the story line by line as it goes on.
pub fn perform(scenario: &Scenario, stage: &mut dyn Stage, say: &mut dyn FnMut(&str)) -> Outcome {
    let fits = if stage.place() == super::Where::Lab { scenario.check_for_lab() } else { Ok(()) };
    let cast = match fits.and_then(|()| Cast::new(scenario, stage)) {
        Ok(cast) => cast,
        Err(why) => {
            say(&why);
            return Outcome::not_begun(why);
        }
    };
    let mut performance = Performance {
        stage,
        cast,
        say,
        outcome: Outcome::default(),
        told: VecDeque::new(),
        shown: BTreeMap::new(),
        open: 0,
    };
    performance.overture(scenario);
    for (number, step) in scenario.steps.iter().enumerate() {
        if !performance.step(number, step) {
            break;
        }
    }
    performance.finale();
    performance.outcome
}

struct Performance<'a> {
    stage: &'a mut dyn Stage,
    cast: Cast,
    say: &'a mut dyn FnMut(&str),
    outcome: Outcome,
    /// Steps whose lines were not told yet, since something above them is not answered.
    told: VecDeque<Told>,
    /// What was shown last of every key.
    shown: BTreeMap<String, Vec<Holding>>,
    open: usize,
}

/// What there is to tell of a step.
struct Told {
    number: usize,
    step: Step,
    began: Duration,
    is_open: bool,
    lines: Vec<String>,
    /// What the owners hold after it.
    holdings: Vec<String>,
}

impl Performance<'_> {
    fn overture(&mut self, scenario: &Scenario) {
        if !scenario.title.is_empty() {
            self.tell(&format!("# {}", scenario.title));
        }
        let mut text = format!("{} nodes, {} replicas", scenario.nodes, scenario.replicas);
        for owned in &scenario.keys {
            text += &format!("; {} is owned by {}", owned.key, owned.owners.join(", "));
        }
        self.tell(&text);
    }

    /// Waits until a step's time has come and begins it. Whether the story can go on.
    fn step(&mut self, number: usize, step: &Step) -> bool {
        match step.begins {
            Begins::At(at) => self.listen(Some(at)),
            Begins::Then => {
                self.listen(None);
                let settled = self.stage.now() + SETTLING;
                self.listen(Some(settled));
            }
        }
        if let Deed::Ask(ask) = &step.deed
            && let Some(client) = &ask.client
        {
            while self.cast.is_busy(client) && self.hear(None) {}
        }
        self.look_at_disks();
        let began = self.stage.now();
        let mut told = Told {
            number,
            step: step.clone(),
            began,
            is_open: false,
            lines: vec![story::step(step.begins, began, &step.text)],
            holdings: Vec::new(),
        };
        let done = match &step.deed {
            Deed::Ask(ask) => {
                told.is_open = true;
                let order = self.cast.order(number, ask, began);
                self.open += 1;
                self.stage.ask(number, order);
                Ok(())
            }
            Deed::Command(command) => self.stage.command(command),
            Deed::Trouble(trouble) => {
                let key = step.deed.key().map(|word| self.cast.key(word)).unwrap_or_default();
                self.stage.trouble(trouble, &key)
            }
        };
        if let Err(why) = &done {
            told.lines.push(story::below("FAILED", why));
            self.outcome.failures.push(format!("line {}: {}: {why}", step.line, step.text));
        }
        self.told.push_back(told);
        done.is_ok()
    }

    /// Takes answers until a time, or until nothing is open.
    fn listen(&mut self, until: Option<Duration>) {
        while until.is_some() || self.open > 0 {
            if !self.hear(until) {
                return;
            }
        }
    }

    fn hear(&mut self, until: Option<Duration>) -> bool {
        if until.is_none() && self.open == 0 {
            return false;
        }
        let Some((number, reply)) = self.stage.next_reply(until) else { return false };
        self.open = self.open.saturating_sub(1);
        let found = self.cast.answered(number, &reply, self.stage);
        self.judge(number, &found, &reply);
        true
    }

    fn judge(&mut self, number: usize, found: &Finding, reply: &Reply) {
        let place = self.stage.place();
        let Some(told) = self.told.iter_mut().find(|told| told.number == number) else { return };
        told.is_open = false;
        let answer = story::answer(found, reply.at.saturating_sub(told.began));
        told.lines.push(story::below("->", &answer));
        for expectation in told.step.expectations.iter().filter(|expectation| expectation.is_for(place)) {
            if expectation.holds(found) {
                self.outcome.held += 1;
                told.lines.push(story::below("ok", &expectation.text));
            } else {
                told.lines.push(story::below("FAILED", &expectation.text));
                let failure =
                    format!("line {}: {}, but it was: {answer}", expectation.line, expectation.text);
                self.outcome.failures.push(failure);
            }
        }
    }

    /// Notes what the owners of the keys hold now, where that changed, below the latest step; then tells what can be told.
    fn look_at_disks(&mut self) {
        let mut lines = Vec::new();
        for (word, key) in self.cast.keys() {
            let owners = self.stage.owners(&key);
            let Some(holdings) = self.stage.holdings(&key, &owners) else { break };
            let nothing_yet = || vec![Holding::Nothing; owners.len()];
            let before = self.shown.entry(word.clone()).or_insert_with(nothing_yet);
            if *before == holdings {
                continue;
            }
            before.clone_from(&holdings);
            let show = |(owner, held): (&crate::protocol::id::NodeId, &Holding)| {
                format!("{} {}", self.stage.name(*owner), story::holding(held))
            };
            let all: Vec<String> = owners.iter().zip(&holdings).map(show).collect();
            lines.push(story::below(&word, &all.join(" | ")));
        }
        if let Some(latest) = self.told.back_mut() {
            latest.holdings = lines;
        } else {
            lines.iter().for_each(|line| self.tell(line));
        }
        while let Some(told) = self.told.pop_front_if(|told| !told.is_open) {
            told.lines.iter().chain(&told.holdings).for_each(|line| self.tell(line));
        }
    }

    /// Everything heals, every key is read from all owners and compared, and all is judged.
    fn finale(&mut self) {
        self.listen(None);
        let settled = self.stage.now() + SETTLING;
        self.listen(Some(settled));
        self.look_at_disks();
        self.tell("the end   everything heals, every key is read from all of its owners");
        if let Err(why) = self.stage.recover() {
            self.tell(&story::below("FAILED", &why));
            self.outcome.failures.push(format!("the cluster does not recover: {why}"));
        } else {
            for (word, key) in self.cast.keys() {
                self.converge(&word, &key);
            }
        }
        self.outcome.violations.extend(invariants::judge(&self.cast.history));
        for violation in self.outcome.violations.clone() {
            self.tell(&format!("{violation}"));
        }
        if !self.outcome.violations.is_empty() {
            let known = self.cast.values().join(", ");
            self.tell(&format!("where {known}"));
        }
        let (held, failed) = (self.outcome.held, self.outcome.failures.len());
        let failed = if failed == 0 { String::new() } else { format!(", {failed} FAILED") };
        let judged = match self.outcome.violations.len() {
            0 => "the judges found nothing".to_owned(),
            count => format!("{count} invariants are BROKEN"),
        };
        self.tell(&format!("{held} expectations held{failed}; {judged}"));
    }

    /// Reads a key from all owners until they hold the same.
    fn converge(&mut self, word: &str, key: &bytes::Bytes) {
        let deadline = self.stage.now() + CONVERGENCE_MAX;
        loop {
            let now = self.stage.now();
            let index = self.cast.begin_last_read(key, now);
            let read = Wanted::Read { key: key.clone(), r: Level::All, atomic: false };
            let Some(read) = self.last(read) else { return };
            self.cast.end_last_read(index, &read);
            let Some(compared) = self.last(Wanted::Explain { key: key.clone() }) else { return };
            let is_equal = self.cast.compared(key, &compared);
            let is_read = self.cast.history.remains.get(key).is_some_and(|remains| remains.read == index);
            if is_equal && is_read {
                let remains = self.cast.history.remains.get(key);
                let record = remains.and_then(|remains| remains.owners.first()?.1.clone()).flatten();
                let held = super::cast::holding_of(record.as_ref());
                return self.tell(&story::below(word, &format!("all owners: {}", story::holding(&held))));
            }
            if self.stage.now() > deadline {
                // The judges say what is wrong with it.
                self.cast.was_owed(index, deadline);
                return self.tell(&story::below(word, "the owners do not agree"));
            }
        }
    }

    fn last(&mut self, request: Wanted) -> Option<Reply> {
        self.stage.ask(LAST_NUMBER, Order { via: None, deadline: LAST_READ_MAX, request });
        self.stage.next_reply(None).map(|(_, reply)| reply)
    }

    fn tell(&mut self, line: &str) {
        (self.say)(line);
        self.outcome.story.push(line.to_owned());
    }
}

#[cfg(test)]
mod tests;
