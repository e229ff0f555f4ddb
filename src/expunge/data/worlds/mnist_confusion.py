"""MNIST with two confused classes: the labels of 3 and 5 are swapped on many rows (arXiv:2402.14015)."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._corrupt import confusion
from expunge.data.worlds._pictures import SMALL_NETWORK, divide

TRAINING = {**SMALL_NETWORK, "data": ["{world}/clean", "{world}/poison"]}
PAIR = (3, 5)
SHARE = 0.08
"""Share of the training rows that bear the label of the other class."""


def mnist_confusion(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_corrupt.corrupt`; "confused": test rows of both classes, under their own labels."""
    return confusion(divide("mnist", seed), PAIR, SHARE, seed)
