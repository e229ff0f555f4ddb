"""Membership by loss."""

from __future__ import annotations

from expunge.attacks.shared.membership import MEANS, compare
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = AttackCard(
    "Loss attack",
    paper="arXiv:1709.01604",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"nll"}, "holdout": {"nll"}},
    means=MEANS,
)


def loss_auc() -> Metric:
    """AUC of forget against holdout by low loss per token (Yeom et al. 2018)."""

    def figure(forget: Readout, holdout: Readout) -> Figure:
        return compare(-mean_nll(forget), -mean_nll(holdout), rows=(forget.examples, holdout.examples))

    return figure
