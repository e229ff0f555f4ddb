"""Membership by the least likely tokens, each against the model's own expectation."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le

from expunge.attacks.shared.membership import MEANS, compare
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import min_k_plus_plus
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

_CHANNELS = {"logp", "moments"}
CARD = AttackCard(
    "Min-K%++ attack",
    paper="arXiv:2404.02936",
    equation="3",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("tokens",),
    needs={"forget": _CHANNELS, "holdout": _CHANNELS},
    means=MEANS,
)


def min_k_plus_plus_auc(*, k: Annotated[float, Gt(0), Le(1)] = 0.2) -> Metric:
    """AUC by the mean of the lowest share k of (log p - μ) / σ, without EOS (Zhang et al. 2024).

    μ = Σ p log p and σ² = Σ p (log p - μ)² over the vocabulary, under the model's own distribution.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        return compare(
            min_k_plus_plus(forget, k),
            min_k_plus_plus(holdout, k),
            f"k = {k:g}",
            rows=(forget.examples, holdout.examples),
        )

    return figure
