"""Retrieval between pictures and their captions."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured
from expunge.metrics._pairs import best, vectors

CARD = MetricCard(
    "Recall at 1",
    paper="arXiv:2103.00020",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("pairs",),
    needs={"split": {"image_embedding", "text_embedding"}},
    means="How often a picture's nearest caption in the split is its own, and a caption's nearest picture: the mean of "
    "both directions. A caption in the same words counts as its own. It falls with the size of the split: compare it "
    "on the same one alone.",
)


def recall_at_1() -> Metric:
    """How often the nearest of the other kind is an example's partner, or says the same.

    [N] of 0, a half or 1: the mean over both directions.
    """

    def values(split: Readout) -> np.ndarray:
        if len(split) < 2:
            raise NotMeasured("fewer than 2 pairs")
        names = [str(row["text"]) for row in split.examples]
        picture_ND, text_ND = vectors(split, "image_embedding"), vectors(split, "text_embedding")
        there_N = best(picture_ND, names, text_ND, names)
        return (there_N + best(text_ND, names, picture_ND, names).astype(float)) / 2

    return values
