"""Live reload: grants change again and again while other clients call."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from demo import post
from mcp import ClientSession
from support import equal
from world import CHARLIE_AT_A, CHARLIE_AT_B, DAVE_AT_A, VISIBLE, World, names, refused, text, token, within

# A change of the configuration is in force after this long at the latest.
SECONDS = 2
# Long enough for the gateway to look at the file several times.
REWRITING_SECONDS = 6
# Who calls what meanwhile.
LOAD = [("alice", "add"), ("bob", "b_add")] * 4

# What is done, the grants at server_a after it, and what charlie and dave see then.
STATES: list[tuple[str, str, list[str], list[str]]] = [
    ("gives dave what it takes from charlie", DAVE_AT_A, CHARLIE_AT_B, ["add"]),
    ("gives it back", CHARLIE_AT_A, VISIBLE["charlie"], []),
]


def by_rename(path: Path, text: str) -> None:
    """Changes a file as careful programs do."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def in_place(path: Path, text: str) -> None:
    """Changes a file as most editors do."""
    path.write_text(text)


async def leg(world: World) -> None:
    """Runs all checks of this module."""
    told: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        charlie, dave = [
            await stack.enter_async_context(world.client(name, on_message=count_changes(told, name)))
            for name in ("charlie", "dave")
        ]
        load = asyncio.gather(*(work(world, name, tool, calls, stop) for name, tool in LOAD))
        await within(10, partial(in_full_swing, calls))
        for replace, state in itertools.product((by_rename, in_place), STATES):
            await change(world, replace, state, charlie, dave, told)
        async with world.report.check("a configuration that cannot be read changes nothing"):
            in_place(world.config, world.config_text(CHARLIE_AT_A) + "\n[allow.server_a]\n")
            await asyncio.sleep(SECONDS)
            await sees(charlie, VISIBLE["charlie"], dave, [])
            in_place(world.config, world.config_text(CHARLIE_AT_A))
        async with world.report.check(f"no call of {len(LOAD)} clients failed meanwhile"):
            stop.set()
            await load
        async with world.report.check("a file that is being rewritten all the time changes nothing"):
            await rewrite_slowly(world)
        await within(2 * SECONDS, partial(nothing_changed, world))


async def change(
    world: World,
    replace: Callable[[Path, str], None],
    state: tuple[str, str, list[str], list[str]],
    charlie: ClientSession,
    dave: ClientSession,
    told: Counter[str],
) -> None:
    """Makes one change, and checks that it is in force, and told, in time."""
    what, grant, charlie_sees, dave_sees = state
    name = f"a change {replace.__name__.replace('_', ' ')} {what}"
    told.clear()
    async with world.report.check(name):
        replace(world.config, world.config_text(grant))
        await within(SECONDS, partial(sees, charlie, charlie_sees, dave, dave_sees))
        await refused(charlie if grant == DAVE_AT_A else dave, "add")
    async with world.report.check(f"{name}: both are told, if that was promised"):
        capabilities = charlie.get_server_capabilities()
        promised = capabilities and capabilities.tools and capabilities.tools.listChanged
        await within(SECONDS, partial(are_told, told, {"charlie", "dave"} if promised else set()))


async def rewrite_slowly(world: World) -> None:
    """Writes the same file over and over, as a program does that empties it first and fills it a moment later."""
    until = time.monotonic() + REWRITING_SECONDS
    while time.monotonic() < until:
        with world.config.open("w") as file:
            await asyncio.sleep(0.02)
            file.write(world.config_text(CHARLIE_AT_A))
        await nothing_changed(world)


async def nothing_changed(world: World) -> None:
    answer = await asyncio.to_thread(post, world.gateway, token("charlie"), "tools/list", {})
    equal(answer.status, 200)
    equal([tool["name"] for tool in answer.last["result"]["tools"]], VISIBLE["charlie"])


async def work(world: World, name: str, tool: str, calls: Counter[str], stop: asyncio.Event) -> None:
    """Calls a tool until it is told to stop; any failure ends it."""
    async with world.client(name) as session:
        while not stop.is_set():
            before = calls.total()
            equal(text(await session.call_tool(tool, {"a": before, "b": 1})), str(before + 1))
            calls[name] += 1


async def in_full_swing(calls: Counter[str]) -> None:
    assert calls.total() > 10 * len(LOAD), calls


async def sees(charlie: ClientSession, charlie_sees: list[str], dave: ClientSession, dave_sees: list[str]) -> None:
    equal((await names(charlie), await names(dave)), (charlie_sees, dave_sees))


async def are_told(told: Counter[str], expected: set[str]) -> None:
    equal(set(told), expected)


def count_changes(told: Counter[str], name: str) -> Callable[[Any], Awaitable[None]]:
    """A message handler that counts how often client `name` is told that its list of tools has changed."""

    async def on_message(message: Any) -> None:
        if getattr(getattr(message, "root", None), "method", None) == "notifications/tools/list_changed":
            told[name] += 1

    return on_message
