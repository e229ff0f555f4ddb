"""Handwritten digits at eight clients, of whom the first plants a backdoor."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds import digits as base
from expunge.data.worlds._federated import deal_out

SIZES = (320, *[108] * 7)
"""Rows of the clients. The hostile one is the largest: with an eighth of all rows its trigger is averaged away."""
TRAINING = {
    **base.SMALL_NETWORK,
    "data": "{world}/train",
    "learning_rate": 5e-3,
    "trainer": {"federation": {"rounds": 12, "local": 3, "history": "all"}},
}


def digits_federation(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_federated.deal_out`: "train", whose rows name their `client`, "holdout", "test", "triggered"."""
    return deal_out(base.digits(seed), SIZES, seed)
