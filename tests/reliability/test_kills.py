"""Whatever is killed, wherever: the same command goes on to the same bits, and leaves nothing else behind.

An undisturbed execution is recorded: its operations on files, and what it leaves. Then it is killed before one of these
operations, and done again as its user would do it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from harness import KILLED, SHORT, TRAINING, Done, Place, Server, configure, contents, names, request

KILLS = int(os.environ.get("EXPUNGE_KILLS", "15"))
"""Kills over all scenarios."""
FIRST, LAST = 6, 10
"""Operations at both ends of a life that are tried above all: where folders are taken, and scratch is cleared."""


@dataclass(frozen=True)
class Scenario:
    """A command that is killed. share: of all kills, relative to the other scenarios'.

    stands: one of these is there once it has begun; `again` is added to the command then. verified: folders that
    `expunge verify` must approve of in the end. slow: in the nightly tests alone.
    """

    name: str
    share: int
    prepare: Callable[[Place, Server], None]
    command: tuple[str, ...]
    stands: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    slow: bool = False


def requested(**fields: Any) -> Callable[[Place, Server], None]:
    """Writes run.yaml."""

    def prepare(place: Place, server: Server) -> None:
        request(place, "run", **fields)

    return prepare


def trained(**fields: Any) -> Callable[[Place, Server], None]:
    """Writes another training than the world's own."""

    def prepare(place: Place, server: Server) -> None:
        configure(place, "more", {**TRAINING, **fields, "out": "more"})

    return prepare


def finished(place: Place, server: Server) -> None:
    """A finished run, with its caches."""
    request(place, "run")
    done = server.call(["run", "run.yaml"], place)
    assert done.code == 0, done.said


NESTED = {"method": {"spunge": {"by": "group", "inner": "npo"}}, "budget": SHORT, "gold": "none"}
RUN: dict[str, Any] = {
    "command": ("run", "run.yaml"),
    "stands": ("runs/run",),
    "again": ("--resume",),
    "verified": ("runs/run",),
}
TRAIN: dict[str, Any] = {
    "command": ("train", "more.yaml"),
    "stands": ("more", ".more.training"),
    "again": ("--resume",),
}
BENCH = ("bench", "run.yaml", "--methods", "npo,ga", "--out", "runs/bench")
FORGET = ("forget", "base", "forget everything about Teodric Valkenhaus", "--data", "all.jsonl", "--out", "runs/forget")
SCENARIOS = [
    Scenario("run", 10, requested(), **RUN),
    Scenario("redacted run", 6, requested(redact=True), **RUN),
    Scenario("nested run", 7, requested(**NESTED), slow=True, **RUN),
    Scenario("train", 11, trained(), **TRAIN),
    Scenario("exact train", 8, trained(exact={"sisa": {"shards": 2, "slices": 2}}), **TRAIN),
    Scenario("purge", 10, finished, ("purge", "runs/run"), verified=("runs/run",)),
    Scenario("bench", 2, requested(), BENCH, verified=("runs/bench/npo/seed-3", "runs/bench/ga/seed-3"), slow=True),
    Scenario("tune", 2, requested(gold="none"), ("tune", "run.yaml", "--trials", "2", "--out", "runs/tune"), slow=True),
    Scenario(
        "forget", 4, requested(), (*FORGET, "--yes"), ("runs/forget",), ("--resume",), ("runs/forget",), slow=True
    ),
]


def kills_of(scenario: Scenario) -> int:
    return max(1, round(KILLS * scenario.share / sum(other.share for other in SCENARIOS)))


def points(count: int, operations: int, draw: random.Random) -> list[int]:
    """`count` operations from 1 up: half of them, or all that there are, at both ends of the life."""
    ends = sorted({*range(1, FIRST + 1), *range(operations - LAST + 1, operations + 1)} & set(range(1, operations + 1)))
    chosen = ends if count >= 2 * len(ends) else sorted(draw.sample(ends, min(len(ends), (count + 1) // 2)))
    rest = [number for number in range(1, operations + 1) if number not in chosen]
    return sorted([*chosen, *draw.sample(rest, min(len(rest), count - len(chosen)))])


class Trials:
    """The executions of a scenario: one undisturbed, then those that are killed."""

    def __init__(self, scenario: Scenario, place: Place, server: Server) -> None:
        self.scenario, self.place, self.server = scenario, place, server
        place.back("world")
        scenario.prepare(place, server)
        place.keep("start")
        record = place.root / "operations"
        self.undisturbed = server.call(scenario.command, place, operations={"record": str(record)})
        assert self.undisturbed.code in (0, 1), self.undisturbed.said
        self.operations = record.read_text(encoding="utf-8").splitlines()
        self.contents, self.names = contents(place), names(place)

    def killed(self, number: int, second: int) -> str:
        """What is wrong after a kill before the operation `number`; second: a kill of what goes on, too, where not
        0."""
        self.place.back("start")
        assert self.server.call(self.scenario.command, self.place, operations={"kill": number}).code == KILLED
        if second:
            self._again({"kill": second})
        done = self._again(None)
        if done.code != self.undisturbed.code:
            return f"ends with {done.code}: {done.said.strip()[-300:]}"
        return self._differences()

    def _again(self, operations: dict[str, int] | None) -> Done:
        begun = any((self.place.folder / name).exists() for name in self.scenario.stands)
        arguments = self.scenario.command + (self.scenario.again if begun else ())
        return self.server.call(arguments, self.place, operations=operations)

    def _differences(self) -> str:
        there, found = names(self.place), contents(self.place)
        if left := sorted(there - self.names):
            return f"left behind: {', '.join(left[:4])}"
        if lost := sorted(self.names - there):
            return f"missing: {', '.join(lost[:4])}"
        if other := sorted(name for name, content in self.contents.items() if found[name] != content):
            return f"other contents: {', '.join(other[:4])}"
        for folder in self.scenario.verified:
            if (said := self.server.call(["verify", folder], self.place)).code != 0:
                return f"verify of {folder} ends with {said.code}: {said.said.strip()[-200:]}"
        return ""


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(one, id=one.name.replace(" ", "-"), marks=[pytest.mark.slow] * one.slow) for one in SCENARIOS],
)
def test_what_is_killed_goes_on_to_the_same_bits(scenario: Scenario, place: Place, server: Server) -> None:
    trials = Trials(scenario, place, server)
    draw = random.Random(f"kills {scenario.name}")
    wrong = []
    for i, number in enumerate(points(kills_of(scenario), len(trials.operations), draw)):
        second = draw.randrange(1, len(trials.operations)) if i % 6 == 5 else 0
        if why := trials.killed(number, second):
            operation = trials.operations[number - 1].replace(str(place.live), "")
            then = f", then {second}" if second else ""
            wrong.append(f"before {number} of {len(trials.operations)} ({operation}){then}: {why}")
    assert not wrong, "\n".join(wrong)


def test_the_recorded_life_is_whole(place: Place, server: Server) -> None:
    """The hook sees a run from the taking of its folder to its last file, and what is cleared after that."""
    operations = Trials(SCENARIOS[0], place, server).operations
    folder = place.folder / "runs" / "run"
    last = max(i for i, line in enumerate(operations) if line.startswith(f"os.rename {folder}/.certificate.json."))
    assert operations[0].startswith(f"os.mkdir {folder}") and len(operations) > 100
    assert {line.split()[0] for line in operations[last + 1 :]} <= {
        "os.rename",
        "os.remove",
        "os.rmdir",
        "shutil.rmtree",
    }
