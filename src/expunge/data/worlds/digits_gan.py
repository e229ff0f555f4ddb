"""Handwritten digits, and a GAN that draws them, each class as often as it saw it."""

from __future__ import annotations

from typing import Any

from expunge.data.worlds.digits_diffusion import digits_diffusion

TRAINING = {
    "model": {"gan": "perceptrons", "side": 8, "channels": 1, "latent": 32, "widths": [128, 256]},
    "data": "{world}/train",
    "epochs": 350,
    "batch_size": 64,
    "learning_rate": 2e-4,
}


def digits_gan(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The splits of the digits world, and the holdout's pictures of each class: "holdout_3" and its like."""
    return digits_diffusion(seed)
