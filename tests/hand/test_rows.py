"""A large split in a file: the same rows, plans and samples as in memory."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.data import rows as module
from expunge.data.content import content_key
from expunge.data.duplicates import ALIKE, COMMON, _shingles, near_duplicates
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.data.rows import Rows, keep, take
from expunge.data.sampling import hold_out
from expunge.data.splits import make_splits
from expunge.data.worlds.authors import authors
from expunge.ledger.certificate import commitment
from expunge.pipeline import inputs
from expunge.pipeline.partition import divide, join


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows are many."""
    monkeypatch.setattr(module, "IN_MEMORY", 4)


def rows(count: int) -> list[dict[str, Any]]:
    texts = ["plain", "naïve 漢字 \U0001f600", 'quoted "\\ \n']
    return [
        {"question": f"{texts[i % 3]} {i}?", "answer": f"{i}.", "aliases": [], "group": i // 2} for i in range(count)
    ]


@pytest.mark.usefixtures("few")
def test_rows_in_a_file_are_the_rows() -> None:
    given = rows(9)
    found = keep(iter(given))
    assert isinstance(found, Rows) and keep(given[:4]) == given[:4]
    assert list(found) == given and found[-1] == given[-1] and len(found) == 9
    assert list(found[2:8:3]) == given[2:8:3] and list(found[5:].take([1, 0])) == [given[6], given[5]]
    assert list(take(found, np.array([8, 0]))) == take(given, [8, 0]) == [given[8], given[0]]
    assert copy.deepcopy(found) == given
    with pytest.raises(IndexError):
        found[9]


@pytest.mark.usefixtures("few")
def test_rows_that_json_cannot_hold_stay_in_memory() -> None:
    given = [*rows(6), {"image": np.ones(2), "label": 1}, *rows(1)]
    found = keep(iter(given))
    assert isinstance(found, list) and found[:6] == given[:6] and found[6] is given[6] and found[7:] == given[7:]


@pytest.mark.usefixtures("few")
def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, line: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(BadInput, match=r"TMPDIR.*No space left on device"):
        keep(rows(5))


@pytest.mark.usefixtures("few")
def test_nothing_of_a_large_file_is_held(tmp_path: Path) -> None:
    """Neither the rows nor a list of them: each is parsed, checked and put away."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(50)), encoding="utf-8")
    assert isinstance(load(str(path), "retain"), Rows)
    assert isinstance(load([str(path), *rows(2)], "retain"), Rows)
    path.write_text(path.read_text(encoding="utf-8") + '{"question": "Who?"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"retain, row 51 of many.jsonl"):
        load(str(path), "retain")
    table = {name: [str(row[name]) for row in rows(50)] for name in ("question", "answer")}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "many.parquet")
    found = load(str(tmp_path / "many.parquet"), "retain")
    assert isinstance(found, Rows) and [row["question"] for row in found] == table["question"]


def parts(splits: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: list(found) for name, found in splits.items()}


def test_splits_in_files_are_divided_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By groups, by contents, and where a selector chooses."""
    world = authors(0)
    sources: dict[str, Any] = {}
    for name, found in world.items():
        sources[name] = str(tmp_path / f"{name}.jsonl")
        bare = [{key: value for key, value in row.items() if key != "group" or i % 3} for i, row in enumerate(found)]
        Path(sources[name]).write_text("".join(json.dumps(row) + "\n" for row in bare), encoding="utf-8")
    chosen = {"forget": {"where": {"group": 3}}, "data": [sources["retain"], sources["forget"]]}
    wanted = []
    for limit in (10_000, 4):
        monkeypatch.setattr(module, "IN_MEMORY", limit)
        made = [divide(make_splits(given), 1) for given in (sources, chosen)]
        assert isinstance(made[0]["retain_held_out"], Rows) is (limit == 4)
        wanted.append([(parts(one), parts(join(one))) for one in made])
    assert wanted[0] == wanted[1] and wanted[0][0][0]["retain_held_out"]


@pytest.mark.usefixtures("few")
def test_a_shared_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "retain.jsonl"
    given = rows(20)
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    with pytest.raises(BadInput, match=r"row 8.*is also in forget \(2 shared examples\)"):
        make_splits({"forget": [given[7], given[11]], "retain": str(path)})


def held_out_names(retain: list[dict[str, Any]], seed: int) -> set[str]:
    """The blocks that are held out, by their names, as the rule reads."""
    keys = [f"group {row['group']}" if row.get("group") is not None else content_key(row) for row in retain]
    sizes, left, chosen = Counter(keys), len(retain) // 3, set()
    names = sorted(sizes)
    for i in permutation(len(names), seed, "held out"):
        if sizes[names[i]] <= left:
            left -= sizes[names[i]]
            chosen.add(names[i])
    return chosen


@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_out_follows_from_names(seed: int) -> None:
    draw = random.Random(seed)
    given = rows(60) + rows(6)
    for row in given:
        row["group"] = draw.choice([None, 1, "b", "Ä", *range(9)])
    _, held_out = hold_out(given, seed)
    names = {f"group {row['group']}" if row["group"] is not None else content_key(row) for row in held_out}
    assert names == held_out_names(given, seed)


def test_the_inputs_of_a_large_split_are_one_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run sees that a row changed, or how many there are; not which."""
    monkeypatch.setattr(inputs, "IN_MEMORY", 4)
    few, many = (inputs._seals(rows(count), b"salt") for count in (4, 5))
    assert isinstance(few, list) and isinstance(many, dict) and many == inputs._seals(rows(5), b"salt")
    changed = inputs._seals([{**row, "answer": "x"} if i == 2 else row for i, row in enumerate(rows(5))], b"salt")
    assert changed != many and inputs._difference("retain", many, changed) == "retain"
    assert inputs._difference("retain", few, many) == "retain (4 rows, now 5)"


def test_a_split_is_committed_to_by_its_sorted_identities() -> None:
    text = "\n".join(sorted(identity(row) for row in rows(9)))
    assert commitment(rows(9), b"salt") == hmac.new(b"salt", text.encode(), hashlib.sha256).hexdigest()
    assert commitment([], b"salt") == hmac.new(b"salt", b"", hashlib.sha256).hexdigest()


def slow_pairs(forget: list[dict[str, Any]], others: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Each row against all forget rows that share a rare shingle with it."""
    shingles = [_shingles(row) for row in forget]
    counts = Counter(shingle for found in shingles for shingle in found)
    for j, row in enumerate(others):
        ours = _shingles(row)
        rare = {shingle for shingle in ours if counts[shingle] <= COMMON}
        shares = [len(ours & found) / len(ours | found) if rare & found else 0.0 for found in shingles]
        if max(shares) >= ALIKE:
            yield j, shares.index(max(shares))


def test_near_duplicates_are_those_of_the_plain_comparison() -> None:
    world = authors(2)
    draw = random.Random(0)
    forget = world["forget"] + authors(3)["retain"][:200]
    changed = []
    for row in forget:
        words = row["answer"].split()
        for _ in range(draw.randrange(4)):
            words[draw.randrange(len(words))] = draw.choice(["other", "word", words[0]])
        changed.append({**row, "answer": " ".join(words)})
    found = near_duplicates(forget, [*changed, *world["retain"]])
    assert found == list(slow_pairs(forget, [*changed, *world["retain"]])) and 50 < len(found) < 300
