#!/bin/sh
# Puts together all that the static binary needs, an empty root folder around it: rootfs.sh BINARY FOLDER
#
# The binary, the certificates by which it knows its servers, and /data for the configuration and what the gateway keeps.
# Dockerfile makes an image of it; `chroot FOLDER /mcp-x --config /data/config.toml` runs it without one.
set -eu
binary=$1 root=$2
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

mkdir -p "$root/etc/ssl/certs" "$root/data"
install -m 755 "$binary" "$root/mcp-x"
install -m 644 "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
# Whoever runs there, by number; names are for people.
printf 'mcp-x:x:65532:65532::/data:/mcp-x\n' >"$root/etc/passwd"
chmod 700 "$root/data"
if [ "$(id -u)" = 0 ]; then chown 65532:65532 "$root/data"; fi
