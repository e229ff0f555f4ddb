"""The share of the forget set that an attacker who knows retain and test rows holds for unseen."""

from __future__ import annotations

import numpy as np

from expunge.core.card import AttackCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured

CARD = AttackCard(
    "Membership as published tables have it (MIA efficacy)",
    paper="arXiv:2304.04934",
    equation="MIA-Efficacy, by confidence; logistic regression on log-odds in the place of its SVM",
    adversary="logits; rows of the retain set and unseen rows of what stays",
    side="privacy",
    better="gold",
    unit="share",
    aggregate="share",
    capabilities=("labels",),
    needs={"forget": {"logits"}, "retain_seen": {"logits"}, "test": {"logits"}},
    means="The share of the forget set that a classifier of confidences, fitted on retain and test rows of the same "
    "model, takes for unseen: the column MIA of published tables of classifiers, and part of their average gap. Gold's "
    "is the aim. Where a network is as sure of unseen rows as of its own, the attacker guesses on such rows, and knows "
    "those alone of which it is unsure.",
)
LEAST = 10
"""Rows on each side below which the attacker is not fitted."""


def unseen_share() -> Metric:
    """The share of forget rows that a logistic regression on the label's log-odds calls unseen.

    It is fitted on retain rows that the method trained on (members) and on test rows, weighted to equal parts. The
    paper fits a support vector machine with an RBF kernel on probabilities: where a small network is right on every
    test row, that has nothing to separate, and two retrainings then differ by the whole scale. Rows below the
    regression's boundary are unseen ones, whatever the sign of its slope: where a network is as sure of test rows as of
    its own, chance decides the sign, and with it all forget rows, which lie far from both, would change sides. Not
    measured with fewer than 10 rows on a side.
    """

    def values(forget: Readout, retain_seen: Readout, test: Readout) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        if min(len(retain_seen), len(test)) < LEAST:
            raise NotMeasured(f"fewer than {LEAST} rows of retain or test")
        members_N1, others_N1, asked_N1 = (_log_odds(readout) for readout in (retain_seen, test, forget))
        rows_N1 = np.concatenate([members_N1, others_N1])
        if not np.isfinite(rows_N1).all() or not np.isfinite(asked_N1).all():
            raise NotMeasured("the confidence is not finite: the model has diverged")
        member_N = np.repeat([1, 0], [len(members_N1), len(others_N1)])
        attacker = LogisticRegression(class_weight="balanced").fit(rows_N1, member_N)
        slope, bias = float(attacker.coef_[0, 0]), float(attacker.intercept_[0])
        # The boundary of a slope that goes to 0: half way between the two means.
        boundary = -bias / slope if slope else (members_N1.mean() + others_N1.mean()) / 2
        return np.asarray(asked_N1[:, 0] < boundary, dtype=float)

    return values


def _log_odds(readout: Readout) -> np.ndarray:
    """[N, 1] log-odds of the label's probability, in nats."""
    nll_N = np.maximum(readout.mean_nll_N, 1e-12)
    return (-nll_N - np.log(-np.expm1(-nll_N)))[:, None]
