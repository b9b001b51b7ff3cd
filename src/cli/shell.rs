//! `starling shell`: operations from standard input, answers in order.

use std::io::IsTerminal;

use super::answer;
use super::connection::Connection;
use super::failure::{Done, Failure};
use super::lines::{Line, Lines};
use super::operation::Operation;
use super::output::{self, OutputOptions};
use super::session::Session;

/// Run operations from standard input, one per line
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every line is answered by one line, in order and at once. A line that is no operation is answered by an error, and the \
shell goes on. It ends at the end of input or at `exit`; the exit code is 1 if any line failed.

Lines are words, quoted as in a shell, with options as w=one; or JSON objects:
  put KEY VALUE [context=C] [w=one|majority|all|N] [sloppy] [via=NAME] [deadline=2s]
  get KEY [r=one|majority|all|N] [atomic] [latest] [via=NAME] [deadline=2s]
  delete KEY [context=C] [w=...] [sloppy] [via=NAME] [deadline=2s]
  explain KEY [via=NAME]
  {\"op\":\"put\",\"key\":\"k\",\"value\":\"v\",\"w\":\"all\"}
  {\"op\":\"get\",\"key\":{\"base64\":\"/w==\"}}

Examples:
  starling shell --lab ./lab
  printf 'put a 1\\nget a\\n' | starling shell --json --lab ./lab")]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    shown: OutputOptions,
    #[command(flatten)]
    connection: Connection,
}

const WORDS: &[&str] = &["put", "get", "delete", "explain", "help", "exit"];

impl ShellArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let mut session = Session::connect(&self.connection)?;
        let names = session.client().members().iter().map(|member| member.entry.name.to_string()).collect();
        let mut lines = Lines::standard_input("starling> ", WORDS, names)?;
        let interactive = std::io::stdin().is_terminal();
        let mut failed = false;
        let mut number = 0;
        while let Some(line) = lines.next() {
            number += 1;
            let line = match line {
                Line::Text(text) => text,
                Line::Bad(message) => {
                    failed = true;
                    refuse(self.shown.json, number, &message);
                    continue;
                }
            };
            let line = line.trim();
            match line {
                "" => continue,
                _ if line.starts_with('#') => continue,
                "exit" | "quit" => break,
                "help" if !self.shown.json => {
                    output::line(
                        "put KEY VALUE, get KEY, delete KEY, explain KEY; options: w= r= context= via= atomic latest sloppy deadline=; exit",
                    );
                    continue;
                }
                _ => {}
            }
            match Operation::parse_line(line, self.shown.base64) {
                Ok(operation) => {
                    let answer = session.run(&operation);
                    failed |= !answer.is_success();
                    output::line(&if self.shown.json {
                        answer.json(&operation, session.names(), self.shown.base64)
                    } else {
                        answer.line(&operation, session.names(), self.shown.base64)
                    });
                }
                Err(message) => {
                    failed = true;
                    refuse(self.shown.json, number, &message);
                }
            }
        }
        if failed && !interactive { Err(Failure::Said) } else { Ok(()) }
    }
}

/// Answers a line that is no operation.
fn refuse(json: bool, number: u64, message: &str) {
    if json {
        output::line(&answer::bad_line_json(number, message));
    } else {
        output::line(&format!("line {number}: {message}"));
    }
}
