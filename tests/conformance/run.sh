#!/bin/sh
# The official conformance suite through the gateway: run.sh [path of mcp-x]
#
# CONFORMANCE_CACHE (default target/conformance) keeps what npx installs between runs, and the results of the last one.
# Needs Python 3.11 or newer, node and npm, and cargo, with which the fixture server is built.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
export CONFORMANCE_CACHE="${CONFORMANCE_CACHE:-$target/conformance}"
export npm_config_cache="$CONFORMANCE_CACHE/npm" npm_config_prefer_offline=true npm_config_update_notifier=false
cargo build --quiet --locked --manifest-path "$root/Cargo.toml" --package mcp-x-fixture
exec "${PYTHON:-python3}" -B "$here/run.py" "${1:-$target/release/mcp-x}" "$target/debug/fixture-upstream"
