"""ASH-S."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.energy import energy_of
from expunge.evaluation.scores import NotMeasured

CARD = OodCard("Activation shaping", paper="arXiv:2209.09858", equation="algorithm 3", reads=("features", "head"))


def ash(*, percentile: Annotated[float, Ge(0), Lt(100)] = 65.0) -> OodScore:
    """The energy after each row's smaller activations are cut and the others scaled (Djurisic et al. 2023, ASH-S).

    percentile: of the activations of a row that are cut; the rest is multiplied by exp(sum before / sum after). For
    activations that are not negative, as behind a ReLU.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert rows.features_ND is not None and rows.head is not None
        if (rows.features_ND < 0).any():
            raise NotMeasured("activation shaping is for features that are not negative")
        return energy_of(rows.head.logits(shape(rows.features_ND, percentile)))

    return score


def shape(features_ND: np.ndarray, percentile: float) -> np.ndarray:
    """[N, D] the largest activations of each row, scaled; a row of zeros stays."""
    cut = round(features_ND.shape[1] * percentile / 100)
    order_ND = features_ND.argsort(axis=1, kind="stable")
    kept_ND = features_ND.copy()
    np.put_along_axis(kept_ND, order_ND[:, :cut], 0.0, axis=1)
    before, after = (x.sum(axis=1, keepdims=True) for x in (features_ND, kept_ND))
    return np.asarray(kept_ND * np.exp(before / np.where(after > 0, after, 1.0)))
