"""A linear head on EfficientNet-Lite0's features of Fashion-MNIST, with wrong labels that it learns by heart.

The layers below the head are those that were trained on ImageNet (Tan and Le, arXiv:1905.11946): frozen, and run once.
"""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._pictures import CLASSES, NOISY_TRAINING, divide_noisy

TRAINING = {
    **NOISY_TRAINING,
    "model": {"network": "LinearHead", "arguments": {"inputs": 1280, "classes": CLASSES}},
    "learning_rate": 1e-2,
}


def efficientnet_noisy(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (500 training rows with a wrong label each), "retain" (the other 5,500), "holdout" (1,000 rows
    mislabelled likewise, never trained on) and "test" (2,000 rows with their own labels); features [1280]."""
    return divide_noisy("efficientnet", seed)
