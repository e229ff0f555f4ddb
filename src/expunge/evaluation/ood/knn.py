"""Nearest neighbours."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge
from sklearn.neighbors import NearestNeighbors

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard(
    "Distance to the k-th nearest neighbour", paper="arXiv:2204.06507", reads=("features",), fits=("features",)
)


def knn(*, k: Annotated[int, Ge(1)] = 50) -> OodScore:
    """Euclidean distance to the k-th nearest in-distribution row, both of unit length (Sun et al. 2022).

    k: 50 for sets of CIFAR's size; where there are fewer rows than k, the furthest. A row that is fitted on is its
    own nearest neighbour.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and rows.features_ND is not None
        nearest = NearestNeighbors(n_neighbors=min(k, len(known.features_ND)), algorithm="brute")
        nearest.fit(unit_length(known.features_ND))
        distance_NK, _ = nearest.kneighbors(unit_length(rows.features_ND))
        return np.asarray(distance_NK[:, -1])

    return score


def unit_length(features_ND: np.ndarray) -> np.ndarray:
    """[N, D] rows of length 1; a row of zeros stays."""
    return np.asarray(features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12))
