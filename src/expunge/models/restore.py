"""Where a guard that lies in a model's folder comes from: guards are methods, so the floor of methods says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from expunge.core.contracts import Guard

Restore = Callable[[Mapping[str, Any], Mapping[str, Any]], Guard]
"""(settings, tensors) -> the guard, as the guard's file exports it."""
LookUp = Callable[[str], tuple[frozenset[str], Restore]]
"""Name of a guard -> (capabilities that it needs of the model, how it is restored). Raises BadInput."""

_provided: list[LookUp] = []


def provide(look_up: LookUp) -> None:
    """Says how guards are found; called once, when `expunge.methods` is imported."""
    _provided[:] = [look_up]


def guard_named(name: str) -> tuple[frozenset[str], Restore]:
    """(capabilities, restore) of a guard. Raises BadInput for an unknown one."""
    if not _provided:
        raise RuntimeError("a guarded model can be opened once expunge.methods is imported")
    return _provided[0](name)
