"""The pictures of `mnist` and a small convolutional network."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._pictures import CLEAN_TRAINING, SMALL_NETWORK, divide

TRAINING = {**CLEAN_TRAINING, **SMALL_NETWORK}


def mnist_conv(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (6,000 rows), "holdout" and "test" (2,000 each); image [28, 28] in [0, 1], label 0-9."""
    return divide("mnist", seed)
