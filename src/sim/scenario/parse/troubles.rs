//! Reads what only the simulator can do.

use super::super::script::{DiskState, Trouble};
use super::{Parsed, Word, Words, span};

/// The words with which such a step begins.
pub(super) const VERBS: [&str; 4] = ["clock", "disk", "rot", "echo"];

/// Reads the rest of a step that begins with one of them.
pub(super) fn trouble(verb: &Word, words: &mut Words, names: &[String]) -> Parsed<Trouble> {
    match verb.text.as_str() {
        "clock" => {
            let nodes = words.node_list(names)?.0;
            let word = words.word("by how much, such as +1h or -300ms")?;
            let (sign, rest) = match word.text.split_at_checked(1) {
                Some(("+", rest)) => (1, rest),
                Some(("-", rest)) => (-1, rest),
                _ => return Err(words.wrong(&word, "has no sign: write +1h or -300ms")),
            };
            let by = span(rest).map_err(|message| words.error(word.column, &message))?;
            Ok(Trouble::Clock(nodes, sign * i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
        }
        "disk" => {
            let nodes = words.node_list(names)?.0;
            let word = words.word("slow or well")?;
            let state = match word.text.as_str() {
                "slow" => DiskState::Slow,
                "well" => DiskState::Well,
                _ => return Err(words.wrong(&word, "is no state of a disk: slow or well")),
            };
            Ok(Trouble::Disk(nodes, state))
        }
        "rot" => Ok(Trouble::Rot(words.node_list(names)?.0, words.word("a key")?.text)),
        _ => {
            let word = words.word("how much later, such as 90s")?;
            let after = span(&word.text).map_err(|message| words.error(word.column, &message))?;
            let from = words.node_list(names)?.0;
            words.literal(">")?;
            let to = words.node_list(names)?.0;
            Ok(Trouble::Echo(after, from, to))
        }
    }
}
