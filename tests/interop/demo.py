"""`mcp-x demo` with nothing but the standard library, as somebody with curl would try it."""

import asyncio
import itertools
import json
import re
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from support import HERE, equal, free_port
from world import World

TEXT = ["text_stats", "text_hash", "text_base64", "json_format"]
CLOCK = ["clock_now", "clock_convert", "countdown"]

# Who sees what with the example configuration.
VISIBLE = {
    "alice": [*TEXT, "clock_now", "clock_convert"],
    "bob": [*CLOCK, "text_stats", "text_hash", "text_base64"],
    "charlie": ["text_stats", "clock_now", "clock_convert"],
}
COUNTDOWN_SECONDS = 2

# What the answers to the commands that the demo prints have in them.
SHOWN = {"/mcp": '"result":', "/explain": '"verdict":"no"', "/update_access_control": '"Successfully updated'}


class Answer(NamedTuple):
    """The answer to a POST: its messages, each with the time at which it arrived."""

    status: int
    messages: list[tuple[float, dict[str, Any]]]

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1][1]


def post(url: str, token: str | None, method: str, params: dict[str, Any]) -> Answer:
    """Sends one JSON-RPC request, without a session, and reads the answer line by line."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, [])
    with answer:
        # An answer in JSON is one line; of an event stream the data lines count.
        lines = ((time.monotonic(), line.removeprefix(b"data:")) for line in answer)
        return Answer(answer.status, [(at, json.loads(line)) for at, line in lines if line.lstrip().startswith(b"{")])


def call(url: str, token: str, tool: str, arguments: dict[str, Any]) -> Answer:
    return post(url, token, "tools/call", {"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}})


def example_token(client: str) -> str:
    config = tomllib.loads((HERE.parent.parent / "config.example.toml").read_text())
    return str(config["clients"][client]["auth_token"])


async def leg(world: World) -> None:
    """Runs all checks of this module."""
    report, processes, port = world.report, world.processes, free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    await processes.start("demo", [str(world.binary), "demo", "--port", str(port)], f"http://127.0.0.1:{port}/healthz")
    for name, visible in VISIBLE.items():
        async with report.check(f"demo: {name} sees the {len(visible)} tools of the table, in order"):
            answer = await asyncio.to_thread(post, url, example_token(name), "tools/list", {})
            equal([tool["name"] for tool in answer.last["result"]["tools"]], visible)
        async with report.check(f"demo: {name} calls a tool that is visible and none that is not"):
            for tool in {*TEXT, *CLOCK, "nothing"} - {*visible}:
                answer = await asyncio.to_thread(call, url, example_token(name), tool, {})
                equal((answer.status, answer.last["error"]["code"]), (200, -32602))
            answer = await asyncio.to_thread(call, url, example_token(name), "clock_now", {})
            assert answer.last["result"]["content"][0]["text"], answer
    async with report.check("demo: a countdown is told second by second"):
        answer = await asyncio.to_thread(call, url, example_token("bob"), "countdown", {"seconds": COUNTDOWN_SECONDS})
        gaps = [after - before for (before, _), (after, _) in itertools.pairwise(answer.messages)]
        equal({message.get("method", "result") for _, message in answer.messages}, {"notifications/progress", "result"})
        assert len([gap for gap in gaps if gap > 0.5]) >= COUNTDOWN_SECONDS - 1, gaps
    for command in re.findall(r"^  (curl (?:.*\\\n)*.*)$", processes.log("demo"), re.MULTILINE):
        async with report.check(f"demo: this printed command works: …{command[-50:]}"):
            done = await asyncio.to_thread(subprocess.run, ["sh", "-c", command], capture_output=True, text=True)
            path = next(path for path in SHOWN if f"{url.removesuffix('/mcp')}{path}" in command)
            assert done.returncode == 0 and SHOWN[path] in done.stdout, done
    async with report.check("demo: no token and a wrong one are answered 401"):
        for token in (None, "wrong"):
            equal((await asyncio.to_thread(post, url, token, "tools/list", {})).status, 401)
