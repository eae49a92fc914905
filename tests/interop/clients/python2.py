"""Sessions of the Python SDK 2.x, which speaks both eras: python2.py JOB

`sessions` says what JOB is; it has a `mode` too: `auto`, `legacy` or a revision.
"""

from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from sessions import call, run


async def session(url: str, mode: str, token: str | None, prefix: str, calls: dict[str, Any]) -> dict[str, Any]:
    logged: list[Any] = []

    async def on_log(params: Any) -> None:
        logged.append(params.data)

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, logging_callback=on_log, log_level="info") as client:
            if mode == "legacy":
                await client.send_ping()
                if client.server_capabilities.logging:
                    await client.set_logging_level("info")
            names = [tool.name for tool in (await client.list_tools()).tools if tool.name.startswith(prefix)]
            made = {name: await call(client, prefix + name, given, MCPError) for name, given in calls.items()}
            return {"version": client.protocol_version, "tools": names, "calls": made, "logged": logged}


run(session, MCPError, httpx2.HTTPStatusError)
