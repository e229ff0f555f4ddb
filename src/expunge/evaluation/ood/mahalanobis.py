"""Mahalanobis distance."""

from __future__ import annotations

import numpy as np

from expunge.core.card import OodCard
from expunge.evaluation.ood._gaussians import Gaussians
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard(
    "Mahalanobis distance",
    paper="arXiv:1807.03888",
    equation="2",
    reads=("features",),
    fits=("features", "labels"),
    means="Of the last layer's inputs alone: the paper also joins earlier layers and moves the input.",
)


def mahalanobis() -> OodScore:
    """Squared Mahalanobis distance to the nearest class mean, with one tied covariance (Lee et al. 2018)."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and known.labels_N is not None and rows.features_ND is not None
        return Gaussians.fit(known.features_ND, known.labels_N).distances(rows.features_ND).min(axis=1)

    return score
