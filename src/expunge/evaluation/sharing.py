"""The readouts of several processes or clients, each of some of the examples, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from expunge.core import processes
from expunge.evaluation.readout import Readout

NAMED = ("pooled", "own")
"""Fields of a readout that hold arrays by name."""


def join(parts: Sequence[Readout]) -> Readout:
    """The readouts of every k-th example, from the first, second, ... on, as one in the examples' own order."""
    places = processes.join_shares([list(range(len(part.n_N))) for part in parts])
    starts = np.cumsum([0, *(len(part.n_N) for part in parts)])
    return _end_all(parts).take([int(starts[i % len(parts)]) + place for i, place in enumerate(places)])


def join_places(parts: Sequence[Readout], places: Sequence[Sequence[int]]) -> Readout:
    """The readouts of the examples at these places of a split, as one in the split's own order."""
    order = np.argsort(np.concatenate([np.asarray(some, dtype=np.intp) for some in places]), kind="stable")
    return _end_all(parts).take(order.tolist())


def _end_all(parts: Sequence[Readout]) -> Readout:
    """The readouts one after another."""
    rows: dict[str, Any] = {
        field.name: _end_to_end([getattr(part, field.name) for part in parts])
        for field in fields(Readout)
        if field.name not in NAMED
    }
    named: dict[str, Any] = {
        name: {key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in getattr(parts[0], name)}
        for name in NAMED
    }
    return replace(parts[0], **rows, **named)


def _end_to_end(values: Sequence[Any]) -> Any:
    """Arrays or lists one after another; anything else is the same in all parts."""
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [row for part in values for row in part] if isinstance(values[0], list | tuple) else values[0]
