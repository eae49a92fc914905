"""Every client with every server, in every pair of eras: a gateway of its own in front of one server of each kind.

Each pair lists, calls, fails, reports progress, is denied what was not granted, and is refused with a wrong token; then all
of it once more through nginx (deploy/nginx.conf) and TLS. The outcome is printed as tables, a letter for each part.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mcp.types import INVALID_PARAMS

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))
from proxies import certificate, nginx  # noqa: E402
from servers import MODERN as FASTMCP_4
from servers import TOOLS, Kind
from support import CACHE, CLIENTS, HERE, NEWEST, Calls, Program, Seen, Wanted, equal, free_port, run_sessions
from world import SERVER_A, SERVER_B, World, client_table, server_table, token, within

# Not granted to anybody; of server-everything another, because it has no such tool.
SECRET, SECRETS = "secret_delete", ("secret_delete", "get-env")
# Of `reports`, from the first progress to the end; each takes much longer.
LEAST_SECONDS = 0.04
LEGACY, MODERN = "legacy", "modern"
# The first revision in which results have structure.
STRUCTURED = "2025-06-18"
# How many clients run at the same time: most of what they do is to wait.
AT_ONCE = 3
# In the cells of the table, instead of a part's letter.
NOT_SHOWN, NOT_THERE, FAILED = "*", "-", "!"


class Offer(NamedTuple):
    """What a server offers, in this order; who calls which of it, and what comes of that."""

    tools: list[str]
    # A tool, its arguments, and: the text of its result, its structured content, the text of its error, its progress.
    texts: tuple[str, dict[str, Any], str]
    structures: tuple[str, dict[str, Any], dict[str, Any]]
    fails: tuple[str, dict[str, Any], str]
    reports: tuple[str, dict[str, Any], list[float]]

    @property
    def secret(self) -> str:
        return next(secret for secret in SECRETS if secret in self.tools)

    @property
    def calls(self) -> Calls:
        made = {name: arguments for name, arguments, _ in (self.texts, self.structures, self.fails, self.reports)}
        return {**made, self.secret: {}}


def offer(tools: list[str], failure: str = "on purpose") -> Offer:
    """What servers.py and servers.mjs offer."""
    return Offer(
        tools,
        ("greet", {"name": "\u00e9\u2028\U0001f600"}, "Hello, \u00e9\u2028\U0001f600!"),
        ("add", {"a": 2, "b": 3}, {"result": 5}),
        ("fail", {"reason": "on purpose"}, failure),
        ("slow", {}, [1, 2, 3]),
    )


PYTHON = offer(TOOLS)
# It keeps to itself what an exception says.
PYTHON_2 = offer(TOOLS, "Error executing tool fail")
TYPESCRIPT = offer([tool for tool in TOOLS if tool != "whoami"])
RUST = offer(["add", "fail", "greet", "secret_delete", "slow"])
FIXTURE = Offer(
    ["test_simple_text", "echo", "test_error_handling", "test_tool_with_progress", SECRET],
    ("test_simple_text", {}, "This is a simple text response for testing."),
    ("echo", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    ("test_error_handling", {}, "This tool intentionally returns an error for testing"),
    ("test_tool_with_progress", {}, [0, 50, 100]),
)


EVERYTHING_OFFER = Offer(
    [
        "echo",
        "get-annotated-message",
        "get-env",
        "get-resource-links",
        "get-resource-reference",
        "get-structured-content",
        "get-sum",
        "get-tiny-image",
        "gzip-file-as-resource",
        "toggle-simulated-logging",
        "toggle-subscriber-updates",
        "trigger-long-running-operation",
        # Of those whose clients can be asked, as the gateway can.
        "get-roots-list",
        "trigger-elicitation-request",
        "trigger-url-elicitation",
        "trigger-sampling-request",
    ],
    ("echo", {"message": "\u00e9\u2028\U0001f600"}, "Echo: \u00e9\u2028\U0001f600"),
    (
        "get-structured-content",
        {"location": "Chicago"},
        {"temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82},
    ),
    ("get-sum", {"a": "no number", "b": 1}, "nvalid arguments"),
    ("trigger-long-running-operation", {"duration": 1, "steps": 3}, [1, 2, 3]),
)


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/mcp"


@dataclass
class Server:
    """A server as the gateway is told of it."""

    name: str
    offer: Offer
    port: int
    # The era in which the gateway has to find it, and whether it is told so because the server speaks both.
    era: str
    pinned: bool = False

    @property
    def prefix(self) -> str:
        return f"{self.name}_"

    @property
    def table(self) -> str:
        lines = [server_table(self.name, url(self.port), "tester", self.prefix)]
        lines += [f'protocol = "{self.era}"'] if self.pinned else []
        denied = f'{{ tools = ["*"], deny = ["{self.offer.secret}"] }}'
        return "\n".join([*lines, f"[allow.{self.name}]", *(f"{client} = {denied}" for client in CLIENTS), ""])


async def start_servers(world: World, fixture: Path) -> list[Server]:
    """Starts one of each that does not run yet."""
    python_2, typescript, modern, dual, rust, sessions, newest = (free_port() for _ in range(7))
    await world.processes.start_server(Kind("sdk2", "sessions", "sse"), python_2)
    for kind, port in (("typescript-sessions", typescript), ("typescript2-modern", modern), ("typescript2-dual", dual)):
        command = ["node", str(HERE / "servers.mjs"), str(CACHE / "node"), kind, str(port)]
        await world.processes.start(kind, command, url(port))
    await world.processes.start("rmcp", [str(CACHE / "rmcp/debug/interop-rmcp-server"), str(rust)], url(rust))
    for mode, port in (("sessions", sessions), ("modern", newest)):
        command = [str(fixture), "--mode", mode, "--port", str(port), "--tools", ",".join(FIXTURE.tools)]
        await world.processes.start(f"fixture-{mode}", command, url(port))
    return [
        Server("python-1", PYTHON, world.server_ports[SERVER_B], LEGACY),
        Server("fastmcp-3", PYTHON, world.server_ports[SERVER_A], LEGACY),
        Server("fastmcp-4", PYTHON, world.server_ports[FASTMCP_4], MODERN),
        Server("python-2", PYTHON_2, python_2, MODERN),
        Server("python-2-as-legacy", PYTHON_2, python_2, LEGACY, pinned=True),
        Server("typescript-1", TYPESCRIPT, typescript, LEGACY),
        Server("typescript-2-modern", TYPESCRIPT, modern, MODERN),
        Server("typescript-2", TYPESCRIPT, dual, MODERN),
        Server("typescript-2-as-legacy", TYPESCRIPT, dual, LEGACY, pinned=True),
        Server("rmcp", RUST, rust, MODERN),
        Server("rmcp-as-legacy", RUST, rust, LEGACY, pinned=True),
        Server("everything", EVERYTHING_OFFER, int(urlsplit(world.everything).port or 0), LEGACY),
        Server("fixture-legacy", FIXTURE, sessions, LEGACY),
        Server("fixture-modern", FIXTURE, newest, MODERN),
    ]


class Part(NamedTuple):
    """One thing that a pair has to do."""

    name: str
    check: Callable[[Seen, Offer], None]


def lists(seen: Seen, offer: Offer) -> None:
    equal([tool.removeprefix(seen.prefix) for tool in seen.tools], [tool for tool in offer.tools if tool != offer.secret])


def calls(seen: Seen, offer: Offer) -> None:
    tool, _, text = offer.texts
    equal((seen.calls[tool].get("error"), seen.calls[tool].get("text")), (False, text))


def structures(seen: Seen, offer: Offer) -> None:
    tool, _, content = offer.structures
    equal((seen.calls[tool].get("error"), seen.calls[tool].get("structured")), (False, content))


def has_no_structures(seen: Seen, offer: Offer) -> None:
    tool, _, _ = offer.structures
    equal((seen.calls[tool].get("error"), seen.calls[tool].get("structured")), (False, None))


def fails(seen: Seen, offer: Offer) -> None:
    tool, _, text = offer.fails
    equal((seen.calls[tool].get("error"), text in seen.calls[tool].get("text", "")), (True, True))


def reports(seen: Seen, offer: Offer) -> None:
    tool, _, progress = offer.reports
    equal((seen.calls[tool].get("error"), seen.calls[tool].get("progress")), (False, progress))
    times = seen.calls[tool]["times"]
    assert times[-1] - times[0] > LEAST_SECONDS, f"expected progress before the result, found {times}"


def is_denied(seen: Seen, offer: Offer) -> None:
    found = seen.calls[offer.secret]
    # The Inspector looks for the tool in the list, and does not even ask.
    asked = (found.get("code"), "unknown tool" in found.get("message", "")) == (INVALID_PARAMS, True)
    assert asked or found.get("code") == "tool_not_found", found


# Each is shown by its first letter.
PARTS = [
    Part("list", lists),
    Part("call", calls),
    Part("structured", structures),
    Part("error", fails),
    Part("progress", reports),
    Part("denied", is_denied),
]


def parts_of(seen: Seen, client: Program, server: Server) -> tuple[str, list[str]]:
    """What came of each part, as a cell of the table, and what is wrong."""
    cell, wrong = "", []
    for part in PARTS:
        if part.name in client.cannot:
            cell += NOT_SHOWN
            continue
        old = part.name == "structured" and client.revision < STRUCTURED
        try:
            (has_no_structures if old else part.check)(seen, server.offer)
        except (AssertionError, KeyError) as error:
            wrong.append(f"{part.name}: {error!r}")
        cell += FAILED if wrong and wrong[-1].startswith(part.name) else NOT_THERE if old else part.name[0].upper()
    return cell, wrong


def check_pair(seen: Seen, client: Program, server: Server, eras: tuple[str, str], wrong: list[str]) -> None:
    """Checks one session of a client: that there was one, in which eras it was served, and each part."""
    equal((seen.refused, seen.version or client.revision), (None, client.revision))
    equal(eras, (LEGACY if client.revision != NEWEST else MODERN, server.era))
    assert not wrong, "; ".join(wrong)


def eras_of(log: str, client: str, server: Server) -> tuple[str, str]:
    """In which eras the log says that this client called this server."""
    found = set(re.findall(rf" client={client} .* rpc=tools/call .* server={server.name} eras=(\w+)/(\w+) ", log))
    assert len(found) == 1, f"expected one pair of eras, found {found}"
    client, upstream = found.pop()
    return client, upstream


async def leg(world: World) -> None:
    """Runs all checks of this module."""
    servers = await start_servers(world, world.fixture)
    config = world.processes.folder / "matrix.toml"
    # Each has a token of its own, by which the log knows it.
    clients = ["tester", *CLIENTS]
    config.write_text("\n".join([*map(client_table, clients), *(server.table for server in servers)]))
    port = free_port()
    state = config.with_suffix(".state")
    command = [str(world.binary), "--config", str(config), "--state-dir", str(state), "--port", str(port)]
    await world.processes.start("matrix", command, f"http://127.0.0.1:{port}/healthz")
    folder, behind = world.processes.folder, free_port()
    certificate(folder)
    await world.processes.start("nginx", nginx(folder, behind, port, False), f"http://127.0.0.1:{behind}")
    ways = [
        Way("directly", f"http://127.0.0.1:{port}/mcp", None),
        Way("through nginx", f"https://localhost:{behind}/mcp", folder / "ca.pem"),
    ]
    tables = {way.name: await every_client(world, way, servers) for way in ways}
    async with world.report.check("matrix: no token is in the log, and no panic"):
        equal(world.shown("matrix", clients), [])
    world.processes.stop("nginx")
    world.processes.stop("matrix")
    for name, rows in tables.items():
        print(f"{name}:")
        print_table(rows)
    for n, server in enumerate(servers, 1):
        print(f"({n}) {server.name} server, spoken to in the {server.era} era")
    letters = ", ".join(f"{part.name[0].upper()} {part.name}" for part in PARTS)
    print(f"{letters}; {NOT_SHOWN} the client has no way to show it, {NOT_THERE} not in its revision, {FAILED} failed")


class Way(NamedTuple):
    """A way to the gateway."""

    name: str
    url: str
    # Whose certificates have to be trusted on it.
    trusted: Path | None


async def every_client(world: World, way: Way, servers: list[Server]) -> dict[str, list[str]]:
    """Runs all clients on one way; what came of each with each server."""
    turn = asyncio.Semaphore(AT_ONCE)
    before = len(world.processes.log("matrix"))

    async def in_turn(client: str) -> list[str]:
        async with turn:
            return await row(world, client, way, servers, before)

    cells = await asyncio.gather(*map(in_turn, CLIENTS))

    async def written() -> None:
        refused = world.processes.log("matrix")[before:].count(" status=401 ")
        assert refused >= len(CLIENTS), f"expected {len(CLIENTS)} at least, found {refused}"

    async with world.report.check(f"matrix: each wrong token is answered 401, {way.name}"):
        await within(5, written)
    return dict(zip(CLIENTS, cells, strict=True))


async def row(world: World, client: str, way: Way, servers: list[Server], before: int) -> list[str]:
    """Runs one client against all servers; what came of each. The log of this way begins at `before`."""
    program = CLIENTS[client]
    wanted = [Wanted(token(client), server.prefix, server.offer.calls) for server in servers]
    seen = await run_sessions(client, way.url, [*wanted, Wanted("wrong", "", {})], way.trusted)
    pairs = [f"{client} client × {server.name} server, {way.name}" for server in servers]
    cells: list[str] = []
    async with world.report.check(f"{client} client: a wrong token is refused, {way.name}"):
        assert seen[-1].refused, f"expected a refusal, found {seen[-1]}"
    log = world.processes.log("matrix")[before:]
    for pair, server, found in zip(pairs, servers, seen, strict=False):
        found.prefix = server.prefix
        cell, wrong = parts_of(found, program, server)
        passed = False
        async with world.report.check(pair):
            check_pair(found, program, server, eras_of(log, client, server), wrong)
            passed = True
        cells.append(cell if passed else cell + FAILED)
    return cells


def print_table(rows: dict[str, list[str]]) -> None:
    """Prints who got along with whom."""
    servers = range(1, 1 + max(map(len, rows.values())))
    print(f"{'client':20}", *(f"({n})".ljust(len(PARTS)) for n in servers), sep="  ")
    for client, cells in rows.items():
        print(f"{client:20}", *(cell.ljust(len(PARTS)) for cell in cells), sep="  ")
