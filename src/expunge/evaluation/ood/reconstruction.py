"""Reconstruction error, weighed by how usual it is."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.vim import default_dimensions
from expunge.evaluation.scores import NotMeasured

CARD = OodCard(
    "Adjustable probabilistic reconstruction error",
    paper="arXiv:2304.00709",
    equation="the adjustable error, of a linear autoencoder of the features; without the mean shift",
    reads=("features",),
    fits=("features",),
)
FLOOR = 1e-6
"""Least variance of a feature's error, as a share of the largest."""


def reconstruction(*, weight: Annotated[float, Ge(0), Le(1)] = 0.5, dimensions: Annotated[int, Ge(0)] = 0) -> OodScore:
    """The squared error of each feature's reconstruction over its usual size to the power `weight`.

    Features are rebuilt from `dimensions` principal components (0: as in vim). weight: 0 is the plain error, 1 the
    likelihood of normal errors; in between, features that are always badly rebuilt count less but still most.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and rows.features_ND is not None
        mean_D = known.features_ND.mean(axis=0)
        kept = dimensions or default_dimensions(len(mean_D))
        if kept >= len(mean_D):
            raise NotMeasured(f"reconstruction from {kept} dimensions loses nothing of {len(mean_D)} features")
        _, _, directions_DD = np.linalg.svd(known.features_ND - mean_D, full_matrices=False)

        def error(features_ND: np.ndarray) -> np.ndarray:
            lead_ND = features_ND - mean_D
            return np.asarray(np.square(lead_ND - lead_ND @ directions_DD[:kept].T @ directions_DD[:kept]))

        usual_D = error(known.features_ND).mean(axis=0)
        usual_D = np.maximum(usual_D, max(FLOOR * usual_D.max(), 1e-300))
        return np.asarray((error(rows.features_ND) / usual_D**weight).sum(axis=1))

    return score
