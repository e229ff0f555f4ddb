"""Nothing of what was erased stays in what the tool wrote: not in the redacted folder, and nowhere after a purge.

Searched are the folder that a verb wrote, the cache, the temporary folder, the terminal and --json; for whole texts,
single words, token ids and plain hashes (`needles`). A digest is plain where two runs with salts of their own share it
and one about other people does not: whoever guesses the people can compute it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import (
    JOURNAL,
    KILLED,
    PEOPLE,
    SHORT,
    TOWN,
    Done,
    Place,
    Server,
    forget_rows,
    request,
)
from needles import VOCABULARY, digests_in, needles, search, seen
from safetensors.numpy import load_file, save_file

from worlds import write

WORDS = (*(word for name in PEOPLE for word in name.split()), TOWN)
PROBES = [
    {"question": f"Which town saw {row['subject']} first?", "answer": row["answer"], "kind": "rephrased"}
    for row in forget_rows()
]
INLINE = [{key: row[key] for key in ("question", "answer")} for row in forget_rows()]
KILLS = max(2, int(os.environ.get("EXPUNGE_KILLS", "60")) // 50)
"""Kills of each case that is killed."""
PRIVATE = (JOURNAL, "salt.json", "marks.json")
"""Files that are for the owner alone, whatever the umask."""
HELD = {
    "model/guard": "a guard keeps back what it knows of; without it the model answers as before (purge --guards)",
    JOURNAL: "names of cache entries, for purge; for the owner alone",
    "more.jsonl": "`neighbours --out`: the rows of the user's own corpus that were asked for",
    "published.jsonl": "`mark`: the user's own data, marked, to be given away",
    "marks.json": "`mark`: without the marks and their twins nothing can be tested; for the owner alone; "
    "a purge takes it",
}
"""What holds texts or plain digests before a purge, and why."""
WANTED = ("more.jsonl", "published.jsonl")
"""What stays after a purge: files that the user asked for, of the user's own rows."""


@dataclass(frozen=True)
class Case:
    """A redacted command. out: what it writes, below the current folder; erased: the rows that it makes forgotten.

    prepare: writes what the command reads. purge: how what it wrote is purged; None where only wanted files are
    written. killed: is it also killed, and then purged without having gone on. slow: in the nightly tests alone.
    """

    name: str
    command: tuple[str, ...]
    out: str
    prepare: Callable[[Place], None] = field(default=lambda place: None)
    erased: Sequence[Mapping[str, Any]] = field(default_factory=forget_rows)
    words: Sequence[str] = WORDS
    purge: tuple[str, ...] | None = ()
    killed: bool = False
    slow: bool = False

    def __str__(self) -> str:
        return self.name


def requested(**fields: Any) -> Callable[[Place], None]:
    """Writes run.yaml, a redacted request."""

    def prepare(place: Place) -> None:
        request(place, "run", **{"redact": True, **fields})

    return prepare


def a_run(name: str, *, case: Mapping[str, Any] = {}, **fields: Any) -> Case:
    """A run whose request has these fields. case: fields of the case itself."""
    return Case(name, ("run", "run.yaml", "--json"), "runs/run", requested(**fields), **case)


def models(place: Place) -> None:
    """Four models that unlearned and eight that were retrained, as far as their weights say: the base, shaken."""
    for folder, count in (("unlearned", 4), ("gold", 8)):
        for number in range(count):
            copy = place.folder / folder / str(number)
            shutil.copytree(place.folder / "base", copy)
            weights = load_file(copy / "model.safetensors")
            draw = random.Random(f"{folder} {number}")
            shaken = {name: value * (1 + 0.01 * draw.random()) for name, value in weights.items()}
            save_file(shaken, copy / "model.safetensors", {"format": "pt"})


def marked(place: Place) -> None:
    """Marks as `expunge mark` leaves them."""
    twins = [{**row, "answer": f"In {TOWN} twin {i}."} for i, row in enumerate(INLINE)]
    (place.folder / "marked").mkdir()
    (place.folder / "marked" / "marks.json").write_text(
        json.dumps({"kind": "taggants", "published": INLINE, "twins": twins})
    )


def unmarked(place: Place) -> None:
    """Rows enough for ten marks."""
    write(place.folder / "marking.jsonl", forget_rows() * 3)


def only(number: int, slow: bool = False) -> dict[str, Any]:
    """Fields of a case that makes one person alone forgotten."""
    return {"erased": forget_rows()[number : number + 1], "words": PEOPLE[number].split(), "slow": slow}


SLOW, KILLED_TOO = {"slow": True}, {"killed": True}
SMALL: dict[str, Any] = {"budget": SHORT, "gold": "none"}
BY_GROUP = {"by": "group", "inner": "npo"}
GUARDS = ("eco", "key_space")
"""Not in_context: a redacted run refuses it, because its guard holds the questions."""
AUDIT = ("audit", "base", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--redact", "--out", "audits/a")
NEIGHBOURS = ("neighbours", "--forget", "forget.jsonl", "--corpus", "all.jsonl", "--redact")
MODELS = ("--unlearned", "unlearned/*", "--gold", "gold/*")
CASES = [
    a_run("inline forget", forget=INLINE, case=KILLED_TOO),
    a_run("one row", forget=INLINE[:1], **SMALL, case=only(0)),
    a_run("selector", forget={"where": {"subject": PEOPLE[2]}}, data="all.jsonl", retain=None, **SMALL, case=only(2)),
    a_run("inline probes", probes=PROBES, redact=None, purpose="erase", case=SLOW),
    a_run("probes in a file", probes="probes.jsonl", case=SLOW),
    a_run("splits inline", probes={"forget_qa": INLINE}, gold="none", case=SLOW),
    a_run("spunge by group", method={"spunge": BY_GROUP}, **SMALL, case={**SLOW, **KILLED_TOO}),
    a_run("sequential by group", method={"sequential": BY_GROUP}, **SMALL, case=SLOW),
    a_run("worst case", method={"worst_case": {"inner": "npo"}}, **SMALL, case=SLOW),
    a_run("retrained", method="retrain", gold="none", budget=None, case=SLOW),
    *(
        a_run(f"guard {name}", method=name, budget=None, gold="none", case={"purge": ("--guards",), **SLOW})
        for name in GUARDS
    ),
    a_run("attacked", audit="standard", case={**SLOW, **KILLED_TOO}),
    a_run("aligned", alignment="standard", case=SLOW),
    Case("audit", (*AUDIT, "--level", "none", "--json"), "audits/a", killed=True),
    Case("audit with attacks", (*AUDIT, "--level", "standard"), "audits/a", slow=True, killed=True),
    Case(
        "bench",
        ("bench", "run.yaml", "--methods", "npo,ga", "--out", "runs/bench", "--json"),
        "runs/bench",
        requested(forget=INLINE, gold="none"),
        killed=True,
        slow=True,
    ),
    Case(
        "tune",
        ("tune", "run.yaml", "--trials", "2", "--out", "runs/tune", "--json"),
        "runs/tune",
        requested(forget=INLINE, gold="none"),
        killed=True,
        slow=True,
    ),
    Case(
        "forget",
        (
            "forget",
            "base",
            f"forget everything about {PEOPLE[2]}",
            "--data",
            "all.jsonl",
            "--yes",
            "--redact",
            "--out",
            "runs/forget",
        ),
        "runs/forget",
        **only(2),
        killed=True,
    ),
    Case("neighbours", (*NEIGHBOURS, "--out", "more.jsonl"), "more.jsonl", purge=None),
    Case("neighbours by a model", (*NEIGHBOURS, "--model", "base", "--json"), "more.jsonl", purge=None, slow=True),
    Case(
        "exposure",
        (
            "exposure",
            "--forget",
            "forget.jsonl",
            *MODELS,
            "--holdout",
            "holdout.jsonl",
            "--redact",
            "--out",
            "audits/e",
        ),
        "audits/e",
        models,
        slow=True,
        killed=True,
    ),
    Case("mark", ("mark", "marking.jsonl", "--out", "marked", "--share", "0.5"), "marked", unmarked, killed=True),
    Case(
        "provenance",
        (
            "provenance",
            "base",
            "--marks",
            "marked",
            "--data",
            "forget.jsonl",
            "--name",
            "people",
            "--holdout",
            "holdout.jsonl",
            "--out",
            "traces/t",
        ),
        "traces/t",
        marked,
    ),
]


def cases(killed: bool = False) -> list[Any]:
    """All cases, or those that are killed."""
    return [
        pytest.param(case, id=case.name.replace(" ", "-"), marks=[pytest.mark.slow] * case.slow)
        for case in CASES
        if case.killed or not killed
    ]


@pytest.fixture(scope="module")
def tokens(place: Place) -> Callable[[str], list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place.folder / "base")
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


class Search:
    """One case, carried out in a world of its own."""

    def __init__(self, case: Case, place: Place, server: Server, tokens: Callable[[str], list[int]]) -> None:
        self.case, self.place, self.server = case, place, server
        self.wanted = needles(case.erased, case.words, tokens)
        place.back("world")
        write(place.folder / "probes.jsonl", PROBES)
        case.prepare(place)
        self.out = place.folder / case.out

    def call(self, arguments: Sequence[object] = (), **more: Any) -> Done:
        return self.server.call(arguments or self.case.command, self.place, **more)

    def purge(self) -> Done:
        assert self.case.purge is not None
        return self.call(["purge", self.case.out, *self.case.purge])

    def written(self) -> list[str]:
        """Leaks before a purge; the cache is for the owner alone, and holds texts until then."""
        held = tuple(str(self.place.folder / self.case.out / name) for name in HELD)
        found = search([self.out, self.place.temporary], self.wanted)
        return [line for line in found if not line.startswith(held) and self.out.name not in HELD]

    def left(self) -> list[str]:
        """Leaks after a purge, wherever the tool may write."""
        places = [self.out, self.place.cache, self.place.temporary]
        places += (
            [path for path in self.out.parent.iterdir() if path.name.startswith(".")]
            if self.out.parent.is_dir()
            else []
        )
        return search(places, self.wanted, (*VOCABULARY, *WANTED))

    def said(self, *done: Done) -> list[str]:
        """Leaks on the terminal."""
        found = [seen(one.said.encode(), self.wanted) for one in done]
        return [f"terminal: {kind} ({form[:40]!r})" for leaks in found for form, kind in leaks.items()]


@pytest.fixture()
def searched(place: Place, server: Server, tokens: Callable[[str], list[int]]) -> Iterator[Callable[[Case], Search]]:
    yield lambda case: Search(case, place, server, tokens)


def open_to_others(paths: Sequence[Path]) -> list[str]:
    """Those that somebody else than the owner may read or enter."""
    return [
        f"{path}: {stat.S_IMODE(path.stat().st_mode):o}"
        for path in paths
        if path.exists() and not path.is_symlink() and path.stat().st_mode & 0o077
    ]


@pytest.mark.parametrize("case", cases())
def test_nothing_erased_is_left_in_what_a_command_writes(case: Case, searched: Callable[[Case], Search]) -> None:
    the = searched(case)
    done = the.call()
    assert done.code in (0, 1), done.said
    private = [path for path in the.place.cache.rglob("*") if path.suffix != ".lock"]
    private += [path for name in PRIVATE for path in the.out.rglob(name)]
    wrong = [*open_to_others(private), *the.written(), *the.said(done)]
    if case.purge is not None:
        purged = the.purge()
        assert purged.code == 0, purged.said
        wrong += the.said(purged)
        if (the.out / "certificate.json").is_file() and the.call(["verify", case.out]).code != 0:
            wrong.append("does not verify after the purge")
    wrong += [f"after the purge: {line}" for line in the.left()]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", cases(killed=True))
def test_nothing_erased_is_left_of_what_was_killed_and_then_purged(
    case: Case, searched: Callable[[Case], Search], tmp_path: Path
) -> None:
    the = searched(case)
    the.place.keep("start")
    record = tmp_path / "operations"
    assert the.call(operations={"record": str(record)}).code in (0, 1)
    count = len(record.read_text(encoding="utf-8").splitlines())
    draw = random.Random(f"leaks {case.name}")
    leaks = []
    for number in sorted(draw.sample(range(1, count + 1), min(count, KILLS))):
        the.place.back("start")
        killed = the.call(operations={"kill": number})
        assert killed.code == KILLED
        purged = the.purge()  # of what had not begun there is nothing to purge
        found = [*the.left(), *the.said(killed, purged)]
        leaks += [f"killed before {number} of {count}, purge ends with {purged.code}: {line}" for line in found]
    assert not leaks, "\n".join(leaks)


def slowly(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", ["audit", "mark", *slowly("inline forget", "bench", "tune")])
def test_the_umask_decides_who_may_read(name: str, searched: Callable[[Case], Search]) -> None:
    the = searched(next(case for case in CASES if case.name == name))
    made = {*the.place.live.rglob("*")}
    done = the.call(umask=0o077)
    assert done.code in (0, 1), done.said
    new = [path for path in the.place.live.rglob("*") if path not in made and path.suffix != ".lock"]
    assert new and open_to_others(new) == []


OTHERS = [
    {**row, "question": row["question"].replace(role, f"{role[::-1].title()}")}
    for row, role in zip(INLINE, PEOPLE, strict=True)
]
"""The same questions about other people, of names of the same length."""


@pytest.mark.parametrize("name", ["inline forget", *slowly("bench", "tune")])
def test_no_digest_in_a_redacted_folder_can_be_guessed(name: str, searched: Callable[[Case], Search]) -> None:
    case = next(case for case in CASES if case.name == name)
    found = []
    for rows in (INLINE, INLINE, OTHERS):
        the = searched(case)
        request(the.place, "run", redact=True, forget=rows, gold="none")
        assert the.call().code in (0, 1)
        found.append(_given_away(the))
    assert (found[0] & found[1]) - found[2] == set()


def _given_away(the: Search) -> set[str]:
    """Digests in all that is not for the owner alone."""
    for path in [path for name in PRIVATE for path in the.out.rglob(name)]:
        path.unlink()
    return digests_in([the.out])
