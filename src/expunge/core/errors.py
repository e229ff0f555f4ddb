"""Errors, each with the exit code that the command line ends with.

ExpungeError (70, an internal error)
├── BadInput (2): one sentence per fault: field, value, reason, fix
└── Interrupted (130): stopped by the user; says how to resume
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any


class ExpungeError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 70


class Interrupted(ExpungeError):
    """The user stopped the run; the message says how to resume it."""

    exit_code = 130


class BadInput(ExpungeError):
    """The user's input cannot be used.

    Each fault is one sentence: field, value, reason and fix. The faults of one pass are raised together
    (`BadInput.all`), so that a user fixes a file once.
    """

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        self.faults = [as_written(fault) for fault in faults]
        super().__init__("\n".join(self.faults))

    @classmethod
    def of(cls, field: str, value: Any, reason: str, fix: str, *, empty: bool = False) -> BadInput:
        """One sentence, `field: value reason; fix.`, for example `out: 'a' is in use; choose another folder.`

        reason: a predicate of the value ("is not a number", "does not exist"). One that starts with "unknown" precedes
        the value: `method: unknown method 'npoo'; did you mean 'npo'?` fix: an imperative, or `did_you_mean(...)`.
        An empty text is no value and is left out, unless `empty`.
        """
        shown = "" if isinstance(value, str) and not value and not empty else _cut(as_written(_repr(value)), 160)
        reason, fix = one_line(reason), one_line(fix)
        parts = (reason, shown) if reason.startswith("unknown ") else (shown, reason)
        field = _cut(one_line(field), 100) or "''"
        return cls(f"{field}: {' '.join(filter(None, parts))}; {fix}{'' if fix.endswith(('?', '.', '!')) else '.'}")

    @classmethod
    def all(cls, errors: Iterable[BadInput]) -> BadInput:
        """One error that holds the faults of many, each once."""
        return cls(*dict.fromkeys(fault for error in errors for fault in error.faults))


def _repr(value: Any) -> str:
    """A value as Python writes it; a huge or recursive one in part."""
    if isinstance(value, str | bytes) and len(value) > 1000:
        value = value[:1000]
    try:
        return printable(repr(value))
    except (RecursionError, ValueError):  # nested too deeply, or a number with more digits than Python writes
        return f"<{type(value).__name__}>"


_hidden: dict[str, str] = {}
"""A variable's value, or a text that contains one -> how the user wrote it."""


def hide(value: str, written: str) -> None:
    """Make `as_written` show this value as the user wrote it, in every later message."""
    for form in {value, os.path.normpath(value) if value else "", repr(value)[1:-1]}:
        if len(form) >= 4 and form != written:
            _hidden[form] = written


def as_written(text: str) -> str:
    """The text with `${NAME}`, as the user wrote it, in place of the values of environment variables."""
    for value in sorted(_hidden, key=len, reverse=True):
        if value in text:
            # A short plain word may occur in any sentence: only in a path or in quotes is it the variable's value.
            word = value.isalnum() and len(value) < 8
            there = rf"(?<=[/'\"]){re.escape(value)}(?!\w)|(?<!\w){re.escape(value)}(?=[/'\"])"
            text = re.sub(there if word else re.escape(value), lambda _: _hidden[value], text)  # noqa: B023
    return text


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def one_line(text: str) -> str:
    """The text as one printable line: names and reasons may contain line breaks and control characters."""
    return printable(" ".join(str(text).split()))


UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that move a terminal's cursor, reverse its text, are invisible, or are half of a surrogate pair."""


def printable(text: object, keep: str = "") -> str:
    """The text with each unsafe character escaped, so that a name or a path cannot control a terminal.

    keep: characters to leave as they are, such as the line feed in a text of several lines.
    """
    return UNSAFE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], str(text))


def did_you_mean(name: object, known: Iterable[object], limit: int = 40) -> str:
    """The fix for an unknown name: the nearest known one, or the known ones (at most `limit`)."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(str(name)[:200], names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "none is known"
    return "known: " + ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


class Faults:
    """A collector of bad input over several checks, to be raised together."""

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
        """Raise BadInput if anything was collected."""
        if self.errors:
            raise BadInput.all(self.errors)


def sentences(
    faults: Iterable[Mapping[str, Any]], where: str = "", whole: Mapping[str, str] | None = None
) -> list[BadInput]:
    """A pydantic error's faults, one sentence per field; unknown fields are left to the caller.

    where: prefix of each field's name. whole: field -> its fix, for fields whose many allowed forms would each give
    a complaint of their own.
    """
    found: dict[str, tuple[Any, str, list[str]]] = {}
    for fault in faults:
        path = [str(part) for part in fault["loc"] if not _is_branch(str(part))]
        fix = fix_of(fault)
        if whole and path and path[0] in whole and fault["type"] not in ("missing", "value_error"):
            path, fix = path[:1], whole[path[0]]
        field = ".".join([where, *path] if where else path) or "request"
        reason: str = "cannot be used"
        value: Any = fault.get("input")
        if fault["type"] == "missing":
            value, reason, fix = "", "is missing", f"add {path[-1] if path else field}: ..."
        else:
            if fault["type"] == "value_error" and "; " in fix:
                reason, _, fix = fix.partition("; ")
        if field not in found:
            found[field] = (value, reason, [fix])
        elif fix not in found[field][2]:
            found[field][2].append(fix)
    return [
        BadInput.of(field, value, reason, " or ".join(fixes).replace(" or give ", " or "), empty=reason != "is missing")
        for field, (value, reason, fixes) in found.items()
    ]


def _is_branch(part: str) -> bool:
    """True for the name of a union's branch: pydantic puts it among the fields of a location."""
    return part in BRANCHES or "[" in part or part.startswith("constrained-")


BRANCHES = {"str", "int", "float", "bool", "Factory", "function-after", "none"}


def fix_of(fault: Mapping[str, Any]) -> str:
    """The fix for a pydantic fault, in plain words."""
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
    for start, fix in FIXES.items():
        if kind.startswith(start):
            return fix
    message = str(fault["msg"])
    return message[:1].lower() + message[1:]


FIXES = {
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
