"""Everything but tools alone: every client with every server, in every pair of eras, each check a letter of a table.

Servers ask the user (once, declined, and twice in one call, the second time the model), the model, and for roots; they have
a prompt, a resource, a template, completion, a resource that changes, and a list of tools that grows. What a client answers
has the mark of its session in it, and has to come back to it.

As a program, `features.py MCP-X` does this alone, and `features.py --direct` (`run.sh --direct`) joins clients and servers
without the gateway: what fails there is the SDKs' own doing, and stands in CANNOT, with the reason. All else has to pass
through the gateway.
"""

import asyncio
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matrix import LEGACY, MODERN, url
from support import (
    CACHE,
    HERE,
    LAST_LEGACY,
    MODULES,
    NEWEST,
    PYTHON_1,
    PYTHON_2,
    Processes,
    Report,
    equal,
    free_port,
    run_job,
)
from world import World, client_table, server_table, token

# In the cells of the table, instead of a check's letter: the SDK cannot, it failed.
UNABLE, FAILED = "-", "!"
# How many clients run at the same time.
AT_ONCE = 3
MODES = {"auto": NEWEST, "legacy": LAST_LEGACY}


class Program(NamedTuple):
    """A client, and the revision that it speaks with whoever speaks it too."""

    command: list[str]
    revision: str
    job: dict[str, Any]


def python(interpreter: str, name: str, mode: str | None = None, plain: bool = False) -> Program:
    command = [interpreter, "-B", str(HERE / f"clients/features_{name}.py")]
    job = {**({"mode": mode} if mode else {}), **({"plain": True} if plain else {})}
    return Program(command, MODES[mode or "legacy"], job)


def typescript(mode: str | None = None) -> Program:
    job = {"modules": MODULES, **({"mode": mode} if mode else {})}
    return Program(["node", str(HERE / "clients/features.mjs")], MODES[mode or "legacy"], job)


def rust(mode: str) -> Program:
    return Program([str(CACHE / "rmcp/debug/interop-rmcp-features")], MODES[mode], {"mode": mode})


CLIENTS = {
    "python-1": python(PYTHON_1, "python1"),
    "python-1-plain": python(PYTHON_1, "python1", plain=True),
    "python-2": python(PYTHON_2, "python2", "auto"),
    "python-2-plain": python(PYTHON_2, "python2", "auto", plain=True),
    "python-2-legacy": python(PYTHON_2, "python2", "legacy"),
    "fastmcp-3": python(PYTHON_1, "fastmcp"),
    "fastmcp-4": python(PYTHON_2, "fastmcp", "auto"),
    "fastmcp-4-legacy": python(PYTHON_2, "fastmcp", "legacy"),
    "typescript-1": typescript(),
    "typescript-2": typescript("auto"),
    "typescript-2-legacy": typescript("legacy"),
    "rmcp": rust("auto"),
    "rmcp-legacy": rust("legacy"),
}


def serve_python(interpreter: str, package: str) -> list[str]:
    return [interpreter, "-B", str(HERE / "feature_servers.py"), package]


def serve_typescript(package: str) -> list[str]:
    return ["node", str(HERE / "feature_servers.mjs"), MODULES, package]


@dataclass
class Server:
    """A process, what it calls itself in its URIs, how it is started but for the port, and the eras that it speaks."""

    name: str
    package: str
    command: list[str]
    eras: tuple[str, ...]
    port: int = 0


SERVERS = [
    Server("python-1", "sdk", serve_python(PYTHON_1, "sdk"), (LEGACY,)),
    Server("python-2", "sdk2", serve_python(PYTHON_2, "sdk2"), (MODERN, LEGACY)),
    Server("fastmcp-3", "fastmcp", serve_python(PYTHON_1, "fastmcp"), (LEGACY,)),
    Server("fastmcp-4", "fastmcp4", serve_python(PYTHON_2, "fastmcp4"), (MODERN, LEGACY)),
    Server("typescript-1", "typescript", serve_typescript("typescript"), (LEGACY,)),
    Server("typescript-2", "typescript2", serve_typescript("typescript2"), (MODERN, LEGACY)),
    Server("rmcp", "rmcp", [str(CACHE / "rmcp/debug/interop-rmcp-features-server")], (MODERN, LEGACY)),
]


# Each is shown by its letter; what has to come of it, from the mark of the session and the name of the server's package.
LETTERS = {
    "elicit": "E",
    "decline": "D",
    "sample": "S",
    "roots": "R",
    "chat": "C",
    "prompt": "P",
    "read": "F",
    "template": "T",
    "complete": "A",
    "update": "U",
    "list_changed": "L",
}


def expected(mark: str, package: str) -> dict[str, Any]:
    return {
        "elicit": f"accept {mark}",
        "decline": "decline",
        "sample": f"{mark} hears: Why?",
        "roots": f"file:///{mark}",
        "chat": f"{mark} hears: Greet {mark}.",
        "prompt": [True, f"Write to {mark}."],
        "read": [True, f"fixed by {package}"],
        "template": [True, f"about {mark}"],
        "complete": [["Ada", "Alan"], ["tea", "toast"]],
        "update": True,
        "list_changed": True,
    }


# What most clients are: nobody can ask them anything.
PLAIN = dict.fromkeys(("elicit", "decline", "sample", "roots", "chat"), "declares nothing that it could be asked")

# What an SDK cannot do, whoever is on the other side: (side, name, era or None for both) -> {check: why}.
CANNOT: dict[tuple[str, str, str | None], dict[str, str]] = {
    ("client", "python-1-plain", None): PLAIN,
    ("client", "python-2-plain", None): PLAIN,
    ("server", "fastmcp-3", LEGACY): {
        "complete": "FastMCP 3 has nothing that serves completion/complete",
        "update": "FastMCP has nothing that serves resources/subscribe",
    },
    ("server", "fastmcp-4", LEGACY): {"update": "FastMCP has nothing that serves resources/subscribe"},
    ("server", "fastmcp-4", MODERN): {
        "update": "FastMCP 4.1 does not serve subscriptions/listen",
        "list_changed": "FastMCP 4.1 does not serve subscriptions/listen",
    },
}


def unable(side: str, name: str, era: str) -> dict[str, str]:
    """The checks that a side cannot pass in an era, and why."""
    return {**CANNOT.get((side, name, None), {}), **CANNOT.get((side, name, era), {})}


class Pair(NamedTuple):
    """One session to have: with which server, where, and in which eras on both sides."""

    server: Server
    url: str
    token: str | None
    prefix: str
    client_era: str
    server_era: str
    mark: str

    def reasons(self, client: str) -> dict[str, str]:
        return {**unable("server", self.server.name, self.server_era), **unable("client", client, self.client_era)}

    @property
    def job(self) -> dict[str, Any]:
        mine = {"url": self.url, "token": self.token, "prefix": self.prefix}
        return {**mine, "package": self.server.package, "mark": self.mark}


async def sessions(client: str, pairs: list[Pair]) -> list[dict[str, Any]]:
    """Runs the sessions of one client, all at once, in one process."""
    program = CLIENTS[client]
    return await run_job(client, program.command, {**program.job, "sessions": [pair.job for pair in pairs]})


def cell(client: str, pair: Pair, done: dict[str, Any]) -> tuple[str, list[str]]:
    """What came of a session, as a cell of the table, and what is wrong with it."""
    if "error" in done:
        return FAILED, [f"no session: {done['error']}"]
    letters, wrong = "", []
    if (era := MODERN if done["version"] == NEWEST else LEGACY) != pair.client_era:
        wrong.append(f"expected the {pair.client_era} era, found {era}")
    reasons = pair.reasons(client)
    for check, wanted in expected(pair.mark, pair.server.package).items():
        passed = done.get(check) == wanted
        if not passed and check not in reasons:
            wrong.append(f"{check}: expected {wanted!r}, found {done.get(check)!r}")
        elif passed and check in reasons and pair.token is None:
            wrong.append(f"{check}: it can, other than CANNOT says")
        letters += LETTERS[check] if passed else UNABLE if check in reasons else FAILED
    return letters, wrong


async def start_servers(processes: Processes) -> None:
    for server in SERVERS:
        server.port = free_port()
    commands = [(server, [*server.command, str(server.port)]) for server in SERVERS]
    await asyncio.gather(*(processes.start(f"features-{one.name}", command, url(one.port)) for one, command in commands))


async def table(report: Report, way: str, rows: dict[str, list[Pair]]) -> None:
    """Runs every client and prints who got along with whom."""
    turn = asyncio.Semaphore(AT_ONCE)
    cells: dict[str, list[str]] = {}

    async def row(client: str, pairs: list[Pair]) -> None:
        async with turn, report.check(f"features: {client} client, {way}", 100):
            wrong = []
            found = await sessions(client, pairs)
            for pair, done in zip(pairs, found, strict=True):
                letters, faults = cell(client, pair, done)
                cells.setdefault(client, []).append(letters)
                wrong += [f"{pair.server.name} in the {pair.server_era} era: {fault}" for fault in faults]
            assert not wrong, "\n    ".join(["", *wrong])

    # A list that one asks for anew, told of its change, would be new to the others too.
    alone = [client for client in rows if ("client", client, None) in CANNOT]
    await asyncio.gather(*(row(client, pairs) for client, pairs in rows.items() if client not in alone))
    for client in alone:
        await row(client, rows[client])
    some = next(iter(rows.values()))
    print(f"{way}:")
    print(f"{'client':20}", *(f"({n})".ljust(len(LETTERS)) for n in range(1, len(some) + 1)), sep="  ")
    for client in rows:
        print(f"{client:20}", *(letters.ljust(len(LETTERS)) for letters in cells.get(client, [])), sep="  ")
    for n, pair in enumerate(some, 1):
        era = f"in the {pair.server_era} era" if pair.token else "in the client's era, or else the one that it has"
        print(f"({n}) {pair.server.name} server, spoken to {era}")


def legend() -> None:
    letters = ", ".join(f"{letter} {check}" for check, letter in LETTERS.items())
    print(f"{letters}; {UNABLE} not in the SDK, {FAILED} failed")
    for (side, name, era), checks in CANNOT.items():
        for why in dict.fromkeys(checks.values()):
            letters = "".join(LETTERS[check] for check in checks if checks[check] == why)
            print(f"{UNABLE} {letters} {name} {side}{f', {era}' if era else ''}: {why}")


def direct_pairs(client: str) -> list[Pair]:
    """Past the gateway the client chooses the era."""
    pairs = []
    for server in SERVERS:
        wish = MODERN if CLIENTS[client].revision == NEWEST else LEGACY
        era = wish if wish in server.eras else server.eras[0]
        pairs.append(Pair(server, url(server.port), None, "", era, era, f"{client}-direct-{server.name}"))
    return pairs


# Two clients of the gateway, because one process that is two of its servers has each of its URIs twice: who owns the
# server in the first era that it speaks, and in its second.
OWNERS = ["first", "second"]


def columns() -> list[tuple[Server, str, str]]:
    """Every server in every era, with its owner."""
    return [(one, era, owner) for one in SERVERS for era, owner in zip(one.eras, OWNERS, strict=False)]


def pairs(client: str, gateway: str) -> list[Pair]:
    era = MODERN if CLIENTS[client].revision == NEWEST else LEGACY
    return [
        Pair(one, gateway, token(owner), f"{one.name}_", era, spoken, f"{client}-{spoken}-{one.name}")
        for one, spoken, owner in columns()
    ]


def config() -> str:
    lines = [*map(client_table, OWNERS)]
    for one, era, owner in columns():
        name = f"{one.name}-{era}"
        lines += [server_table(name, url(one.port), owner, f"{one.name}_"), f'protocol = "{era}"']
    return "\n".join([*lines, "[gateway]", "allow_private_upstreams = true", ""])


async def through(report: Report, processes: Processes, binary: Path) -> None:
    """Through a gateway of its own."""
    await start_servers(processes)
    file = processes.folder / "features.toml"
    file.write_text(config())
    port = free_port()
    command = [str(binary), "--config", str(file), "--state-dir", str(file.with_suffix(".state")), "--port", str(port)]
    await processes.start("features", command, f"http://127.0.0.1:{port}/healthz")
    await table(report, "through the gateway", {client: pairs(client, url(port)) for client in CLIENTS})
    legend()
    log = processes.log("features")
    async with report.check("features: each server was spoken to in its era"):
        found = re.findall(r" rpc=tools/call .* server=(\S+) eras=\w+/(\w+) ", log)
        equal({*found}, {(f"{one.name}-{era}", era) for one, era, _ in columns()})
    async with report.check("features: no token is in the log, and no panic"):
        equal([secret for secret in [*map(token, OWNERS), "panicked"] if secret in log], [])
    for name in ("features", *(f"features-{one.name}" for one in SERVERS)):
        processes.stop(name)


async def leg(world: World) -> None:
    """Runs all checks of this module but those without the gateway."""
    await through(world.report, world.processes, world.binary)


async def direct(report: Report, processes: Processes) -> None:
    """Without the gateway."""
    await start_servers(processes)
    await table(report, "direct", {client: direct_pairs(client) for client in CLIENTS})
    legend()


async def main(binary: str) -> int:
    report = Report()
    with Processes() as processes:
        await (direct(report, processes) if binary == "--direct" else through(report, processes, Path(binary).resolve()))
        if report.failed and binary != "--direct":
            print(f"--- last lines of the gateway's log\n{processes.log('features')[-4000:]}", file=sys.stderr)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
