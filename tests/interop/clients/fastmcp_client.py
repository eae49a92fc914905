"""Sessions of FastMCP's own client, of either line: fastmcp_client.py JOB

`sessions` says what JOB is; on the SDK 2.x it has a `mode` too: `auto`, `legacy` or a revision.
"""

from collections.abc import Awaitable
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from sessions import OnProgress, run, watched

try:
    from httpx2 import HTTPStatusError
    from mcp import MCPError as Failure
except ImportError:
    from httpx import HTTPStatusError
    from mcp import McpError as Failure


async def call(client: Any, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    def ask(on_progress: OnProgress) -> Awaitable[Any]:
        return client.call_tool(name, arguments, progress_handler=on_progress, raise_on_error=False)

    def seen(result: Any) -> dict[str, Any]:
        text = getattr(result.content[0], "text", "")
        return {"error": result.is_error, "text": text, "structured": result.structured_content}

    return await watched(ask, seen, Failure)


async def session(url: str, token: str | None, prefix: str, calls: dict[str, Any], **mode: str) -> dict[str, Any]:
    logged: list[Any] = []

    async def on_log(message: Any) -> None:
        logged.append(message.data)

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with Client(StreamableHttpTransport(url, headers=headers), log_handler=on_log, **mode) as client:
        agreed = getattr(client, "protocol_version", None)
        version = agreed or client.initialize_result.protocolVersion
        names = [tool.name for tool in await client.list_tools() if tool.name.startswith(prefix)]
        made = {name: await call(client, prefix + name, given) for name, given in calls.items()}
        return {"version": version, "tools": names, "calls": made, "logged": logged}


run(session, Failure, HTTPStatusError, RuntimeError)
