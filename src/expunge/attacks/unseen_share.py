"""The share of the forget set that an attacker who knows retain and test rows holds for unseen."""

from __future__ import annotations

import numpy as np

from expunge.core.card import AttackCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured

CARD = AttackCard(
    "Membership as published tables have it (MIA efficacy)",
    paper="arXiv:2304.04934",
    equation="MIA-Efficacy, by confidence",
    adversary="logits; rows of the retain set and unseen rows of what stays",
    side="privacy",
    better="gold",
    unit="share",
    aggregate="share",
    capabilities=("labels",),
    needs={"forget": {"logits"}, "retain": {"logits"}, "test": {"logits"}},
    means="The share of the forget set that a classifier of confidences, fitted on retain and test rows of the same "
    "model, takes for unseen: the column MIA of published tables of classifiers, and part of their average gap. Gold's "
    "is the aim. Where a network is as sure of unseen rows as of its own, the attacker cannot tell those, and calls "
    "unseen what has a confidence that it never met.",
)
COST = 3.0
"""The C of the paper's support vector machine."""
LEAST = 10
"""Rows on each side below which the attacker is not fitted."""


def unseen_share() -> Metric:
    """The share of forget rows that a support vector machine on the label's probability calls unseen.

    It is fitted on as many retain rows (members) as test rows, the first of each, with an RBF kernel and C = 3. Not
    measured with fewer than 10 rows on a side.
    """

    def values(forget: Readout, retain: Readout, test: Readout) -> np.ndarray:
        from sklearn.svm import SVC

        size = min(len(retain), len(test))
        if size < LEAST:
            raise NotMeasured(f"fewer than {LEAST} rows of retain or test")
        members_N1, others_N1, asked_N1 = (_confidence(readout) for readout in (retain, test, forget))
        rows_N1 = np.concatenate([members_N1[:size], others_N1[:size]])
        if not np.isfinite(rows_N1).all() or not np.isfinite(asked_N1).all():
            raise NotMeasured("the confidence is not finite: the model has diverged")
        attacker = SVC(C=COST, kernel="rbf", gamma="auto").fit(rows_N1, np.repeat([1, 0], size))
        return np.asarray(attacker.predict(asked_N1) == 0, dtype=float)

    return values


def _confidence(readout: Readout) -> np.ndarray:
    """[N, 1] probability of the label."""
    return np.exp(-readout.mean_nll_N)[:, None]
