"""The groups of examples that intervals and tests are clustered by: an author's answers, a document's passages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example

LEAST = 3
"""Groups of a side from which their spread is estimated; the examples of fewer count by themselves."""


def group_numbers(*sides: Sequence[Example]) -> tuple[np.ndarray, ...] | None:
    """For each side, [N] the number of each example's group; None where nothing is clustered.

    That is where each example has a group of its own, as one without `group` has. Where a side has fewer than three
    groups, how groups vary cannot be seen from it: its examples count by themselves, each with a number of its own.
    """
    names = [
        [f"group {name}" if (name := row.get("group")) is not None else f"row {k} {i}" for i, row in enumerate(rows)]
        for k, rows in enumerate(sides)
    ]
    known = {name: i for i, name in enumerate(dict.fromkeys(name for side in names for name in side))}
    numbers = [np.array([known[name] for name in side], dtype=np.int64) for side in names]
    found, free = [], len(known)
    for number_N in numbers:
        if len(set(number_N.tolist())) < LEAST:
            number_N = free + np.arange(len(number_N))
            free += len(number_N)
        found.append(number_N)
    return tuple(found) if any(len(set(side.tolist())) < len(side) for side in found) else None


def groups_of(rows: Sequence[Example], masked_N: np.ndarray | None = None) -> np.ndarray | None:
    """[n] group numbers of one split's examples, without masked ones; None where they are not clustered."""
    counted = rows if masked_N is None else [row for row, masked in zip(rows, masked_N, strict=True) if not masked]
    found = group_numbers(counted)
    return found[0] if found else None


def count_groups(*sides: np.ndarray | None) -> int | None:
    """The number of different groups on all sides; None without any."""
    given = [side for side in sides if side is not None]
    return len(np.unique(np.concatenate(given))) if given else None
