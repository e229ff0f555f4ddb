"""Nothing of what was erased stays in what the tool wrote: not in the redacted folder, and nowhere after a purge.

Searched are the folder that a verb wrote, the cache, the temporary folder, the terminal and --json; for whole texts, single
words, token ids and plain hashes (`needles`). A digest is plain where two runs with salts of their own share it and one
about other people does not: whoever guesses the people can compute it.
"""

from __future__ import annotations

import json
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from harness import (
    KILLED, PEOPLE, SHORT, TOWN, TRAINING, Done, Place, Server, configure, files, forget_rows, other_rows, request,
)  # fmt: skip
from needles import VOCABULARY, digests_in, needles, search, seen
from worlds import write

WORDS = (*(word for name in PEOPLE for word in name.split()), TOWN)
PROBES = [{"question": f"Which town saw {row['subject']} first?", "answer": row["answer"], "kind": "rephrased"}
          for row in forget_rows()]  # fmt: skip
INLINE = [{key: row[key] for key in ("question", "answer")} for row in forget_rows()]
JOURNAL, SALT = "caches.jsonl", "salt.json"
HELD = {
    "model/guard": "a guard keeps back what it knows of; without it the model answers as before (purge --guards)",
    JOURNAL: "names of cache entries, for purge; for the owner alone",
    "more.jsonl": "`neighbours --out`: the rows of the user's own corpus that were asked for",
    "published.jsonl": "`mark`: the user's own data, marked, to be given away",
    "marks.json": "`mark`: without the marks and their twins nothing can be tested; for the owner alone; a purge takes it",
}
"""What holds texts or plain digests before a purge, and why."""
WANTED = ("more.jsonl", "published.jsonl")
"""What stays after a purge: files that the user asked for, of the user's own rows."""


@dataclass(frozen=True)
class Case:
    """A redacted command. out: what it writes, below the current folder; erased: the rows that it makes forgotten.

    prepare: writes what the command reads. purge: how what it wrote is purged; None where only wanted files are written.
    killed: is it also killed, and then purged without having gone on.
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


def a_run(name: str, *, erased: Sequence[Mapping[str, Any]] | None = None, words: Sequence[str] = WORDS, slow: bool = False,
          killed: bool = False, purge: tuple[str, ...] = (), **fields: Any) -> Case:  # fmt: skip
    return Case(name, ("run", "run.yaml", "--json"), "runs/run",
                lambda place: None if request(place, "run", **{"redact": True, **fields}) else None,
                forget_rows() if erased is None else erased, words, purge, killed, slow)  # fmt: skip


def asks(name: str, *command: str, out: str, slow: bool = False, killed: bool = True, **fields: Any) -> Case:
    """A verb that takes a request, which stands in run.yaml."""
    return Case(name, command, out, lambda place: None if request(place, "run", **{"redact": True, **fields}) else None,
                slow=slow, killed=killed)  # fmt: skip


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
    (place.folder / "marked" / "marks.json").write_text(json.dumps({"kind": "taggants", "published": INLINE, "twins": twins}))


ONE = forget_rows(1)
WHERE = forget_rows(3)[2:]
GROUPS = {"budget": SHORT, "gold": "none"}
AUDIT = ("audit", "base", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--redact", "--out", "audits/a")
CASES = [
    a_run("inline forget", forget=INLINE, killed=True),
    a_run("one row", forget=INLINE[:1], erased=ONE, words=PEOPLE[0].split(), budget=SHORT, gold="none"),
    a_run("selector", forget={"where": {"subject": PEOPLE[2]}}, data="all.jsonl", retain=None, budget=SHORT, gold="none",
          erased=WHERE, words=PEOPLE[2].split()),
    a_run("inline probes", probes=PROBES, redact=None, purpose="erase", slow=True),
    a_run("probes in a file", probes="probes.jsonl", slow=True),
    a_run("splits inline", probes={"forget_qa": INLINE}, gold="none"),
    a_run("spunge by group", method={"spunge": {"by": "group", "inner": "npo"}}, killed=True, **GROUPS),
    a_run("sequential by group", method={"sequential": {"by": "group", "inner": "npo"}}, slow=True, **GROUPS),
    a_run("worst case", method={"worst_case": {"inner": "npo"}}, slow=True, **GROUPS),
    a_run("exact", method="retrain", gold="none", budget=None, slow=True),
    *(a_run(f"guard {name}", method=name, budget=None, gold="none", purge=("--guards",), slow=True)
      for name in ("in_context", "eco", "key_space")),
    a_run("attacked", audit="standard", slow=True, killed=True),
    a_run("aligned", alignment="standard", slow=True),
    Case("audit", (*AUDIT, "--level", "none", "--json"), "audits/a", killed=True),
    Case("audit with attacks", (*AUDIT, "--level", "standard"), "audits/a", slow=True, killed=True),
    asks("bench", "bench", "run.yaml", "--methods", "npo,ga", "--out", "runs/bench", "--json", out="runs/bench",
         forget=INLINE, gold="none"),
    asks("tune", "tune", "run.yaml", "--trials", "2", "--out", "runs/tune", "--json", out="runs/tune", forget=INLINE,
         gold="none"),
    Case("forget", ("forget", "base", f"forget everything about {PEOPLE[2]}", "--data", "all.jsonl", "--yes", "--redact",
                    "--out", "runs/forget"), "runs/forget", erased=WHERE, words=PEOPLE[2].split(), killed=True),
    Case("neighbours", ("neighbours", "--forget", "forget.jsonl", "--corpus", "all.jsonl", "--redact", "--out", "more.jsonl"),
         "more.jsonl", purge=None),
    Case("neighbours by a model", ("neighbours", "--forget", "forget.jsonl", "--corpus", "all.jsonl", "--model", "base",
                                   "--redact", "--json"), "more.jsonl", purge=None, slow=True),
    Case("exposure", ("exposure", "--forget", "forget.jsonl", "--unlearned", "unlearned/*", "--gold", "gold/*", "--holdout",
                      "holdout.jsonl", "--redact", "--out", "audits/e"), "audits/e", models, slow=True, killed=True),
    Case("mark", ("mark", "marking.jsonl", "--out", "marked", "--share", "0.5"), "marked",
         lambda place: None if write(place.folder / "marking.jsonl", forget_rows() * 3) else None),
    Case("provenance", ("provenance", "base", "--marks", "marked", "--data", "forget.jsonl", "--name", "people", "--holdout",
                        "holdout.jsonl", "--out", "traces/t"), "traces/t", marked),
]  # fmt: skip


def cases(**wanted: bool) -> list[Any]:
    chosen = [case for case in CASES if all(getattr(case, name) == value for name, value in wanted.items())]
    return [pytest.param(case, id=case.name.replace(" ", "-"), marks=[pytest.mark.slow] * case.slow) for case in chosen]


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
        found = search([self.out, self.place.temporary], self.wanted)
        return [line for line in found if not any(f"{self.out.name}/{name}" in line or line.startswith(str(self.out.parent / name))
                                                  for name in HELD)]  # fmt: skip

    def left(self) -> list[str]:
        """Leaks after a purge, in all that the tool may write to."""
        return search([self.out, self.out.parent, self.place.cache, self.place.temporary], self.wanted, (*VOCABULARY, *WANTED)) \
            if self.out.parent != self.place.folder else \
            search([self.out, self.place.cache, self.place.temporary], self.wanted, (*VOCABULARY, *WANTED))  # fmt: skip

    def said(self, *done: Done) -> list[str]:
        return [f"terminal: {kind} ({form[:40]!r})" for one in done for form, kind in seen(one.said.encode(), self.wanted).items()]


@pytest.fixture()
def searched(place: Place, server: Server, tokens: Callable[[str], list[int]]) -> Iterator[Callable[[Case], Search]]:
    yield lambda case: Search(case, place, server, tokens)


def open_to_others(paths: Sequence[Path]) -> list[str]:
    """Those that somebody else than the owner may read or enter."""
    return [f"{path}: {stat.S_IMODE(path.stat().st_mode):o}" for path in paths
            if path.exists() and not path.is_symlink() and path.stat().st_mode & 0o077]  # fmt: skip


@pytest.mark.parametrize("case", cases())
def test_nothing_erased_is_left_in_what_a_command_writes(case: Case, searched: Callable[[Case], Search]) -> None:
    the = searched(case)
    done = the.call()
    assert done.code in (0, 1), done.said
    private = [path for path in the.place.cache.rglob("*") if path.suffix != ".lock"]
    private += [path for name in (SALT, JOURNAL, "marks.json") for path in the.out.rglob(name)]
    assert open_to_others(private) == []
    assert the.written() + the.said(done) == []
    if case.purge is None:
        assert the.left() == []
        return
    purged = the.purge()
    assert purged.code == 0, purged.said
    assert the.left() + the.said(purged) == []
    if (the.out / "certificate.json").is_file():
        assert the.call(["verify", case.out]).code == 0


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
    for number in sorted({*draw.sample(range(1, count), 2), draw.randrange(3 * count // 4, count + 1)}):
        the.place.back("start")
        killed = the.call(operations={"kill": number})
        assert killed.code == KILLED
        purged = the.purge()
        if purged.code != 0 and (the.out.exists() or the.left()):
            leaks.append(f"killed before {number} of {count}: purge ends with {purged.code}: {purged.said.strip()}")
        leaks += [f"killed before {number} of {count}: {line}" for line in the.left() + the.said(killed, purged)]
    assert leaks == []


@pytest.mark.parametrize("name", ["inline forget", "audit", "bench", "tune", "mark"])
def test_the_umask_decides_who_may_read(name: str, searched: Callable[[Case], Search]) -> None:
    the = searched(next(case for case in CASES if case.name == name))
    made = {*the.place.live.rglob("*")}
    done = the.call(umask=0o077)
    assert done.code in (0, 1), done.said
    assert open_to_others([path for path in the.place.live.rglob("*") if path not in made and path.suffix != ".lock"]) == []


OTHERS = [{**row, "question": row["question"].replace(who, f"{who[::-1].title()}")}
          for row, who in zip(INLINE, PEOPLE, strict=True)]  # fmt: skip
"""The same questions about other people, of names of the same length."""


@pytest.mark.parametrize("name", ["inline forget", "bench", "tune"])
def test_no_digest_in_a_redacted_folder_can_be_guessed(name: str, searched: Callable[[Case], Search]) -> None:
    case = next(case for case in CASES if case.name == name)
    found = []
    for rows in (INLINE, INLINE, OTHERS):
        the = searched(case)
        request(the.place, "run", redact=True, forget=rows, gold="none")
        assert the.call().code in (0, 1)
        found.append(_shared(the))
    assert (found[0] & found[1]) - found[2] == set()


def _shared(the: Search) -> set[str]:
    """Digests in what may be given away: all but the journal, which purge needs and the owner alone may read."""
    for path in [*the.out.rglob(JOURNAL)]:
        path.unlink()
    return digests_in([the.out])
