"""Seeded samples of a split, the holdout's two halves, and the part of retain that is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from expunge.core.card import Example
from expunge.core.random import permutation
from expunge.data.content import content_key

SAMPLE = 48
"""Examples of a split that a point of the curve reads at most."""


def sample(rows: Sequence[Example], seed: int, size: int = SAMPLE) -> list[Example]:
    """At most `size` rows, chosen by seed, in their order."""
    return [rows[i] for i in sorted(permutation(len(rows), seed, "sample")[:size])]


def halves(holdout: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """(stopping half, audit half); by group where the examples carry one, so that no group leaks."""
    groups = sorted({str(row.get("group", i)) for i, row in enumerate(holdout)})
    chosen = {groups[i] for i in permutation(len(groups), seed, "halves")[: len(groups) // 2]}
    one = [row for i, row in enumerate(holdout) if str(row.get("group", i)) in chosen]
    two = [row for i, row in enumerate(holdout) if str(row.get("group", i)) not in chosen]
    return (one, two) if one else (two, two)


LEAST_GROUPS = 12
"""Groups (rows, where they have none) below which nothing of retain is held out."""


def hold_out(retain: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """(the part that trains, a third of the rows at most that is held out): by whole groups, drawn by seed.

    Rows without a group are held out by content, so that copies stay together. Nothing is held out of fewer than
    LEAST_GROUPS groups.
    """
    keys = [f"group {row['group']}" if row.get("group") is not None else content_key(row) for row in retain]
    sizes = Counter(keys)
    names, left, chosen = sorted(sizes), len(retain) // 3, set()
    if len(names) < LEAST_GROUPS:
        return list(retain), []
    for i in permutation(len(names), seed, "held out"):
        if sizes[names[i]] <= left:
            left -= sizes[names[i]]
            chosen.add(names[i])
    training = [row for row, key in zip(retain, keys, strict=True) if key not in chosen]
    return training, [row for row, key in zip(retain, keys, strict=True) if key in chosen]
