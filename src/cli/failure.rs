//! How a command ends.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command did not do what it was to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Refused or failed; exit code 1. The message goes to standard error.
    Failed(String),
    /// The same, and everything has been said already.
    Said,
    /// The command line makes no sense; exit code 2.
    Usage(String),
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn failed(why: impl Display) -> Failure {
        Failure::Failed(why.to_string())
    }

    /// Says it, if that was not done, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::Failed(message) => {
                eprintln!("starling: {message}");
                ExitCode::from(1)
            }
            Failure::Said => ExitCode::from(1),
            Failure::Usage(message) => {
                eprintln!("starling: {message}");
                ExitCode::from(2)
            }
        }
    }
}

/// What commands return.
pub(crate) type Done = Result<(), Failure>;
