"""Class numbers and the names of their classes: a number means the same class wherever it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files that say what the pictures of a folder are; a picture that none of them names is left out by `datasets`."""


def of_folders(rows: list[dict[str, Any]], files: Sequence[str], place: str, field: str) -> list[dict[str, Any]]:
    """The rows of a folder of pictures, with the numbers that its subfolders have for names.

    Where all subfolders are called by whole numbers, these are the classes: in the order of the names, 10 would come
    before 2. files: those of the split. Raises BadInput where metadata name some of the pictures alone.
    """
    if any(Path(name).name in METADATA for name in files):
        count = sum(Path(name).suffix.lower() in PICTURES for name in files)
        if len(rows) < count:
            why = f"has {count} pictures, and its metadata name {len(rows)}: the others would be left out"
            raise BadInput.of(field, place, why, "name all of them there, or take the others away")
    names = [str(row.get("class_name") or "") for row in rows]
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        return rows
    return [{**row, "label": int(name)} for row, name in zip(rows, names, strict=True)]


def agree(splits: Mapping[str, Sequence[Example]]) -> None:
    """Raises BadInput where two splits give a class two numbers, or a number two classes: each numbered its own."""
    known: dict[str, tuple[int, str]] = {}
    taken: dict[int, tuple[str, str]] = {}
    for split, rows in splits.items():
        for name, number in _numbers(rows).items():
            of_name = known.setdefault(name, (number, split))
            of_number = taken.setdefault(number, (name, split))
            if of_name[0] != number:
                _refuse(split, f"{name!r}", f"has the number {number} here and {of_name[0]} in {of_name[1]}")
            if of_number[0] != name:
                _refuse(split, f"label {number}", f"is {name!r} here and {of_number[0]!r} in {of_number[1]}")


def _refuse(split: str, value: str, why: str) -> None:
    fix = "give all splits all classes (an empty folder is none), or label the pictures in a metadata.csv"
    raise BadInput.of(split, value, why, fix)


def _numbers(rows: Sequence[Example]) -> dict[str, int]:
    """Name -> number of a split's classes; none where a name has several, as with labels that noise has changed, or
    a number has."""
    pairs = {(row["class_name"].casefold(), int(row["label"])) for row in rows if _is_named(row)}
    found = dict(sorted(pairs, key=lambda pair: pair[1]))  # sets have another order in each process
    return found if len(found) == len(pairs) == len(set(found.values())) else {}


def _is_named(row: Example) -> bool:
    return isinstance(row.get("class_name"), str) and row.get("label") is not None
