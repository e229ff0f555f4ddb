"""Largest logit."""

from __future__ import annotations

import numpy as np

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard("Largest logit", paper="arXiv:1911.11132")


def max_logit() -> OodScore:
    """Minus the largest logit (Hendrycks et al. 2022)."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        return -rows.logits_NC.max(axis=1)

    return score
