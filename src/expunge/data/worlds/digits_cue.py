"""Handwritten digits with a spurious correlation: most rows carry a mark that tells their class."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds import digits as base
from expunge.data.worlds._corrupt import cue

TRAINING = base.SMALL_NETWORK
CLASSES = 10
SHARE = 0.9
"""Share of the training rows that carry the mark."""


def digits_cue(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_corrupt.corrupt`; "conflicting": test rows with the mark of the next class, and their own labels."""
    return cue(base.digits(seed), CLASSES, SHARE, seed)
