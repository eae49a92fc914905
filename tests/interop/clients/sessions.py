"""What the scripts for the Python SDKs have in common: they run as pythonN.py JOB.

JOB is a JSON object: `url`, what else the SDK is to be told, and `sessions`, each with `token` or null, `prefix` of the
tools to list and call, and `calls`, their arguments by name. Prints what it saw as JSON, session by session;
`support.Seen` names the fields.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

# Has one session, of the members of the job and of the session.
Session = Callable[..., Awaitable[dict[str, Any]]]


# Hears of progress: how much is done, of how much, and a message.
OnProgress = Callable[[float, float | None, str | None], Awaitable[None]]


async def call(client: Any, name: str, arguments: dict[str, Any], failure: Any) -> dict[str, Any]:
    """Calls a tool; `failure` is the exception by which the SDK tells of a JSON-RPC error."""

    def ask(on_progress: OnProgress) -> Awaitable[Any]:
        return client.call_tool(name, arguments, progress_callback=on_progress)

    def seen(result: Any) -> dict[str, Any]:
        # In the names of the specification, which not every SDK uses.
        written = result.model_dump(by_alias=True)
        return {
            "error": written["isError"],
            "text": written["content"][0].get("text", ""),
            # Not in every revision.
            "structured": written.get("structuredContent"),
        }

    return await watched(ask, seen, failure)


async def watched(
    ask: Callable[[OnProgress], Awaitable[Any]], seen: Callable[[Any], dict[str, Any]], failure: Any
) -> dict[str, Any]:
    """What a call tells while it runs, when, and what is `seen` of its result."""
    progress: list[float] = []
    times: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)
        times.append(time.monotonic())

    try:
        result = await ask(on_progress)
    except failure as error:
        return {"code": error.error.code, "message": error.error.message}
    times.append(time.monotonic())
    return {**seen(result), "progress": progress, "times": times}


def run(session: Session, *refusals: type[Exception]) -> None:
    """Does the job; `refusals` are the exceptions by which the SDK tells that there is no session."""
    job = json.loads(sys.argv[1])
    wanted = job.pop("sessions")
    print(json.dumps(asyncio.run(one_by_one(session, refusals, job, wanted))))


async def one_by_one(
    session: Session, refusals: tuple[type[Exception], ...], job: dict[str, Any], sessions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    # A client that is busy with several would hear progress late.
    return [await refused_or_seen(session, refusals, {**job, **wanted}) for wanted in sessions]


async def refused_or_seen(
    session: Session, refusals: tuple[type[Exception], ...], members: dict[str, Any]
) -> dict[str, Any]:
    try:
        return await session(**members)
    except* refusals as errors:
        error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return {"refused": str(error)}
