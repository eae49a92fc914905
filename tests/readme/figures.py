"""Prints what a stranger asks first of a gateway: figures.py MCP-X

Time from the start to the first answered request (median of several starts), and resident memory when idle.
"""

import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTS = 9
CONFIG = '[clients.alice]\nauth_token = "123"\n[gateway]\nlisten = "127.0.0.1:{port}"\n'
LIST = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'


def answered(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/mcp", LIST, {"Authorization": "Bearer 123", "Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False


def start(binary: str, folder: str, port: int) -> tuple[float, int]:
    """Milliseconds to the first answer, and KiB resident half a second later."""
    config = Path(folder, "config.toml")
    config.write_text(CONFIG.format(port=port))
    begun = time.monotonic()
    process = subprocess.Popen([binary, "--config", str(config), "--log", "error"])
    try:
        while not answered(port):
            if process.poll() is not None:
                raise SystemExit("the gateway did not start")
            time.sleep(0.0002)
        took = time.monotonic() - begun
        time.sleep(0.5)
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return took * 1000, int(resident.split()[1])
    finally:
        process.terminate()
        process.wait(10)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = [start(sys.argv[1], folder, 23900 + i) for i in range(STARTS)]
    print(f"start to first answer: {statistics.median(ms for ms, _ in runs):.1f} ms (median of {STARTS})")
    print(f"resident when idle: {statistics.median(kib for _, kib in runs) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
