"""Brier score."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Brier score",
    paper="doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
    equation="half of equation 2",
    side="utility",
    better="lower",
    unit="share",
    capabilities=("labels",),
    needs={"split": {"logits"}},
    splits=("retain", "holdout", "test"),
    means="How far the predicted probabilities are from the labels: it rises with errors and with confidence in them. "
    "0 is certain and right, 1 certain and wrong.",
)


def brier() -> Metric:
    """Half of the squared distance between the class probabilities and the label's, averaged over the examples."""

    def values(split: Readout) -> np.ndarray:
        assert split.logp_NC is not None and split.labels_N is not None
        lead_NC = np.exp(split.logp_NC)
        lead_NC[np.arange(len(lead_NC)), split.labels_N] -= 1
        return np.asarray((lead_NC**2).sum(axis=1) / 2)

    return values
