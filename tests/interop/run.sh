#!/bin/sh
# Real SDK clients and servers, Python, TypeScript and Rust, through the gateway: run.sh [path of mcp-x]
# or without it, to see what the SDKs can do between themselves: run.sh --direct
#
# INTEROP_CACHE (default target/interop) keeps what is installed between runs. Needs Python 3.11 or newer, node and npm,
# and cargo, with which the fixture server and the client of the Rust SDK are built; and root, where nginx is not installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cache=${INTEROP_CACHE:-$target/interop}
mkdir -p "$cache"

# fresh LIST FOLDER: whether FOLDER holds what LIST asks for. A finished install leaves a copy of its list there.
fresh() { cmp -s "$here/$1" "$cache/$2/installed"; }

# venv NAME LIST: a virtual environment with the packages of LIST.
venv() {
    fresh "$2" "$1" && return
    "${PYTHON:-python3}" -m venv --clear "$cache/$1"
    "$cache/$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/$2"
    cp "$here/$2" "$cache/$1/installed"
}

venv venv requirements.txt
venv venv-2 requirements-2.txt
venv venv-old requirements-old.txt
if ! fresh package.json node; then
    mkdir -p "$cache/node"
    cp "$here/package.json" "$cache/node/package.json"
    npm install --silent --no-audit --no-fund --prefix "$cache/node"
    cp "$here/package.json" "$cache/node/installed"
fi

cargo build --quiet --locked --manifest-path "$here/rmcp/Cargo.toml" --target-dir "$cache/rmcp"
if [ "${1:-}" = --direct ]; then
    INTEROP_CACHE=$cache exec "$cache/venv/bin/python" -B "$here/features.py" --direct
fi
cargo build --quiet --locked --manifest-path "$root/Cargo.toml" --package mcp-x-fixture

# nginx is stood behind, and the Inspector wants a newer Node than others.
missing=
for pair in nginx:nginx-light openssl:openssl; do
    PATH=$PATH:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
NODE_22=$(npx -y -p node@22 which node)
export NODE_22
INTEROP_CACHE=$cache exec "$cache/venv/bin/python" -B "$here/run.py" "${1:-$target/release/mcp-x}" \
    "$target/debug/fixture-upstream"
