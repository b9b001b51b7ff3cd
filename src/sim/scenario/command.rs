//! What one can do to a cluster and to the network between its nodes: the language of the lab, and of scenarios.
//!
//! ```text
//! partition n1,n2 | n3,n4,n5      cut both ways between the groups; one group alone is cut from all the rest
//! cut n1,n2 | n3,n4,n5            the same
//! cut n1 > n2                     lose what n1 sends to n2, one way; <> for both ways
//! delay 50ms 10ms n1 > n2         50 ms, give or take 10 ms; without a link: every link
//! loss 5% n1 <> n2                lose 5 in a hundred datagrams; duplicate and reorder alike
//! heal                            remove all faults
//! kill n1                         SIGKILL; restart, pause (SIGSTOP), resume
//! wipe n1                         SIGKILL, and the loss of its disk; restart then recovers it
//! backup n1                       copy its disk; restore n1 puts the copy back later, after a SIGKILL
//! ```

use std::time::Duration;

/// What is to be done to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Processes, health and faults of all nodes.
    Status,
    /// Cut both ways between the groups.
    Partition(Vec<Vec<String>>),
    /// Change the fault of some links.
    Fault(Links, FaultChange),
    /// Remove all faults.
    Heal,
    /// SIGKILL.
    Kill(Vec<String>),
    /// SIGKILL, and everything on its disk is gone. A restart then recovers it.
    Wipe(Vec<String>),
    /// Copy its disk, as it is at this moment.
    Backup(Vec<String>),
    /// SIGKILL, and its disk is the copy that was made last.
    Restore(Vec<String>),
    /// Start again what was killed; stop in good order and start again what runs.
    Restart(Vec<String>),
    /// SIGSTOP.
    Pause(Vec<String>),
    /// SIGCONT.
    Resume(Vec<String>),
    /// Until all that run see each other.
    Wait(Duration),
    /// End everything.
    Stop,
}

/// Directed links between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Links {
    /// Every link.
    All,
    /// From each of the first to each of the second, and back if `both`.
    Between {
        /// The senders.
        from: Vec<String>,
        /// The receivers.
        to: Vec<String>,
        /// Whether the way back is meant too.
        both: bool,
    },
}

/// What changes in the fault of a link; all else stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultChange {
    /// Lose everything.
    Cut,
    /// Deliver late.
    Delay {
        /// Mean delay.
        mean_ms: u32,
        /// By how much it varies either way.
        jitter_ms: u32,
    },
    /// Lose this many datagrams in a thousand.
    Loss(u16),
    /// Send this many in a thousand twice.
    Duplicate(u16),
    /// Let this many in a thousand be overtaken.
    Reorder(u16),
}

/// Every verb of [`Command`], with its usage and meaning, for help and completion.
pub const VERBS: &[(&str, &str, &str)] = &[
    ("status", "status", "processes, health and faults"),
    ("partition", "partition n1,n2 | n3,n4,n5", "cut both ways between groups"),
    ("cut", "cut n1 > n2", "lose what goes from n1 to n2 (<> both ways)"),
    ("delay", "delay 50ms [10ms] [n1 > n2]", "deliver late, give or take; all links if none is named"),
    ("loss", "loss 5% [n1 > n2]", "lose datagrams; 0% ends it"),
    ("duplicate", "duplicate 5% [n1 > n2]", "send datagrams twice"),
    ("reorder", "reorder 5% [n1 > n2]", "let datagrams be overtaken"),
    ("heal", "heal", "remove all faults"),
    ("kill", "kill n2", "SIGKILL"),
    ("wipe", "wipe n2", "SIGKILL, and the loss of its disk; restart then recovers it"),
    ("backup", "backup n2", "copy its disk"),
    (
        "restore",
        "restore n2",
        "SIGKILL, and its disk is the copy again; restart finds that out and recovers it",
    ),
    ("restart", "restart n2", "start again, after a stop in good order if it runs"),
    ("pause", "pause n2", "SIGSTOP"),
    ("resume", "resume n2", "SIGCONT"),
    ("wait", "wait [30s]", "until all nodes that run see each other"),
    ("stop", "stop", "end the nodes and the lab"),
];

/// How long `wait` waits unless it is told otherwise.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(60);

impl Command {
    /// Reads words; `nodes` are the names that exist. `None` if the first word is no verb of the lab.
    pub fn parse(words: &[String], nodes: &[String]) -> Option<Result<Command, String>> {
        let (verb, rest) = words.split_first()?;
        let (_, usage, _) = VERBS.iter().find(|(name, _, _)| name == verb)?;
        let parser = Parser { nodes, usage };
        Some(parser.command(verb, rest).map_err(|error| format!("{error}; usage: {usage}")))
    }
}

/// Reads the words behind a verb.
struct Parser<'a> {
    nodes: &'a [String],
    usage: &'a str,
}

impl Parser<'_> {
    fn command(&self, verb: &str, rest: &[String]) -> Result<Command, String> {
        let alone = |command: Command| match rest {
            [] => Ok(command),
            [word, ..] => Err(format!("{word:?} is too much")),
        };
        Ok(match verb {
            "status" => return alone(Command::Status),
            "heal" => return alone(Command::Heal),
            "stop" => return alone(Command::Stop),
            "partition" => Command::Partition(self.groups(rest)?),
            "cut" if rest.iter().any(|word| word.contains('|')) => Command::Partition(self.groups(rest)?),
            "cut" => match self.links(rest)? {
                Links::All => return Err("say which link to cut".to_owned()),
                links => Command::Fault(links, FaultChange::Cut),
            },
            "delay" => {
                let (mean, rest) = rest.split_first().ok_or("say how long")?;
                let (jitter, rest) = match rest.split_first() {
                    Some((word, rest)) if word.starts_with(|c: char| c.is_ascii_digit()) => {
                        (millis(word)?, rest)
                    }
                    _ => (0, rest),
                };
                let change = FaultChange::Delay { mean_ms: millis(mean)?, jitter_ms: jitter };
                Command::Fault(self.links(rest)?, change)
            }
            "loss" | "duplicate" | "reorder" => {
                let (share, rest) = rest.split_first().ok_or("say how many of a hundred")?;
                let share = per_mille(share)?;
                let change = match verb {
                    "loss" => FaultChange::Loss(share),
                    "duplicate" => FaultChange::Duplicate(share),
                    _ => FaultChange::Reorder(share),
                };
                Command::Fault(self.links(rest)?, change)
            }
            "kill" => Command::Kill(self.some_names(rest)?),
            "wipe" => Command::Wipe(self.some_names(rest)?),
            "backup" => Command::Backup(self.some_names(rest)?),
            "restore" => Command::Restore(self.some_names(rest)?),
            "restart" => Command::Restart(self.some_names(rest)?),
            "pause" => Command::Pause(self.some_names(rest)?),
            "resume" => Command::Resume(self.some_names(rest)?),
            "wait" => match rest {
                [] => Command::Wait(WAIT_DEFAULT),
                [span] => Command::Wait(Duration::from_millis(u64::from(millis(span)?))),
                [_, word, ..] => return Err(format!("{word:?} is too much")),
            },
            _ => return Err(format!("{} is not understood", self.usage)),
        })
    }

    /// Groups parted by `|`, names by commas or spaces.
    fn groups(&self, words: &[String]) -> Result<Vec<Vec<String>>, String> {
        let text = words.join(" ");
        let mut groups = Vec::new();
        for group in text.split('|') {
            groups.push(self.names(group)?);
        }
        let mut named: Vec<&String> = groups.iter().flatten().collect();
        named.sort();
        if let Some(twice) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("{} cannot be in two groups", twice[0]));
        }
        if let [group] = groups.as_slice() {
            let rest: Vec<_> = self.nodes.iter().filter(|name| !group.contains(name)).cloned().collect();
            if rest.is_empty() {
                return Err("nobody is left to be cut off from".to_owned());
            }
            groups.push(rest);
        }
        Ok(groups)
    }

    fn links(&self, words: &[String]) -> Result<Links, String> {
        let text = words.join(" ");
        if text.trim().is_empty() || text.trim() == "all" {
            return Ok(Links::All);
        }
        let (from, to, both) = if let Some((from, to)) = text.split_once("<>") {
            (from, to, true)
        } else if let Some((from, to)) = text.split_once('>') {
            (from, to, false)
        } else {
            return Err(format!("{text:?} names no link: write n1 > n2 or n1 <> n2"));
        };
        let (from, to) = (self.names(from)?, self.names(to)?);
        match from.iter().find(|name| to.contains(name)) {
            Some(name) => Err(format!("{name} has no link to itself")),
            None => Ok(Links::Between { from, to, both }),
        }
    }

    fn some_names(&self, words: &[String]) -> Result<Vec<String>, String> {
        if words == ["all"] {
            return Ok(self.nodes.to_vec());
        }
        self.names(&words.join(" "))
    }

    fn names(&self, text: &str) -> Result<Vec<String>, String> {
        let mut names: Vec<String> = Vec::new();
        for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
            if !self.nodes.iter().any(|node| node == name) {
                return Err(format!("there is no node {name:?}, there are {}", self.nodes.join(", ")));
            }
            if !names.iter().any(|named| named == name) {
                names.push(name.to_owned());
            }
        }
        if names.is_empty() { Err("name at least one node".to_owned()) } else { Ok(names) }
    }
}

/// `50ms`, `50`, `2s`.
fn millis(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no span of time: write 50ms or 2s");
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1_000)
    } else {
        (text, 1)
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    // An hour is more than any experiment waits for one datagram.
    number.checked_mul(unit).filter(|millis| *millis <= 3_600_000).ok_or_else(wrong)
}

/// `5%`, `0.5%`, `5`.
fn per_mille(text: &str) -> Result<u16, String> {
    let wrong = || format!("{text:?} is no share: write 5% or 0.5%");
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&percent) { Ok((percent * 10.0).round() as u16) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let nodes: Vec<_> = (1..=5).map(|n| format!("n{n}")).collect();
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        Command::parse(&words, &nodes).expect("a verb of the lab")
    }

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn partitions_have_groups_however_they_are_spaced() {
        let expected = Ok(Command::Partition(vec![names("n1 n2"), names("n3 n4 n5")]));
        for line in ["partition n1,n2 | n3,n4,n5", "partition n1 n2|n3 n4 n5", "partition n1, n2 |n3,n4,n5"] {
            assert_eq!(parse(line), expected, "{line}");
        }
        assert_eq!(parse("partition n1,n2"), expected);
        let three = vec![names("n1"), names("n2"), names("n3")];
        assert_eq!(parse("partition n1|n2|n3"), Ok(Command::Partition(three)));
    }

    #[test]
    fn links_have_directions() {
        let between = |from: &str, to: &str, both| Links::Between { from: names(from), to: names(to), both };
        assert_eq!(parse("cut n1 > n2"), Ok(Command::Fault(between("n1", "n2", false), FaultChange::Cut)));
        assert_eq!(
            parse("cut n1,n3<>n2"),
            Ok(Command::Fault(between("n1 n3", "n2", true), FaultChange::Cut))
        );
        let late = |mean_ms, jitter_ms| FaultChange::Delay { mean_ms, jitter_ms };
        assert_eq!(parse("delay 50ms"), Ok(Command::Fault(Links::All, late(50, 0))));
        assert_eq!(
            parse("delay 1s 10 n1>n2"),
            Ok(Command::Fault(between("n1", "n2", false), late(1_000, 10)))
        );
        assert_eq!(parse("loss 0.5%"), Ok(Command::Fault(Links::All, FaultChange::Loss(5))));
        assert_eq!(parse("reorder 100 all"), Ok(Command::Fault(Links::All, FaultChange::Reorder(1_000))));
    }

    #[test]
    fn processes_are_named_or_all() {
        assert_eq!(parse("kill n2"), Ok(Command::Kill(names("n2"))));
        assert_eq!(parse("pause n2,n3 n2"), Ok(Command::Pause(names("n2 n3"))));
        assert_eq!(parse("resume all"), Ok(Command::Resume(names("n1 n2 n3 n4 n5"))));
        assert_eq!(parse("wait 5s"), Ok(Command::Wait(Duration::from_secs(5))));
        assert_eq!(parse("heal"), Ok(Command::Heal));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_teaches() {
        for (line, reason) in [
            ("kill", "name at least one node"),
            ("kill n9", "there is no node \"n9\", there are n1"),
            ("heal n1", "\"n1\" is too much"),
            ("partition n1 | n1,n2", "n1 cannot be in two groups"),
            ("partition n1 |", "name at least one node"),
            ("partition n1,n2,n3,n4,n5", "nobody is left"),
            ("cut", "which link"),
            ("cut n1 n2", "names no link"),
            ("cut n1 > n1", "no link to itself"),
            ("delay", "how long"),
            ("delay soon", "no span of time"),
            ("delay 9999999s", "no span of time"),
            ("loss 101%", "no share"),
            ("loss x", "no share"),
            ("wait 1s 2s", "too much"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(reason) && error.contains("usage: "), "{line}: {error}");
        }
    }

    #[test]
    fn other_verbs_are_left_to_others() {
        assert_eq!(Command::parse(&["put".to_owned()], &[]), None);
        assert_eq!(Command::parse(&[], &[]), None);
    }
}
