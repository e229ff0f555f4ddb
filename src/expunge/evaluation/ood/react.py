"""ReAct."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt, Le

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.energy import energy_of

CARD = OodCard(
    "Rectified activations", paper="arXiv:2111.12797", equation="3", reads=("features", "head"), fits=("features",)
)


def react(*, percentile: Annotated[float, Gt(0), Le(100)] = 90.0) -> OodScore:
    """The energy with activations cut at a percentile of all in-distribution activations (Sun et al. 2021)."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and rows.features_ND is not None and rows.head is not None
        highest = np.percentile(known.features_ND, percentile)
        return energy_of(rows.head.logits(np.minimum(rows.features_ND, highest)))

    return score
