"""Sessions of the Python SDK 1.x, old or new, which speaks the legacy era: python1.py JOB

`sessions` says what JOB is.
"""

from typing import Any

import httpx
from mcp import ClientSession, McpError
from mcp.types import LoggingMessageNotificationParams
from sessions import call, run

try:
    from mcp.client.streamable_http import streamable_http_client
except ImportError:  # before 1.24
    from mcp.client.streamable_http import streamablehttp_client

    def streamable_http_client(url: str, http_client: httpx.AsyncClient) -> Any:
        return streamablehttp_client(url, headers=dict(http_client.headers))


async def session(url: str, token: str | None, prefix: str, calls: dict[str, Any]) -> dict[str, Any]:
    logged: list[Any] = []

    async def on_log(params: LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx.AsyncClient(headers=headers, timeout=30) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write, logging_callback=on_log) as client,
    ):
        version = (await client.initialize()).protocolVersion
        await client.send_ping()
        names = [tool.name for tool in (await client.list_tools()).tools if tool.name.startswith(prefix)]
        made = {name: await call(client, prefix + name, given, McpError) for name, given in calls.items()}
        return {"version": version, "tools": names, "calls": made, "logged": logged}


run(session, McpError, httpx.HTTPStatusError)
