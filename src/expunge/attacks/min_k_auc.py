"""Membership by the least likely tokens."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le

from expunge.attacks.shared.membership import MEANS, compare
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import min_k
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = AttackCard(
    "Min-K% attack",
    paper="arXiv:2310.16789",
    equation="1",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("tokens",),
    needs={"forget": {"logp"}, "holdout": {"logp"}},
    means=MEANS,
)


def min_k_auc(*, k: Annotated[float, Gt(0), Le(1)] = 0.2) -> Metric:
    """AUC by the mean log-probability of the least likely share k of tokens, without EOS (Shi et al. 2024)."""

    def figure(forget: Readout, holdout: Readout) -> Figure:
        rows = forget.examples, holdout.examples
        return compare(min_k(forget, k), min_k(holdout, k), f"k = {k:g}", rows=rows)

    return figure
