"""DICE."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import Head, OodScore, Rows
from expunge.evaluation.ood.energy import energy_of

CARD = OodCard(
    "Directed sparsification", paper="arXiv:2111.09805", equation="3", reads=("features",), fits=("features", "head")
)


def dice(*, percentile: Annotated[float, Ge(0), Lt(100)] = 90.0) -> OodScore:
    """The energy with the weights of the last layer that contribute least set to 0 (Sun and Li 2022).

    A weight contributes its value times the mean in-distribution activation; those above `percentile` of all stay.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and rows.features_ND is not None and known.head is not None
        contribution_CD = known.head.weight_CD * known.features_ND.mean(axis=0)
        kept_CD = contribution_CD > np.percentile(contribution_CD, percentile)
        sparse = Head(known.head.weight_CD * kept_CD, known.head.bias_C)
        return energy_of(sparse.logits(rows.features_ND))

    return score
