"""Entropy."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard("Entropy of the prediction", paper="arXiv:1803.08533")


def entropy() -> OodScore:
    """The entropy of the predicted distribution, in nats."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        logp = log_softmax(rows.logits_NC, axis=1)
        return -(np.exp(logp) * logp).sum(axis=1)

    return score
