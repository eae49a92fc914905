"""What the benchmarks run in: the programs, their configurations, and the load. Used by `compare` and `counts`.

Everything listens on loopback, ports 23200-23299, and runs on one processor core: no wake-up crosses cores, so that
figures repeat within a few per cent even on a busy machine. Only processes started here are ever signalled.
"""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import date
from pathlib import Path
from typing import NoReturn, Self

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"
TOKEN = "123"
PORTS = range(23200, 23300)
START_SECONDS = 60

NGINX = """
daemon off; master_process on; pid {folder}/nginx.pid; error_log {folder}/nginx.error;
worker_processes 1; worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
  access_log off; server_tokens off; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_buffer_size 128k; client_max_body_size 16m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server {upstream}; keepalive 1024; keepalive_requests 100000000; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 600s;
      proxy_buffers 32 16k; proxy_buffer_size 16k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0;
    }}
  }}
}}
"""


class Wrong(Exception):
    """Something that was measured did not do what it should."""


def give_up(message: str) -> NoReturn:
    """Ends the program: it cannot run here."""
    print(message, file=sys.stderr)
    sys.exit(2)


def need(program: str, package: str) -> None:
    if not shutil.which(program) and not Path("/usr/sbin", program).exists():
        give_up(f"`{program}` is not installed\nhint: apt-get install -y {package}")


def build(gateway: Path) -> None:
    """Builds the floor and the kit; the gateway has to be there."""
    command = ["cargo", "build", "--locked", "--release", "-p", "mcp-x-floor", "-p", "mcp-x-bench"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        give_up(f"cannot build the floor and the kit: `{' '.join(command)}` failed")
    if not os.access(gateway, os.X_OK) or gateway.is_dir():
        give_up(f"no gateway at {gateway}\nhint: cargo build --locked --release, or name another with --gateway")


def machine() -> str:
    """The machine, the date and the commit, in a line."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}; {date.today()}; commit {commit}"


class Process:
    """A running program; its name is what messages call it."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("wb") as file:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def pids(self) -> list[int]:
        """Its own, and those of its children (nginx: the master and its worker)."""
        own = self.child.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    def resident(self) -> int:
        """KiB of resident memory of the whole."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids()]
        return sum(int(line.split()[1]) for text in statuses for line in text.splitlines() if line.startswith("VmRSS"))

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Target(Process):
    """A process that serves MCP at `url`."""

    def __init__(self, name: str, command: list[str], log: Path, port: int) -> None:
        super().__init__(name, command, log)
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return answer.read()

    def wait(self, path: str | None) -> Self:
        """Waits until it accepts connections, and until `path` answers 200 if one is given."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.child.poll() is None:
            try:
                if path:
                    self.get(path)
                else:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.01)
        tail = self.log.read_text(errors="replace")[-500:]
        raise Wrong(f"{self.name}: expected it to serve port {self.port} within {START_SECONDS} s, found:\n{tail}")


class World:
    """Starts programs, and ends what still runs when it is left."""

    def __init__(self, gateway: Path) -> None:
        self.binary = gateway.resolve()
        self.folder = Path(tempfile.mkdtemp(prefix="mcp-x-bench-"))
        self.running: list[Process] = []
        self.ports = iter(PORTS)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.running):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def port(self) -> int:
        for port in self.ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if probe.connect_ex(("127.0.0.1", port)):
                    return port
        give_up(f"no port between {PORTS[0]} and {PORTS[-1]} is free")

    def start(self, name: str, command: list[object], port: int, path: str | None = None) -> Target:
        words = [str(word) for word in command]
        target = Target(name, words, self.folder / f"{port}.log", port)
        self.running.append(target)
        return target.wait(path)

    def stop(self, process: Process) -> None:
        self.running.remove(process)
        process.stop()

    def upstream(self, era: str = "dual", servers: int = 1, tools: int = 10) -> Target:
        port = self.port()
        command = [BUILT / "bench-upstream", "--port", port, "--era", era, "--servers", servers, "--tools", tools]
        return self.start("bench-upstream", command, port, "/stats")

    def nginx(self, upstream: Target) -> Target:
        port = self.port()
        folder = self.folder / f"nginx-{port}"
        folder.mkdir()
        os.chmod(self.folder, 0o755)
        config = NGINX.format(folder=folder, upstream=f"127.0.0.1:{upstream.port}", port=port)
        (folder / "nginx.conf").write_text(config)
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        target = self.start("nginx", [program, "-p", folder, "-c", folder / "nginx.conf"], port)
        while len(target.pids()) < 2:
            time.sleep(0.01)
        return target

    def floor(self, upstream: Target, under: list[object] = []) -> Target:
        port = self.port()
        addresses = ["--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{upstream.port}"]
        return self.start("floor", [*under, BUILT / "mcp-x-floor", *addresses, "--token", TOKEN], port)

    def gateway(self, upstream: Target, era: str, servers: int = 1, under: list[object] = []) -> Target:
        """The gateway with the first `servers` servers of an upstream, all of them pinned to an era."""
        port = self.port()
        folder = self.folder / f"gateway-{port}"
        folder.mkdir()
        config = [f'[clients.alice]\nauth_token = "{TOKEN}"\n']
        for i in range(servers):
            url = f"http://127.0.{i // 250}.{i % 250 + 1}:{upstream.port}/mcp"
            config.append(f'[mcp_servers.server_{i}]\nurl = "{url}"\nfrom_client = "alice"\nprotocol = "{era}"\n')
        (folder / "config.toml").write_text("\n".join(config))
        options = ["--config", folder / "config.toml", "--port", port, "--threads", 1, "--log", "info"]
        return self.start("gateway", [*under, self.binary, *options], port, "/readyz")


def load(target: Target, *, era: str, kind: str, **options: object) -> dict[str, float]:
    """Lets `bench-load` ask `target`; options are its flags. Every answer was right, or this raises `Wrong`.

    Gives: `requests`, `seconds`, `p50_us`, `p99_us`, and `cpu_us`, the target's processor time per request.
    """
    pids = ",".join(map(str, target.pids()))
    flags = {"url": target.url, "token": TOKEN, "era": era, "kind": kind, "cpu": pids, **options}
    command = [str(BUILT / "bench-load"), *(str(word) for flag, value in flags.items() for word in (f"--{flag}", value))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    what = f"{target.name}: {kind}, {era} client ({' '.join(f'{flag} {value}' for flag, value in options.items())})"
    if ran.returncode:
        raise Wrong(f"{what}: {ran.stderr.strip()}")
    report = json.loads(ran.stdout)
    if report["errors"] or not report["requests"]:
        raise Wrong(f"{what}: {report['errors']} wrong answers; the first: {report['first_error']}")
    report["cpu_us"] = report["cpu_ns"] / 1e3 / report["requests"]
    return report


def one_core() -> None:
    """Binds this process, and all that it will start, to one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def has_tools(target: Target, era: str, tools: int) -> None:
    """Waits until the target lists all its tools."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            load(target, era=era, kind="list", size=tools, count=1, warmup=0)
            return
        except Wrong:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
