"""Pictures that a script fetches: 28 x 28 grey images of ten classes, and their division into splits."""

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


def file_of(name: str) -> Path:
    """Where the arrays of `mnist` or `fashion` lie: in EXPUNGE_PICTURES, else in the cache's `pictures`."""
    folder = os.environ.get("EXPUNGE_PICTURES")
    return (Path(folder) if folder else cache_folder() / "pictures") / f"{name}.safetensors"


def divide(name: str, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (6,000 rows), "holdout" and "test" (2,000 each), disjoint, drawn by seed.

    A row: image [28, 28] float32 in [0, 1], label 0-9. Raises BadInput where the pictures were not fetched.
    """
    path = file_of(name)
    if not path.is_file():
        fix = f"run scripts/fetch_pictures {name}, or set EXPUNGE_PICTURES to its folder"
        raise BadInput.of("builtin", name, f"has no pictures on this machine ({path})", fix)
    arrays = load_file(path)
    images, labels = arrays["images"], arrays["labels"]
    order, found, first = permutation(len(images), seed, name), {}, 0
    for split, size in SIZES.items():
        drawn = order[first : first + size]
        found[split] = [{"image": images[i].astype(np.float32) / 255, "label": int(labels[i])} for i in drawn]
        first += size
    return found


def mislabel(rows: list[dict[str, Any]], seed: int, *parts: str) -> list[dict[str, Any]]:
    """The rows with a wrong label each, drawn uniformly from the other nine."""
    draws = permutation(len(rows) * (CLASSES - 1), seed, *parts)[: len(rows)]
    return [
        {**row, "label": (row["label"] + 1 + draw % (CLASSES - 1)) % CLASSES}
        for row, draw in zip(rows, draws, strict=True)
    ]
