"""Mark data before they are given away: a folder with a file to publish and a file to keep.

`published.jsonl` is given away; `marks.json` holds the marks and their secret twins and is kept. Whether a model was
trained on the first can later be tested with the second (`expunge.workflows.provenance`).
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.attacks.population.contamination import Marks, taggants, traps
from expunge.core.card import Example
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.files import PRIVATE, digest_file, read_json, write_json
from expunge.core.random import derive
from expunge.core.variables import expand
from expunge.data.examples import LISTS, form
from expunge.data.load import load
from expunge.data.texts import text_of, texts_only, write_rows
from expunge.pipeline import out_folder
from expunge.pipeline.folders import free_folder

PUBLISHED, MARKS = "published.jsonl", "marks.json"
KEEP = (
    "Keep this file and give it to no one: whoever has it can remove the marks, and without it nothing can be tested."
)
DEFAULTS: dict[str, dict[str, Any]] = {"taggants": {"share": 0.1}, "traps": {"count": 50, "length": 12, "repeat": 1}}
"""Kind -> its options."""
LEAST_MARKS = 10
"""A p-value cannot fall below 2^-marks: with fewer marks no test could ever be significant."""


def mark(
    data: Any,
    *,
    out: str,
    kind: str = "taggants",
    share: float | None = None,
    count: int | None = None,
    length: int | None = None,
    repeat: int | None = None,
    secret: int | None = None,
) -> dict[str, Any]:
    """Write the folder `out`, whole or not at all; returns its figures. Raises BadInput.

    taggants: a share of the questions gets a false answer. traps: `count` texts of `length` random words, each `repeat`
    times, at random places among the rows. secret: the seed of all draws; by default it is drawn and not stored.
    """
    faults = Faults()
    rows: list[Example] = []
    given = {"share": share, "count": count, "length": length, "repeat": repeat}
    with faults:
        rows = list(load(data, "data"))
        texts_only(rows, "data")
    with faults:
        _not_marked(Path(out))
        free_folder(Path(out))
    options: dict[str, Any] = {}
    with faults:
        options = _options(kind, {name: value for name, value in given.items() if value is not None})
    faults.raise_any()
    marks, published = _mark_rows(rows, kind, options, secrets.randbits(128) if secret is None else secret)
    _write(out, kind, options, marks, published)
    return {
        "kind": kind,
        **options,
        "marks": len(marks.published),
        "rows": len(published),
        "published": str(Path(out) / PUBLISHED),
        "keep": str(Path(out) / MARKS),
        "sha256": digest_file(Path(out) / MARKS),
    }


def _mark_rows(
    rows: Sequence[Example], kind: str, options: Mapping[str, Any], secret: int
) -> tuple[Marks, list[Example]]:
    """The marks, and the rows with the marks in them. Raises BadInput where there would be too few."""
    if kind == "taggants":
        marks = taggants(rows, share=options["share"], secret=secret)
        published = _tag(rows, marks)
    else:
        marks = _make_traps(rows, options, secret)
        published = _among(rows, marks.published * options["repeat"], secret)
    count = len(marks.published)
    if count < LEAST_MARKS:
        raise BadInput.of(
            "data",
            f"{len(rows)} rows",
            f"would hold {count} marks, with which p cannot fall below {0.5**count:.1g}",
            f"set at least {LEAST_MARKS}: give a larger share, or more rows",
        )
    return marks, published


def _write(out: str, kind: str, options: Mapping[str, Any], marks: Marks, published: Sequence[Example]) -> None:
    """Write both files of the folder."""
    with out_folder.whole(out) as folder:
        write_rows(folder / PUBLISHED, published)
        write_json(
            folder / MARKS,
            {
                "schema": 1,
                "keep": KEEP,
                "kind": kind,
                "options": dict(options),
                "published_sha256": digest_file(folder / PUBLISHED),
                "published": marks.published,
                "twins": marks.twins,
            },
            PRIVATE,
        )


def _not_marked(out: Path) -> None:
    """Refuse a folder of finished marks, and delete the lock of a process that was killed at its very end."""
    if (out / MARKS).is_file():
        out.with_name(f".{out.name}.lock").unlink(missing_ok=True)
        raise BadInput.of("out", str(out), "already holds finished marks", "use them, or choose another folder")


def _options(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The kind's options, defaults filled in. Raises BadInput."""
    if kind not in DEFAULTS:
        raise BadInput.of("kind", kind, "unknown kind of mark", did_you_mean(kind, DEFAULTS))
    for name in sorted(set(given) - set(DEFAULTS[kind])):
        other = next(k for k in DEFAULTS if k != kind)
        raise BadInput.of(name, given[name], f"is an option of {other}", f"leave it out, or choose --kind {other}")
    options = {**DEFAULTS[kind], **given}
    for name, least in (("count", LEAST_MARKS), ("length", 2), ("repeat", 1)):
        if name in options and options[name] < least:
            raise BadInput.of(name, options[name], "is too small", f"give at least {least}")
    return options


def _tag(rows: Sequence[Example], marks: Marks) -> list[Example]:
    """The rows with each mark in place of the row it falsifies, without other forms of the true answer."""
    found = list(rows)
    for place, example in zip(marks.places, marks.published, strict=True):
        found[place] = {key: value for key, value in rows[place].items() if key not in LISTS} | dict(example)
    return found


def _make_traps(rows: Sequence[Example], options: Mapping[str, Any], secret: int) -> Marks:
    """Traps in the words and the form of the rows, so that the same loader reads both. Raises BadInput."""
    forms = {form(row) for row in rows}
    if len(forms) > 1 or not forms <= {("question", "answer"), ("text",)}:
        raise BadInput.of(
            "data",
            f"{len(rows)} rows",
            "are neither all questions with answers nor all texts, and a trap must look like them",
            "mark them separately, one file per form",
        )
    words = {word for row in rows for word in text_of(row).split()}
    marks = traps(options["count"], words, length=options["length"], secret=secret)
    if forms == {("text",)}:
        return marks
    return Marks([_as_question(row) for row in marks.published], [_as_question(row) for row in marks.twins])


def _as_question(trap: Example) -> Example:
    """The first half of a trap's words as a question, the second as its answer."""
    words = str(trap["text"]).split()
    half = len(words) // 2
    return {"question": " ".join(words[:half]), "answer": " ".join(words[half:])}


def _among(rows: Sequence[Example], more: Sequence[Example], secret: int) -> list[Example]:
    """The rows in their order, with the others at places drawn from the secret."""
    draw = random.Random(derive(secret, "places"))
    places = draw.sample(range(len(rows) + len(more)), len(more))
    inserted = dict(zip(places, more, strict=True))
    rest = iter(rows)
    return [inserted[i] if i in inserted else next(rest) for i in range(len(rows) + len(more))]


def read_marks(place: str) -> tuple[str, Marks]:
    """(kind, marks) of a folder written by `mark`, or of its marks.json. Raises BadInput."""
    path = Path(expand(place, "marks"))
    try:
        path = path / MARKS if path.is_dir() else path
        there = path.is_file()
    except OSError as error:
        raise BadInput.of("marks", place, f"is not a valid path ({error.strerror})", "give a folder") from None
    if not there:
        raise BadInput.of("marks", place, f"holds no {MARKS}", "give a folder written by `expunge mark`")
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput.of("marks", str(path), f"cannot be read ({error})", "give the file as it was written") from None
    sides: list[Any] = [found.get(side) if isinstance(found, dict) else None for side in ("published", "twins")]
    if not all(isinstance(side, list) and side and all(isinstance(row, dict) for row in side) for side in sides):
        raise BadInput.of("marks", str(path), "holds no marks with twins", "give the file as it was written")
    published, twins = (list(load(side, f"marks.{n}")) for side, n in zip(sides, ("published", "twins"), strict=True))
    if len(published) != len(twins) or any(form(a) != form(b) for a, b in zip(published, twins, strict=False)):
        raise BadInput.of(
            "marks",
            str(path),
            f"holds {len(published)} marks and {len(twins)} twins that do not pair",
            "give the file as it was written",
        )
    texts_only([*published, *twins], "marks")
    return str(found.get("kind", "")), Marks(published, twins)
