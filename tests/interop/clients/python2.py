"""Sessions of the Python SDK 2.x, which speaks both eras: python2.py JOB

JOB is a JSON object: `url`, `mode` (`auto`, `legacy` or a revision), and `sessions`, each with `token` or null,
`prefix` of the tools to list and call, and `calls`, their arguments by name. Prints what it saw as JSON, session by
session; `support.Seen` names the fields.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


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
            made = {name: await call(client, prefix + name, given) for name, given in calls.items()}
            return {"version": client.protocol_version, "tools": names, "calls": made, "logged": logged}


async def call(client: Client, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    progress: list[float] = []
    times: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)
        times.append(time.monotonic())

    try:
        result = await client.call_tool(name, arguments, progress_callback=on_progress)
    except MCPError as error:
        return {"code": error.error.code, "message": error.error.message}
    times.append(time.monotonic())
    return {
        "error": result.is_error,
        "text": getattr(result.content[0], "text", ""),
        "structured": result.structured_content,
        "progress": progress,
        "times": times,
    }


async def refused_or_seen(job: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        return await session(job["url"], job["mode"], **wanted)
    except* (MCPError, httpx2.HTTPStatusError) as errors:
        error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return {"refused": str(error)}


async def main(job: dict[str, Any]) -> list[dict[str, Any]]:
    # One after the other: a busy client would hear progress late.
    return [await refused_or_seen(job, wanted) for wanted in job["sessions"]]


print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
