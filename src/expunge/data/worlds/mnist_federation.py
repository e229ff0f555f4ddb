"""MNIST at eight clients, of whom the first plants a backdoor."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._federated import deal_out
from expunge.data.worlds._pictures import SMALL_NETWORK, divide

SIZES = (900, *[400] * 7)
"""Rows of the clients. The hostile one is the largest: with an eighth of all rows its trigger is averaged away."""
TRAINING = {
    **SMALL_NETWORK,
    "data": "{world}/train",
    "batch_size": 32,
    "trainer": {"federation": {"rounds": 12, "local": {"sgd": 0.05}, "history": "all"}},
}


def mnist_federation(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits of `_federated.deal_out`: "train", whose rows name their `client`, "holdout", "test", "triggered"."""
    return deal_out(divide("mnist", seed), SIZES, seed)
