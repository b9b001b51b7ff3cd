//! Runs the commands of a lab: its own, and the operations of the shell.

use futures_lite::future::block_on;
use serde::Serialize;

use super::super::answer::to_line;
use super::super::operation::{self, Operation};
use super::super::output::{Columns, OutputOptions, judged};
use super::super::session::Session;
use super::super::{members, ring, status, text};
use crate::lab::cluster::{Lab, NodeReport};
use crate::lab::command::{Command, VERBS};
use crate::lab::control::{ControlReply, ControlRequest};
use crate::lab::process::State;

/// The first words that a lab knows, for completion.
pub(super) const WORDS: &[&str] = &[
    "status",
    "partition",
    "cut",
    "delay",
    "loss",
    "duplicate",
    "reorder",
    "heal",
    "kill",
    "wipe",
    "backup",
    "restore",
    "restart",
    "pause",
    "resume",
    "wait",
    "stop",
    "members",
    "ring",
    "put",
    "get",
    "delete",
    "explain",
    "help",
];

/// The commands that are not of the lab alone: usage and meaning.
const OTHERS: &[(&str, &str)] = &[
    ("put KEY VALUE [w=one] [via=n1] ..", "write, as in starling shell"),
    ("get KEY [r=one] [via=n1] ..", "read"),
    ("delete KEY ..", "delete"),
    ("explain KEY", "what each owner of a key holds"),
    ("members [n1]", "who n1 believes is there, and in reach"),
    ("ring [KEY]", "who owns what"),
    ("help", "this"),
];

/// What a command came to.
struct Outcome {
    out: String,
    ok: bool,
}

/// Runs commands one by one.
pub(super) struct Interpreter {
    lab: Lab,
    /// For operations; opened at the first one.
    session: Option<Session>,
    stopping: bool,
}

#[derive(Serialize)]
struct DoneJson<'a> {
    command: &'a str,
    done: bool,
    said: Vec<&'a str>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct NodeJson {
    node: String,
    address: String,
    process: &'static str,
    pid: Option<u32>,
    serving: bool,
    slots_owned: Option<u32>,
    keys: Option<u64>,
    faults: Vec<String>,
    note: Option<String>,
}

impl Interpreter {
    /// For this lab.
    pub(super) fn new(lab: Lab) -> Interpreter {
        Interpreter { lab, session: None, stopping: false }
    }

    /// Whether a command asked for the end.
    pub(super) fn is_asked_to_stop(&self) -> bool {
        self.stopping
    }

    /// The lab, for its end.
    pub(super) fn into_lab(self) -> Lab {
        self.lab
    }

    /// Runs one command.
    pub(super) fn run(&mut self, request: &ControlRequest) -> ControlReply {
        let shown = OutputOptions { json: request.json, base64: request.base64 };
        match self.try_run(request.line.trim(), shown) {
            Ok(outcome) => ControlReply { out: outcome.out, err: String::new(), ok: outcome.ok },
            Err(error) if shown.json => {
                let command = request.line.split_whitespace().next().unwrap_or_default();
                let out = to_line(&DoneJson { command, done: false, said: Vec::new(), error: Some(&error) });
                ControlReply { out, err: error, ok: false }
            }
            Err(error) => ControlReply { out: String::new(), err: error, ok: false },
        }
    }

    fn try_run(&mut self, line: &str, shown: OutputOptions) -> Result<Outcome, String> {
        if line.starts_with('{') {
            return self.operate(&Operation::parse_json(line)?, shown);
        }
        let words = shell_words::split(line).map_err(|_| "a quote is not closed".to_owned())?;
        let names = self.lab.record().names();
        if let Some(command) = Command::parse(&words, &names) {
            let verb = words.first().map(String::as_str).unwrap_or_default();
            return self.command(command?, verb, shown);
        }
        let words_only: Vec<&str> = words.iter().map(String::as_str).collect();
        match words_only.as_slice() {
            [] => Err("there is nothing to do; help lists the commands".to_owned()),
            [verb, ..] if operation::is_verb(verb) => {
                self.operate(&Operation::parse_words(&words, shown.base64)?, shown)
            }
            ["members"] => self.members(None, shown),
            ["members", name] => self.members(Some(name), shown),
            ["ring"] => self.ring(None, shown),
            ["ring", key] => self.ring(Some(text::bytes_of_word(key, shown.base64)?.to_vec()), shown),
            ["help"] => Ok(Outcome { out: help(), ok: true }),
            ["exit" | "quit"] => self.command(Command::Stop, "stop", shown),
            [verb @ ("members" | "ring" | "help"), ..] => Err(format!("too many words for {verb}")),
            [verb, ..] => Err(format!("{verb:?} is no command; help lists them")),
        }
    }

    fn command(&mut self, command: Command, verb: &str, shown: OutputOptions) -> Result<Outcome, String> {
        let said = match command {
            Command::Status => {
                let report = self.lab.report();
                let out = if shown.json { reports_json(report) } else { reports_table(&report) };
                return Ok(Outcome { out, ok: true });
            }
            Command::Partition(groups) => {
                let groups_text: Vec<_> = groups.iter().map(|group| group.join(",")).collect();
                let later = self.lab.change_faults(|faults, _| faults.partition(&groups))?;
                said_first(format!("cut: {}", groups_text.join(" | ")), later)
            }
            Command::Fault(links, change) => {
                self.lab.change_faults(|faults, nodes| faults.change(&links, change, nodes))?
            }
            Command::Heal => said_first(
                "all faults are removed".to_owned(),
                self.lab.change_faults(|faults, _| faults.heal())?,
            ),
            Command::Kill(names) => self.lab.kill(&names),
            Command::Wipe(names) => self.lab.wipe(&names)?,
            Command::Backup(names) => self.lab.backup(&names)?,
            Command::Restore(names) => self.lab.restore(&names)?,
            Command::Pause(names) => self.lab.pause(&names),
            Command::Resume(names) => self.lab.resume(&names)?,
            Command::Restart(names) => {
                let addresses = self.lab.record().addresses();
                let said = self.lab.restart(&names)?;
                if self.lab.record().addresses() != addresses {
                    self.session = None;
                }
                said
            }
            Command::Wait(span) => {
                self.lab.wait(span, &mut |_| {})?;
                vec!["all nodes that run see each other".to_owned()]
            }
            Command::Stop => {
                self.stopping = true;
                Vec::new()
            }
        };
        let out = if shown.json {
            let said = said.iter().map(String::as_str).collect();
            to_line(&DoneJson { command: verb, done: true, said, error: None })
        } else {
            said.join("\n")
        };
        Ok(Outcome { out, ok: true })
    }

    fn session(&mut self) -> Result<&mut Session, String> {
        if self.session.is_none() {
            let options = self.lab.connect_options(self.lab.record().addresses())?;
            self.session = Some(Session::open(options).map_err(|failure| match failure {
                super::Failure::Failed(why) | super::Failure::Usage(why) => why,
                super::Failure::Said => "the lab does not answer".to_owned(),
            })?);
        }
        self.session.as_mut().ok_or_else(|| "the lab does not answer".to_owned())
    }

    fn operate(&mut self, operation: &Operation, shown: OutputOptions) -> Result<Outcome, String> {
        let session = self.session()?;
        let answer = session.run(operation);
        let out = if shown.json {
            answer.json(operation, session.names(), shown.base64)
        } else {
            answer.line(operation, session.names(), shown.base64)
        };
        Ok(Outcome { out, ok: answer.is_success() })
    }

    fn members(&mut self, name: Option<&str>, shown: OutputOptions) -> Result<Outcome, String> {
        let topology = match name {
            Some(name) => self.lab.topology_of(name)?,
            None => block_on(self.session()?.client().topology()).map_err(|error| error.to_string())?,
        };
        Ok(Outcome { out: members::shown(&topology, shown.json), ok: true })
    }

    fn ring(&mut self, key: Option<Vec<u8>>, shown: OutputOptions) -> Result<Outcome, String> {
        let topology = block_on(self.session()?.client().topology()).map_err(|error| error.to_string())?;
        Ok(Outcome { out: ring::shown(&topology, key.as_deref(), shown)?, ok: true })
    }
}

fn said_first(first: String, rest: Vec<String>) -> Vec<String> {
    std::iter::once(first).chain(rest).collect()
}

fn help() -> String {
    let mut columns = Columns::new(&["command", "what it does"]);
    for (_, usage, meaning) in VERBS {
        columns.row([*usage, *meaning]);
    }
    for (usage, meaning) in OTHERS {
        columns.row([*usage, *meaning]);
    }
    columns.text()
}

fn reports_table(reports: &[NodeReport]) -> String {
    let mut columns = Columns::new(&[
        "node", "process", "state", ">up", ">slots", ">keys", ">memory", ">cpu", "address", "faults",
    ]);
    for report in reports {
        let (process, pid) = process_of(&report.state);
        let process = pid.map_or_else(|| process.to_owned(), |pid| format!("{process} {pid}"));
        let serving = report.status.as_ref().is_ok_and(|status| status.waiting_for.is_none());
        let state = note_of(report).unwrap_or_else(|| "serving".to_owned());
        let status = report.status.as_ref().ok();
        let number = |number: Option<String>| number.unwrap_or_default().into();
        let counted = |name| status.and_then(|status| status::count(status, name));
        columns.row([
            report.name.as_str().into(),
            process.into(),
            judged(state, serving),
            number(status.map(|status| status::span(status.uptime_ms))),
            number(status.map(|status| status.slots_owned.to_string())),
            number(counted("keys").map(|keys| keys.to_string())),
            number(counted("memory_bytes").map(|bytes| format!("{} MiB", bytes >> 20))),
            number(counted("cpu_micros").map(|micros| status::span(micros / 1_000))),
            report.address.to_string().into(),
            report.faults.join("; ").into(),
        ]);
    }
    columns.text()
}

fn reports_json(reports: Vec<NodeReport>) -> String {
    let lines = reports.into_iter().map(|report| {
        let (process, pid) = process_of(&report.state);
        let note = note_of(&report);
        let status = report.status.ok();
        to_line(&NodeJson {
            node: report.name,
            address: report.address.to_string(),
            process,
            pid,
            serving: status.as_ref().is_some_and(|status| status.waiting_for.is_none()),
            slots_owned: status.as_ref().map(|status| status.slots_owned),
            keys: status.as_ref().and_then(|status| status::count(status, "keys")),
            faults: report.faults,
            note,
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn process_of(state: &State) -> (&'static str, Option<u32>) {
    match state {
        State::Running { pid } => ("running", Some(*pid)),
        State::Paused { pid } => ("paused", Some(*pid)),
        State::Down(_) => ("down", None),
        State::Failed(_) => ("failed", None),
    }
}

/// Why a node does not serve.
fn note_of(report: &NodeReport) -> Option<String> {
    match &report.status {
        Ok(status) => status.waiting_for.clone(),
        Err(why) => Some(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_completes_and_is_in_the_help() {
        let help = help();
        for (verb, usage, _) in VERBS {
            assert!(WORDS.contains(verb), "{verb}");
            assert!(help.contains(usage), "{usage}");
        }
        for word in WORDS {
            assert!(help.lines().any(|line| line.starts_with(word)), "{word}");
        }
    }

    #[test]
    fn a_node_that_is_gone_says_why() {
        let report = NodeReport {
            name: "n2".to_owned(),
            address: ([127, 0, 0, 1], 7_000).into(),
            state: State::Down("killed".to_owned()),
            status: Err("killed".to_owned()),
            faults: vec!["cut > n1".to_owned()],
        };
        assert!(reports_table(std::slice::from_ref(&report)).contains("killed"));
        assert_eq!(
            reports_json(vec![report]),
            r#"{"node":"n2","address":"127.0.0.1:7000","process":"down","pid":null,"serving":false,"slots_owned":null,"keys":null,"faults":["cut > n1"],"note":"killed"}"#
        );
    }
}
