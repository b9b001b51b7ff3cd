//! The command line. Its output and its exit codes are a contract: 0 done, 1 refused or failed, 2 usage.
//!
//! One file per command; what several of them share:
//!
//! * [`connection`] finds a cluster, [`session`] runs operations there,
//! * [`operation`] reads operations from words and JSON, [`answer`] writes what became of them,
//! * [`text`] shows bytes, [`output`] prints lines, tables and progress, [`lines`] reads from people and programs.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod answer;
mod bench;
mod cert;
mod completions;
mod connection;
mod delete;
mod explain;
mod failure;
mod get;
mod import;
mod lab;
mod lines;
mod members;
mod names;
mod node;
mod oneshot;
mod operation;
mod output;
mod put;
mod reaping;
mod recovery;
mod ring;
mod scenario;
mod session;
mod shell;
mod sim;
mod soak;
mod status;
mod text;

use failure::Done;

/// Sets how many threads async-std runs tasks on.
const THREADS_VARIABLE: &str = "ASYNC_STD_THREAD_COUNT";

/// A leaderless, replicated key-value store, and a laboratory for network partitions.
#[derive(Debug, Parser)]
#[command(
    name = "starling",
    version,
    max_term_width = 110,
    after_help = "\
Begin with a cluster of your own machine, five real processes that you can cut apart and kill:
  starling lab --dir ./lab

Exit codes: 0 done, 1 refused or failed, 2 the command line makes no sense."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lab(Box<lab::LabArgs>),
    Node(Box<node::NodeArgs>),
    Put(put::PutArgs),
    Get(get::GetArgs),
    Delete(delete::DeleteArgs),
    Shell(shell::ShellArgs),
    Import(import::ImportArgs),
    Members(members::MembersArgs),
    Ring(ring::RingArgs),
    Status(status::StatusArgs),
    Explain(explain::ExplainArgs),
    Bench(bench::BenchArgs),
    Sim(sim::SimArgs),
    Soak(Box<soak::SoakArgs>),
    Cert(cert::CertArgs),
    Completions(completions::CompletionsArgs),
    /// Sees that nothing outlives a lab
    #[command(name = crate::lab::guardian::COMMAND, hide = true)]
    LabGuardian,
    /// Keeps a detached lab
    #[command(name = lab::SUPERVISOR, hide = true)]
    LabSupervisor(lab::SupervisorArgs),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    if command.talks() {
        become_single_threaded();
    }
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl Command {
    /// Whether it speaks QUIC.
    fn talks(&self) -> bool {
        !matches!(self, Command::Sim(_) | Command::Cert(_) | Command::Completions(_) | Command::LabGuardian)
    }

    fn run(self) -> Done {
        match self {
            Command::Lab(args) => args.run(),
            Command::Node(args) => args.run(),
            Command::Put(args) => args.run(),
            Command::Get(args) => args.run(),
            Command::Delete(args) => args.run(),
            Command::Shell(args) => args.run(),
            Command::Import(args) => args.run(),
            Command::Members(args) => args.run(),
            Command::Ring(args) => args.run(),
            Command::Status(args) => args.run(),
            Command::Explain(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Sim(args) => args.run(),
            Command::Soak(args) => args.run(),
            Command::Cert(args) => args.run(),
            Command::Completions(args) => args.run(),
            Command::LabGuardian => {
                crate::lab::guardian::run(std::io::stdin().lock());
                Ok(())
            }
            Command::LabSupervisor(args) => args.run(),
        }
    }
}

/// One executor thread costs a third less CPU than async-std's one per core, and that number is read from the
/// environment when the first task is spawned. Setting a variable is unsafe once there are threads, so the program
/// replaces itself by itself with the variable set. If that fails, it merely runs with more threads.
fn become_single_threaded() {
    if std::env::var_os(THREADS_VARIABLE).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let mut arguments = std::env::args_os();
        let mut again = std::process::Command::new(program);
        if let Some(name) = arguments.next() {
            again.arg0(name);
        }
        // Returns only if it failed.
        let _ = again.args(arguments).env(THREADS_VARIABLE, "1").exec();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_example() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn connections_are_given_whole() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|_| ());
        for line in [
            "starling put k v --w all --sloppy --json --connect 127.0.0.1:1,127.0.0.1:2",
            "starling get k --r one --atomic --latest --via n2 --lab d --deadline 2s",
            "starling get -k --ca a --cert b --key c",
            "starling delete k --context -_8B",
            "starling shell --json --lab d",
            "starling node --data d --seed 127.0.0.1:1 --seed 127.0.0.1:2 --found 3 --log-format json --log debug",
            "starling lab --dir d kill n2",
            "starling lab --nodes 3 --dir d --detach",
            "starling ring k --json --lab d",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        for line in [
            "starling get k --ca a",
            "starling get k --lab d --connect 127.0.0.1:1",
            "starling put k",
            "starling get k --r none",
            "starling get k --context x",
            "starling put k v --context %%",
            "starling node --log-format xml",
            "starling frobnicate",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
