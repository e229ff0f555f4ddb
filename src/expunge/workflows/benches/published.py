"""Published benches on a model of the user's: one YAML file each, in this folder.

A file has `request` (fields that all its choices share; sources by hub name), `choices` (name -> further fields of the
request), and the preparation of its data: `columns` (split -> our name -> theirs), `pieces` (longer texts are cut at a
space into about equal parts of at most this many characters), `rows` (most rows of a training split). `sequence` names
the choices whose forget set, a list of sources, is also used as that many requests. `shown` and `ways` go into the
leaderboard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from expunge.core.cache import cache_folder
from expunge.core.card import Example
from expunge.core.errors import BadInput, Faults
from expunge.core.files import digest
from expunge.data.content import without
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.workflows.benches._bench import Bench

TRAINED = ("forget", "retain", "holdout")


@cache
def _all() -> dict[str, Mapping[str, Any]]:
    return {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def names() -> list[str]:
    """BENCH:CHOICE of every published bench."""
    return [f"{name}:{choice}" for name, known in _all().items() for choice in known["choices"]]


def bench(name: str, model: str | None, data: str | None) -> Bench:
    """The bench of one of `names()`, its data loaded and checked. Raises BadInput."""
    title, _, choice = name.partition(":")
    known = _all()[title]
    if model is None:
        raise BadInput.of(
            "--model",
            "",
            f"is missing: {name} needs a model that was trained on its data",
            f"add --model NAME; {known['model']}",
        )
    if data is not None and not Path(data).is_dir():
        raise BadInput.of("--data", data, "is not a folder", "give the folder with the data sets, or leave it out")
    request = {"model": model, **known["request"], **known["choices"][choice]}
    splits = _load_splits(request, known, data)
    places = cache_folder() / "bases" / f"{title}-{choice}-data-{digest(splits)[:12]}"
    texts = {
        str(places / f"{split}.jsonl"): "".join(json.dumps(row, default=str) + "\n" for row in rows)
        for split, rows in splits.items()
    }
    paths = {Path(path).stem: path for path in texts}
    request |= {split: paths[split] for split in TRAINED if split in paths}
    request["probes"] = {split: paths[split] for split in request.get("probes", {})}
    return Bench(
        f"{title}-{choice}",
        request,
        None,
        texts,
        "request" if choice in known.get("sequence", ()) else "",
        known.get("ways", {}),
        tuple(known.get("shown", ())),
    )


def _load_splits(request: Mapping[str, Any], known: Mapping[str, Any], data: str | None) -> dict[str, list[Example]]:
    """Split -> its rows, prepared as the bench says; forget rows are in no other split. Raises BadInput."""
    sources = {split: request[split] for split in TRAINED if split in request} | request.get("probes", {})
    splits: dict[str, list[Example]] = {}
    faults = Faults()
    for split, given in sources.items():
        with faults:
            rows = _rows(
                split, [given] if isinstance(given, str) else given, known.get("columns", {}).get(split, {}), data
            )
            if split in TRAINED:
                rows = [piece for row in rows for piece in _pieces(row, known.get("pieces", 0))][: known.get("rows")]
            splits[split] = rows
        if data is None:  # an unreachable hub takes its time to fail, once per source
            faults.raise_any()
    faults.raise_any()
    for i, split in enumerate(TRAINED):
        for former in TRAINED[:i]:
            if split in splits:
                splits[split] = list(without(splits[split], splits.get(former, [])))
    return splits


def _rows(split: str, sources: Sequence[str], columns: Mapping[str, str], data: str | None) -> list[Example]:
    """The rows of all sources, each once: as the first source that has it gives it."""
    found: dict[str, Example] = {}
    for number, source in enumerate(sources, 1):
        where = source if data is None else str(Path(data) / source.partition("/")[2])
        for row in load(where, split, columns):
            found.setdefault(
                identity(row), {**row, "request": number} if len(sources) > 1 and split == "forget" else row
            )
    return list(found.values())


def _pieces(row: Example, most: int) -> Iterator[Example]:
    """A text in about equal parts of at most `most` characters, cut at a space where there is one."""
    text = row.get("text", "")
    count = max(1, -(-len(text) // most)) if most and "prefix" not in row else 1
    start = 0
    for left in range(count, 0, -1):
        end = start + -(-(len(text) - start) // left)
        end = (
            len(text)
            if left == 1
            else (text.rfind(" ", start + 1, end + 1) if " " in text[start + 1 : end + 1] else end)
        )
        if count == 1 or text[start:end].strip():
            yield row if count == 1 else {**row, "text": text[start:end]}
        start = end
