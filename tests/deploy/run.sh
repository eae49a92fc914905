#!/bin/sh
# What deploy/ promises, for real: run.sh MCP-X STATIC-MCP-X
#
# Installs nginx, Caddy and systemd's tools, as root, where they are missing. Runs in the virtual environment of tests/interop,
# which must have been set up (INTEROP_CACHE, default target/interop).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export INTEROP_CACHE="${INTEROP_CACHE:-$root/target/interop}"
python=$INTEROP_CACHE/venv/bin/python

PATH=$PATH:/usr/sbin
missing=
for pair in nginx:nginx-light caddy:caddy openssl:openssl systemd-analyze:systemd readelf:binutils; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
"$python" -B "$here/proxies.py" "$1"
"$python" -B "$here/static.py" "$2"
