"""What the checks stand on: processes that always end, the gateway, clients, and the table of results."""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from mcp import ClientSession
from mcp.client.session import LoggingFnT, MessageHandlerFnT
from mcp.client.streamable_http import streamable_http_client
from servers import ON_SDK_2, Kind

HERE = Path(__file__).parent
CACHE = Path(os.environ["INTEROP_CACHE"])
PYTHON_2 = str(CACHE / "venv-2/bin/python")
START_SECONDS = 40


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether something speaks HTTP at `url`, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except urllib.error.HTTPError:
        pass
    except OSError:
        return False
    return True


async def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Polls until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} after {seconds} s")
        await asyncio.sleep(0.05)


class Processes:
    """Everything that was started, each with a log file; all of it is killed at the end, whatever the reason."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mcp-x-interop-"))
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        # Ends like Ctrl-C, so that `__exit__` runs.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()
        shutil.rmtree(self.folder)

    def log(self, name: str) -> str:
        """What process `name` has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    async def start(self, name: str, command: list[str], url: str) -> None:
        """Starts a process and waits until it answers at `url`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        self.running[name] = process

        def up() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{self.log(name)}")
            return answers(url)

        await wait_for(up, f"{name} does not answer at {url}", START_SECONDS)

    def stop(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Ends a process and gives its exit code."""
        process = self.running[name]
        process.send_signal(how)
        code = process.wait(timeout=15)
        del self.running[name]
        return code

    async def start_server(self, kind: Kind, port: int) -> None:
        """Starts an MCP server."""
        python = PYTHON_2 if kind.package in ON_SDK_2 else sys.executable
        command = [python, "-B", str(HERE / "servers.py"), str(kind), str(port)]
        await self.start(str(kind), command, f"http://127.0.0.1:{port}/mcp")

    async def start_everything(self, port: int) -> None:
        """Starts the example server of the TypeScript SDK."""
        script = CACHE / "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
        command = ["env", f"PORT={port}", "node", str(script), "streamableHttp"]
        await self.start(EVERYTHING, command, f"http://127.0.0.1:{port}/mcp")


class Report:
    """The table of results, printed row by row."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    @asynccontextmanager
    async def check(self, name: str, seconds: float = 20) -> AsyncIterator[None]:
        """Runs its block as one check: any exception, or taking too long, is a failure; the next check goes on."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                yield
        except Exception as error:
            self.failure(name, error)
        else:
            self.passed += 1
            print(f"{name:.<90} ok   {time.monotonic() - started:5.2f} s", flush=True)

    def failure(self, name: str, error: Exception) -> None:
        """Notes what went wrong."""
        self.failed += 1
        print(f"{name:.<90} FAIL", *(f"    {leaf!r}" for leaf in leaves(error)), sep="\n", flush=True)


def leaves(error: BaseException) -> list[BaseException]:
    """The errors that were really raised: task groups wrap theirs in groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def equal(found: object, expected: object) -> None:
    """Fails, saying both, unless they are equal."""
    assert found == expected, f"expected {expected!r}, found {found!r}"


@asynccontextmanager
async def connect(
    url: str,
    token: str | None = None,
    on_log: LoggingFnT | None = None,
    on_message: MessageHandlerFnT | None = None,
    host: str | None = None,
    verify: ssl.SSLContext | bool = True,
) -> AsyncIterator[ClientSession]:
    """An initialised session of the official SDK, perhaps under another name of the host; leaving it sends DELETE."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Host": host} if host else {}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(headers=headers, timeout=30, verify=verify))
        read, write, _ = await stack.enter_async_context(streamable_http_client(url, http_client=http))
        session = ClientSession(read, write, logging_callback=on_log, message_handler=on_message)
        await stack.enter_async_context(session)
        await session.initialize()
        yield session


# Calls to make: arguments by name of the tool.
Calls = dict[str, dict[str, Any]]

# The example server of the TypeScript SDK, and calls that give the same answer every time.
EVERYTHING = "everything"
EVERYTHING_CALLS: Calls = {
    "echo": {"message": "\u00e9\u2028\U0001f600"},
    "get-sum": {"a": 2, "b": 3},
    "trigger-long-running-operation": {"duration": 1, "steps": 3},
    "get-structured-content": {"location": "Chicago"},
    "get-tiny-image": {},
}

NEWEST, LAST_LEGACY, OLD = "2026-07-28", "2025-11-25", "2025-03-26"
MODULES = str(CACHE / "node")
NODE_MODULES = CACHE / "node/node_modules"


@dataclass(frozen=True)
class Program:
    """A client that runs on its own."""

    command: list[str]
    # The revision on which it has to agree with the gateway.
    revision: str
    # The members of its job that are its alone.
    job: dict[str, Any] = field(default_factory=dict)
    # What it has no way to show, with any server: names of parts of the matrix.
    cannot: tuple[str, ...] = ()


def python(interpreter: str, script: str, revision: str, **job: str) -> Program:
    return Program([interpreter, "-B", str(HERE / "clients" / script)], revision, job)


def typescript(revision: str, cannot: tuple[str, ...] = (), **job: str) -> Program:
    command = ["node", str(HERE / "clients/typescript.mjs")]
    return Program(command, revision, {"modules": MODULES, **job}, cannot)


def rust(revision: str, mode: str) -> Program:
    return Program([str(CACHE / "rmcp/debug/interop-rmcp")], revision, {"mode": mode})


# The Inspector wants this Node.
INSPECTOR = [
    os.environ.get("NODE_22", "node"),
    str(NODE_MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"),
]
REMOTE = ["node", str(NODE_MODULES / "mcp-remote/dist/proxy.js")]
PYTHON_1, PYTHON_OLD = sys.executable, str(CACHE / "venv-old/bin/python")

CLIENTS: dict[str, Program] = {
    "python-1-old": python(PYTHON_OLD, "python1.py", OLD),
    "python-1": python(PYTHON_1, "python1.py", LAST_LEGACY),
    "python-2": python(PYTHON_2, "python2.py", NEWEST, mode="auto"),
    "python-2-pinned": python(PYTHON_2, "python2.py", NEWEST, mode=NEWEST),
    "python-2-legacy": python(PYTHON_2, "python2.py", LAST_LEGACY, mode="legacy"),
    "fastmcp-3": python(PYTHON_1, "fastmcp_client.py", LAST_LEGACY),
    "fastmcp-4": python(PYTHON_2, "fastmcp_client.py", NEWEST, mode="auto"),
    "typescript-old": typescript(OLD, package="sdk-old"),
    "typescript": typescript(LAST_LEGACY, package="@modelcontextprotocol/sdk"),
    "typescript-2": typescript(NEWEST, mode="auto"),
    "typescript-2-pinned": typescript(NEWEST, mode=NEWEST),
    "typescript-2-legacy": typescript(LAST_LEGACY, mode="legacy"),
    "rmcp": rust(NEWEST, "auto"),
    "rmcp-legacy": rust(LAST_LEGACY, "legacy"),
    "inspector": Program(
        [PYTHON_1, "-B", str(HERE / "clients/inspector.py")], LAST_LEGACY, {"command": INSPECTOR}, ("progress",)
    ),
    "mcp-remote": Program([PYTHON_1, "-B", str(HERE / "clients/remote.py")], LAST_LEGACY, {"command": REMOTE}),
}


@dataclass
class Seen:
    """What such a client saw of one session."""

    # None: the client does not tell.
    version: str | None = ""
    tools: list[str] = field(default_factory=list)
    # By tool: `code` and `message` of an error, or `error`, `text`, `structured`, `progress` and the `times` of that
    # and of the end.
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    logged: list[Any] = field(default_factory=list)
    # Why there was no session.
    refused: str | None = None
    # What the tools' names begin with; they are listed with it.
    prefix: str = ""


@dataclass
class Wanted:
    """One session that such a client is to have: with the tools that begin with `prefix`."""

    token: str | None
    prefix: str
    calls: Calls


async def run_client(name: str, url: str, token: str | None, calls: Calls, prefix: str = "") -> Seen:
    """Runs one session of client `name`: lists the tools that begin with `prefix`, and makes `calls`."""
    [seen] = await run_sessions(name, url, [Wanted(token, prefix, calls)])
    assert seen.refused is None, f"{name} was refused: {seen.refused}"
    return seen


async def run_sessions(name: str, url: str, sessions: list[Wanted], trusted: Path | None = None) -> list[Seen]:
    """Runs sessions of client `name`, one after the other, in one process, which trusts the certificates in that file."""
    program = CLIENTS[name]
    job = {"url": url, "sessions": [asdict(wanted) for wanted in sessions], **program.job}
    trust = {"SSL_CERT_FILE": str(trusted), "NODE_EXTRA_CA_CERTS": str(trusted)} if trusted else {}
    return [Seen(**seen) for seen in await run_job(name, program.command, job, trust)]


async def run_job(
    name: str, command: list[str], job: dict[str, Any], more: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Runs a client's program with a job and `more` environment; what it printed of each session."""
    process = await asyncio.create_subprocess_exec(
        *command, json.dumps(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(more or {})}
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{name} ended with {process.returncode}: {errors.decode()[-4000:]}"
    printed: list[dict[str, Any]] = json.loads(output)
    return printed
