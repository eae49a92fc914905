"""The static binary in a root folder of its own, and the unit file: static.py MCP-X

Puts the root folder together as deploy/Dockerfile does, and runs the gateway in it, by itself and as nobody: it has to find a
server by a host name, by `localhost`, and over TLS by a certificate of the folder. Needs root, for chroot, and runs in the
virtual environment of tests/interop (INTEROP_CACHE). The last line is `N passed, N failed`.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

from proxies import ROOT, certificate, message, once

import httpx
from support import Processes, Report, equal, free_port

TOKEN = "static-token-of-alice-0123456789"
NAME = "mcp-server.example"
MOST_BYTES = 8_000_000
USER = 65532
# Exposure to the rest of the system as `systemd-analyze security` rates it, from 0 to 100.
MOST_EXPOSED = 15

CONFIG = """
[clients.alice]
auth_token = "{token}"

[mcp_servers.by_name]
url = "http://{name}:{plain}/mcp"
from_client = "alice"
tool_prefix = "by_name_"

[mcp_servers.by_localhost]
url = "http://localhost:{plain}/mcp"
from_client = "alice"
tool_prefix = "by_localhost_"

[mcp_servers.by_certificate]
url = "https://mcp.example.com:{secure}/mcp"
from_client = "alice"
tool_prefix = "by_certificate_"

[gateway]
allow_private_upstreams = true
"""

TLS = """daemon off; user root; pid {folder}/nginx.pid; error_log stderr; events {{}}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.key;
    location / {{ proxy_pass http://127.0.0.1:{plain}; proxy_buffering off; }} }} }}
"""


async def alone(report: Report, processes: Processes, binary: Path) -> None:
    folder, plain, secure, port = processes.folder, free_port(), free_port(), free_port()
    root = folder / "root"
    async with report.check(f"the binary needs no library and less than {MOST_BYTES:,} bytes"):
        linked = subprocess.run(["readelf", "-d", binary], capture_output=True, text=True, check=True).stdout
        assert "NEEDED" not in linked, linked
        assert binary.stat().st_size < MOST_BYTES, binary.stat().st_size
        print(f"    {binary.stat().st_size:,} bytes")
    async with report.check("in a root folder of its own it finds servers by name, by `localhost` and by certificate", 60):
        certificate(folder)
        trusted = folder / "trusted.pem"
        system = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
        trusted.write_bytes(system + (folder / "ca.pem").read_bytes())
        environment = {**os.environ, "SSL_CERT_FILE": str(trusted)}
        subprocess.run([ROOT / "deploy/rootfs.sh", binary, root], env=environment, check=True)
        # A container's engine writes this file.
        (root / "etc/hosts").write_text(f"127.0.0.1 {NAME} mcp.example.com\n")
        config = root / "data/config.toml"
        config.write_text(CONFIG.format(token=TOKEN, name=NAME, plain=plain, secure=secure))
        os.chown(config, USER, USER)
        await processes.start_everything(plain)
        (folder / "tls.conf").write_text(TLS.format(folder=folder, port=secure, plain=plain))
        nginx = [shutil.which("nginx") or "/usr/sbin/nginx", "-e", "stderr", "-c", str(folder / "tls.conf")]
        await processes.start("tls", nginx, f"http://127.0.0.1:{secure}")
        command = ["chroot", f"--userspec={USER}:{USER}", str(root), "/mcp-x", "--config", "/data/config.toml"]
        await processes.start("gateway", [*command, "--port", str(port)], f"http://127.0.0.1:{port}/healthz")
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20) as http:
            for prefix in ("by_name_", "by_localhost_", "by_certificate_"):
                call = message("tools/call", name=f"{prefix}echo", arguments={"message": "hello"})
                answer = (await http.post(f"http://127.0.0.1:{port}/mcp", json=call)).json()
                equal("hello" in str(answer.get("result")), True) if "result" in answer else equal(answer, "a result")
        kept = sorted(path.name for path in (root / "data").iterdir() if path.name != "catalogues")
        equal(kept, ["config.toml", "jwt_secret", "sessions"])
        equal(processes.stop("gateway", 15), 0)


async def unit(report: Report, processes: Processes, binary: Path) -> None:
    path = processes.folder / "mcp-x.service"
    text = (ROOT / "deploy/mcp-x.service").read_text()
    # Whose user is there on every machine.
    text = once(once(text, "User=mcp-x", "User=daemon"), "Group=mcp-x", "Group=daemon")
    path.write_text(once(text, "ExecStart=/usr/local/bin/mcp-x", f"ExecStart={binary}"))
    async with report.check("systemd finds nothing to say of the unit file"):
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
        equal((done.returncode, done.stdout + done.stderr), (0, ""))
    async with report.check(f"the unit is exposed to the system by less than {MOST_EXPOSED} of 100"):
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        print("   ", done.stdout.strip().splitlines()[-1])


async def main(binary: Path) -> int:
    report = Report()
    with Processes() as processes:
        await alone(report, processes, binary)
        await unit(report, processes, binary)
        if report.failed:
            for name in ("gateway", "tls"):
                log = processes.folder / f"{name}.log"
                print(f"--- {name}\n{log.read_text()[-2000:] if log.exists() else 'never started'}", file=sys.stderr)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]).resolve())))
