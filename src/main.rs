//! `mcp-x`: arguments → load → serve → exit code; nothing else but the allocator.

use std::process::ExitCode;

/// musl's own allocator costs a call a third more, and a large one three times as much; see README, "Performance".
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mcp_x::cli::run(std::env::args_os().skip(1))
}
