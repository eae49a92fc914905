"""Real SDK clients and servers through the gateway: run.py MCP-X FIXTURE-UPSTREAM

A leg is a function of the world alone, here or in a module of its own; it prints its checks as rows of a table. The
last line is `N passed, N failed`.
"""

import asyncio
import itertools
import logging
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import connect as connecting
import demo
import features
import httpx
import matrix
import reload
import rest
from mcp import ClientSession, McpError
from mcp.types import INVALID_PARAMS, LoggingMessageNotificationParams
from servers import KINDS, MODERN, STEP_SECONDS, STEPS, TOOLS, Kind
from support import (
    EVERYTHING,
    EVERYTHING_CALLS,
    Calls,
    Processes,
    Report,
    connect,
    equal,
    free_port,
    run_client,
)
from world import CHARLIE_AT_A, PRINCIPALS, SERVER_A, VISIBLE, World, names, refused, text, token, within

# Headers that let nobody in.
NO_AUTHORIZATION = {
    "no header": {},
    "a wrong token": {"Authorization": "Bearer wrong"},
    "no token": {"Authorization": "Bearer"},
    "the wrong scheme": {"Authorization": f"Basic {token('alice')}"},
    "a token and one letter more": {"Authorization": f"Bearer {token('alice')}x"},
}


async def every_kind_of_server(world: World) -> None:
    for kind in KINDS:
        async with world.report.check(f"{kind}: lists and results are the server's own"):
            async with world.direct(kind) as direct, world.client("tester") as session:
                await compare(direct, session, f"{kind}_")
        async with world.report.check(f"{kind}: progress and log messages arrive while the call runs"):
            await slow_call(world, kind)
        async with world.report.check(f"{kind}: a session stays one session"):
            async with world.client("tester") as session:
                calls = [text(await session.call_tool(f"{kind}_whoami", {})).split(", ")[1] for _ in range(3)]
            equal(calls, ["call 1", "call 2", "call 3"] if kind.state == "sessions" else ["call 1"] * 3)


async def compare(direct: ClientSession, session: ClientSession, prefix: str) -> None:
    """Checks that both sessions answer alike, but for the prefix of the names."""
    tools = (await direct.list_tools()).tools
    expected = [tool.model_copy(update={"name": prefix + tool.name}) for tool in tools]
    equal([tool for tool in (await session.list_tools()).tools if tool.name.startswith(prefix)], expected)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("add", {"a": 2**53, "b": 1}),
        ("add", {"a": "not a number"}),
        ("greet", {"name": "\u00e9\u2028\U0001f600\r\n"}),
        ("fail", {"reason": "on purpose"}),
    ]
    for tool, arguments in calls:
        equal(await session.call_tool(prefix + tool, arguments), await direct.call_tool(tool, arguments))


async def slow_call(world: World, kind: Kind) -> None:
    """Calls `slow` and checks that what it says on the way comes when it is said."""
    progress: list[float] = []
    logged: list[Any] = []
    times: list[float] = []

    async def on_progress(done: float, total: float | None, _: str | None) -> None:
        progress.append(done)
        times.append(time.monotonic())

    async def on_log(params: LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    async with world.client("tester", on_log=on_log) as session:
        equal(text(await session.call_tool(f"{kind}_slow", {}, progress_callback=on_progress)), "done")
        times.append(time.monotonic())
    step_by_step(kind, progress, logged, times)


def step_by_step(kind: Kind, progress: list[float], logged: list[Any], times: list[float]) -> None:
    """Checks what a call of `slow` said; `times` are those of the progress and of the end."""
    # A server that answers in JSON has no way to say anything before.
    steps = range(1, STEPS + 1) if kind.answers == "sse" else []
    equal(progress, list(steps))
    equal([data["msg"] if isinstance(data, dict) else data for data in logged], [f"step {step}" for step in steps])
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap > STEP_SECONDS / 2 for gap in gaps), f"expected {STEP_SECONDS} s apart, found {gaps}"


async def every_kind_of_client(world: World) -> None:
    async with world.report.check(f"{MODERN}: lists and results are the server's own"):
        async with world.direct(MODERN) as direct, world.client("tester") as session:
            await compare(direct, session, f"{MODERN}_")
    for name, kind in itertools.product(("python-2", "python-2-legacy", "typescript"), (SERVER_A, MODERN)):
        async with world.report.check(f"{name} client: a session with {kind}"):
            await other_client(world, name, kind)
    for name in ("python-2", "typescript"):
        async with world.report.check(f"{name} client: a session with {EVERYTHING}, as without the gateway"):
            direct, seen = await asyncio.gather(
                run_client(name, world.everything, None, EVERYTHING_CALLS),
                run_client(name, world.gateway, token("tester"), EVERYTHING_CALLS, f"{EVERYTHING}_"),
            )
            # Which tools it has depends on what a client can do, and the gateway can do more than these.
            assert {f"{EVERYTHING}_{tool}" for tool in EVERYTHING_CALLS} <= {*seen.tools}, seen.tools
            equal([*map(without_times, seen.calls.items())], [*map(without_times, direct.calls.items())])


async def other_client(world: World, name: str, kind: Kind) -> None:
    """Checks one session of a client that runs on its own."""
    calls: Calls = {"add": {"a": 2, "b": 3}, "fail": {"reason": "on purpose"}, "slow": {}, "nothing": {}}
    prefix = f"{kind}_"
    seen = await run_client(name, world.gateway, token("tester"), calls, prefix)
    equal(seen.tools, [prefix + tool for tool in TOOLS])
    add, fail, slow, nothing = seen.calls.values()
    equal((add["error"], add["text"]), (False, "5"))
    equal((fail["error"], "on purpose" in fail["text"]), (True, True))
    equal((slow["error"], slow["text"]), (False, "done"))
    step_by_step(kind, slow["progress"], seen.logged, slow["times"])
    equal((nothing["code"], f"unknown tool: `{prefix}nothing`" in nothing["message"]), (INVALID_PARAMS, True))


def without_times(call: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """What two runs of the same call have in common."""
    tool, seen = call
    return tool, {member: value for member, value in seen.items() if member != "times"}


async def access(world: World) -> None:
    for name, expected in VISIBLE.items():
        async with (
            world.report.check(f"{name} sees the {len(expected)} tools of the table, in order, and calls no other"),
            world.client(name) as session,
        ):
            equal(await names(session), expected)
            for tool in {*TOOLS, *(f"b_{tool}" for tool in TOOLS), "nothing"} - {*expected}:
                await refused(session, tool)
    for what, headers in NO_AUTHORIZATION.items():
        async with world.report.check(f"{what} is answered 401"):
            async with httpx.AsyncClient() as http:
                answer = await http.post(world.gateway, headers=headers, json={})
            equal((answer.status_code, "www-authenticate" in answer.headers), (401, True))
    async with world.report.check("an SDK client with a wrong token gets no session"):
        try:
            async with connect(world.gateway, "wrong"):
                raise AssertionError("initialised")
        except* (McpError, httpx.HTTPStatusError):
            pass


class Warnings(logging.Handler):
    """Collects what the SDK complains of."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def sessions(world: World) -> None:
    async with world.report.check("a client that connects ten times in turn leaves without a warning"):
        warnings = Warnings(logging.WARNING)
        logging.getLogger("mcp").addHandler(warnings)
        for turn in range(10):
            async with world.client("alice") as session:
                equal(text(await session.call_tool("add", {"a": turn, "b": 1})), str(turn + 1))
        logging.getLogger("mcp").removeHandler(warnings)
        equal(warnings.messages, [])
    async with world.report.check("alice and bob, at once, are in sessions of their own at one server"):
        async with world.client("alice") as alice, world.client("bob") as bob:
            both = [asyncio.gather(*(client.call_tool("whoami", {}) for _ in range(5))) for client in (alice, bob)]
            answers = [[text(result).split(", ") for result in results] for results in await asyncio.gather(*both)]
        found = [({session for session, _ in calls}, sorted(call for _, call in calls)) for calls in answers]
        assert len(found[0][0]) == len(found[1][0]) == 1 and found[0][0] != found[1][0], found
        equal([calls for _, calls in found], [[f"call {n}" for n in range(1, 6)]] * 2)


async def outage(world: World) -> None:
    async with AsyncExitStack() as stack:
        alice = await stack.enter_async_context(world.client("alice"))
        bob = await stack.enter_async_context(world.client("bob"))
        async with world.report.check("a server that is down keeps its names, fails its calls, and harms no other"):
            await alice.call_tool("whoami", {})
            world.processes.stop(str(SERVER_A))
            equal(await names(alice), VISIBLE["alice"])
            for _ in range(3):
                try:
                    raise AssertionError(f"expected an error, found {await alice.call_tool('greet', {'name': 'x'})!r}")
                except McpError as error:
                    equal((error.error.code, "not reachable" in error.error.message), (-32603, True))
                equal(text(await bob.call_tool("b_add", {"a": 1, "b": 2})), "3")
        await world.processes.start_server(SERVER_A, world.server_ports[SERVER_A])
        async with world.report.check("the same server restarted serves the same client session again"):

            async def again() -> None:
                equal(text(await alice.call_tool("add", {"a": 3, "b": 4})), "7")

            await within(5, again)
            equal(text(await alice.call_tool("whoami", {})).split(", ")[1], "call 1")


async def end(world: World) -> None:
    async with world.report.check("no token is in the log, and no panic"):
        equal(world.shown("gateway", PRINCIPALS), [])
    async with world.report.check("SIGTERM ends the gateway with 0 while a client is connected"):
        code = None
        try:
            async with world.client("alice") as session:
                await session.list_tools()
                code = await asyncio.to_thread(world.processes.stop, "gateway", signal.SIGTERM)
        except* (McpError, httpx.HTTPError):
            pass  # the session cannot say goodbye
        equal(code, 0)


async def main(binary: Path, fixture: Path) -> int:
    report = Report()
    with Processes() as processes:
        port = free_port()
        world = World(
            report,
            processes,
            binary,
            fixture,
            processes.folder / "config.toml",
            f"http://127.0.0.1:{port}/mcp",
            {kind: free_port() for kind in (*KINDS, MODERN)},
            f"http://127.0.0.1:{(everything_port := free_port())}/mcp",
        )
        world.config.write_text(world.config_text(CHARLIE_AT_A))
        starts = [processes.start_server(kind, port) for kind, port in world.server_ports.items()]
        await asyncio.gather(*starts, processes.start_everything(everything_port))
        command = [str(binary), "--config", str(world.config), "--port", str(port)]
        await processes.start("gateway", command, f"http://127.0.0.1:{port}/healthz")
        servers_and_clients = (every_kind_of_server, every_kind_of_client, matrix.leg, features.leg)
        ways_and_changes = (access, connecting.leg, sessions, rest.leg, outage, reload.leg)
        for leg in (*servers_and_clients, *ways_and_changes, end, demo.leg):
            try:
                await leg(world)
            except Exception as error:
                report.failure(f"{leg.__module__}.{leg.__name__} broke off", error)
        if report.failed:
            print(f"--- last lines of the gateway's log\n{processes.log('gateway')[-4000:]}", file=sys.stderr)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    # The SDK logs refusals that are expected here; the leg that forbids warnings listens for itself.
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    sys.exit(asyncio.run(main(*(Path(argument).resolve() for argument in sys.argv[1:3]))))
