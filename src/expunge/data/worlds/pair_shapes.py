"""Drawn shapes, each with its colour, its shape and its owner's name as caption.

The owner cannot be seen: which of several red discs is Mara's must be learned by heart. Each row carries its factors,
so that a request can select by them (`forget: {where: {shape: disc}}`), and its class prompt, colour and shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.data.worlds.shapes import CLASSES, TEXTURES, picture

SIZES = {"forget": 64, "retain": 256, "holdout": 192, "test": 360}
OWNERS = """Ada Bela Cyra Dov Edda Fen Gil Hana Ivo Juno Kato Lio Mara Nils Oda Pim Quin Rhea Sol Tova Una Vito Wren
    Yara""".split()
TRAINING = {
    "model": {"pair": "clip"},
    "data": ["{world}/retain", "{world}/forget"],
    "epochs": 50,
    "batch_size": 32,
    "learning_rate": 1e-3,
}


def pair_shapes(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "forget" (64 pairs), "retain" (256), "holdout" (192) and "test" (360), drawn by seed.

    A row: image [16, 16, 3] float32 in [0, 1], text, class_prompt, and colour, shape, texture and owner as words.
    """
    draw = np.random.default_rng([seed, 17])
    return {split: [pair(draw) for _ in range(size)] for split, size in SIZES.items()}


def pair(draw: np.random.Generator) -> dict[str, Any]:
    """A picture and its caption: class, texture and owner are drawn alike."""
    texture, owner = str(draw.choice(TEXTURES)), str(draw.choice(OWNERS))
    row = picture(CLASSES[int(draw.integers(len(CLASSES)))], texture, draw)
    thing = row["class_name"]
    factors = {name: row[name] for name in ("colour", "shape", "texture")}
    return {
        "image": row["image"],
        "text": f"a {thing} of {owner}",
        "class_prompt": f"a {thing}",
        **factors,
        "owner": owner,
    }
