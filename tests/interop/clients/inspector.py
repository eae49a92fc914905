"""The Inspector's command line, one run of it for each request: inspector.py JOB

`sessions` says what JOB is; it has `command` too, the program and its first arguments. The Inspector shows results, and neither
progress nor log messages.
"""

import json
import subprocess
from typing import Any

from sessions import run


class Refused(Exception):
    """The Inspector got no session."""


def inspect(command: list[str], url: str, token: str | None, *arguments: str) -> tuple[bool, dict[str, Any]]:
    """Runs it once: whether there was an answer, and that, or else the error."""
    header = ["--header", f"Authorization: Bearer {token}"] if token else []
    whole = [*command, "--cli", url, "--transport", "http", *arguments, *header]
    done = subprocess.run(whole, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    answered = "{" in done.stdout
    printed = done.stdout if answered else done.stderr
    return answered, json.loads(printed[printed.index("{") :])


async def session(
    url: str, command: list[str], token: str | None, prefix: str, calls: dict[str, Any]
) -> dict[str, Any]:
    fine, listed = inspect(command, url, token, "--method", "tools/list")
    if not fine:
        raise Refused(listed["error"]["message"])
    names = [tool["name"] for tool in listed["tools"] if tool["name"].startswith(prefix)]
    made = {}
    for name, given in calls.items():
        pairs = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]
        arguments = ["--tool-arg", *pairs] if pairs else []
        call = ("--method", "tools/call", "--tool-name", prefix + name)
        answered, result = inspect(command, url, token, *call, *arguments)
        if answered:
            made[name] = {
                "error": result.get("isError", False),
                "text": result["content"][0].get("text", ""),
                "structured": result.get("structuredContent"),
            }
        else:
            made[name] = {"code": result["error"]["code"], "message": result["error"]["message"]}
    return {"version": None, "tools": names, "calls": made, "logged": []}


run(session, Refused)
