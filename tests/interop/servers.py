"""One MCP server for the gateway to stand in front of: servers.py KIND PORT.

KIND is <package>-<state>-<answers>, for example `fastmcp-sessions-sse`:
  package  `fastmcp` (the FastMCP package on the SDK 1.x), `fastmcp4` (the one on the SDK 2.x, which speaks the
           stateless revision too), `sdk` (the server inside the official SDK 1.x) or `sdk2` (the one inside 2.x)
  state    `sessions` (it issues Mcp-Session-Id) or `stateless`
  answers  `sse` (every answer is an event stream) or `json`
"""

import asyncio
import itertools
import sys
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary


class Kind(NamedTuple):
    """A way to run a server."""

    package: str
    state: str
    answers: str

    def __str__(self) -> str:
        return "-".join(self)


KINDS = [Kind(*parts) for parts in itertools.product(("fastmcp", "sdk"), ("sessions", "stateless"), ("sse", "json"))]
MODERN = Kind("fastmcp4", "sessions", "sse")
# The packages that run on the SDK 2.x.
ON_SDK_2 = {"fastmcp4", "sdk2"}

# What every kind offers, in this order.
TOOLS = ["add", "greet", "fail", "slow", "whoami", "secret_delete"]

# `slow` reports progress this often, this many seconds apart.
STEPS = 3
STEP_SECONDS = 0.1


def add_tools(server: Any, context: Any) -> None:
    """Gives `server` the tools; `context` is the class by which its package recognises the context argument."""
    numbers = itertools.count(1)
    sessions: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def greet(name: str) -> str:
        """Greets somebody."""
        return f"Hello, {name}!"

    @server.tool()
    def fail(reason: str) -> str:
        """Fails."""
        raise ValueError(reason)

    @server.tool()
    async def slow(ctx: context) -> str:
        """Takes its time, and reports and logs each step."""
        for step in range(1, STEPS + 1):
            await asyncio.sleep(STEP_SECONDS)
            await ctx.report_progress(step, STEPS)
            await ctx.info(f"step {step}")
        await asyncio.sleep(STEP_SECONDS)
        return "done"

    @server.tool()
    def whoami(ctx: context) -> str:
        """Tells which session of this server the caller is in, and how many times it has asked there."""
        number, calls = sessions.setdefault(ctx.session, (next(numbers), itertools.count(1)))
        return f"session {number}, call {next(calls)}"

    @server.tool()
    def secret_delete() -> str:
        """Must never be reached by anybody but its owner."""
        return "deleted"


# Each package is imported only where it is served: importing takes most of the start, and the other need not be there.
def serve_fastmcp(port: int, stateless: bool, json: bool) -> None:
    import fastmcp

    server = fastmcp.FastMCP("interop")
    add_tools(server, fastmcp.Context)
    address: dict[str, Any] = {"port": port, "path": "/mcp"}
    server.run("http", **address, stateless_http=stateless, json_response=json, show_banner=False, log_level="WARNING")


def serve_sdk(port: int, stateless: bool, json: bool) -> None:
    import mcp.server.fastmcp as sdk

    server = sdk.FastMCP("interop", port=port, stateless_http=stateless, json_response=json, log_level="WARNING")
    add_tools(server, sdk.Context)
    server.run("streamable-http")


def serve_sdk2(port: int, stateless: bool, json: bool) -> None:
    import mcp.server.mcpserver as sdk

    # The traceback of every tool that fails would take a second to print.
    server = sdk.MCPServer("interop", log_level="CRITICAL")
    add_tools(server, sdk.Context)
    server.run("streamable-http", port=port, stateless_http=stateless, json_response=json)


if __name__ == "__main__":
    kind = Kind(*sys.argv[1].split("-"))
    serve = {"sdk": serve_sdk, "sdk2": serve_sdk2}.get(kind.package, serve_fastmcp)
    serve(int(sys.argv[2]), kind.state == "stateless", kind.answers == "json")
