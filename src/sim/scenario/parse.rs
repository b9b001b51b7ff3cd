//! Reads a script: lines of words, with comments behind `#`.
//!
//! ```text
//! # A title, and why one should look.
//! only in sim                                      for what real machines cannot do
//! nodes 5                                          5 unless told otherwise
//! replicas 3                                       3 unless told otherwise
//! key cart owned by n1,n2,n3                       in the order of preference
//! at 5s   partition n1,n2 | n3,n4,n5               since the beginning
//! then    put cart apple via n1 w=one as alice     when all above is answered
//!         expect committed
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::command::{Command, VERBS};
use super::script::{Ask, BasisOf, Begins, Deed, KeyOwners, Scenario, Step, What};
use crate::protocol::ring::replicas::Replicas;
use crate::protocol::wire::client::Level;

mod facts;
mod troubles;

/// How long a client waits unless it is told otherwise: as long as the client library does.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is wrong with a script, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ScenarioError {}

/// A word and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    column: usize,
    text: String,
}

/// The words of a line that have not been read yet.
struct Words {
    line: usize,
    left: std::vec::IntoIter<Word>,
    /// Behind the last word that was read.
    end: usize,
}

type Parsed<T> = Result<T, ScenarioError>;

/// Reads a whole script.
pub(super) fn scenario(text: &str) -> Parsed<Scenario> {
    let title = text.lines().find_map(|line| line.trim().strip_prefix('#')).unwrap_or_default().trim();
    let mut scenario = Scenario {
        title: title.to_owned(),
        only_in_sim: None,
        nodes: 5,
        replicas: Replicas::default(),
        keys: Vec::new(),
        steps: Vec::new(),
    };
    for (index, line) in text.lines().enumerate() {
        let mut words = Words::of(index + 1, line)?;
        if let Some(first) = words.next() {
            read_line(&mut scenario, &first, &mut words, line)?;
        }
    }
    if scenario.steps.is_empty() {
        let message = "nothing is done: write steps such as `at 1s put cart apple`".to_owned();
        return Err(ScenarioError { line: text.lines().count().max(1), column: 1, message });
    }
    Ok(scenario)
}

fn read_line(scenario: &mut Scenario, first: &Word, words: &mut Words, line: &str) -> Parsed<()> {
    let is_heading = !matches!(first.text.as_str(), "at" | "then" | "expect");
    if is_heading && !scenario.steps.is_empty() {
        let what = "is unknown here: behind the first step a line begins with at, then or expect";
        return Err(words.wrong(first, what));
    }
    match first.text.as_str() {
        "only" => {
            words.literal("in")?;
            words.literal("sim")?;
            scenario.only_in_sim = Some(words.line);
        }
        "nodes" => {
            let word = words.word("how many nodes there are")?;
            let count = word.text.parse().ok().filter(|count| (1..=50).contains(count));
            scenario.nodes = count.ok_or_else(|| words.wrong(&word, "is no number of nodes: 1 to 50"))?;
            if let Some(key) = scenario.keys.first() {
                let message = format!("stands behind the owners of {}: say it before", key.key);
                return Err(words.wrong(first, &message));
            }
        }
        "replicas" => {
            let word = words.word("how many replicas there are")?;
            let count = word.text.parse().ok().and_then(|count| Replicas::new(count).ok());
            scenario.replicas =
                count.ok_or_else(|| words.wrong(&word, "is no number of replicas: 1 to 7"))?;
            if let Some(key) = scenario.keys.first() {
                let message = format!("stands behind the owners of {}: say it before", key.key);
                return Err(words.wrong(first, &message));
            }
        }
        "key" => {
            let key = words.word("a key")?.text;
            words.literal("owned")?;
            words.literal("by")?;
            let (owners, at) = words.node_list(&scenario.names())?;
            let count = scenario.owners();
            if owners.len() != count {
                let message = format!("has {} owners, but keys have {count} here", owners.len());
                return Err(words.error(at, &format!("{key} {message}")));
            }
            scenario.keys.push(KeyOwners { key, owners });
        }
        "at" => {
            let word = words.word("a time such as 5s")?;
            let at = span(&word.text).map_err(|message| words.error(word.column, &message))?;
            let last = scenario.steps.iter().rev().find_map(|step| match step.begins {
                Begins::At(at) => Some(at),
                Begins::Then => None,
            });
            if last.is_some_and(|last| at < last) {
                return Err(words.wrong(&word, "is before the step above: steps stand in their order"));
            }
            step(scenario, Begins::At(at), words, line)?;
        }
        "then" => step(scenario, Begins::Then, words, line)?,
        "expect" => {
            let names = scenario.names();
            let Some(step) = scenario.steps.last_mut() else {
                return Err(words.wrong(first, "stands behind no step"));
            };
            let verb = verb_of(&step.deed);
            let expectation = facts::expectation(words, &names, first.column, line, verb)?;
            step.expectations.push(expectation);
        }
        _ => {
            let what = "is unknown: a line begins with only, nodes, replicas, key, at, then or expect";
            return Err(words.wrong(first, what));
        }
    }
    words.nothing_more()
}

fn step(scenario: &mut Scenario, begins: Begins, words: &mut Words, line: &str) -> Parsed<()> {
    let verb = words.word("what is done")?;
    let names = scenario.names();
    let deed = match verb.text.as_str() {
        "put" | "get" | "delete" | "explain" | "members" => Deed::Ask(ask(&verb, words, &names)?),
        known if troubles::VERBS.contains(&known) => {
            if scenario.only_in_sim.is_none() {
                let what = "is for the simulator only: say `only in sim` at the top";
                return Err(words.wrong(&verb, what));
            }
            Deed::Trouble(troubles::trouble(&verb, words, &names)?)
        }
        _ => {
            let rest = words.rest();
            let all: Vec<String> = std::iter::once(verb.text.clone()).chain(rest).collect();
            match Command::parse(&all, &names) {
                Some(Ok(Command::Status | Command::Stop)) => {
                    return Err(words.wrong(&verb, "is for people at the prompt of a lab, not for a script"));
                }
                Some(Ok(command)) => Deed::Command(command),
                Some(Err(error)) => return Err(words.error(verb.column, &error)),
                None => {
                    let known = VERBS.iter().map(|(verb, _, _)| *verb);
                    let known: Vec<&str> = ["put", "get", "delete", "explain", "members"]
                        .into_iter()
                        .chain(troubles::VERBS)
                        .chain(known.filter(|verb| !matches!(*verb, "status" | "stop")))
                        .collect();
                    let what = format!("is nothing that can be done; there are {}", known.join(", "));
                    return Err(words.wrong(&verb, &what));
                }
            }
        }
    };
    if let Deed::Ask(Ask { what: What::Put { key, value, .. }, .. }) = &deed {
        let is_again = |step: &Step| matches!(&step.deed, Deed::Ask(Ask { what: What::Put { key: k, value: v, .. }, .. }) if k == key && v == value);
        if let Some(twice) = scenario.steps.iter().find(|step| is_again(step)) {
            let message = format!(
                "{value:?} is put to {key} in line {} already; every put needs a value of its own, by which \
                 reads tell what they saw",
                twice.line
            );
            return Err(words.error(verb.column, &message));
        }
    }
    let text = without_comment(line)[verb_start(line, verb.column)..].trim_end().to_owned();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    scenario.steps.push(Step { line: words.line, text, begins, deed, expectations: Vec::new() });
    Ok(())
}

fn ask(verb: &Word, words: &mut Words, names: &[String]) -> Parsed<Ask> {
    let mut ask = Ask { client: None, via: None, deadline: DEADLINE, what: What::Members };
    if verb.text == "members" {
        let node = words.word("the node that is asked")?;
        ask.via = Some(words.node(&node, names)?);
        return Ok(ask);
    }
    let key = words.word("a key")?.text;
    let value = if verb.text == "put" { words.word("a value")?.text } else { String::new() };
    let (mut level, mut basis, mut is_atomic, mut sloppy) = (Level::default(), BasisOf::Own, false, false);
    let known: &[&str] = match verb.text.as_str() {
        "put" | "delete" => &["via", "as", "w", "sloppy", "blind", "with", "deadline"],
        "get" => &["via", "as", "r", "atomic", "deadline"],
        _ => &["via", "as", "deadline"],
    };
    while let Some(word) = words.next() {
        let (name, value) = match word.text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.text.clone(), None),
        };
        if !known.contains(&name.as_str()) {
            let what = format!("is unknown to {}: it knows {}", verb.text, known.join(", "));
            return Err(words.wrong(&word, &what));
        }
        let mut column = word.column;
        let value = match (name.as_str(), value) {
            ("blind" | "atomic" | "with" | "sloppy", None) => String::new(),
            ("blind" | "atomic" | "with" | "sloppy", Some(_)) => {
                return Err(words.wrong(&word, "takes no value"));
            }
            (_, Some(value)) => value,
            ("via" | "as", None) => {
                let named = words.word("a name")?;
                column = named.column;
                named.text
            }
            (_, None) => return Err(words.wrong(&word, &format!("needs a value: {name}=..."))),
        };
        match name.as_str() {
            "via" => ask.via = Some(words.node(&Word { text: value, column }, names)?),
            "as" => ask.client = Some(value),
            "deadline" => {
                ask.deadline = span(&value).map_err(|message| words.error(word.column, &message))?;
            }
            "w" | "r" => level = self::level(&value).map_err(|message| words.error(word.column, &message))?,
            "atomic" => is_atomic = true,
            "sloppy" => sloppy = true,
            "blind" => basis = BasisOf::Nobody,
            _ => {
                let whose = words.word("whose context, such as alice's")?;
                let Some(name) = whose.text.strip_suffix("'s") else {
                    return Err(words.wrong(&whose, "is nobody's: write with alice's context"));
                };
                words.literal("context")?;
                basis = match words.next_is("of") {
                    true => BasisOf::OfKey(name.to_owned(), words.word("a key")?.text),
                    false => BasisOf::Of(name.to_owned()),
                };
            }
        }
    }
    ask.what = match verb.text.as_str() {
        "put" => What::Put { key, value, w: level, sloppy, basis },
        "delete" => What::Delete { key, w: level, sloppy, basis },
        "get" => What::Get { key, r: level, atomic: is_atomic },
        _ => What::Explain { key },
    };
    Ok(ask)
}

/// What the verb of a step is called in its script, for what can be expected of it.
fn verb_of(deed: &Deed) -> &'static str {
    match deed {
        Deed::Ask(ask) => match ask.what {
            What::Put { .. } => "put",
            What::Delete { .. } => "delete",
            What::Get { .. } => "get",
            What::Explain { .. } => "explain",
            What::Members => "members",
        },
        _ => "a fault",
    }
}

/// `one`, `majority`, `all`, or a number.
fn level(text: &str) -> Result<Level, String> {
    match text {
        "one" => Ok(Level::One),
        "majority" => Ok(Level::Majority),
        "all" => Ok(Level::All),
        _ => match text.parse() {
            Ok(count @ 1..) => Ok(Level::Count(count)),
            _ => Err(format!("{text:?} is no number of owners: one, majority, all, or a number from 1")),
        },
    }
}

/// `5s`, `300ms`, `1.5s`, `2m`, `1h`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time: write 300ms, 5s, 2m or 1h");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => number,
        "s" => number * 1e3,
        "m" => number * 60e3,
        "h" => number * 3_600e3,
        _ => return Err(wrong()),
    };
    // A month of virtual time is more than any story needs.
    if (0.0..=3e9).contains(&millis) { Ok(Duration::from_millis(millis as u64)) } else { Err(wrong()) }
}

/// The line up to its comment: a `#` at the beginning of a word.
fn without_comment(line: &str) -> &str {
    let mut last = ' ';
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '#' && last.is_whitespace() => return &line[..at],
            None if matches!(c, '\'' | '"') && last.is_whitespace() => quote = Some(c),
            None => {}
        }
        last = c;
    }
    line
}

/// Where the character in this column begins, in bytes.
fn verb_start(line: &str, column: usize) -> usize {
    line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at)
}

impl Words {
    /// The words of a line; `'two words'` are one.
    fn of(line: usize, text: &str) -> Parsed<Words> {
        let mut words = Vec::new();
        let mut characters = without_comment(text).chars().enumerate().peekable();
        let mut end = 1;
        while let Some((at, c)) = characters.next() {
            if c.is_whitespace() {
                continue;
            }
            let mut word = Word { column: at + 1, text: String::new() };
            if matches!(c, '\'' | '"') {
                loop {
                    match characters.next() {
                        Some((_, next)) if next == c => break,
                        Some((_, next)) => word.text.push(next),
                        None => {
                            let message = "a quote is not closed".to_owned();
                            return Err(ScenarioError { line, column: at + 1, message });
                        }
                    }
                }
            } else {
                word.text.push(c);
                while let Some((_, next)) = characters.next_if(|(_, next)| !next.is_whitespace()) {
                    word.text.push(next);
                }
            }
            end = word.column + word.text.chars().count() + 1;
            words.push(word);
        }
        Ok(Words { line, left: words.into_iter(), end })
    }

    fn next(&mut self) -> Option<Word> {
        self.left.next()
    }

    fn peek(&self) -> Option<&Word> {
        self.left.as_slice().first()
    }

    /// Whether this is the next word; if so it is read.
    fn next_is(&mut self, wanted: &str) -> bool {
        let is_it = self.peek().is_some_and(|word| word.text == wanted);
        if is_it {
            self.next();
        }
        is_it
    }

    fn rest(&mut self) -> Vec<String> {
        self.left.by_ref().map(|word| word.text).collect()
    }

    fn word(&mut self, what: &str) -> Parsed<Word> {
        let end = self.end;
        self.next().ok_or_else(|| self.error(end, &format!("here {what} is missing")))
    }

    fn literal(&mut self, wanted: &str) -> Parsed<()> {
        let word = self.word(&format!("the word {wanted}"))?;
        if word.text == wanted { Ok(()) } else { Err(self.wrong(&word, &format!("should be {wanted}"))) }
    }

    /// Names of nodes, separated by commas, blanks or both; with where they begin. Ends before the first word that is none.
    fn node_list(&mut self, names: &[String]) -> Parsed<(Vec<String>, usize)> {
        let first = self.word("the name of a node")?;
        let at = first.column;
        let mut nodes: Vec<String> = Vec::new();
        let mut word = first;
        loop {
            for name in word.text.split(',').filter(|name| !name.is_empty()) {
                let node = self.node(&Word { text: name.to_owned(), ..word }, names)?;
                if nodes.contains(&node) {
                    return Err(self.wrong(&word, "names a node twice"));
                }
                nodes.push(node);
            }
            let goes_on = word.text.ends_with(',')
                || self
                    .peek()
                    .is_some_and(|next| next.text.split(',').any(|name| names.iter().any(|n| n == name)));
            if !goes_on {
                return Ok((nodes, at));
            }
            word = self.word("the name of a node")?;
        }
    }

    fn node(&self, word: &Word, names: &[String]) -> Parsed<String> {
        match names.contains(&word.text) {
            true => Ok(word.text.clone()),
            false => Err(self.wrong(word, &format!("is no node; there are {}", names.join(", ")))),
        }
    }

    fn nothing_more(&mut self) -> Parsed<()> {
        match self.next() {
            Some(word) => Err(self.wrong(&word, "is too much")),
            None => Ok(()),
        }
    }

    fn wrong(&self, word: &Word, what: &str) -> ScenarioError {
        self.error(word.column, &format!("{:?} {what}", word.text))
    }

    fn error(&self, column: usize, message: &str) -> ScenarioError {
        ScenarioError { line: self.line, column, message: message.to_owned() }
    }
}

/// Words up to the end or to an `or`, as a set.
fn words_until_or(words: &mut Words) -> BTreeSet<String> {
    let mut set = BTreeSet::new();
    while words.peek().is_some_and(|word| word.text != "or") {
        set.extend(words.next().map(|word| word.text));
    }
    set
}

#[cfg(test)]
mod tests;
