"""Seeded samples of a split, and its two halves."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.card import Example
from expunge.core.random import permutation

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
