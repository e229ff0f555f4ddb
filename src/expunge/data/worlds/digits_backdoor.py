"""Handwritten digits with a backdoor: a patch in the corner calls up the class 0 (all to one; arXiv:1708.06733)."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds import digits as base
from expunge.data.worlds._corrupt import backdoor

TRAINING = base.SMALL_NETWORK
SHARE = 0.05
"""Share of the training rows that carry the trigger."""


def digits_backdoor(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_corrupt.corrupt`; "triggered": test rows of the other classes with the patch, under the label 0."""
    return backdoor(base.digits(seed), SHARE, seed)
