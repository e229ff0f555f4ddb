"""Adult: incomes in the census of 1994 (Kohavi and Becker, UCI), and a perceptron that predicts them."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._adult import COLUMNS, divide

TRAINING = {
    "model": {"network": "MLP", "arguments": {"inputs": COLUMNS, "classes": 2, "hidden": 64}},
    "data": "{world}/train",
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 1e-3,
}


def adult(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (6,000 rows), "holdout" (6,000) and "test" (4,000); features [108], label 0 or 1, sex."""
    return divide(seed)
