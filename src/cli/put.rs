//! `starling put`.

use super::connection::Connection;
use super::failure::Done;
use super::operation::{Action, Options, parse_level};
use super::output::OutputOptions;
use super::{oneshot, text};
use crate::cli::failure::Failure;
use crate::protocol::causality::ContextToken;
use crate::protocol::wire::client::Level;

/// Store a value
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A put with the context of a get replaces the values that the get showed. A put without one replaces nothing: if the key \
has a value already, both stand side by side until somebody resolves them.

Examples:
  starling put user:1 Ada --lab ./lab
  starling put user:1 'Ada L.' --context \"$(starling get user:1 --lab ./lab --json | jq -r .context)\" --lab ./lab
  starling put log:9 done --w all --connect 10.0.0.1:7400,10.0.0.2:7400")]
pub(crate) struct PutArgs {
    /// The key
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    name: String,
    /// The value
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// The context of the get that this answers: what the get showed is replaced
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

impl PutArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let value = text::bytes_of_word(&self.value, self.shown.base64).map_err(Failure::Usage)?;
        let options = Options { w: self.w, sloppy: self.sloppy, context: self.context, ..Options::default() };
        oneshot::run(&self.connection, self.shown, &self.name, Action::Put(value), options)
    }
}
