"""Divergence from gold."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "KL divergence from gold",
    paper="arXiv:1911.04933",
    side="forgetting",
    better="lower",
    unit="nats",
    capabilities=("labels",),
    needs={"split": {"logits"}, "gold.split": {"logits"}},
    means="How far the model's predictions are from gold's, example by example; 0 means the same "
    "outputs on these examples, not the same weights.",
)


def kl_to_gold_from(gold_logp: np.ndarray, logp: np.ndarray) -> np.ndarray:
    """KL(gold || model), [N] nats, of [N, C] log-probabilities; classes ruled out by gold add 0."""
    p = np.exp(gold_logp)
    gaps = np.where(p > 0, gold_logp, 0.0) - np.where(p > 0, logp, 0.0)
    return np.asarray((p * gaps).sum(axis=1))


def kl_to_gold() -> Metric:
    """KL(gold || model) over the classes, in nats, averaged over the examples."""

    def values(split: Readout, gold_split: Readout) -> np.ndarray:
        assert split.logp_NC is not None and gold_split.logp_NC is not None
        return kl_to_gold_from(gold_split.logp_NC, split.logp_NC)

    return values
