//! The command line: arguments, and one file a subcommand.

pub mod args;
mod check;
mod connect;
mod demo;
mod diff;
mod examples;
mod explain;
mod local;
mod notify;
pub mod serve;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use self::args::Command;
use crate::store::StoreError;

/// A stated problem: what the user reads before the process ends with exit code 1.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(crate::log::os_error(&error))
    }
}

/// Does what the arguments say and tells the exit code.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match args::parse(arguments, |name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Serve(options) => serve::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Explain(question) => explain::run(&question),
        Command::Diff { from, to } => diff::run(&from, &to),
        Command::Token => token::run(),
        Command::SignedToken { options, client, lifetime } => token::run_signed(&options, &client, lifetime),
        Command::Connect(connection) => connect::run(&connection),
        Command::Help => print(args::HELP),
        Command::Version => print(concat!("mcp-x ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::FAILURE
        }
    }
}

/// Prints to stdout. A reader that has gone away, as `head` does, is no problem.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn complain(what: &dyn fmt::Display) {
    // There is nowhere left to say that stderr is closed.
    let _ = writeln!(std::io::stderr(), "mcp-x: {what}");
}
