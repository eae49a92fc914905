"""The official conformance suite through the gateway: run.py MCP-X FIXTURE-UPSTREAM

Each requirement set runs against the fixture server of its own era directly, and then through the gateway in front of
the fixture of either era. A check that does not pass (a warning, a skipped one and one that the direct run has and this
run lacks count as such) must be in `expected-failures.toml`, and whatever is in there must not pass, so that the list
can only shrink. Scenarios that the suite does not score are held to the same. Then come the suite's client scenarios
(`clients.py`).
"""

import asyncio
import json
import re
import shutil
import sys
import time
import tomllib
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import clients
from forward import Forwarder
from support import (
    ABSENT,
    LIST,
    PASSED,
    RESULTS,
    START_SECONDS,
    STATUSES,
    TOKEN,
    conformance,
    gateway,
    process,
    wait_for_text,
)

# The requirement sets: how many scenarios each scores, and the mode of the fixture that speaks its era.
SETS = {"2025-11-25": (30, "sessions"), "2026-07-28": (37, "modern")}
# `expected` not to pass, because it is listed; `stale` is what passes in spite of that.
VERDICTS = ["passed", "expected", "failed", "stale"]


class Leg(NamedTuple):
    """One run of the suite."""

    requirements: str
    # The mode of the fixture behind the gateway; None for the fixture alone.
    behind: str | None

    def __str__(self) -> str:
        return f"{self.requirements} {self.behind or 'direct'}"

    @property
    def title(self) -> str:
        if self.behind is None:
            return f"requirements {self.requirements}, directly at the fixture ({SETS[self.requirements][1]})"
        return f"requirements {self.requirements}, through the gateway to the fixture ({self.behind})"


LEGS = [Leg(requirements, behind) for requirements in SETS for behind in (None, "sessions", "modern")]


class Check(NamedTuple):
    """A check of the suite."""

    scenario: str
    name: str


@dataclass
class Run:
    """What came of a leg."""

    statuses: dict[Check, str]
    messages: dict[Check, str]
    # Scenarios that do not count for the suite.
    unscored: set[str]


def wait_for_tools(port: int) -> None:
    """Waits until the gateway knows the tools: some probes of the suite leave no time for that."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/mcp", body, headers)
    deadline = time.monotonic() + START_SECONDS
    while True:
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            if json.load(answer)["result"]["tools"]:
                return
        if time.monotonic() > deadline:
            raise RuntimeError("the gateway lists no tools")
        time.sleep(0.05)


async def run(leg: Leg, binary: Path, fixture: Path) -> Run:
    """Runs one leg."""
    folder = RESULTS / str(leg).replace(" ", "-")
    folder.mkdir(parents=True)
    mode = leg.behind or SETS[leg.requirements][1]
    log = folder / "fixture.log"
    with process([str(fixture), "--mode", mode, "--port", "0"], log) as running:
        url = wait_for_text(r"(http\S+)", log, running)
        if leg.behind is None:
            output = await suite(leg, url, folder)
        else:
            output = await through(leg, url, folder, binary)
    return read(folder, output)


async def through(leg: Leg, url: str, folder: Path, binary: Path) -> str:
    """Runs the suite through a gateway in front of the server at `url`."""
    with gateway(binary, url, folder) as port:
        wait_for_tools(port)
        forwarded = await Forwarder(port, TOKEN).start()
        return await suite(leg, f"http://127.0.0.1:{forwarded}/mcp", folder)


async def suite(leg: Leg, url: str, folder: Path) -> str:
    """Runs the suite against `url`; what it says."""
    arguments = ["server", "--url", url, "--requirements", leg.requirements, "-o", str(folder / "checks")]
    return await conformance(*arguments, log=folder / "suite.log")


def read(folder: Path, output: str) -> Run:
    """Reads what a run of the suite has left in its folder."""
    run = Run({}, {}, set())
    for file in sorted(folder.glob("checks/*/checks.json")):
        named = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z", file.parent.name)
        assert named, f"expected a folder with scenario and time, found {file.parent.name}"
        for found in json.loads(file.read_text()):
            check = Check(named.group(1), found["id"])
            before = run.statuses.setdefault(check, found["status"])
            if STATUSES.index(found["status"]) <= STATUSES.index(before):
                run.statuses[check] = found["status"]
                run.messages[check] = found.get("errorMessage") or ""
    _, _, unscored = output.partition("Not scored for ")
    run.unscored = set(re.findall(r"^  [✓✗] (\S+) \(", unscored, re.MULTILINE))
    assert run.statuses, f"the suite has not run:\n{output[-2000:]}"
    return run


def expected(leg: Leg) -> dict[Check, str]:
    """What the list says of a leg: the checks that cannot pass, and what they lack."""
    found: dict[Check, str] = {}
    for entry in tomllib.loads(LIST.read_text())["missing"]:
        unknown = {*entry["legs"]} - {*map(str, LEGS)}
        assert not unknown, f"{LIST.name}: no such leg: {unknown}"
        if str(leg) in entry["legs"]:
            checks = [Check(scenario, name) for scenario, names in entry["checks"].items() for name in names]
            twice = {*checks} & {*found}
            assert not twice and len(checks) == len({*checks}), f"{LIST.name}: listed twice for {leg}: {twice}"
            found.update(dict.fromkeys(checks, entry["what"]))
    return found


class Judgement:
    """A run held against the list."""

    def __init__(self, leg: Leg, run: Run, direct: Run) -> None:
        self.leg, self.run, self.direct = leg, run, direct
        self.listed = expected(leg)
        for check in direct.statuses.keys() - run.statuses.keys():
            run.statuses[check] = ABSENT
        # By scenario: how many checks passed, are expected not to, failed, or pass in spite of the list (stale).
        self.rows: dict[str, Counter[str]] = {}
        self.wrong: list[str] = []
        for check in sorted({*run.statuses, *self.listed}):
            self.rows.setdefault(check.scenario, Counter())[self.verdict(check)] += 1
        self.scored = [row for scenario, row in self.rows.items() if scenario not in run.unscored]
        if len(self.scored) != SETS[leg.requirements][0]:
            self.wrong.append(f"expected {SETS[leg.requirements][0]} scored scenarios, found {len(self.scored)}")

    def verdict(self, check: Check) -> str:
        status = self.run.statuses.get(check)
        if status is None or (status in PASSED and check in self.listed):
            self.wrong.append(f"{check.scenario}: {check.name}: does not fail; take it off {LIST.name}")
            return "stale"
        if status in PASSED:
            return "passed"
        if check in self.listed:
            return "expected"
        self.wrong.append(f"{check.scenario}: {check.name}: {status} {self.run.messages.get(check, '')}".rstrip())
        return "failed"

    def show(self) -> None:
        """Prints all of it, scenario by scenario."""
        print(f"\n--- {self.leg.title}")
        for scenario, row in self.rows.items():
            mark = "FAIL" if row["failed"] or row["stale"] else "ok  "
            counts = ", ".join(f"{row[verdict]} {verdict}" for verdict in VERDICTS if row[verdict])
            print(f"{mark} {scenario:.<48} {counts}{' (not scored)' * (scenario in self.run.unscored)}")
        if self.leg.behind is not None:
            self.show_differences()
        whole = sum(row.keys() == {"passed"} for row in self.scored)
        total: Counter[str] = sum(self.rows.values(), Counter())
        counts = ", ".join(f"{total[verdict]} {verdict}" for verdict in VERDICTS)
        print(f"{self.leg}: {whole} of {len(self.scored)} scored scenarios pass whole; checks: {counts}")
        for line in self.wrong:
            print(f"     {line}")

    def show_differences(self) -> None:
        """Prints where the gateway makes a difference to what the set's own fixture does alone."""
        found: dict[str, dict[str, list[str]]] = {}
        for check, status in sorted(self.run.statuses.items()):
            before = self.direct.statuses.get(check, ABSENT)
            if status != before and not {status, before} <= PASSED:
                why = self.listed.get(check, "passes only here" if status in PASSED else "not listed")
                found.setdefault(why, {}).setdefault(check.scenario, []).append(f"{check.name} {before} → {status}")
        for why, scenarios in found.items():
            print(f"differs from direct: {why}")
            for scenario, changes in scenarios.items():
                print(f"     {scenario}: {', '.join(changes)}")


async def main(binary: Path, fixture: Path) -> int:
    shutil.rmtree(RESULTS, ignore_errors=True)
    runs: dict[Leg, Run] = {}
    good = True
    for leg in LEGS:
        begun = time.monotonic()
        runs[leg] = await run(leg, binary, fixture)
        judgement = Judgement(leg, runs[leg], runs[Leg(leg.requirements, None)])
        judgement.show()
        print(f"     {time.monotonic() - begun:.1f} s", flush=True)
        good = good and not judgement.wrong
    good = await clients.main(binary) and good
    print("conformance: as expected" if good else "conformance: NOT as expected")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*(Path(argument).resolve() for argument in sys.argv[1:3]))))
