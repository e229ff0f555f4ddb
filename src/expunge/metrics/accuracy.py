"""Accuracy."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Accuracy",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("labels",),
    needs={"split": {"logits"}},
    splits=("forget", "retain", "holdout", "test", "test_forget", "probes"),
    means="The share of examples whose most likely class is the label; on the forget set it should be "
    "close to gold's, and chance level there may mean too much forgetting. On a probe of rows with a trigger, under "
    "the label that it calls up, it is the trigger's success.",
)


def accuracy() -> Metric:
    """The share of examples whose most likely class is their label."""

    def values(split: Readout) -> np.ndarray:
        assert split.logp_NC is not None and split.labels_N is not None
        return np.asarray(split.logp_NC.argmax(axis=1) == split.labels_N, dtype=float)

    return values
