//! One operation on a key, as a command: what `put`, `get`, `delete` and `explain` share.

use super::answer::{self, Answer};
use super::connection::Connection;
use super::failure::{Done, Failure};
use super::operation::{Action, Operation, Options};
use super::output::{self, OutputOptions};
use super::session::Session;
use super::text;
use crate::protocol::causality::ContextToken;

/// A context given on the command line.
pub(crate) fn parse_context(text: &str) -> Result<ContextToken, String> {
    text::parse_context(text)
}

/// Connects, runs the operation and prints its answer.
pub(crate) fn run(
    connection: &Connection,
    shown: OutputOptions,
    key: &str,
    action: Action,
    options: Options,
) -> Done {
    let key = text::bytes_of_word(key, shown.base64).map_err(Failure::Usage)?;
    let operation = Operation { action, key, options };
    // A cluster that cannot be reached is an outcome like any other: programs get their object.
    let mut session = match Session::connect(connection) {
        Ok(session) => session,
        Err(Failure::Failed(message)) if shown.json => {
            let problem = crate::protocol::wire::client::Problem::new(
                crate::protocol::wire::client::Code::Connection,
                message.clone(),
            );
            let answer = Answer::failed(&operation, problem);
            output::line(&answer.json(&operation, &super::names::Names::default(), shown.base64));
            return Err(Failure::Failed(message));
        }
        Err(failure) => return Err(failure),
    };
    let answer = session.run(&operation);
    if shown.json {
        output::line(&answer.json(&operation, session.names(), shown.base64));
    } else {
        print(&answer, &operation, &session, shown.base64);
    }
    if answer.is_success() { Ok(()) } else { Err(Failure::Said) }
}

/// For people: the values of a get on standard output and the rest on standard error, so that `starling get` can stand
/// in a pipe; everything else is one line.
fn print(answer: &Answer, operation: &Operation, session: &Session, base64: bool) {
    match answer {
        Answer::Read(read) if read.available => {
            let values = answer::shown_values(read, operation);
            for value in &values {
                output::line(&printed(value, base64));
            }
            let absent = match (values.is_empty(), read.deleted) {
                (false, _) => "",
                (true, true) => "deleted",
                (true, false) => "absent",
            };
            eprintln!("{absent}{}", answer::read_note(read, values.len(), session.names()));
        }
        Answer::Explained(Ok(explained)) => {
            output::line(&super::explain::table(explained, session.names(), base64));
        }
        _ if answer.is_success() => output::line(&answer.line(operation, session.names(), base64)),
        _ => eprintln!("starling: {}", answer.line(operation, session.names(), base64)),
    }
}

/// A value as it is, if it is text; base64 otherwise.
fn printed(value: &[u8], base64: bool) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !base64 => text.to_owned(),
        _ => base64_of(value),
    }
}

fn base64_of(value: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(value)
}
