//! What the operations on the path of a request cost: nanoseconds, allocations and bytes.
//!
//! `cargo bench` measures all of them, `cargo bench -- parse view` those with one of these in their names; with `--test`,
//! and under `cargo test --benches`, each runs once. An operation that does not do what its name says fails the run; how
//! long one takes never does. The figures are for comparing with others of the same machine, see [`measure`].
//!
//! | file | holds |
//! |---|---|
//! | `hot` | arguments and the table |
//! | `measure` | how an operation is timed and its allocations are counted |
//! | `samples` | messages of real clients and servers, from `fixtures/` |
//! | `messages` | reading and rewriting of messages, event streams |
//! | `access` | who may do what: tokens, grants, patterns, sealed ids; and the log |
//! | `views` | a gateway without sockets: views and lists |

mod access;
mod measure;
mod messages;
mod samples;
mod views;

use std::error::Error;
use std::io::{Write, stdout};

use measure::{Cost, Operation, Operations};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(std::env::args().skip(1));
    let mut operations = Operations::default();
    measure::add(&mut operations);
    messages::add(&mut operations)?;
    access::add(&mut operations)?;
    views::add(&mut operations)?;

    let chosen: Vec<Operation> = operations.into_iter().filter(|operation| arguments.choose(&operation.name)).collect();
    if chosen.is_empty() {
        return Err(format!("no operation has one of these in its name: {}", arguments.filters.join(", ")).into());
    }
    if let Some(wrong) = chosen.iter().find(|operation| !operation.holds()) {
        return Err(format!("`{}` does not do what it says", wrong.name).into());
    }
    if arguments.measure {
        table(&chosen)?;
    } else {
        writeln!(stdout(), "{} operations ran once", chosen.len())?;
    }
    Ok(())
}

/// What the command line asks for.
struct Arguments {
    measure: bool,
    /// Parts of names; none means every operation.
    filters: Vec<String>,
}

impl Arguments {
    /// `cargo bench` adds `--bench`, `cargo test` does not. Every other option is one of the standard harness, which
    /// `cargo test` hands to all targets alike, and means nothing here.
    fn read(arguments: impl Iterator<Item = String>) -> Self {
        let (options, filters): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument.starts_with("--"));
        let has = |name: &str| options.iter().any(|option| option == name);
        Self { measure: has("--bench") && !has("--test"), filters }
    }

    fn choose(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

/// Measures the operations, and prints each row as soon as it is known.
fn table(operations: &[Operation]) -> std::io::Result<()> {
    let mut out = stdout().lock();
    let width = operations.iter().map(|operation| operation.name.chars().count()).max().unwrap_or_default();
    writeln!(out, "{:width$}  {:>12}  {:>9}  {:>12}", "operation", "ns/op", "allocs/op", "bytes/op")?;
    for operation in operations {
        let Cost { nanoseconds, allocations, bytes } = operation.measure();
        writeln!(out, "{:width$}  {nanoseconds:>12.1}  {allocations:>9.2}  {bytes:>12.1}", operation.name)?;
    }
    Ok(())
}
