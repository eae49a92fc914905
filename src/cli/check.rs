//! `mcp-x check`: every problem of a configuration, each with its place.

use super::args::Options;
use super::{Failure, print};
use crate::policy::registry::Built;
use crate::store::ConfigFile;
use crate::wire::config::Severity;

/// Reads the configuration and prints its problems; fails if one of them is an error.
///
/// # Errors
/// [`Failure`] with the number of errors, or because the file cannot be read.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let path = options.config();
    let name = path.display().to_string();
    let built = ConfigFile::new(&path).load()?;
    print_problems(&name, &built)?;
    let Some(registry) = &built.registry else { return Err(refused(&name, &built)) };
    let (clients, servers) = (registry.clients().len(), registry.servers().len());
    print(&format!("{name}: fine ({clients} clients, {servers} servers)\n"))
}

/// Prints every problem after its severity.
///
/// # Errors
/// [`Failure`] if stdout cannot be written.
pub(super) fn print_problems(name: &str, built: &Built) -> Result<(), Failure> {
    for problem in &built.problems {
        let word = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        print(&format!("{word}: {}\n", problem.display(name)))?;
    }
    Ok(())
}

/// What is said of a configuration with errors, after they were listed.
pub(super) fn refused(name: &str, built: &Built) -> Failure {
    let errors = built.problems.iter().filter(|p| p.severity == Severity::Error).count();
    let s = if errors == 1 { "" } else { "s" };
    Failure(format!("{name}: {errors} problem{s}"))
}
