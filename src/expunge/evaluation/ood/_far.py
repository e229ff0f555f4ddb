"""Far data made of the rows themselves: the same values without their places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example


def far_rows(examples: Sequence[Example], seed: int) -> list[Example]:
    """Each picture with its pixels, or each row of a table with its values, in a random order of its own.

    Empty where an input is not an array.
    """
    draw = np.random.default_rng(seed)
    found: list[Example] = []
    for row in examples:
        key = "features" if row.get("features") is not None else "image"
        if not isinstance(row.get(key), np.ndarray | list | tuple):
            return []
        array = np.asarray(row[key])
        pixels = array.reshape(-1, array.shape[-1]) if array.ndim == 3 else array.reshape(-1, 1)
        found.append({**row, key: pixels[draw.permutation(len(pixels))].reshape(array.shape)})
    return found
