"""Mean of ranks."""

from __future__ import annotations

import numpy as np

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.knn import knn
from expunge.evaluation.ood.msp import msp
from expunge.evaluation.ood.rmd import rmd

CARD = OodCard(
    "Mean of the ranks by MSP, relative Mahalanobis distance and nearest neighbours",
    reads=("logits", "features"),
    fits=("logits", "features", "labels"),
    means="For a model on which nobody knows which score is best: near classes are seen by the logits, far data by "
    "the features.",
)


def mean_rank() -> OodScore:
    """The mean over MSP, RMD and kNN of the share of in-distribution rows that score lower.

    The scores are fitted on every second in-distribution row and ranked among the others, since a row that was fitted
    on scores lower than one that was not. A row beyond all of them ranks above 1, by its distance in their standard
    deviations d: 1 + d / (1 + d), so that far rows stay in order.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        fitted, ranked = (known.take(slice(first, None, 2)) for first in (0, 1))
        ranks = []
        for one in (msp(), rmd(), knn()):
            inside, own = np.sort(one(fitted, ranked)), one(fitted, rows)
            beyond = np.maximum(0.0, own - inside[-1]) / max(float(inside.std()), 1e-12)
            ranks.append(np.searchsorted(inside, own, "left") / len(inside) + beyond / (1 + beyond))
        return np.mean(ranks, axis=0)

    return score
