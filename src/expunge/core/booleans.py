"""Booleans that stand where a number belongs: pydantic reads them as 0 and 1, and Python takes them for equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from expunge.core.errors import BadInput


def read_as_numbers(given: Any, read: Any, where: str) -> list[BadInput]:
    """A fault for each boolean in plain data that validation made a number of. where: the field of `given`."""
    if isinstance(given, bool):
        is_number = isinstance(read, int | float) and not isinstance(read, bool)
        return [BadInput.of(where, given, "is no number", "give a number")] if is_number else []
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(given, Mapping):
        fields = dict(read) if isinstance(read, BaseModel | Mapping) else {}
        pairs = [(name, value, fields.get(name)) for name, value in given.items()]
    elif isinstance(given, list | tuple) and isinstance(read, list | tuple) and len(given) == len(read):
        pairs = [(i, *both) for i, both in enumerate(zip(given, read, strict=True))]
    found = [read_as_numbers(value, result, f"{where}.{name}" if where else str(name)) for name, value, result in pairs]
    return [fault for some in found for fault in some]
