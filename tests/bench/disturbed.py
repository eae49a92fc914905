"""What failing servers cost everybody else: disturbed.py MCP-X FIXTURE-UPSTREAM

Three servers behind a gateway; clients call two of them all the time and list their tools, while the third is well, killed,
stopped in the middle of what it does (SIGSTOP, so that it accepts and never answers), and started again and again. Prints for
each phase the median and the 95th percentile of calls to the well servers and of `tools/list`, each with its ratio to the
quiet phase, and how many calls failed. Nothing is asserted about times; a failed call ends it with 1.
"""

import http.client
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

GATEWAY = 23980
SERVERS = {"well": 23981, "fine": 23982, "victim": 23983}
MODES = {"well": "sessions", "fine": "modern", "victim": "sessions"}
SECONDS, CALLERS = 6.0, 3
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


def wait_for(port: int) -> None:
    for _ in range(400):
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
            return
        except OSError:
            time.sleep(0.025)
    raise SystemExit(f"nobody listens at {port}")


class World:
    """The processes."""

    def __init__(self, gateway: str, fixture: str, folder: str) -> None:
        self.fixture = fixture
        self.servers = {name: self.serve(name) for name in SERVERS}
        config = Path(folder, "config.toml")
        tables = [
            f'[mcp_servers.{name}]\nurl = "http://127.0.0.1:{port}/mcp"\nfrom_client = "a"\ntool_prefix = "{name}_"\n'
            for name, port in SERVERS.items()
        ]
        config.write_text(f'[gateway]\nlisten = "127.0.0.1:{GATEWAY}"\n[clients.a]\nauth_token = "t"\n' + "".join(tables))
        self.gateway = subprocess.Popen([gateway, "--config", str(config), "--log", "error"])
        wait_for(GATEWAY)

    def serve(self, name: str) -> subprocess.Popen[bytes]:
        command = [self.fixture, "--mode", MODES[name], "--port", str(SERVERS[name])]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(SERVERS[name])
        return process

    def signal_victim(self, number: int) -> None:
        self.servers["victim"].send_signal(number)

    def kill_victim(self) -> None:
        self.servers["victim"].kill()
        self.servers["victim"].wait()

    def revive_victim(self) -> None:
        self.servers["victim"] = self.serve("victim")

    def end(self) -> None:
        for process in [self.gateway, *self.servers.values()]:
            process.kill()
            process.wait()


def ask(connection: http.client.HTTPConnection, body: dict[str, object]) -> tuple[float, dict[str, object]]:
    """Seconds until the response, and the response."""
    headers = {"Authorization": "Bearer t", "Content-Type": "application/json"}
    begun = time.perf_counter()
    connection.request("POST", "/mcp", json.dumps(body), headers)
    answer = connection.getresponse().read()
    return time.perf_counter() - begun, json.loads(answer)


def call(tool: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {"a": 1}}}


def load(until: float, message: dict[str, object], times: list[float], failures: list[object]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", GATEWAY, timeout=30)
    while time.monotonic() < until:
        took, answer = ask(connection, message)
        times.append(took)
        if "result" not in answer:
            failures.append(answer)


def keep_calling(until: float) -> None:
    """Calls the victim itself, whatever comes of it."""
    while time.monotonic() < until:
        try:
            ask(http.client.HTTPConnection("127.0.0.1", GATEWAY, timeout=0.5), call("victim_echo"))
        except OSError:
            pass
        time.sleep(0.01)


def phase(disturb: Callable[[float], None]) -> tuple[list[float], list[float], list[object]]:
    until = time.monotonic() + SECONDS
    calls: list[float] = []
    lists: list[float] = []
    failures: list[object] = []
    jobs = [(call(f"{name}_echo"), calls) for name in ("well", "fine") for _ in range(CALLERS)] + [(LIST, lists)]
    threads = [threading.Thread(target=load, args=(until, message, times, failures)) for message, times in jobs]
    threads += [threading.Thread(target=keep_calling, args=(until,)), threading.Thread(target=disturb, args=(until,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return calls, lists, failures


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        world = World(sys.argv[1], sys.argv[2], folder)

        def restart(until: float) -> None:
            while time.monotonic() < until:
                time.sleep(0.5)
                world.kill_victim()
                world.revive_victim()

        phases: list[tuple[str, Callable[[], object], Callable[[float], None]]] = [
            ("quiet", lambda: time.sleep(2), lambda until: None),
            ("killed", world.kill_victim, lambda until: None),
            ("back again", world.revive_victim, lambda until: None),
            ("hanging", lambda: world.signal_victim(signal.SIGSTOP), lambda until: None),
            ("going on", lambda: world.signal_victim(signal.SIGCONT), lambda until: None),
            ("restarted twice a second", lambda: None, restart),
        ]
        base: tuple[float, ...] | None = None
        failed = 0
        try:
            for name, begin, disturb in phases:
                begin()
                calls, lists, failures = phase(disturb)
                figures = tuple(
                    figure(times) * 1000
                    for times in (calls, lists)
                    for figure in (statistics.median, lambda times: sorted(times)[int(len(times) * 0.95)])
                )
                base = base or figures
                cells = (f"{figure:.2f} ms ({figure / quiet:.2f})" for figure, quiet in zip(figures, base, strict=True))
                print(f"{name}: " + ", ".join(f"{what} {cell}" for what, cell in zip(("call p50", "p95", "list p50", "p95"), cells)), end="")
                print(f"; {len(calls)} calls, {len(failures)} failed", *failures[:1])
                failed += len(failures)
        finally:
            world.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
