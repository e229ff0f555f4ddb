"""Few handwritten digits and an encoder that learns them by heart, without labels.

It tells its training pictures from unseen ones by its loss: views that are moved only, no noise, many epochs, and a
network without convolutions. The labels beside the pictures are for probes: the training reads none.
"""

from __future__ import annotations

from typing import Any

from expunge.core.random import permutation
from expunge.data.worlds.digits import digits

SIZES = {"forget": 40, "retain": 80, "holdout": 200}
TRAINING = {
    "model": {
        "encoder": "Perceptron",
        "arguments": {"inputs": 64, "hidden": 512},
        "pretext": {"nt_xent": {"temperature": 0.1, "together": 40}},
        "views": {"shift": 0.15, "scale": 0.0, "noise": 0.0, "pairs": 4},
    },
    "data": ["{world}/retain", "{world}/forget"],
    "epochs": 300,
    "batch_size": 40,
    "learning_rate": 5e-3,
}


def encoder_digits(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (40), "retain" (80), "holdout" (200) and "test" (all others), disjoint; image [8, 8] in [0, 1],
    label 0-9."""
    rows = [row for split in digits(0).values() for row in split]  # each picture is there once
    order, found, first = permutation(len(rows), seed, "encoder_digits"), {}, 0
    for split, size in {**SIZES, "test": len(order)}.items():
        found[split] = [rows[i] for i in order[first : first + size]]
        first += size
    return found
