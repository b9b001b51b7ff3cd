//! Reads what is expected.

use std::collections::BTreeSet;

use super::super::expectation::{Belief, Expectation, Fact};
use super::super::stage::{Holding, Where};
use super::{Parsed, Word, Words, verb_start, without_comment, words_until_or};
use crate::protocol::wire::client::{Health, Outcome};

/// What can be expected, for those who wrote something else.
const KNOWN: &str = "committed, unknown, not applied, unavailable, values, latest, siblings, deleted, absent, acks, hinted, \
                     replies, replicas equal, replicas differ, or what a node holds or is (n1 holds apple, n2 down)";

/// Reads what stands behind `expect`.
pub(super) fn expectation(
    words: &mut Words,
    names: &[String],
    column: usize,
    line: &str,
    verb: &str,
) -> Parsed<Expectation> {
    let mut place = None;
    if words.peek().is_some_and(|word| word.text == "in") {
        words.next();
        let word = words.word("sim or lab")?;
        place = Some(match word.text.as_str() {
            "sim" => Where::Sim,
            "lab" => Where::Lab,
            _ => return Err(words.wrong(&word, "is no world: in sim or in lab")),
        });
    }
    let mut any_of = Vec::new();
    loop {
        let word = words.word(&format!("what is expected ({KNOWN})"))?;
        let fact = fact(&word, words, names)?;
        if !fact.verbs().contains(&verb) {
            let what = format!("cannot be expected of {verb}, only of {}", fact.verbs().join(", "));
            return Err(words.wrong(&word, &what));
        }
        any_of.push(fact);
        match words.peek() {
            Some(word) if word.text == "or" => words.next(),
            _ => break,
        };
    }
    let text = &without_comment(line)[verb_start(line, column)..];
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Expectation { line: words.line, text, place, any_of })
}

fn fact(word: &Word, words: &mut Words, names: &[String]) -> Parsed<Fact> {
    Ok(match word.text.as_str() {
        "committed" => Fact::Outcome(Outcome::Committed),
        "unknown" => Fact::Outcome(Outcome::Unknown),
        "not" => {
            words.literal("applied")?;
            Fact::Outcome(Outcome::NotApplied)
        }
        "unavailable" => Fact::Unavailable,
        "values" | "value" => {
            let values = words_until_or(words);
            if values.is_empty() {
                return Err(words.wrong(word, "names no value; that there is none is `absent` or `deleted`"));
            }
            Fact::Values(values)
        }
        "latest" => Fact::Latest(words.word("a value")?.text),
        "siblings" => {
            let word = words.word("how many")?;
            let count = word.text.parse().map_err(|_| words.wrong(&word, "is no number"))?;
            Fact::Siblings(count)
        }
        "deleted" => Fact::Deleted,
        "absent" => Fact::Absent,
        "acks" => Fact::Acks(set(words, names)?),
        "hinted" => Fact::Hinted(set(words, names)?),
        "replies" => Fact::Replies(set(words, names)?),
        "replicas" => {
            let word = words.word("equal or differ")?;
            match word.text.as_str() {
                "equal" => Fact::ReplicasEqual(true),
                "differ" => Fact::ReplicasEqual(false),
                _ => return Err(words.wrong(&word, "cannot be said of replicas: equal or differ")),
            }
        }
        name if names.iter().any(|node| node == name) => of_node(name, words)?,
        _ => return Err(words.wrong(word, &format!("cannot be expected; what can is {KNOWN}"))),
    })
}

fn of_node(name: &str, words: &mut Words) -> Parsed<Fact> {
    let word = words.word("what is expected of the node")?;
    let belief = match word.text.as_str() {
        "holds" => {
            let held = words_until_or(words);
            let first = held.first().map(String::as_str);
            let held = match first {
                None => return Err(words.wrong(&word, "names no value: write values, nothing, or deletion")),
                Some("nothing") if held.len() == 1 => Holding::Nothing,
                Some("deletion") if held.len() == 1 => Holding::Deletion,
                Some(_) => Holding::Values(held.into_iter().collect()),
            };
            return Ok(Fact::Holds(name.to_owned(), held));
        }
        "alive" => Belief::Health(Health::Alive),
        "suspect" => Belief::Health(Health::Suspect),
        "down" => Belief::Health(Health::Down),
        "stopped" => Belief::Health(Health::Stopped),
        "reachable" => Belief::Reachable(true),
        "unreachable" => Belief::Reachable(false),
        _ => {
            let what =
                "cannot be said of a node: holds, alive, suspect, down, stopped, reachable, unreachable";
            return Err(words.wrong(&word, what));
        }
    };
    Ok(Fact::Member(name.to_owned(), belief))
}

fn set(words: &mut Words, names: &[String]) -> Parsed<BTreeSet<String>> {
    Ok(words.node_list(names)?.0.into_iter().collect())
}
