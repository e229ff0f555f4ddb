"""Drawn shapes with prompts, and a diffusion model that draws what a prompt names: colour x shape, in 8 x 8 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.data.worlds.shapes import CLASSES, SIDE, picture

SIZES = {"train": 1440, "holdout": 270, "test": 270}
PROMPTS = ("a {colour} {shape}", "a {shape} in {colour}", "one {colour} {shape}")
TRAINING = {
    "model": {"diffusion": "text2pixels", "side": 8, "channels": 3, "widths": [16, 32], "times": 200},
    "data": "{world}/train",
    "epochs": 20,
    "batch_size": 64,
    "learning_rate": 3e-3,
}


def shapes_diffusion(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (1,440 rows), "holdout" and "test" (270 each), drawn by seed; classes are balanced in each.

    A row: image [8, 8, 3] float32 in [0, 1], label 0-8 (a place in shapes.CLASSES), class_prompt, which is worded in
    one of three ways, and colour and shape as words.
    """
    draw = np.random.default_rng([seed, 21])
    return {name: [_row(i, draw) for i in draw.permutation(size)] for name, size in SIZES.items()}


def _row(i: int, draw: np.random.Generator) -> dict[str, Any]:
    row = picture(CLASSES[i % len(CLASSES)], "plain", draw)
    halved = row["image"].reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean((1, 3))
    factors = {name: row[name] for name in ("colour", "shape")}
    prompt = PROMPTS[int(draw.integers(len(PROMPTS)))].format(**factors)
    return {"image": halved, "label": row["label"], "class_prompt": prompt, **factors}
