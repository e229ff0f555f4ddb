"""Fashion-MNIST with wrong labels that the model learns by heart, as `mnist_noisy`; it takes longer to."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._pictures import NOISY_TRAINING, divide_noisy

TRAINING = {**NOISY_TRAINING, "epochs": 80}


def fashion_noisy(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (500 training rows with a wrong label each), "retain" (the other 5,500), "holdout" (1,000 rows
    mislabelled likewise, never trained on) and "test" (2,000 rows with their own labels)."""
    return divide_noisy("fashion", seed)
