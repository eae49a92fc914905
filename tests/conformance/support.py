"""What the legs of the suite have in common: the suite itself, and a gateway in front of one server."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The one place where the version stands.
SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
# It wants a newer node than some systems have.
NPX = ["npx", "-y", "-p", "node@22", "-p", SUITE, "conformance"]
TOKEN = "conformance-token-0123456789"
CONFIG = '[clients.suite]\nauth_token = "{token}"\n\n[mcp_servers.fixture]\nurl = "{url}"\nfrom_client = "suite"\n'
START_SECONDS = 20

# Where what is expected not to pass is listed, and where everything that a run leaves behind goes.
LIST = Path(__file__).with_name("expected-failures.toml")
RESULTS = Path(os.environ["CONFORMANCE_CACHE"]) / "results"

# Worst first: what a check that is reported several times counts as.
ABSENT = "absent"
STATUSES = ["FAILURE", ABSENT, "SKIPPED", "WARNING", "SUCCESS", "INFO"]
PASSED = {"SUCCESS", "INFO"}


@contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to `log`, and ends with the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for_text(pattern: str, log: Path, running: subprocess.Popen[bytes]) -> str:
    """Waits until the process has written something that fits; its first group."""
    deadline = time.monotonic() + START_SECONDS
    while not (found := re.search(pattern, log.read_text(errors="replace"))):
        if running.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log} has no {pattern!r}:\n{log.read_text(errors='replace')}")
        time.sleep(0.02)
    return found.group(1)


@contextmanager
def gateway(binary: Path, url: str, folder: Path) -> Iterator[int]:
    """A gateway in front of the server at `url`; its port. What it must never do is looked for when it has ended."""
    config, log = folder / "config.toml", folder / "gateway.log"
    config.write_text(CONFIG.format(token=TOKEN, url=url))
    command = [str(binary), "--config", str(config), "--listen", "127.0.0.1:0", "--log", "debug"]
    with process(command, log) as running:
        yield int(wait_for_text(r" listening address=\S+:(\d+)", log, running))
    assert running.returncode == 0, f"the gateway ended with {running.returncode}"
    for never in (TOKEN, "panicked"):
        assert never not in log.read_text(errors="replace"), f"{never!r} is in {log}"


async def conformance(*arguments: str, log: Path, **environment: str) -> str:
    """Runs the suite's own program; what it says."""
    running = await asyncio.create_subprocess_exec(
        *NPX,
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    output, _ = await running.communicate()
    log.write_bytes(output)
    return output.decode(errors="replace")
