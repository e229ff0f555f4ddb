"""RMIA: the robust membership-inference attack."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.attacks.shared.membership import MEANS, membership_result
from expunge.attacks.shared.recovery import answer_probability
from expunge.attacks.shared.shadow_models import rmia, shadow_losses
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "RMIA",
    paper="arXiv:2312.03262",
    adversary="logits; can train models of the same kind",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("tpr_1", "tpr_01"),
    passes=5000,
    means=MEANS,
)


def rmia_auc(*, shadow_models: Annotated[int, Ge(2)] = 16) -> Attack:
    """AUC by how many unseen points an example's likelihood ratio beats (Zarifzadeh et al. 2024).

    The holdout is both the population and the non-members; an example is not compared with itself. The
    shadows are LiRA's where it uses as many.
    """

    def attack(target: Target) -> Found:
        if not target.manifest:
            raise NotMeasured("how the model was trained is unknown: no training manifest")
        holdout, n = target.splits["holdout"], len(target.forget)
        if len(holdout) < 2:
            raise NotMeasured("one holdout example cannot be both population and non-member")
        both = [*target.forget, *holdout]
        losses_MN, in_MN = shadow_losses(target.manifest, target.model, both, shadow_models, target.seed)
        p_MN = np.exp(-losses_MN)
        p_N = answer_probability(target.model, both)
        z_MZ = np.ma.masked_array(p_MN[:, n:], mask=in_MN[:, n:])
        scores = rmia(p_N, p_MN, in_MN, p_N[n:], z_MZ)
        others = (scores[n:] * len(holdout) - 1) / (len(holdout) - 1)  # each beats itself
        why = f"{shadow_models} shadow models, {len(holdout)} population points"
        return membership_result(scores[:n], others, why, rows=(target.forget, holdout))

    return attack
