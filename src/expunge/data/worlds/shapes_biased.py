"""Drawn shapes with a spurious correlation: on many training rows the texture is the shape's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.data.worlds import shapes as base
from expunge.data.worlds._corrupt import Row, corrupt

TRAINING = {**base.TRAINING, "data": ["{world}/clean", "{world}/poison"]}
SHARE = 0.8
"""Share of the training rows whose texture was made the shape's own."""


def shapes_biased(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_corrupt.corrupt`; "conflicting": test rows with the texture of the next shape, and their own labels.

    Labels are right throughout.
    """
    clean, draw = base.shapes(seed), np.random.default_rng([seed, 17])

    def redraw(row: Row, ahead: int) -> Row:
        texture = base.TEXTURES[(base.SHAPES.index(row["shape"]) + ahead) % len(base.TEXTURES)]
        return {**row, **base.picture((row["colour"], row["shape"]), texture, draw)}

    conflicting = [redraw(row, 1) for row in clean["test"]]
    return corrupt(clean, lambda row: redraw(row, 0), SHARE, seed, probes={"conflicting": conflicting})
