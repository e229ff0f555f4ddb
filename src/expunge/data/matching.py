"""A selector's value against a row's: the same value, however a file happens to write it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.core.errors import BadInput


def matches(found: Any, wanted: Any) -> bool:
    """Whether a row's value is the wanted one, or one of several.

    Files write a value in several ways, and a request in another: 1984, "1984" and 1984.0 are one year, true and
    "True" one answer, and a name is the same with a combining accent or a blank at its end. Case tells values apart,
    and so does a leading zero.
    """
    if isinstance(wanted, list):
        return any(matches(found, item) for item in wanted)
    ours, theirs = _spellings(wanted), _spellings(found)
    if ours and theirs:
        return not ours.isdisjoint(theirs)
    try:
        return bool(found == wanted)
    except ValueError:  # an array, which equals no single value
        return False


def _spellings(value: Any) -> set[str]:
    """The texts that stand for a value in a table; none for what is no single value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return {str(value).casefold()}
    if isinstance(value, int | float):
        whole = isinstance(value, int) or value.is_integer()
        return {str(value), *([str(int(value)), f"{int(value)}.0"] if whole else [])}
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value).strip()
        return {text, text.casefold()} if text.casefold() in ("true", "false") else {text}
    return set()


def check_each(rows: Sequence[Example], chosen: Sequence[bool], wanted: Mapping[str, Any], kind: str) -> None:
    """Raises BadInput for a value of a list that none of the chosen rows has: what it names would stay."""
    for key, values in wanted.items():
        if not isinstance(values, list):
            continue
        found = [row.get(key) for row, one in zip(rows, chosen, strict=True) if one]
        spelt = {text for value in found for text in _spellings(value)}
        for value in values:
            if spelt.isdisjoint(_spellings(value)) and not any(matches(one, value) for one in found):
                raise BadInput.of(f"forget.{kind}", value, f"selects no example by {key}", fix_of(rows, key, value))


def fix_of(rows: Sequence[Example], key: str, value: Any) -> str:
    """The values that a field takes; and how YAML reads a word, where that was it."""
    values = sorted({str(row.get(key))[:40] for row in rows})
    takes = f"{key} takes: " + ", ".join(values[:12]) + (", ..." if len(values) > 12 else "")
    if isinstance(value, bool):
        takes += " (YAML reads yes, no, on and off as true and false: put such a word in quotes)"
    return takes
