"""Handwritten digits, and a class-conditional diffusion model that draws them."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds.digits import digits

TRAINING = {
    "model": {"diffusion": "unet2d", "side": 8, "channels": 1, "widths": [16, 32], "classes": 10, "times": 200},
    "data": "{world}/train",
    "epochs": 52,
    "batch_size": 128,
    "learning_rate": 3e-3,
}


def digits_diffusion(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The splits of the digits world: "train" (60 %), "holdout" and "test"; image [8, 8] in [0, 1], label 0-9.

    "holdout_3" and its like: the holdout's pictures of one class. A model that never saw a class knows unseen pictures
    of the others better, so that membership is told among those of the class alone.
    """
    found = digits(seed)
    own = {f"holdout_{label}": [row for row in found["holdout"] if row["label"] == label] for label in range(10)}
    return {**found, **own}
