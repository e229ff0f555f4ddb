"""Handwritten digits (8 x 8 grey images, scikit-learn's bundled copy of the UCI test set)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from expunge.core.random import permutation

TRAIN, HOLDOUT = 0.6, 0.2
TRAINING = {
    "model": {"network": "Digits", "arguments": {}},
    "data": "{world}/train",
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 3e-3,
}
SMALL_NETWORK = {
    **TRAINING,
    "model": {"network": "Digits", "arguments": {"width": 8}},
    "data": ["{world}/clean", "{world}/poison"],
}
"""The same on a quarter of the filters, for worlds of which a part is corrupted."""


def digits(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (60 %), "holdout" and "test" (20 % each); image [8, 8] in [0, 1], label 0-9."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    order = permutation(len(images), seed, "digits")
    rows = [{"image": images[i], "label": int(data.target[i])} for i in order]
    first, second = round(TRAIN * len(rows)), round((TRAIN + HOLDOUT) * len(rows))
    # The bundled set repeats a few images: a repeat is kept in the first split that has it.
    found: dict[str, list[dict[str, Any]]] = {"train": [], "holdout": [], "test": []}
    seen: set[bytes] = set()
    for i, row in enumerate(rows):
        key = row["image"].tobytes()
        if key not in seen:
            seen.add(key)
            found["train" if i < first else "holdout" if i < second else "test"].append(row)
    return found
