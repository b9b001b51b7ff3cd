//! `starling delete`.

use super::connection::Connection;
use super::failure::Done;
use super::oneshot;
use super::operation::{Action, Options, parse_level};
use super::output::OutputOptions;
use crate::protocol::causality::ContextToken;
use crate::protocol::wire::client::Level;

/// Delete a key
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A delete with the context of a get deletes what the get showed. One without reads first and deletes what it read. A \
value that is written at the same time stays.

Examples:
  starling delete user:1 --lab ./lab
  starling delete user:1 --w all")]
pub(crate) struct DeleteArgs {
    /// The key
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    name: String,
    /// The context of the get that this answers
    #[arg(long, value_name = "CONTEXT", value_parser = oneshot::parse_context, allow_hyphen_values = true)]
    context: Option<ContextToken>,
    /// How many owners must have it on disk: one, majority, all or a number
    #[arg(long, value_name = "LEVEL", default_value = "majority", value_parser = parse_level)]
    w: Level,
    /// Let hints on other nodes count for owners that cannot be reached
    #[arg(long)]
    sloppy: bool,
    #[command(flatten)]
    shown: OutputOptions,
    #[command(flatten)]
    connection: Connection,
}

impl DeleteArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let options = Options { w: self.w, sloppy: self.sloppy, context: self.context, ..Options::default() };
        oneshot::run(&self.connection, self.shown, &self.name, Action::Delete, options)
    }
}
