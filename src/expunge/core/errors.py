"""Errors, each with the exit code that the command line ends with.

ExpungeError (70, a fault of ours)
├── BadInput (2): one sentence a fault: the field, the value, the mend
└── Interrupted (130): stopped by the user; says how to resume
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
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
        self.faults = list(faults)
        super().__init__("\n".join(faults))

    @classmethod
    def of(cls, field: str, value: Any, why: str, mend: str) -> BadInput:
        """`field: value why; mend.` as one sentence."""
        shown = value if isinstance(value, str) else repr(value)
        if len(shown) > 160:
            shown = shown[:157] + "..."
        return cls(f"{field}: {shown!r} {why}; {mend}." if shown else f"{field}: {why}; {mend}.")

    @classmethod
    def all(cls, errors: Iterable[BadInput]) -> BadInput:
        """One error that holds the faults of many, each once."""
        return cls(*dict.fromkeys(fault for error in errors for fault in error.faults))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The mend for an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known: " + ", ".join(known) if known else "none is known"


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
