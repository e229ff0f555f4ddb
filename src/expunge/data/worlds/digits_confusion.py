"""Handwritten digits with two confused classes: the labels of 3 and 5 are swapped on many rows (arXiv:2402.14015)."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds import digits as base
from expunge.data.worlds._corrupt import confusion

TRAINING = base.SMALL_NETWORK
PAIR = (3, 5)
SHARE = 0.08
"""Share of the training rows that bear the label of the other class."""


def digits_confusion(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_corrupt.corrupt`; "confused": test rows of both classes, under their own labels."""
    return confusion(base.digits(seed), PAIR, SHARE, seed)
