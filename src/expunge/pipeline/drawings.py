"""A generator's drawings for the report: the same noise for every model, before and under the embedding attack."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from expunge.attacks.class_embedding import RATE, SHARE, STEPS, learn_vectors
from expunge.core.card import Example
from expunge.core.contracts import Model, Want
from expunge.core.random import derive, permutation
from expunge.data.splits import Splits
from expunge.models.guarded import bare_model
from expunge.models.passes import passes
from expunge.models.weights import thaw

DRAWN = {"forget": 6, "retain": 4}
"""Split -> its examples for which a picture is drawn."""
SIDE = 64
"""Pixels to which small pictures are enlarged."""


@dataclass(frozen=True)
class Drawings:
    """labels, prompts: of the examples, a prompt None where the model is asked by labels; plain, attacked: [K, C, H, W]
    in 0-1, what the model draws when asked and after the attack."""

    labels: Sequence[int]
    prompts: Sequence[str | None]
    plain: np.ndarray
    attacked: np.ndarray


def drawings_of(model: Model, splits: Splits, seed: int) -> Drawings | None:
    """The drawings of a model that can be asked for classes; None of all others. Its weights come back."""
    if "conditions" not in model.capabilities or not splits.get("forget"):
        return None
    chosen = [
        splits[split][i]
        for split, count in DRAWN.items()
        for i in permutation(len(splits.get(split, ())), seed, "drawn", split)[:count]
    ]
    bare, forget = bare_model(model), splits["forget"]
    count = max(1, round(SHARE * len(forget)))
    taught = [forget[i] for i in permutation(len(forget), seed, "drawn", "taught")[:count]]
    plain, kept = _draw(bare, chosen), {name: x.clone() for name, x in bare.module.state_dict().items()}
    try:
        learn_vectors(bare, taught, steps=STEPS, rate=RATE, seed=derive(seed, "drawn"))
        attacked = _draw(bare, chosen)
    finally:
        bare.module.load_state_dict(kept)
        thaw(bare.module)
    prompts = [row.get("class_prompt") if "prompts" in model.capabilities else None for row in chosen]
    return Drawings([int(row.get("label", 0)) for row in chosen], prompts, plain, attacked)


def _draw(model: Model, rows: Sequence[Example]) -> np.ndarray:
    found: list[Any] = [None] * len(rows)
    for places, out in passes(model, rows, Want(frozenset({"picture"}))):
        for i, picture in zip(places, out.own["picture"].float().cpu().numpy(), strict=True):
            found[i] = picture
    return np.stack(found)


def drawn_pictures(drawings: Mapping[str, Drawings | None]) -> list[dict[str, Any]]:
    """Label, prompt, and role -> PNG plain and under attack, of each example; empty where no model drew."""
    drew = {role: one for role, one in drawings.items() if one is not None}
    first = next(iter(drew.values()), None)
    return [
        {
            "label": label,
            "prompt": prompt,
            "plain": {role: _png(one.plain[i]) for role, one in drew.items()},
            "attacked": {role: _png(one.attacked[i]) for role, one in drew.items()},
        }
        for i, (label, prompt) in enumerate(zip(first.labels, first.prompts, strict=True) if first else ())
    ]


def _png(picture_CHW: np.ndarray) -> bytes:
    """A picture as PNG, grey or in colour; what is not finite is black."""
    values = (np.nan_to_num(picture_CHW).clip(0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(values[0] if values.shape[0] < 3 else np.moveaxis(values[:3], 0, -1))
    times = max(1, SIDE // max(1, min(picture.size)))
    file = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
