"""Runs every command of README.md, in order, and compares what it prints: run.py PYTHON

A block of `sh` or `python` is run; a block of `json` or `text` right after it is what it must print. A command that does not
end by itself (the demo, the gateway) runs in the background until the next such command. A block of `toml` must stand in
config.example.toml. PYTHON is an interpreter that has the `mcp` package. The last line is `N passed, N failed`.
"""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
# Run by a leg of .ci/run of its own.
ELSEWHERE = {"cargo test\n"}
# Commands that run until they are stopped.
ENDLESS = re.compile(r"-- (demo|--config .*)$")
UP = "http://127.0.0.1:9000/healthz"


class Background:
    """The one command that is running in the background, if there is one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: str) -> None:
        self.stop()
        self.process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=ROOT)
        deadline = time.monotonic() + 900  # the first one builds
        while not is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the gateway did not come up")
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(15)
        self.process = None
        if status != 0:
            raise RuntimeError(f"the gateway ended with {status}")


def is_up() -> bool:
    try:
        with urllib.request.urlopen(UP, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def check(kind: str, text: str, expected: str | None, background: Background, python: str) -> str | None:
    """Runs one block; what is wrong with it, or None."""
    if kind == "toml":
        missing = text not in (ROOT / "config.example.toml").read_text()
        return "does not stand in config.example.toml" if missing else None
    if ENDLESS.search(text.strip()):
        background.start(text.strip())
        return None
    command = [python, "-c", text] if kind == "python" else ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        return f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"
    if expected is not None and done.stdout.strip() != expected.strip():
        return f"expected {expected.strip()!r}, found {done.stdout.strip()!r}"
    return None if done.stdout.strip() else "printed nothing"


def main() -> int:
    whole = (ROOT / "README.md").read_text()
    blocks = [(m.group(1), m.group(2), m.end(), m.start()) for m in BLOCK.finditer(whole)]
    background, passed, failed = Background(), 0, 0
    try:
        for (kind, text, end, _), after in zip(blocks, [*blocks[1:], None], strict=True):
            if kind not in {"sh", "python", "toml"} or text in ELSEWHERE:
                continue
            follows = after is not None and after[0] in {"json", "text"} and not whole[end : after[3]].strip()
            wrong = check(kind, text, after[1] if follows and after else None, background, sys.argv[1])
            passed, failed = passed + (wrong is None), failed + (wrong is not None)
            print(f"{'ok  ' if wrong is None else 'FAIL'} {kind}: {text.splitlines()[0][:90]}", flush=True)
            if wrong:
                print(f"     {wrong}", flush=True)
    finally:
        background.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
