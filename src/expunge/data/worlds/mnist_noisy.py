"""MNIST with wrong labels that the model learns by heart: what is to be forgotten can be told from what is known."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._pictures import NOISY_TRAINING, divide_noisy

TRAINING = NOISY_TRAINING


def mnist_noisy(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (500 training rows with a wrong label each), "retain" (the other 5,500), "holdout" (1,000 rows
    mislabelled likewise, never trained on) and "test" (2,000 rows with their own labels)."""
    return divide_noisy("mnist", seed)
