//! `starling get`.

use super::connection::Connection;
use super::failure::Done;
use super::oneshot;
use super::operation::{Action, Options, parse_level};
use super::output::OutputOptions;
use crate::protocol::wire::client::Level;

/// Read the values of a key
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Values go to standard output, one a line; who replied and the context, for the next put of the key, to standard error. \
There is more than one value if writers did not know of each other. Put one back with the context to resolve them. \
A key that is absent is an answer: exit code 0. Too few owners in reach is not: exit code 1.

Examples:
  starling get user:1 --lab ./lab
  starling get user:1 --r one --via n4 --lab ./lab      what n4 can see now
  starling get user:1 --atomic --json                   no later majority read sees less")]
pub(crate) struct GetArgs {
    /// The key
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    name: String,
    /// How many owners must reply: one, majority, all or a number
    #[arg(long, value_name = "LEVEL", default_value = "majority", value_parser = parse_level)]
    r: Level,
    /// Have what is read at a majority before it is shown
    #[arg(long)]
    atomic: bool,
    /// Of several values show the one with the newest timestamp only
    #[arg(long)]
    latest: bool,
    #[command(flatten)]
    shown: OutputOptions,
    #[command(flatten)]
    connection: Connection,
}

impl GetArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let options = Options { r: self.r, atomic: self.atomic, latest: self.latest, ..Options::default() };
        oneshot::run(&self.connection, self.shown, &self.name, Action::Get, options)
    }
}
