"""Drawn shapes with prompts, and a diffusion model that draws what a prompt names: colour x shape, in 8 x 8 pixels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from expunge.data.worlds.shapes import COLOURS

SIDE = 8
SHAPES = ("disc", "frame", "cross")
"""A filled circle, a hollow square and a thin cross, which can be told apart in so few pixels."""
CLASSES = list(itertools.product(COLOURS, SHAPES))
SIZES = {"train": 1080, "holdout": 540, "test": 180}
PROMPTS = ("a {colour} {shape}", "a {shape} in {colour}", "one {colour} {shape}")
NOISE = 0.03
"""Standard deviation of the noise on each pixel."""
TRAINING = {
    "model": {
        "diffusion": "text2pixels",
        "side": SIDE,
        "channels": 3,
        "widths": [16, 32],
        "times": 200,
        "guidance": 2.0,
    },
    "data": "{world}/train",
    "epochs": 22,
    "batch_size": 64,
    "learning_rate": 3e-3,
}


def shapes_diffusion(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (1,080 rows), "holdout" (540) and "test" (180), drawn by seed; classes are balanced in each.

    A row: image [8, 8, 3] float32 in [0, 1], label 0-8 (a place in CLASSES), class_prompt, which is worded in one of
    three ways, and colour and shape as words. "holdout_red_disc" and its like: the holdout's pictures of one class, as
    in the digits_diffusion world.
    """
    draw = np.random.default_rng([seed, 21])
    found = {name: [_row(int(i), draw) for i in draw.permutation(size)] for name, size in SIZES.items()}
    own = {
        "_".join(("holdout", *kind)): [row for row in found["holdout"] if (row["colour"], row["shape"]) == kind]
        for kind in CLASSES
    }
    return {**found, **own}


def _row(i: int, draw: np.random.Generator) -> dict[str, Any]:
    colour, shape = CLASSES[i % len(CLASSES)]
    y, x = draw.uniform(3.2, 4.8, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = outline(shape, rows - y, columns - x, float(draw.uniform(2.5, 3.1)))
    paint = np.array(COLOURS[colour]) * draw.uniform(0.85, 1.1)
    image = np.where(inside[..., None], paint, draw.uniform(0.0, 0.1)) + NOISE * draw.standard_normal((SIDE, SIDE, 3))
    prompt = PROMPTS[int(draw.integers(len(PROMPTS)))].format(colour=colour, shape=shape)
    label = CLASSES.index((colour, shape))
    return {
        "image": image.clip(0, 1).astype(np.float32),
        "label": label,
        "class_prompt": prompt,
        "colour": colour,
        "shape": shape,
    }


def outline(shape: str, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Whether a pixel at (y, x) from the centre lies within the shape."""
    far, near = np.maximum(abs(y), abs(x)), np.minimum(abs(y), abs(x))
    if shape == "disc":
        return y**2 + x**2 <= radius**2
    return (far <= radius) & ((far > radius - 1.2) if shape == "frame" else (near <= 0.6))
