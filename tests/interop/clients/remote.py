"""Sessions through mcp-remote, which turns the gateway into a server on stdin and stdout, as Claude Desktop has it:
remote.py JOB

`sessions` says what JOB is; it has `command` too, the program and its first arguments. The client on the other side is the
Python SDK 1.x.
"""

import asyncio
import os
import tempfile
from typing import Any

from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import LoggingMessageNotificationParams
from sessions import call, run


async def session(
    url: str, command: list[str], token: str | None, prefix: str, calls: dict[str, Any]
) -> dict[str, Any]:
    logged: list[Any] = []

    async def on_log(params: LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    with tempfile.TemporaryDirectory() as folder:
        header = ["--header", "Authorization:${AUTHORIZATION}"] if token else []
        # It would ask the user to sign in, in a browser, where there is none.
        environment = {**os.environ, "AUTHORIZATION": f"Bearer {token}", "MCP_REMOTE_CONFIG_DIR": folder, "BROWSER": "true"}
        arguments = [*command[1:], url, "--transport", "http-only", *header]
        server = StdioServerParameters(command=command[0], args=arguments, env=environment)
        with open(os.path.join(folder, "log"), "w") as log:
            async with (
                asyncio.timeout(30),
                stdio_client(server, errlog=log) as (read, write),
                ClientSession(read, write, logging_callback=on_log) as client,
            ):
                version = (await client.initialize()).protocolVersion
                names = [tool.name for tool in (await client.list_tools()).tools if tool.name.startswith(prefix)]
                made = {name: await call(client, prefix + name, given, McpError) for name, given in calls.items()}
                return {"version": version, "tools": names, "calls": made, "logged": logged}


run(session, McpError, TimeoutError)
