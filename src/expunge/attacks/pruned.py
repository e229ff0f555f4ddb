"""Magnitude pruning."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt

from expunge.attacks.shared.recovery import MEANS, answer_probability, figure_of
from expunge.attacks.shared.rounding import matrices, require_matrices
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Pruning",
    paper="arXiv:1506.02626",
    adversary="weights",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}},
    level="standard",
    passes=1,
    means=MEANS,
)


def pruned(*, share: Annotated[float, Gt(0), Lt(1)] = 0.3) -> Attack:
    """Set the smallest share of each weight matrix to zero and ask again (Han et al. 2015)."""

    @torch.no_grad()
    def attack(target: Target) -> Found:
        require_matrices(target)
        with target.disposable() as model:
            for parameter, _ in matrices(model.module):
                size = parameter.abs().flatten()
                limit = size.kthvalue(max(1, int(share * size.numel()))).values
                parameter.mul_(parameter.abs() > limit)
            recovered_N = answer_probability(model, target.forget)
        return Found(figure_of(recovered_N, f"share {share:g}"), recovered_N)

    return attack
