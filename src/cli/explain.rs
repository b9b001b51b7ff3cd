//! `starling explain`: which replica holds which sibling, and why.

use super::answer;
use super::connection::Connection;
use super::failure::Done;
use super::names::Names;
use super::oneshot;
use super::operation::{Action, Options};
use super::output::{Columns, OutputOptions, judged};
use crate::protocol::wire::client::Explanation;

/// Show what each owner of a key holds
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks every owner for its own record, merged with nobody's. `context` lists the newest write that the record has seen of \
each actor; an actor is one start of one node. If an owner holds a deletion, the last line says why it is not forgotten yet. \
Needs a certificate of the role admin.

Examples:
  starling explain user:1 --lab ./lab
  starling explain user:1 --via n4 --lab ./lab      as n4 sees it, from its side of a cut")]
pub(crate) struct ExplainArgs {
    /// The key
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    name: String,
    #[command(flatten)]
    shown: OutputOptions,
    #[command(flatten)]
    connection: Connection,
}

impl ExplainArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        oneshot::run(&self.connection, self.shown, &self.name, Action::Explain, Options::default())
    }
}

/// The owners and what they hold.
pub(crate) fn table(explained: &Explanation, names: &Names, base64: bool) -> String {
    let mut columns = Columns::new(&["owner", "reachable", "holds", "context"]);
    for replica in &explained.replicas {
        let context = match &replica.record {
            Ok(Some(record)) => {
                record.context().iter().map(|dot| dot.to_string()).collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        };
        columns.row([
            names.of(replica.node).into(),
            judged(if replica.reachable { "yes" } else { "no" }, replica.reachable),
            answer::held(&replica.record, base64).into(),
            context.into(),
        ]);
    }
    let mut text = format!("slot {}\n{}", explained.slot, columns.text());
    if let Some(reaping) = &explained.reaping {
        text += &format!("\n{}", super::reaping::sentence(reaping, names));
    }
    text
}
