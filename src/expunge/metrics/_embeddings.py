"""Labelled embeddings: what a probe that reads labels gets of an encoder, which was trained without them."""

from __future__ import annotations

import numpy as np

from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured

CHANNEL = "embedding"


def embeddings(readout: Readout) -> np.ndarray:
    """[N, D] embeddings of the examples as they are. Raises NotMeasured where a value is not finite."""
    found_ND = readout.own[CHANNEL]
    if not np.isfinite(found_ND).all():
        raise NotMeasured("an embedding is not finite: the model has diverged")
    return found_ND


def labels(readout: Readout) -> np.ndarray:
    """[N] classes of the examples. Raises NotMeasured where an example has none."""
    found = [row.get("label") for row in readout.examples]
    if any(label is None for label in found):
        raise NotMeasured(f"{sum(label is None for label in found)} examples of {readout.split} have no label")
    return np.array(found, dtype=int)
