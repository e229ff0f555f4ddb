"""Consistency of a row with its own views: an adversarial example is alone among them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.knn import unit_length

CARD = OodCard(
    "Be your own neighbourhood",
    paper="arXiv:2209.00005",
    equation="label consistency and representation similarity, added instead of two thresholds",
    reads=("logits", "features", "views"),
    fits=(),
    means="For inputs that were changed so that the model misreads them: small random changes bring the class back. "
    "The paper reads the features of an encoder that learned without labels, under a linear classifier; of a network "
    "that was not trained on such views, rows in distribution are less consistent too.",
)


def neighbourhood(*, views: Annotated[int, Ge(1)] = 20) -> OodScore:
    """The share of a row's views that the model names otherwise, plus 1 less their mean cosine to its features.

    Views are moved, changed in size and given noise as those of an encoder are (`models/views.py`).
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert rows.features_ND is not None and rows.look is not None
        name_N, z_ND = rows.logits_NC.argmax(axis=1), unit_length(rows.features_ND)
        found = []
        for view in rows.look(views):
            assert view.features_ND is not None
            other_N = view.logits_NC.argmax(axis=1) != name_N
            found.append(other_N + 1 - (z_ND * unit_length(view.features_ND)).sum(axis=1))
        return np.mean(found, axis=0)

    return score
