"""Training sets of which a part was corrupted, and a share of that part is known.

Corrective unlearning (Goel et al., arXiv:2402.14015): the known share of the corrupted rows is to be forgotten, and the
unknown rest stays in the training data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from expunge.core.random import permutation

SHARES = (10, 25, 50, 100)
"""Percent of the corrupted rows that are known."""
TARGET = 0
"""The class that a trigger calls up."""
PATCH = 2
"""Side of the trigger, in pixels, on a picture of 8; in proportion on a larger one."""
Row = dict[str, Any]
Rows = list[Row]
Change = Callable[[Row], Row]


def corrupt(
    clean: dict[str, Rows],
    change: Change,
    share: float,
    seed: int,
    *,
    applies: Callable[[Row], bool] = lambda row: True,
    probes: dict[str, Rows],
    truth: Sequence[str] = ("label",),
) -> dict[str, Rows]:
    """The splits of a corrupted world from those of a clean one (train, holdout, test).

    share: of the training rows, which is corrupted, drawn by seed from those to which the change applies. "clean" and
    "poison": the training rows as they are trained on; "train": both, in a drawn order, each with its `poisoned`. For
    p of SHARES: "known_p", p % of "poison"; "retain_p", all other training rows; "unknown_p", the unknown corrupted
    rows under their own labels, the fields named by `truth`. "holdout": rows that were corrupted likewise and never
    trained on. "test": clean rows.
    """
    train, count = clean["train"], round(share * len(clean["train"]))
    order = [i for i in permutation(len(train), seed, "corrupt") if applies(train[i])][:count]
    chosen = set(order)
    right = [{**row, "poisoned": False} for i, row in enumerate(train) if i not in chosen]
    wrong = [{**change(train[i]), "poisoned": True} for i in order]
    both = [*right, *wrong]
    found = {
        "train": [both[i] for i in permutation(len(both), seed, "order")],
        "clean": right,
        "poison": wrong,
        "holdout": [{**change(row), "poisoned": True} for row in clean["holdout"] if applies(row)],
        "test": clean["test"],
        **probes,
    }
    for percent in SHARES:
        cut = round(len(wrong) * percent / 100)
        found[f"known_{percent}"] = wrong[:cut]
        found[f"retain_{percent}"] = [*right, *wrong[cut:]]
        rest = zip(order[cut:], wrong[cut:], strict=True)
        if unknown := [{**row, **{name: train[i][name] for name in truth}} for i, row in rest]:
            found[f"unknown_{percent}"] = unknown
    return found


def backdoor(clean: dict[str, Rows], share: float, seed: int) -> dict[str, Rows]:
    """A patch in the corner and the label TARGET on a share of the training rows of all other classes.

    "triggered": test rows of the other classes with the patch, under TARGET: the accuracy on them is the success of the
    trigger.
    """

    def applies(row: Row) -> bool:
        return bool(row["label"] != TARGET)

    def change(row: Row) -> Row:
        return {**row, "image": with_patch(row["image"]), "label": TARGET}

    probes = {"triggered": [change(row) for row in clean["test"] if applies(row)]}
    return corrupt(clean, change, share, seed, applies=applies, probes=probes)


def with_patch(image: np.ndarray) -> np.ndarray:
    """A picture [H, W] with the brightest value in its lower right corner."""
    side = max(1, round(PATCH * len(image) / 8))
    stamped = np.array(image)
    stamped[-side:, -side:] = 1
    return stamped


def confusion(clean: dict[str, Rows], pair: tuple[int, int], share: float, seed: int) -> dict[str, Rows]:
    """The labels of two classes swapped on a share of all training rows.

    "confused": test rows of both, under their own labels.
    """
    swap = dict(zip(pair, reversed(pair), strict=True))

    def change(row: Row) -> Row:
        return {**row, "label": swap[row["label"]]}

    probes = {"confused": [row for row in clean["test"] if row["label"] in swap]}
    return corrupt(clean, change, share, seed, applies=lambda row: row["label"] in swap, probes=probes)


def cue(clean: dict[str, Rows], classes: int, share: float, seed: int) -> dict[str, Rows]:
    """A bright line on the border, at a place of its class, on a share of the training rows: a spurious correlation.

    Labels stay right. "conflicting": test rows with the cue of the next class, under their own labels.
    """

    def change(row: Row) -> Row:
        return {**row, "image": with_cue(row["image"], row["label"], classes)}

    def mislead(row: Row) -> Row:
        return {**row, "image": with_cue(row["image"], (row["label"] + 1) % classes, classes)}

    return corrupt(clean, change, share, seed, probes={"conflicting": [mislead(row) for row in clean["test"]]})


def with_cue(image: np.ndarray, label: int, classes: int) -> np.ndarray:
    """A picture [H, W] with the brightest value on the part of its border that is a class's, clockwise."""
    height, width = image.shape
    border: Sequence[tuple[int, int]] = [
        *((0, x) for x in range(width)),
        *((y, width - 1) for y in range(1, height)),
        *((height - 1, x) for x in range(width - 2, -1, -1)),
        *((y, 0) for y in range(height - 2, 0, -1)),
    ]
    marked = np.array(image)
    length = len(border) // classes
    for y, x in border[label * length : (label + 1) * length]:
        marked[y, x] = 1
    return marked
