"""Who is who: the clients, the servers, the grants between them, and what a check does with a session."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import ClientSession, McpError
from mcp.types import INVALID_PARAMS, CallToolResult, TextContent
from servers import TOOLS, Kind
from support import EVERYTHING, Processes, Report, connect, equal

# Whose servers these are: `tester` owns one of every kind, alice and bob one each of the kind that remembers most.
SERVER_A = Kind("fastmcp", "sessions", "sse")
SERVER_B = Kind("sdk", "sessions", "sse")
PRINCIPALS = ["tester", "alice", "bob", "charlie", "dave"]

CHARLIE_AT_A = 'charlie = ["add", "g*"]'
DAVE_AT_A = 'dave = ["add"]'
CHARLIE_AT_B = [f"b_{name}" for name in TOOLS if name != "secret_delete"]

# Who sees what, in this order: owned servers first, then granted ones.
VISIBLE = {
    "alice": TOOLS,
    "bob": [*(f"b_{name}" for name in TOOLS), "greet", "whoami"],
    "charlie": ["add", "greet", *CHARLIE_AT_B],
    "dave": [],
}


def token(client: str) -> str:
    """The bearer token of client `client`."""
    return f"interop-token-of-{client}-0123456789"


@dataclass
class World:
    """What the legs work in: the servers run, the gateway runs, and `config` may be rewritten."""

    report: Report
    processes: Processes
    binary: Path
    fixture: Path
    config: Path
    gateway: str
    server_ports: dict[Kind, int]
    everything: str

    def client(self, name: str, **callbacks: Any) -> Any:
        """A session of client `name` at the gateway."""
        return connect(self.gateway, token(name), **callbacks)

    def direct(self, kind: Kind) -> Any:
        """A session at a server, past the gateway: what the gateway's answers are compared with."""
        return connect(self.server_url(kind))

    def server_url(self, kind: Kind) -> str:
        return f"http://127.0.0.1:{self.server_ports[kind]}/mcp"

    def shown(self, process: str, clients: list[str]) -> list[str]:
        """What must not be in the log of a gateway, and is: a token of these clients, a panic."""
        log = self.processes.log(process)
        return [secret for secret in [*map(token, clients), "panicked"] if secret in log]

    def config_text(self, *grants_at_a: str) -> str:
        """The configuration, with these grants at server_a beside bob's."""
        lines = [*map(client_table, PRINCIPALS)]
        lines += [
            server_table("server_a", self.server_url(SERVER_A), "alice", ""),
            server_table("server_b", self.server_url(SERVER_B), "bob", "b_"),
            server_table(EVERYTHING, self.everything, "tester", f"{EVERYTHING}_"),
        ]
        lines += [server_table(str(kind), self.server_url(kind), "tester", f"{kind}_") for kind in self.server_ports]
        lines += ["[allow.server_a]", 'bob = ["greet", "whoami"]', *grants_at_a]
        lines += ["[allow.server_b]", 'charlie = { tools = ["*"], deny = ["secret_*"] }']
        lines += ["[gateway]", "allow_private_upstreams = true", ""]
        return "\n".join(lines)


def client_table(name: str) -> str:
    return f'[clients.{name}]\nauth_token = "{token(name)}"'


def server_table(name: str, url: str, owner: str, prefix: str) -> str:
    return f'[mcp_servers.{name}]\nurl = "{url}"\nfrom_client = "{owner}"\ntool_prefix = "{prefix}"'


def text(result: CallToolResult) -> str:
    """The text of a result that must be one piece of text and no error."""
    match result.content:
        case [TextContent(text=found)] if not result.isError:
            return found
    raise AssertionError(f"expected a text, found {result!r}")


async def names(session: ClientSession) -> list[str]:
    return [tool.name for tool in (await session.list_tools()).tools]


async def refused(session: ClientSession, tool: str) -> None:
    """Checks that `tool` is to this client as if it did not exist."""
    try:
        result = await session.call_tool(tool, {})
    except McpError as error:
        equal((error.error.code, error.error.message), (INVALID_PARAMS, f"unknown tool: `{tool}`"))
    else:
        raise AssertionError(f"expected an error, found {result!r}")


async def within(seconds: float, attempt: Callable[[], Awaitable[None]]) -> None:
    """Repeats `attempt` until it passes; its last failure counts."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await attempt()
        except (AssertionError, McpError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)
