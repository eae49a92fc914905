"""Sessions of the Python SDK 1.x, which speaks the legacy era: python1.py JOB

JOB is a JSON object: `url`, and `sessions`, each with `token` or null, `prefix` of the tools to list and call, and
`calls`, their arguments by name. Prints what it saw as JSON, session by session; `support.Seen` names the fields.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httpx
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import LoggingMessageNotificationParams


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
        made = {name: await call(client, prefix + name, given) for name, given in calls.items()}
        return {"version": version, "tools": names, "calls": made, "logged": logged}


async def call(client: ClientSession, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    progress: list[float] = []
    times: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)
        times.append(time.monotonic())

    try:
        result = await client.call_tool(name, arguments, progress_callback=on_progress)
    except McpError as error:
        return {"code": error.error.code, "message": error.error.message}
    times.append(time.monotonic())
    return {
        "error": result.isError,
        "text": getattr(result.content[0], "text", ""),
        "structured": result.structuredContent,
        "progress": progress,
        "times": times,
    }


async def refused_or_seen(url: str, job: dict[str, Any]) -> dict[str, Any]:
    try:
        return await session(url, **job)
    except* (McpError, httpx.HTTPStatusError) as errors:
        error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return {"refused": str(error)}


async def main(job: dict[str, Any]) -> list[dict[str, Any]]:
    # One after the other: a busy client would hear progress late.
    return [await refused_or_seen(job["url"], wanted) for wanted in job["sessions"]]


print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
