"""The suite's client legs: its servers behind the gateway, which is the client that they judge.

Each scenario runs in every revision that it has, and each time through a gateway with a client of either era. A check
that does not pass (a warning and a skipped one count as such, and so does a driver that did not get the answers it
expected) must be in `expected-failures.toml`, and whatever is in there must not pass, so that the list can only shrink.
"""

import asyncio
import json
import re
import shlex
import sys
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

from drive import SCENARIOS
from support import LIST, PASSED, RESULTS, STATUSES, conformance

# Scenarios that are not run, by what their names begin with, and why.
LEFT_OUT = {
    "auth/": "the gateway knows no OAuth: what it shows a server is configured with it",
    "sep-2640-": "skills are for a host that reads them; the gateway hands them on as they are and fetches none",
}
ERAS = ["legacy", "modern"]
# Legs that run side by side. One whose time is measured runs alone.
TOGETHER = 3
TIMED = "sse-retry"
DRIVER = Path(__file__).with_name("drive.py")
# The check that the driver got what it expected.
DRIVEN = "driver/answers"


class Leg(NamedTuple):
    """A scenario in one of its revisions, by a client of an era."""

    scenario: str
    revision: str
    client: str

    def __str__(self) -> str:
        return f"{self.scenario} {self.revision} {self.client}"


class Run(NamedTuple):
    """What came of a leg: statuses and messages by check, which is `id/name`."""

    statuses: dict[str, str]
    messages: dict[str, str]
    seconds: float


async def legs() -> list[Leg]:
    """Every leg there is; a scenario that nobody has thought of is an error."""
    listed = await conformance("list", "--client", log=RESULTS / "client-scenarios.log")
    found = dict(re.findall(r"^  - (\S+) \[(.+)\]$", listed, re.MULTILINE))
    unknown = {name for name in found if name not in SCENARIOS and not name.startswith((*LEFT_OUT,))}
    assert not unknown and found.keys() >= SCENARIOS.keys(), f"other scenarios than expected: {unknown or listed}"
    for prefix, why in LEFT_OUT.items():
        print(f"left out: {sum(name.startswith(prefix) for name in found)} scenarios {prefix}…: {why}")
    return [Leg(name, revision, era) for name in SCENARIOS for revision in found[name].split(",") for era in ERAS]


async def run(leg: Leg, binary: Path) -> Run:
    """Runs one leg."""
    begun = time.monotonic()
    folder = RESULTS / "client" / str(leg).replace(" ", "-")
    folder.mkdir(parents=True)
    arguments = ["client", "--command", shlex.join([sys.executable, "-B", str(DRIVER)]), "--scenario", leg.scenario]
    arguments += ["--spec-version", leg.revision, "-o", str(folder / "checks")]
    environment = {"DRIVE_GATEWAY": str(binary), "DRIVE_FOLDER": str(folder), "DRIVE_CLIENT": leg.client}
    output = await conformance(*arguments, log=folder / "suite.log", **environment)
    return read(folder, output, begun)


def read(folder: Path, output: str, begun: float) -> Run:
    """Reads what a leg has left in its folder."""
    (file,) = folder.glob("checks/*/checks.json")
    failure = re.search(r"Client (?:exited with code|timed out)", output)
    errors = file.with_name("stderr.txt").read_text().splitlines()
    run = Run({DRIVEN: "FAILURE" if failure else "SUCCESS"}, {DRIVEN: "".join(errors[-1:])}, time.monotonic() - begun)
    for found in json.loads(file.read_text()):
        check = f"{found['id']}/{found['name']}"
        before = run.statuses.setdefault(check, found["status"])
        if STATUSES.index(found["status"]) <= STATUSES.index(before):
            run.statuses[check] = found["status"]
            run.messages[check] = found.get("errorMessage") or ""
    return run


def expected(every: list[Leg]) -> dict[str, dict[str, str]]:
    """What the list says: by leg the checks that cannot pass, and what they lack."""
    found: dict[str, dict[str, str]] = {str(leg): {} for leg in every}
    for entry in tomllib.loads(LIST.read_text()).get("client", []):
        for leg in entry["legs"]:
            for check in entry["checks"]:
                assert leg in found, f"{LIST.name}: no such leg: {leg}"
                assert check not in found[leg], f"{LIST.name}: listed twice for {leg}: {check}"
                found[leg][check] = entry["what"]
    return found


def show(leg: Leg, run: Run, listed: dict[str, str]) -> bool:
    """Prints what came of a leg; whether that was expected."""
    wrong = []
    passed = {check for check, status in run.statuses.items() if status in PASSED}
    for check in sorted({*run.statuses, *listed} - passed):
        if check not in listed:
            wrong.append(f"{check}: {run.statuses[check]} {run.messages.get(check, '')}".rstrip())
        elif check not in run.statuses:
            wrong.append(f"{check}: is not there; take it off {LIST.name}")
    wrong += [f"{check}: does not fail; take it off {LIST.name}" for check in sorted(passed & {*listed})]
    failing = len(run.statuses) - len(passed)
    counts = f"{len(passed)} passed" + f", {failing} not" * (failing > 0)
    print(f"{'FAIL' if wrong else 'ok  '} {str(leg):.<64} {counts} ({run.seconds:.1f} s)")
    for line in wrong:
        print(f"     {line}")
    if not wrong:
        for why in dict.fromkeys(listed.values()):
            print(f"     not: {why}")
    return not wrong


async def main(binary: Path) -> bool:
    """Runs all legs; whether everything was as expected."""
    print("\n--- client scenarios: the gateway as the client of the suite's servers")
    begun = time.monotonic()
    every = await legs()
    listed = expected(every)
    turn = asyncio.Semaphore(TOGETHER)

    async def in_turn(leg: Leg) -> Run:
        async with turn:
            return await run(leg, binary)

    together = [leg for leg in every if leg.scenario != TIMED]
    runs = dict(zip(together, await asyncio.gather(*map(in_turn, together)), strict=True))
    for leg in every:
        if leg.scenario == TIMED:
            runs[leg] = await run(leg, binary)
    good = [show(leg, runs[leg], listed[str(leg)]) for leg in every]
    whole = sum(not listed[str(leg)] for leg in every)
    print(f"client scenarios: {sum(good)} of {len(good)} legs as expected, {whole} of them expected to pass whole")
    print(f"     {time.monotonic() - begun:.1f} s", flush=True)
    return all(good)
