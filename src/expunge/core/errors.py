"""Errors, each with the exit code that the command line ends with.

ExpungeError (70, a fault of ours)
├── BadInput (2): one sentence a fault: the field, the value, the mend
└── Interrupted (130): stopped by the user; says how to resume
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any


class ExpungeError(Exception):
    """Base of all errors that we raise on purpose."""

    exit_code = 70


class Interrupted(ExpungeError):
    """The user stopped the run; the message says how to go on."""

    exit_code = 130


class BadInput(ExpungeError):
    """The user's input cannot be used.

    Each fault is one sentence that names the field, the value and the mend. Several faults found
    in one pass are raised together (`BadInput.all`), so that a user mends a file once.
    """

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        self.faults = [as_written(fault) for fault in faults]
        super().__init__("\n".join(self.faults))

    @classmethod
    def of(cls, field: str, value: Any, why: str, mend: str, *, empty: bool = False) -> BadInput:
        """`field: value why; mend.` as one sentence; an empty text stands for no value, unless `empty`."""
        shown = "" if isinstance(value, str) and not value and not empty else _cut(as_written(_repr(value)), 160)
        said = f"{shown} {one_line(why)}" if shown else one_line(why)
        field, mend = _cut(one_line(field), 100) or "''", one_line(mend)
        return cls(f"{field}: {said}; {mend}{'' if mend.endswith(('?', '.', '!')) else '.'}")

    @classmethod
    def all(cls, errors: Iterable[BadInput]) -> BadInput:
        """One error that holds the faults of many, each once."""
        return cls(*dict.fromkeys(fault for error in errors for fault in error.faults))


def _repr(value: Any) -> str:
    """A value as Python writes it; what is huge or contains itself, in part."""
    if isinstance(value, str | bytes) and len(value) > 1000:
        value = value[:1000]
    try:
        return printable(repr(value))
    except (RecursionError, ValueError):  # nested too deeply, or a number with more digits than Python writes
        return f"<{type(value).__name__}>"


_hidden: dict[str, str] = {}
"""Value of a variable, or a text that holds one -> how it was written."""


def hide(value: str, written: str) -> None:
    """From now on `as_written` shows this value as it was written, in whatever message it comes back."""
    for form in {value, os.path.normpath(value) if value else "", repr(value)[1:-1]}:
        if len(form) >= 4 and form != written:
            _hidden[form] = written


def as_written(text: str) -> str:
    """The text without values of environment variables: `${NAME}`, as the user wrote it, stands in their place."""
    for value in sorted(_hidden, key=len, reverse=True):
        if value in text:
            # A short plain word may stand in any sentence: it is the variable's as part of a path or in quotes alone.
            word = value.isalnum() and len(value) < 8
            there = rf"(?<=[/'\"]){re.escape(value)}(?!\w)|(?<!\w){re.escape(value)}(?=[/'\"])"
            text = re.sub(there if word else re.escape(value), lambda _: _hidden[value], text)  # noqa: B023
    return text


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def one_line(text: str) -> str:
    """One line that any terminal can show: names and reasons may hold line ends and control characters."""
    return printable(" ".join(str(text).split()))


UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that move a terminal's cursor, turn its text around, are invisible, or are half a character."""


def printable(text: object, keep: str = "") -> str:
    """The text with each unsafe character as its escape, so that a name or a path cannot paint on a terminal.

    keep: characters to leave alone, a line feed in a text of several lines.
    """
    return UNSAFE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], str(text))


def did_you_mean(name: object, known: Iterable[object], limit: int = 40) -> str:
    """The mend for an unknown name: the nearest known one, or all of them (`limit` at most)."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(str(name)[:200], names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "none is known"
    return "known: " + ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


class Faults:
    """Collects bad input over several checks, to be raised at once."""

    def __init__(self) -> None:
        self.errors: list[BadInput] = []

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, BadInput):
            self.errors.append(error)
            return True
        return False

    def add(self, error: BadInput) -> None:
        self.errors.append(error)

    def raise_any(self) -> None:
        """Raises BadInput when anything was collected."""
        if self.errors:
            raise BadInput.all(self.errors)


def sentences(
    faults: Iterable[Mapping[str, Any]], where: str = "", whole: Mapping[str, str] | None = None
) -> list[BadInput]:
    """A pydantic error's faults, a sentence a field; unknown fields are left to the caller.

    where: what stands before each field's name. whole: field -> its mend, for fields whose many
    allowed forms would each give a complaint of its own.
    """
    found: dict[str, tuple[Any, str, list[str]]] = {}
    for fault in faults:
        path = [str(part) for part in fault["loc"] if not _is_branch(str(part))]
        mend = mend_of(fault)
        if whole and path and path[0] in whole and fault["type"] not in ("missing", "value_error"):
            path, mend = path[:1], whole[path[0]]
        field = ".".join([where, *path] if where else path) or "request"
        why: str = "cannot be used"
        value: Any = fault.get("input")
        if fault["type"] == "missing":
            value, why, mend = "", "is missing", f"add {path[-1] if path else field}: ..."
        else:
            if fault["type"] == "value_error" and "; " in mend:
                why, _, mend = mend.partition("; ")
        if field not in found:
            found[field] = (value, why, [mend])
        elif mend not in found[field][2]:
            found[field][2].append(mend)
    return [
        BadInput.of(field, value, why, " or ".join(mends).replace(" or give ", " or "), empty=why != "is missing")
        for field, (value, why, mends) in found.items()
    ]


def _is_branch(part: str) -> bool:
    """Union branches appear in pydantic's locations as type names: they are no fields."""
    return part in BRANCHES or "[" in part or part.startswith("constrained-")


BRANCHES = {"str", "int", "float", "bool", "Factory", "function-after", "none"}


def mend_of(fault: Mapping[str, Any]) -> str:
    """What to write instead, in plain words."""
    kind, limits = str(fault["type"]), fault.get("ctx") or {}
    if kind == "value_error":
        return str(limits["error"])
    if kind.startswith("literal"):
        return f"give {limits['expected']}"
    bounds = {
        "greater_than": ("gt", "above"),
        "greater_than_equal": ("ge", "of at least"),
        "less_than": ("lt", "below"),
        "less_than_equal": ("le", "of at most"),
    }
    if kind in bounds:
        key, word = bounds[kind]
        return f"give a number {word} {limits[key]:g}"
    for start, mend in MENDS.items():
        if kind.startswith(start):
            return mend
    message = str(fault["msg"])
    return message[:1].lower() + message[1:]


MENDS = {
    "int": "give a whole number",
    "float": "give a number",
    "finite": "give a finite number",
    "bool": "give true or false",
    "string": "give a text",
    "list": "give a list",
    "dict": "give `name: value` lines",
    "mapping": "give `name: value` lines",
    "model": "give `name: value` lines",
    "none": "leave it out",
}
