"""A classifier's views of some examples, for the report: its features of them, and the pixels that its answers rest
on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.random import permutation
from expunge.data.splits import Splits
from expunge.evaluation.attributions import integrated_gradients
from expunge.evaluation.ood import read_rows
from expunge.models.family import family
from expunge.pipeline.drawings import Drawings, drawings_of

MAPPED = {"retain": 200, "forget": 100}
"""Split -> its examples on the map of features, at most."""
EXPLAINED = 4
"""Forget examples whose pixels are weighed."""


@dataclass(frozen=True)
class Views:
    """features: split -> [n, D] last layer's inputs of a seeded sample, the same of every model. rows: the places in
    the forget set of the examples that `pixels` explains, [K, H, W] each; None for models of no pictures."""

    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows: Sequence[int] = ()
    pixels: np.ndarray | None = None
    drawings: Drawings | None = None
    """Of a generator."""


NO_VIEWS = Views()


def views_of(model: Model, splits: Splits, seed: int) -> Views:
    """The views of a model; empty ones of a family without classes."""
    if drawings := drawings_of(model, splits, seed):
        return Views(drawings=drawings)
    kind = family(model.family)
    if not kind.labelled or "logits" not in kind.gives:
        return NO_VIEWS
    features: dict[str, np.ndarray] = {}
    for split, most in MAPPED.items():
        rows = splits.get(split, ())
        if len(rows):
            read = read_rows(model, _some(rows, most, seed, split)[1]).features_ND
            features |= {} if read is None else {split: read}
    places, some = _some(splits.get("forget", ()), EXPLAINED, seed, "explained")
    shown = kind.show is not None and len(some) > 0 and all(kind.show(row) for row in some)
    pixels = integrated_gradients(model, some) if shown else None
    return Views(features, places if pixels is not None else (), pixels)


def _some(rows: Sequence[Example], most: int, seed: int, name: str) -> tuple[list[int], list[Example]]:
    """A seeded sample of the rows, in their order, with their places."""
    places = sorted(permutation(len(rows), seed, "views", name)[:most])
    return places, [rows[i] for i in places]
