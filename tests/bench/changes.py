"""How long a change over REST takes, on a small file and on a large one: changes.py MCP-X

A change is answered when it is on the disk and in force, so its time is that of reading, editing, checking, storing and
publishing the whole configuration. For each file: one change at a time, then 16 clients side by side, whose changes are
stored together. Nothing is asserted; it prints medians, 95th percentiles and the gateway's peak memory.
"""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PORT = 23990
SMALL, LARGE = (3, 2), (10_000, 1_000)
ALONE, TOGETHER = 30, 16


def configuration(clients: int, servers: int) -> Iterator[str]:
    yield f'[gateway]\nlisten = "127.0.0.1:{PORT}"\nmax_registrations_per_minute = 1000000\n'
    for client in range(clients):
        yield f'[clients.client_{client}]\nauth_token = "token-{client}"\n'
    for server in range(servers):
        # Nothing listens there; what is measured is the configuration.
        yield f'[mcp_servers.server_{server}]\nurl = "http://127.0.0.1:1/mcp"\nfrom_client = "client_{server}"\n'
        yield f"[allow.server_{server}]\n"
        yield from (f'client_{(server * 7 + n * 13) % clients} = ["tool_{n}", "read_*"]\n' for n in range(min(10, clients - 1)))


def change(turn: int) -> float:
    """Seconds that one grant took."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    body = json.dumps({"client_id": "client_1", "server_access": {"server_0": [f"changed_{turn}"]}})
    headers = {"Authorization": "Bearer token-0", "Content-Type": "application/json"}
    begun = time.monotonic()
    connection.request("POST", "/update_access_control", body, headers)
    answer = connection.getresponse()
    took = time.monotonic() - begun
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {answer.read().decode()}")
    return took


def side_by_side(rounds: int) -> tuple[list[float], float]:
    """The seconds of every change of `TOGETHER` threads, and of all of them."""
    times: list[float] = []
    threads = [threading.Thread(target=lambda: times.extend(change(turn) for turn in range(rounds))) for _ in range(TOGETHER)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, time.monotonic() - begun


def show(name: str, times: list[float]) -> str:
    p95 = sorted(times)[int(len(times) * 0.95)]
    return f"{name}: median {statistics.median(times) * 1000:.1f} ms, p95 {p95 * 1000:.1f} ms"


def measure(binary: str, clients: int, servers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.toml")
        config.write_text("".join(configuration(clients, servers)))
        process = subprocess.Popen([binary, "--config", str(config), "--log", "error"])
        try:
            for _ in range(1000):
                time.sleep(0.05)
                try:
                    change(-1)
                    break
                except OSError:
                    pass
            alone = [change(turn) for turn in range(ALONE)]
            together, seconds = side_by_side(4)
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
            process.wait(30)
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        print(f"{clients} clients, {servers} servers, {config.stat().st_size} bytes, peak {peak // 1024} MiB")
        print(f"  {show('one at a time', alone)}")
        print(f"  {show(f'{TOGETHER} side by side', together)}, {len(together) / seconds:.0f} changes a second")


def main() -> None:
    for clients, servers in (SMALL, LARGE):
        measure(sys.argv[1], clients, servers)


if __name__ == "__main__":
    main()
