"""The sites of deploy/ for real: the gateway behind nginx and behind Caddy, with TLS. proxies.py MCP-X

The sites are used as they are, but for addresses, certificates, and a clock that runs fifteen times as fast: the proxy gives
up on a silent server after 4 s instead of 60, the gateway says every second instead of every 15 that a stream is alive, and
a stream that is silent for 40 s stands for one of ten minutes. The server behind the gateway is the SDK's example server. Runs
in the virtual environment of tests/interop (INTEROP_CACHE). The last line is `N passed, N failed`.
"""

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/interop"))

import httpx  # noqa: E402
from support import EVERYTHING, Processes, Report, connect, equal, free_port  # noqa: E402

HOST = "mcp.example.com"
TOKEN = "deploy-token-of-alice-0123456789"
# The shortened clock.
PROXY_SECONDS, ALIVE_SECONDS, SILENT_SECONDS = 4, 1, 40
# From README and config.example.toml.
MAX_BODY_BYTES = 4 * 1024 * 1024

CONFIG = """
[clients.alice]
auth_token = "{token}"

[mcp_servers.everything]
url = "{server}"
from_client = "alice"
timeout_seconds = 120

[gateway]
allowed_hosts = ["{host}"]
trusted_proxies = ["127.0.0.1", "::1"]
allow_private_upstreams = true
keep_alive_seconds = {alive}
registration = "open"
"""


@dataclass
class Site:
    """A proxy in front of the gateway."""

    name: str
    port: int
    trust: ssl.SSLContext

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A client that finds the site by its name and knows its certificate."""
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": HOST, "Authorization": f"Bearer {TOKEN}", **headers},
            verify=self.trust,
            timeout=60,
        )


def once(text: str, old: str, new: str) -> str:
    """Replaces what must stand in a site exactly once."""
    assert text.count(old) == 1, f"expected `{old}` once, found it {text.count(old)} times"
    return text.replace(old, new)


def certificate(folder: Path) -> ssl.SSLContext:
    """Makes an authority, `ca.pem`, and a certificate for the host, `site.pem`; gives what trusts it and nothing else."""

    def make(name: str, *more: str) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "1", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", *more]
        subprocess.run(command, check=True, capture_output=True)

    make("ca", "-subj", "/CN=an authority of tests")
    signed = ["-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-addext", "basicConstraints=CA:FALSE"]
    make("site", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},DNS:localhost,IP:127.0.0.1", *signed)
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))


def nginx(folder: Path, port: int, gateway: int, registers: bool) -> list[str]:
    """Writes nginx's site, perhaps without what keeps registrations out, and gives the command that serves it."""
    site = (ROOT / "deploy/nginx.conf").read_text()
    if registers:
        site = once(site, "    location = /register_client {\n        return 403;\n    }\n", "")
    site = once(site, "listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    site = once(site, "    listen [::]:443 ssl;\n", "")
    site = once(site, "server 127.0.0.1:9000;", f"server 127.0.0.1:{gateway};")
    site = once(site, "/etc/ssl/mcp.example.com.pem", str(folder / "site.pem"))
    site = once(site, "/etc/ssl/mcp.example.com.key", str(folder / "site.key"))
    site = once(site, "proxy_read_timeout 60s;", f"proxy_read_timeout {PROXY_SECONDS}s;")
    (folder / "site.conf").write_text(site)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    whole = f"""daemon off; user root; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
        events {{ worker_connections 1024; }}
        http {{ access_log off; client_body_temp_path {folder}/body; {temporary} include {folder}/site.conf; }}"""
    (folder / "nginx.conf").write_text(whole)
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, port: int, gateway: int, registers: bool) -> list[str]:
    """The same for Caddy."""
    site = (ROOT / "deploy/Caddyfile").read_text()
    if registers:
        site = once(site, "\trespond /register_client 403\n", "")
    own = f"{HOST} {{\n\ttls {folder / 'site.pem'} {folder / 'site.key'}\n"
    # By address too, because that is what the checks connect to.
    site = once(site, f"{HOST} {{\n", own.replace(HOST, f"https://{HOST}:{port}, https://127.0.0.1:{port}", 1))
    site = once(site, "127.0.0.1:9000", f"127.0.0.1:{gateway}")
    site = once(site, "read_timeout 60s", f"read_timeout {PROXY_SECONDS}s")
    site = once(site, "keepalive 10s", "keepalive 1s")
    # Neither the machine's trust nor anybody's home is touched.
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(options + site)
    return ["env", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}", "caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def operation(seconds: int, steps: int, **meta: Any) -> dict[str, Any]:
    """A call that takes so long and reports so many steps."""
    arguments = {"duration": seconds, "steps": steps}
    return message("tools/call", name="trigger-long-running-operation", arguments=arguments, _meta=meta)


async def passes(report: Report, site: Site, gateway: str) -> None:
    """What goes through as if there were no proxy."""
    async with report.check(f"{site.name}: lists over TLS are the gateway's own"):
        async with site.client() as http, httpx.AsyncClient() as direct:
            through = await http.post("/mcp", json=message("tools/list"))
            own = await direct.post(gateway, json=message("tools/list"), headers={"Authorization": f"Bearer {TOKEN}"})
            equal((through.status_code, through.json()), (200, own.json()))
    async with report.check(f"{site.name}: an SDK client has a session"):
        context = site.trust
        async with httpx.AsyncClient(verify=context, headers={"Host": HOST}) as http:
            equal((await http.get(f"https://127.0.0.1:{site.port}/healthz")).status_code, 200)
        async with connect(f"https://127.0.0.1:{site.port}/mcp", TOKEN, host=HOST, verify=context) as session:
            result = await session.call_tool("echo", {"message": "hello"})
            assert "hello" in str(result.content), result
    async with report.check(f"{site.name}: progress arrives while the call runs"):
        times, begun = [], time.monotonic()
        async with site.client() as http, http.stream("POST", "/mcp", json=operation(3, 3, progressToken="p")) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:") and "notifications/progress" in line:
                    times.append(time.monotonic() - begun)
        assert len(times) >= 2 and times[0] < 2 and times[-1] - times[0] > 0.8, times


async def idle_stream(report: Report, site: Site) -> None:
    name = f"{site.name}: a stream that is silent for {SILENT_SECONDS} s outlives a timeout of {PROXY_SECONDS} s"
    async with report.check(name, SILENT_SECONDS + 20):
        alive, last = 0, {}
        async with site.client() as http, http.stream("POST", "/mcp", json=operation(SILENT_SECONDS, 1)) as answer:
            async for line in answer.aiter_lines():
                alive += line.startswith(":")
                if line.startswith("data:"):
                    last = json.loads(line.removeprefix("data:"))
        assert "result" in last and alive >= SILENT_SECONDS / ALIVE_SECONDS / 2, (alive, last)


async def rested_connection(report: Report, site: Site) -> None:
    """The proxy's timeout is about a silent server, and not about a connection that was used long ago."""
    async with report.check(f"{site.name}: a call that begins when its connection has rested for long is answered", 30):
        async with site.client() as http:
            equal((await http.post("/mcp", json=message("ping"))).status_code, 200)
            await asyncio.sleep(PROXY_SECONDS - 0.7)
            answer = await http.post("/mcp", json=operation(2, 1))
            equal((answer.status_code, "error" in answer.text), (200, False))


async def stops(report: Report, site: Site, gateway: str) -> None:
    """What a proxy keeps out, and what it lets in."""
    async with report.check(f"{site.name}: nobody registers through it"):
        async with site.client() as http, httpx.AsyncClient() as direct:
            refused = [(await http.post(path, json={})).status_code for path in ("/register_client", "/register_client/")]
            equal(refused[0], 403)
            assert refused[1] >= 400, refused
            equal((await direct.post(gateway.replace("/mcp", "/register_client"))).status_code, 200)
    async with report.check(f"{site.name}: bodies and heads as large as the gateway takes them"):
        padding = "x" * (MAX_BODY_BYTES - 1024)
        async with site.client() as http:
            equal((await http.post("/mcp", json=message("ping", padding=padding))).json()["result"], {})
            equal((await http.post("/mcp", json=message("ping", padding=padding + 2048 * "x"))).status_code, 413)
            equal((await http.post("/mcp", json=message("ping"), headers={"X-Padding": "x" * 40_000})).status_code, 200)
    async with report.check(f"{site.name}: without a token there is nothing"):
        async with site.client(Authorization="Bearer wrong") as http:
            answer = await http.post("/mcp", json=message("tools/list"))
            equal((answer.status_code, "www-authenticate" in answer.headers), (401, True))


async def registers(report: Report, site: Site) -> None:
    """Who registers is told apart by the address that the proxy reports."""
    async with report.check(f"{site.name}, letting them in: registrations count for the address it reports"):
        async with site.client() as http:

            async def register(address: str) -> int:
                return (await http.post("/register_client", headers={"X-Forwarded-For": address})).status_code

            equal([await register("198.51.100.7") for _ in range(11)], [200] * 10 + [429])
            # nginx passes on what it was told, with the address that it has seen behind it. That one is a trusted proxy
            # here, so that the one in front counts. Caddy believes only proxies that it was told of.
            equal(await register("203.0.113.9"), 200 if site.name == "nginx" else 429)


async def main(binary: Path) -> int:
    report = Report()
    with Processes() as processes:
        folder = processes.folder
        trust = certificate(folder)
        port, server = free_port(), free_port()
        server_url = f"http://127.0.0.1:{server}/mcp"
        config = CONFIG.format(token=TOKEN, server=server_url, host=HOST, alive=ALIVE_SECONDS)
        (folder / "config.toml").write_text(config)
        await processes.start_everything(server)
        gateway_command = [str(binary), "--config", str(folder / "config.toml"), "--port", str(port)]
        await processes.start("gateway", gateway_command, f"http://127.0.0.1:{port}/healthz")
        gateway = f"http://127.0.0.1:{port}/mcp"

        async def serve(name: str, lets_in: bool) -> Site:
            site = Site(name, free_port(), trust)
            own = folder / f"{name}-{lets_in}"
            own.mkdir()
            for file in ("site.pem", "site.key"):
                shutil.copy(folder / file, own)
            command = {"nginx": nginx, "caddy": caddy}[name](own, site.port, port, lets_in)
            # The site itself is waited for below: the certificate is not the system's.
            await processes.start(own.name, command, f"http://127.0.0.1:{port}/healthz")
            await until_up(site)
            return site

        sites = [await serve(name, False) for name in ("nginx", "caddy")]
        silent = [asyncio.create_task(idle_stream(report, site)) for site in sites]
        for site in sites:
            await passes(report, site, gateway)
            await rested_connection(report, site)
            await stops(report, site, gateway)
        await asyncio.gather(*silent)
        for site in sites:
            # Counts begin anew with the gateway, and those of one proxy must not be the other's.
            processes.stop("gateway")
            await processes.start("gateway", gateway_command, f"http://127.0.0.1:{port}/healthz")
            await registers(report, await serve(site.name, True))
        if report.failed:
            for name in processes.running:
                print(f"--- last lines of {name}\n{processes.log(name)[-2000:]}", file=sys.stderr)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed or not report.passed else 0


async def until_up(site: Site) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            async with site.client() as http:
                if (await http.get("/healthz")).status_code == 200:
                    return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{site.name} does not answer")
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]).resolve())))
