"""Rows on a classifier's decision boundaries, made of its own rows: the nearest that lies outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.random import permutation
from expunge.evaluation.ood._rows import read_rows

HALVINGS = 12


def near_rows(model: Model, examples: Sequence[Example], seed: int) -> list[Example]:
    """Each row moved towards a row that the model puts into another class, to where it changes its mind.

    The published synthesis (2507.10225) moves an image along a gradient by a diffusion model; here it is a straight
    line between two rows, halved twelve times, so that no other model is needed. Empty where an input is not an array,
    or all rows are in one class.
    """
    key = "features" if examples and examples[0].get("features") is not None else "image"
    if not all(isinstance(row.get(key), np.ndarray | list | tuple) for row in examples):
        return []
    arrays = np.stack([np.asarray(row[key], dtype=np.float32) for row in examples])
    scale = 255.0 if np.asarray(examples[0][key]).dtype == np.uint8 else 1.0
    arrays = arrays / scale

    def predict(values: np.ndarray) -> np.ndarray:
        rows = [{**row, key: value} for row, value in zip(examples, values, strict=True)]
        return np.asarray(read_rows(model, rows).logits_NC.argmax(axis=1))

    own_N = predict(arrays)
    if len(np.unique(own_N)) < 2:
        return []
    partners = arrays[_partners(own_N, seed)]
    low_N, high_N = np.zeros(len(arrays)), np.ones(len(arrays))
    for _ in range(HALVINGS):
        middle_N = (low_N + high_N) / 2
        same_N = predict(_between(arrays, partners, middle_N)) == own_N
        low_N, high_N = np.where(same_N, middle_N, low_N), np.where(same_N, high_N, middle_N)
    return [{**row, key: value} for row, value in zip(examples, _between(arrays, partners, high_N), strict=True)]


def _partners(own_N: np.ndarray, seed: int) -> list[int]:
    """For each row a row of another predicted class, the first in an order of its own."""
    order = [permutation(len(own_N), seed, "near", place) for place in range(min(8, len(own_N)))]
    return [next(j for j in order[i % len(order)] if own_N[j] != own_N[i]) for i in range(len(own_N))]


def _between(first: np.ndarray, second: np.ndarray, share_N: np.ndarray) -> np.ndarray:
    share = share_N.reshape(-1, *[1] * (first.ndim - 1)).astype(np.float32)
    return np.asarray((1 - share) * first + share * second)
