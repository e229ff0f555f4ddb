"""Class centres among the part of the features that the classes' own vectors span."""

from __future__ import annotations

import numpy as np

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.knn import unit_length

CARD = OodCard(
    "Class centres (TagOOD)",
    paper="arXiv:2408.15566",
    equation="the distance to the nearest class centre, of features without what no tag names",
    reads=("features",),
    fits=("features", "labels", "head"),
    means="Of an image-text pair the vectors are the class prompts', so that what no prompt names (a background) does "
    "not count; of a classifier they are the last layer's weights. The paper takes tags of a tagging model, and trains "
    "a small network on what they leave.",
)
RANK = 1e-6
"""Directions of less weight than this share of the largest are none."""


def centres() -> OodScore:
    """One less the largest cosine to a class mean, all within the span of the head's weights."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and known.labels_N is not None and known.head is not None
        assert rows.features_ND is not None
        _, size_R, directions_RD = np.linalg.svd(known.head.weight_CD, full_matrices=False)
        span_RD = directions_RD[size_R > RANK * size_R[0]]
        own_NR, z_NR = known.features_ND @ span_RD.T, rows.features_ND @ span_RD.T
        named = [label for label in np.unique(known.labels_N) if label >= 0]
        means_CR = np.stack([own_NR[known.labels_N == label].mean(0) for label in named])
        return np.asarray(1 - (unit_length(z_NR) @ unit_length(means_CR).T).max(axis=1))

    return score
