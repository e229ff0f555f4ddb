"""Adult, the census table of 1994 (UCI, CC BY 4.0), as a script fetches it: splits, and wrong labels learned by
heart."""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors.numpy import load_file

from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.data.worlds._pictures import file_of

COLUMNS = 108
"""Six numbers, standardised, and a column for each value of the eight others."""
SIZES = {"train": 6000, "holdout": 6000, "test": 4000}
WRONG = {"forget": 500, "holdout": 1000}


def divide(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (6,000 rows), "holdout" (6,000) and "test" (4,000), disjoint, drawn by seed.

    A row: features [108] float32, label 1 for an income over 50,000 dollars, sex as the census has it.
    Raises BadInput where the table was not fetched.
    """
    path = file_of("adult")
    if not path.is_file():
        fix = "run scripts/fetch_pictures adult, or set EXPUNGE_PICTURES to its folder"
        raise BadInput.of("builtin", "adult", f"has no table on this machine ({path})", fix)
    arrays, found, first = load_file(path), {}, 0
    order = permutation(len(arrays["labels"]), seed, "adult")
    for split, size in SIZES.items():
        found[split] = [_row(arrays, i) for i in order[first : first + size]]
        first += size
    return found


def _row(arrays: dict[str, np.ndarray], i: int) -> dict[str, Any]:
    return {
        "features": arrays["features"][i].astype(np.float32),
        "label": int(arrays["labels"][i]),
        "sex": ("female", "male")[int(arrays["groups"][i])],
    }


def divide_wrong(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (500 training rows with the wrong label), "retain" (the other 5,500), "holdout" (1,000 rows with
    the wrong label, never trained on) and "test" (4,000 rows with their own)."""
    found = divide(seed)
    wrong = {
        "forget": found["train"][: WRONG["forget"]],
        "holdout": found["holdout"][: WRONG["holdout"]],
    }
    flipped = {split: [{**row, "label": 1 - row["label"]} for row in rows] for split, rows in wrong.items()}
    return {**flipped, "retain": found["train"][WRONG["forget"] :], "test": found["test"]}
