//! `mcp-x`: arguments → load → serve → exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcp_x::cli::run(std::env::args_os().skip(1))
}
