"""Adult with wrong labels that boosted trees learn by heart: what is to be forgotten can be told from what is known."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds._adult import divide_wrong

TRAINING = {
    "model": {"trees": "xgboost"},
    "trainer": {"boosting": {"depth": 12, "least_weight": 0.0}},
    "data": ["{world}/retain", "{world}/forget"],
    "epochs": 40,
}
"""Deep enough to learn the wrong labels by heart."""


def adult_trees(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (500 training rows with the wrong label), "retain" (the other 5,500), "holdout" (1,000 rows with
    the wrong label, never trained on) and "test" (4,000 rows with their own)."""
    return divide_wrong(seed)
