"""Membership by entropy."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.membership import MEANS, compare
from expunge.core.card import AttackCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = AttackCard(
    "Entropy attack",
    paper="arXiv:2003.10595",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("labels",),
    needs={"forget": {"logits"}, "holdout": {"logits"}},
    means=MEANS,
)


def entropy_auc() -> Metric:
    """AUC by low entropy of the predicted distribution (Song and Mittal 2021, section 4)."""

    def figure(forget: Readout, holdout: Readout) -> Figure:
        return compare(_scores(forget), _scores(holdout), rows=(forget.examples, holdout.examples))

    return figure


def _scores(readout: Readout) -> np.ndarray:
    """[N] Σ p log p, minus the entropy in nats; a class without mass adds 0."""
    assert readout.logp_NC is not None
    p = np.exp(readout.logp_NC)
    return np.asarray((p * np.where(p > 0, readout.logp_NC, 0.0)).sum(axis=1))
