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
    means="How surprising the answers are to the model; the forget set should be as surprising as to a model "
    "that never saw it, not more; it does not show what the model would say instead.",
)


def nll() -> Metric:
    """The mean over examples of each example's mean loss: nats per token (classifier: nats per example)."""

    def values(split: Readout) -> np.ndarray:
        return mean_nll(split)

    return values
