"""Membership at a low false-positive rate: 0.1 %."""

from __future__ import annotations

from expunge.attacks.shared.membership import tpr
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = AttackCard(
    "TPR at 0.1 % FPR",
    paper="arXiv:2112.03570",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="share",
    needs={"forget": {"nll"}, "holdout": {"nll"}},
    means="The share of the forget set that the loss attack finds while it falsely accuses one unseen example in a "
    "thousand; it shows an attack that is sure of a few examples, which an AUC hides.",
)


def tpr_at_01() -> Metric:
    """True-positive rate of the loss attack at 0.1 % false positives (Carlini et al. 2022).

    Not measured with fewer than 1,000 unseen examples.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        return tpr(-mean_nll(forget), -mean_nll(holdout), 0.001, rows=(forget.examples, holdout.examples))

    return figure
