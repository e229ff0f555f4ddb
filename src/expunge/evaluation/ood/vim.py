"""ViM."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.energy import energy_of
from expunge.evaluation.scores import NotMeasured

CARD = OodCard(
    "Virtual-logit matching",
    paper="arXiv:2203.10807",
    equation="9",
    reads=("logits", "features"),
    fits=("logits", "features", "head"),
)


def vim(*, dimensions: Annotated[int, Ge(0)] = 0) -> OodScore:
    """The features' length outside their principal space, scaled like a logit, plus the energy (Wang et al. 2022).

    Features are taken from the origin -W⁺b, where all logits are 0; the principal space has `dimensions` directions of
    their uncentred second moment. 0: 1,000 of at least 1,500 features, 512 of at least 768, else a third.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and rows.features_ND is not None and known.head is not None
        origin_D = -np.linalg.pinv(known.head.weight_CD) @ known.head.bias_C
        lead_ND = known.features_ND - origin_D
        _, directions_DD = np.linalg.eigh(lead_ND.T @ lead_ND / len(lead_ND))  # from the smallest on
        width = lead_ND.shape[1]
        outside = width - (dimensions or default_dimensions(width))
        if outside < 1:
            raise NotMeasured(f"vim with {dimensions} dimensions leaves nothing of {width} features")
        residual_DR = directions_DD[:, :outside]
        length = float(np.linalg.norm(lead_ND @ residual_DR, axis=1).mean())
        scale = float(known.logits_NC.max(axis=1).mean()) / max(length, 1e-12)
        own = np.linalg.norm((rows.features_ND - origin_D) @ residual_DR, axis=1)
        return np.asarray(scale * own + energy_of(rows.logits_NC))

    return score


def default_dimensions(width: int) -> int:
    """Directions of the principal space among so many features."""
    return 1000 if width >= 1500 else 512 if width >= 768 else max(1, round(width / 3))
