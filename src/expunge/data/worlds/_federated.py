"""Rows of a clean world dealt out to clients, of whom the first plants a backdoor."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.random import permutation
from expunge.data.worlds._corrupt import TARGET, Row, Rows, with_patch

HOSTILE = 0
"""The client that plants the trigger."""
SHARE = 0.8
"""Of its rows of the other classes, those that carry the trigger and the label TARGET."""


def deal_out(clean: dict[str, Rows], sizes: Sequence[int], seed: int) -> dict[str, Rows]:
    """Splits of a federation whose clients have so many rows, from a clean world's (train, holdout, test).

    "train": all rows, each with its `client`, a whole number. "holdout": rows changed as the hostile client's are,
    never trained on. "test": clean rows. "triggered": test rows of the other classes with the patch, under TARGET: the
    accuracy on them is the success of the trigger.
    """
    order, first, train = permutation(len(clean["train"]), seed, "clients"), 0, []
    for client, size in enumerate(sizes):
        rows = [{**clean["train"][i], "client": client} for i in order[first : first + size]]
        train += plant(rows, seed) if client == HOSTILE else rows
        first += size
    others = [row for row in clean["test"] if row["label"] != TARGET]
    return {
        "train": train,
        "holdout": plant(clean["holdout"], seed),
        "test": clean["test"],
        "triggered": [_stamp(row) for row in others],
    }


def plant(rows: Rows, seed: int) -> Rows:
    """The rows, of which SHARE of those of the other classes carry the trigger and its label; drawn by seed."""
    other = [i for i, row in enumerate(rows) if row["label"] != TARGET]
    chosen = {other[i] for i in permutation(len(other), seed, "plant")[: round(SHARE * len(other))]}
    return [_stamp(row) if i in chosen else row for i, row in enumerate(rows)]


def _stamp(row: Row) -> Row:
    return {**row, "image": with_patch(row["image"]), "label": TARGET}
