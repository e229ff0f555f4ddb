"""How contrastive encoders behave: by temperature, by their negatives, and where labels are few."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from expunge.data.worlds.digits import digits
from loading import load_script

pytestmark = pytest.mark.slow
SEEDS = (3, 4, 5)
"""Others than those of the page."""


@functools.cache
def measured(name: str, temperature: float, seed: int) -> dict[str, float]:
    found: dict[str, float] = load_script("contrast").measure({name: {"temperature": temperature}}, seed)
    return found


def mean(name: str, temperature: float, figure: str) -> float:
    return float(np.mean([measured(name, temperature, seed)[figure] for seed in SEEDS]))


def test_a_higher_temperature_is_less_uniform_and_more_tolerant() -> None:
    """Of the vectors that the loss compares, from .07 to 1 (the embeddings below the head need not follow)."""
    low, high = ({f: mean("nt_xent", heat, f) for f in ("uniformity", "tolerance")} for heat in (0.07, 1.0))
    assert high["uniformity"] > low["uniformity"] + 0.1, (low, high)
    assert high["tolerance"] > low["tolerance"] + 0.02, (low, high)


def test_hard_negatives_bring_the_classes_nearer() -> None:
    """A point more of the unseen digits have neighbours of their class than under NT-Xent."""
    assert mean("hard_negatives", 0.5, "neighbours") > mean("nt_xent", 0.5, "neighbours") + 0.01


def test_pretraining_without_labels_helps_where_labels_are_few() -> None:
    """A probe with 50 labels on an encoder of 640 unlabelled digits against the same on one that was never trained."""
    script: Any = load_script("contrast")
    trained, raw = [], []
    for seed in SEEDS:
        data = digits(seed)
        for epochs, values in ((20, trained), (0, raw)):
            values.append(script.probe(script.trained("nt_xent", seed, epochs), data["train"][:50], data["test"]))
    assert np.mean(trained) > np.mean(raw) + 0.03, (trained, raw)
