"""Maximum softmax probability."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard("Maximum softmax probability", paper="arXiv:1610.02136")


def msp() -> OodScore:
    """Minus the largest class probability (Hendrycks and Gimpel 2017)."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        return -softmax(rows.logits_NC, axis=1).max(axis=1)

    return score
