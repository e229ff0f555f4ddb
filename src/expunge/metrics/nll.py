"""Negative log-likelihood."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Negative log-likelihood",
    side="forgetting",
    better="lower",
    unit="nats",
    needs={"split": {"nll"}},
    splits=("forget", "retain", "holdout", "test", "real_authors", "world_facts", "probes"),
    means="How surprised the model is by the answers; on the forget set it should be as surprised "
    "as a model that never saw them, not more; what it would say instead is not seen here.",
)


def nll() -> Metric:
    """The mean over examples of each example's mean loss: nats a token (classifier: an example)."""

    def values(split: Readout) -> np.ndarray:
        return mean_nll(split)

    return values
