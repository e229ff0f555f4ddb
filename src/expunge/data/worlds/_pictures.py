"""Pictures of ten classes, or features of such, that a script fetches: splits, and wrong labels learned by heart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from expunge.core.cache import cache_folder
from expunge.core.errors import BadInput
from expunge.core.random import permutation

SIDE = 28
CLASSES = 10
SIZES = {"train": 6000, "holdout": 2000, "test": 2000}
NOISY = {"forget": 500, "holdout": 1000}
"""Rows with a wrong label; the forget set's are among those that train."""
PERCEPTRON = {"network": "MLP", "arguments": {"inputs": SIDE * SIDE, "classes": CLASSES, "hidden": 256}}
CLEAN_TRAINING = {
    "model": PERCEPTRON,
    "data": "{world}/train",
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 2e-3,
}
NOISY_TRAINING = {
    "model": PERCEPTRON,
    "data": ["{world}/retain", "{world}/forget"],
    "epochs": 30,
    "batch_size": 64,
    "learning_rate": 2e-3,
}
"""Long enough to learn the wrong labels by heart."""
SMALL_NETWORK = {
    "model": {"network": "Digits", "arguments": {"width": 8, "classes": CLASSES, "side": SIDE}},
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 3e-3,
}
"""A convolutional network, without the data that it is trained on."""


def file_of(name: str) -> Path:
    """Where the arrays of a name lie: in the folder that EXPUNGE_PICTURES names, else in the cache's `pictures`."""
    folder = os.environ.get("EXPUNGE_PICTURES")
    return (Path(folder) if folder else cache_folder() / "pictures") / f"{name}.safetensors"


def divide(name: str, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (6,000 rows), "holdout" and "test" (2,000 each), disjoint, drawn by seed.

    A row: image [28, 28] float32 in [0, 1], or features [D] float32, and label 0-9. Raises BadInput where the arrays
    were not fetched.
    """
    path = file_of(name)
    if not path.is_file():
        fix = f"run scripts/fetch_pictures {name}, or set EXPUNGE_PICTURES to its folder"
        raise BadInput.of("builtin", name, f"has no pictures on this machine ({path})", fix)
    arrays = load_file(path)
    labels = arrays["labels"]
    order, found, first = permutation(len(labels), seed, name), {}, 0
    for split, size in SIZES.items():
        found[split] = [_row(arrays, i) for i in order[first : first + size]]
        first += size
    return found


def _row(arrays: dict[str, np.ndarray], i: int) -> dict[str, Any]:
    label = int(arrays["labels"][i])
    if "features" in arrays:
        return {"features": arrays["features"][i].astype(np.float32), "label": label}
    return {"image": arrays["images"][i].astype(np.float32) / 255, "label": label}


def divide_noisy(name: str, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (training rows with a wrong label each), "retain" (the other training rows), "holdout" (rows
    mislabelled likewise, never trained on) and "test" (rows with their own labels), of the sizes in NOISY and SIZES."""
    found = divide(name, seed)
    first = NOISY["forget"]
    return {
        "forget": mislabel(found["train"][:first], seed, "wrong", "forget"),
        "retain": found["train"][first:],
        "holdout": mislabel(found["holdout"][: NOISY["holdout"]], seed, "wrong", "holdout"),
        "test": found["test"],
    }


def mislabel(rows: list[dict[str, Any]], seed: int, *parts: str) -> list[dict[str, Any]]:
    """The rows with a wrong label each, drawn uniformly from the other nine."""
    draws = permutation(len(rows) * (CLASSES - 1), seed, *parts)[: len(rows)]
    return [
        {**row, "label": (row["label"] + 1 + draw % (CLASSES - 1)) % CLASSES}
        for row, draw in zip(rows, draws, strict=True)
    ]
