#!/bin/sh
# The page at /docs in a real browser: run.sh MCP-X [SCREENSHOT]
#
# Installs Debian's Chromium if it is not there (as root), and playwright into DOCS_CACHE (default target/docs).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${DOCS_CACHE:-$here/../../target/docs}
if ! command -v "${CHROMIUM:-chromium}" >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
if ! cmp -s "$here/requirements.txt" "$cache/installed"; then
    "${PYTHON:-python3}" -m venv --clear "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$cache/installed"
fi
exec "$cache/bin/python" -B "$here/run.py" "$@"
