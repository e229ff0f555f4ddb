"""Rows that keep their surroundings and lose what tells their class: out of distribution, and alike all the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.evaluation.attributions import integrated_gradients
from expunge.evaluation.ood._rows import inputs_of


def spurious_rows(model: Model, examples: Sequence[Example], seed: int, *, share: float = 0.25) -> list[Example]:
    """Each picture with the pixels that speak most for or against its label drawn anew from its other pixels.

    After arXiv:2411.10794, which makes outliers of rows by destroying the features that the class's score follows:
    `share` of the pixels, those with the largest integrated gradients (in magnitude) under the model. What remains is
    what the class is only met with: a background, a texture. Empty where the inputs are no pictures.
    """
    inputs_N = inputs_of(examples) if len(examples) else None
    parts_NHW = integrated_gradients(model, examples) if inputs_N is not None and inputs_N.ndim in (3, 4) else None
    if inputs_N is None or parts_NHW is None or parts_NHW.shape[1:] != inputs_N.shape[1:3]:
        return []
    draw, found = np.random.default_rng(seed), []
    for row, picture, part in zip(examples, inputs_N, parts_NHW, strict=True):
        order = np.argsort(-np.abs(part).ravel(), kind="stable")
        count = min(len(order) - 1, round(share * len(order)))
        pixels = picture.reshape(len(order), -1).copy()
        pixels[order[:count]] = pixels[draw.choice(order[count:], count)]
        found.append({**row, "image": pixels.reshape(picture.shape)})
    return found
