#!/bin/sh
# Long trials: run.sh [path of mcp-x]
#
# What the tests of `leaks` and `crosses` do in `cargo test`, as much of it as issue 7 says: 10,000 calls that are cancelled at
# any moment, 1,000 parked calls that nobody comes back for, 1,000 streams that are dropped, three times over; and fifty
# clients that do everything at once.
#
# MCP_X_SEED makes the same moments again as in a run that has failed.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
MCP_X_SOAK=$(realpath "${1:-${CARGO_TARGET_DIR:-$root/target}/release/mcp-x}")
export MCP_X_SOAK
cd "$root"
# One after the other: memory is measured.
exec cargo test --locked --test it -- --nocapture --test-threads 1 leaks:: crosses::
