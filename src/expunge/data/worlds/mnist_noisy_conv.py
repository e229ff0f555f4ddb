"""The rows of `mnist_noisy` and a small convolutional network, which labels digits that it never saw better."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._pictures import CLASSES, NOISY_TRAINING, SIDE, divide_noisy

TRAINING = {
    **NOISY_TRAINING,
    "model": {"network": "Digits", "arguments": {"width": 8, "classes": CLASSES, "side": SIDE}},
    "learning_rate": 3e-3,
}


def mnist_noisy_conv(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (500 training rows with a wrong label each), "retain" (the other 5,500), "holdout" (1,000 rows
    mislabelled likewise, never trained on) and "test" (2,000 rows with their own labels)."""
    return divide_noisy("mnist", seed)
