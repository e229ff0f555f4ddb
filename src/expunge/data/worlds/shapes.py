"""Drawn shapes: colour x shape x texture, of which everything is known (16 x 16 colour images).

The class is colour and shape together; the texture is independent of it. Each row carries its factors as fields, so
that a request can select by them (`forget: {where: {colour: red}}`) and a concept can be checked.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

SIDE = 16
COLOURS = {"red": (0.9, 0.2, 0.2), "green": (0.2, 0.8, 0.2), "blue": (0.25, 0.3, 0.9)}
SHAPES = ("square", "disc", "cross")
TEXTURES = ("plain", "stripes", "dots")
CLASSES = list(itertools.product(COLOURS, SHAPES))
SIZES = {"train": 1800, "holdout": 360, "test": 540}
NOISE = 0.08
"""Standard deviation of the noise on each pixel."""
DARK = 0.35
"""Brightness of the gaps of a texture, relative to its strokes."""
TRAINING = {
    "model": {"network": "Digits", "arguments": {"width": 8, "classes": len(CLASSES), "side": SIDE, "channels": 3}},
    "data": "{world}/train",
    "epochs": 12,
    "batch_size": 32,
    "learning_rate": 3e-3,
}


def shapes(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "train" (1,800 rows), "holdout" (360) and "test" (540), drawn by seed.

    A row: image [16, 16, 3] float32 in [0, 1], label 0-8 (a place in CLASSES), and colour, shape, texture and
    class_name as words. Classes and textures are balanced in each split.
    """
    draw = np.random.default_rng([seed, 16])
    kinds = list(itertools.product(CLASSES, TEXTURES))
    found = {}
    for split, size in SIZES.items():
        rows = [picture(*kinds[i % len(kinds)], draw) for i in range(size)]
        found[split] = [rows[i] for i in draw.permutation(size)]
    return found


def picture(kind: tuple[str, str], texture: str, draw: np.random.Generator) -> dict[str, Any]:
    """A row of this colour and shape: its place, size, brightness, background and noise are drawn."""
    colour, shape = kind
    radius = draw.uniform(4.2, 6.0)
    y, x = draw.uniform(radius + 0.5, SIDE - radius - 0.5, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = outline(shape, rows - y, columns - x, radius)
    strokes = np.where(pattern(texture, rows, columns, int(draw.integers(2))), 1.0, DARK) * draw.uniform(0.85, 1.1)
    paint = strokes[..., None] * np.array(COLOURS[colour])
    image = np.where(inside[..., None], paint, draw.uniform(0.0, 0.25)) + NOISE * draw.standard_normal((SIDE, SIDE, 3))
    return {
        "image": image.clip(0, 1).astype(np.float32),
        "label": CLASSES.index(kind),
        "class_name": f"{colour} {shape}",
        "colour": colour,
        "shape": shape,
        "texture": texture,
    }


def outline(shape: str, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Whether a pixel at (y, x) from the centre lies within the shape."""
    if shape == "disc":
        return y**2 + x**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(y), abs(x)) <= 0.85 * radius
    return (np.minimum(abs(y), abs(x)) <= 0.3 * radius) & (np.maximum(abs(y), abs(x)) <= radius)


def pattern(texture: str, rows: np.ndarray, columns: np.ndarray, phase: int) -> np.ndarray:
    """Whether a pixel is part of a stroke of the texture; phase: 0 or 1, by which it is shifted."""
    if texture == "stripes":
        return (rows.astype(int) + phase) % 3 > 0
    if texture == "dots":
        return (rows.astype(int) + columns.astype(int) + phase) % 2 == 0
    return np.ones_like(rows, dtype=bool)
