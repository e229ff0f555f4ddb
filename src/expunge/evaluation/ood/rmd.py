"""Relative Mahalanobis distance."""

from __future__ import annotations

import numpy as np

from expunge.core.card import OodCard
from expunge.evaluation.ood._gaussians import Gaussians
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard(
    "Relative Mahalanobis distance",
    paper="arXiv:2106.09022",
    equation="2",
    reads=("features",),
    fits=("features", "labels"),
)


def rmd() -> OodScore:
    """The Mahalanobis distance less the one to a single normal distribution of all rows (Ren et al. 2021)."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and known.labels_N is not None and rows.features_ND is not None
        classes = Gaussians.fit(known.features_ND, known.labels_N)
        background = Gaussians.fit(known.features_ND, np.zeros(len(known.features_ND)))
        return classes.distances(rows.features_ND).min(axis=1) - background.distances(rows.features_ND)[:, 0]

    return score
