"""What `mcp-x connect` prints, tried by those for whom it is meant: it is run as it stands.

Cursor and VS Code have no command line; that their snippets are JSON is tested beside the code.
"""

import asyncio
import json
import os
import subprocess
import tempfile
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from support import CACHE, INSPECTOR, PYTHON_1, equal
from world import VISIBLE, World, token

NODE = CACHE / "node"
CLIENT = "alice"


def snippet(world: World, app: str) -> str:
    command = [str(world.binary), "connect", "--config", str(world.config), "--client", CLIENT, "--for", app]
    done = subprocess.run([*command, "--url", world.gateway], capture_output=True, text=True, check=True)
    assert token(CLIENT) not in done.stdout + done.stderr, "a token is shown"
    return done.stdout


def run(command: list[str], home: str) -> str:
    """Runs what was pasted, by a user with a home of its own, where the installed packages lie."""
    path = f"{NODE / 'node_modules/.bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "MCP_X_TOKEN": token(CLIENT), "HOME": home, "PATH": path}
    done = subprocess.run(command, cwd=NODE, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def leg(world: World) -> None:
    """Runs all checks of this module."""
    with tempfile.TemporaryDirectory() as home:

        async def shell(script: str) -> str:
            return await asyncio.to_thread(run, ["bash", "-euc", script], home)

        async with world.report.check("connect: curl lists what its client may use"):
            listed = json.loads(await shell(snippet(world, "curl")))
            equal([tool["name"] for tool in listed["result"]["tools"]], VISIBLE[CLIENT])
        async with world.report.check("connect: so does the Inspector", 60):
            script = snippet(world, "inspector").replace("npx -y @modelcontextprotocol/inspector", " ".join(INSPECTOR))
            equal([tool["name"] for tool in json.loads(await shell(script))["tools"]], VISIBLE[CLIENT])
        async with world.report.check("connect: so does the Python program"):
            printed = await asyncio.to_thread(run, [PYTHON_1, "-c", snippet(world, "python")], home)
            equal(printed.strip(), str(VISIBLE[CLIENT]))
        async with world.report.check("connect: so does the TypeScript program"):
            # Modules are looked for from where the program lies.
            with tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=NODE) as module:
                module.write(snippet(world, "typescript"))
                module.flush()
                printed = await asyncio.to_thread(run, ["node", module.name], home)
            assert all(f"'{tool}'" in printed for tool in VISIBLE[CLIENT]), printed
        async with world.report.check("connect: Claude Code is connected", 60):
            await shell(snippet(world, "claude-code"))
            listed = await shell("claude mcp list")
            assert "mcp-x: " in listed and "Connected" in listed, listed
        async with world.report.check("connect: Claude Desktop's way in lists what its client may use", 60):
            await desktop(world, home)


async def desktop(world: World, home: str) -> None:
    pasted = json.loads(snippet(world, "claude-desktop").replace("YOUR_TOKEN", token(CLIENT)))
    server = pasted["mcpServers"]["mcp-x"]
    environment = {**os.environ, **server["env"], "HOME": home}
    command = StdioServerParameters(command=server["command"], args=server["args"], env=environment, cwd=NODE)
    with Path(home, "mcp-remote.log").open("w") as log:
        async with stdio_client(command, errlog=log) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            equal([tool.name for tool in (await session.list_tools()).tools], VISIBLE[CLIENT])
