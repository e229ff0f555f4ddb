"""Seeded samples of a split, the holdout's two halves, and the part of retain that is held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example
from expunge.core.random import permutation
from expunge.data.content import content_digests
from expunge.data.rows import take

SAMPLE = 48
"""Examples of a split that a point of the curve reads at most."""


def sample(rows: Sequence[Example], seed: int, size: int = SAMPLE) -> list[Example]:
    """At most `size` rows, chosen by seed, in their order."""
    return [rows[i] for i in sorted(permutation(len(rows), seed, "sample")[:size])]


def halves(holdout: Sequence[Example], seed: int) -> tuple[Sequence[Example], Sequence[Example]]:
    """(stopping half, audit half); by group where the examples carry one, so that no group leaks."""
    names = [str(row.get("group", i)) for i, row in enumerate(holdout)]
    groups = sorted(set(names))
    chosen = {groups[i] for i in permutation(len(groups), seed, "halves")[: len(groups) // 2]}
    one = take(holdout, [i for i, name in enumerate(names) if name in chosen])
    two = take(holdout, [i for i, name in enumerate(names) if name not in chosen])
    return (one, two) if one else (two, two)


LEAST_GROUPS = 12
"""Groups (rows, where they have none) below which nothing of retain is held out."""


def hold_out(retain: Sequence[Example], seed: int) -> tuple[Sequence[Example], Sequence[Example]]:
    """(the part that trains, a third of the rows at most that is held out): by whole groups, drawn by seed.

    Rows without a group are held out by content, so that copies stay together. Nothing is held out of fewer than
    LEAST_GROUPS groups.
    """
    blocks_N, sizes = blocks(retain)
    left, chosen = len(retain) // 3, np.zeros(len(sizes), dtype=bool)
    if len(sizes) < LEAST_GROUPS:
        return retain, []
    for i in permutation(len(sizes), seed, "held out"):
        if sizes[i] <= left:
            left -= sizes[i]
            chosen[i] = True
    held_out_N = chosen[blocks_N]
    return take(retain, (~held_out_N).nonzero()[0]), take(retain, held_out_N.nonzero()[0])


def blocks(rows: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """([N] each row's block, each block's rows): a group, or where there is none a content.

    Blocks are numbered in the order of their names: contents by their keys, and then groups.
    """
    groups = [None if row.get("group") is None else f"group {row['group']}" for row in rows]
    alone_N = np.array([group is None for group in groups], dtype=bool)
    found_N = np.zeros(len(groups), dtype=np.int64)
    contents, found_N[alone_N] = np.unique(content_digests(take(rows, alone_N.nonzero()[0])), return_inverse=True)
    numbers = {name: len(contents) + i for i, name in enumerate(sorted({name for name in groups if name is not None}))}
    found_N[~alone_N] = [numbers[name] for name in groups if name is not None]
    return found_N, np.bincount(found_N, minlength=len(contents) + len(numbers))
