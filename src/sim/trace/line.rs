//! One line of what happened.

use std::fmt;

use super::super::clock;
use crate::protocol::time::Moment;

/// One line of what happened in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in virtual time.
    pub at: Moment,
    /// Who: `n1`, or between whom: `c1 -> n1`. Empty for what concerns everybody.
    pub who: String,
    /// What sort of thing it is.
    pub topic: Topic,
    /// What, for people.
    pub text: String,
}

/// What sort of thing a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A fault, a start, a stop.
    Fault,
    /// A client asks.
    Asked,
    /// A client is answered.
    Answered,
    /// A node sends.
    Sent,
    /// A node receives.
    Received,
    /// A disk has done something.
    Disk,
    /// Anything else.
    Other,
}

impl Line {
    /// A line whose text begins with who it is about, if it is about a single node or client.
    pub(super) fn told(at: Moment, topic: Topic, text: String) -> Line {
        let is_name = |word: &str| {
            let number = word.strip_prefix(['n', 'c']).unwrap_or("");
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        match text.split_once(' ') {
            Some((who, what)) if is_name(who) => {
                Line { at, who: who.to_owned(), topic, text: what.to_owned() }
            }
            _ => Line { at, who: String::new(), topic, text },
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:<10} {}", clock::show(self.at), self.who, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_in_a_column_of_its_own() {
        let line = |text: &str| Line::told(Moment(1_500_000), Topic::Fault, text.to_owned()).to_string();
        assert_eq!(line("n12 starts"), "  1.500000  n12        starts");
        assert_eq!(line("cut for 3s: n1 | n2"), "  1.500000             cut for 3s: n1 | n2");
        assert_eq!(line("nobody starts"), "  1.500000             nobody starts");
    }
}
