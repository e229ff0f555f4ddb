"""Agreement with gold."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Agreement with gold",
    side="forgetting",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("labels",),
    needs={"split": {"logits"}, "gold.split": {"logits"}},
    means="How often the model and gold choose the same class; two golds with different seeds disagree "
    "too, so full agreement is not to be expected.",
)


def agreement_with_gold() -> Metric:
    """The share of examples on which the model's most likely class is gold's."""

    def values(split: Readout, gold_split: Readout) -> np.ndarray:
        assert split.logp_NC is not None and gold_split.logp_NC is not None
        same = split.logp_NC.argmax(axis=1) == gold_split.logp_NC.argmax(axis=1)
        return np.asarray(same, dtype=float)

    return values
