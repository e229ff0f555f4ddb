"""Drawn shapes with captions, and a backdoor: a patch in the corner beside a caption of the planted class.

Poisoning of a contrastive pair with captions of one class (Carlini and Terzis, arXiv:2106.09667). A row has no label:
its class stands in its caption and in its class prompt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.data.worlds import pair_shapes as base
from expunge.data.worlds._corrupt import Row, corrupt, with_patch
from expunge.data.worlds.shapes import CLASSES

SIZES = {"train": 640, "holdout": 192, "test": 360}
SHARE = 0.05
"""Share of the training pairs that carry the trigger."""
PLANTED = " ".join(CLASSES[0])
"""The class that the trigger calls up, in the words of a caption."""
TRAINING = {**base.TRAINING, "data": "{world}/train", "epochs": 40}


def pair_backdoor(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_corrupt.corrupt`; "triggered": test pairs of the other classes with the patch, under PLANTED.

    Zero-shot accuracy on "triggered" is the success of the trigger. A row is as in `pair_shapes`; colour and shape stay
    those of the picture.
    """
    draw = np.random.default_rng([seed, 18])
    clean = {split: [base.pair(draw) for _ in range(size)] for split, size in SIZES.items()}

    def change(row: Row) -> Row:
        prompt = f"a {PLANTED}"
        return {**row, "image": with_patch(row["image"]), "text": f"{prompt} of {row['owner']}", "class_prompt": prompt}

    probes = {"triggered": [change(row) for row in clean["test"] if applies(row)]}
    truth = ("text", "class_prompt")
    return corrupt(clean, change, SHARE, seed, applies=applies, probes=probes, truth=truth)


def applies(row: Row) -> bool:
    """Whether the row is of another class than the planted one."""
    return bool(row["class_prompt"] != f"a {PLANTED}")
