"""Representation rank: whether the features have collapsed."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.hidden_states import effective_rank
from expunge.evaluation.ood import read_rows
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "Representation rank (RankMe)",
    paper="arXiv:2210.02885",
    equation="1",
    adversary="hidden states",
    side="utility",
    better="gold",
    unit="ratio",
    capabilities=("labels",),
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="deep",
    passes=1,
    means="How many directions the features of the retain set use, as a share of those that they could. It falls when "
    "a change has made the features of all inputs alike. Compare it between models of one architecture on the same "
    "examples alone.",
)


def representation_rank() -> Attack:
    """Exponential of the entropy of the retain features' singular values, over min(N, D) (Garrido et al. 2023).

    Features are the last layer's inputs, not centred. The interval is the jackknife's over tenths of the examples.
    """

    def attack(target: Target) -> Found:
        features_ND = read_rows(target.model, target.splits["retain"]).features_ND
        if features_ND is None:
            raise NotMeasured("the model has no linear last layer whose inputs can be read")
        n = len(features_ND)
        if n < 20:
            raise NotMeasured(f"needs 20 retain examples, not {n}")
        value = rank_share(features_ND)
        left = np.array([rank_share(np.delete(features_ND, slice(i, None, 10), axis=0)) for i in range(10)])
        half = float(stdtrit(9, 0.975)) * float((0.9 * ((left - left.mean()) ** 2).sum()) ** 0.5)
        return Found(Figure(value, max(0.0, value - half), min(1.0, value + half), n))

    return attack


def rank_share(features_ND: np.ndarray) -> float:
    """RankMe in 0-1; 0 for features that are all zero."""
    return effective_rank(features_ND) / min(features_ND.shape) if features_ND.any() else 0.0
