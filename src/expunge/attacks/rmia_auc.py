"""RMIA: the robust membership-inference attack."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from expunge.attacking import Attack, Found, Target
from expunge.attacks._membership import MEANS, compared
from expunge.attacks._recovery import asked
from expunge.attacks._shadow import rmia, shadows
from expunge.core.card import Card
from expunge.evidence import NotMeasured

CARD = Card(
    "RMIA", paper="arXiv:2312.03262", side="privacy", better="gold", unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}}, level="deep", more=("tpr_1", "tpr_01"), passes=1300, means=MEANS,
)  # fmt: skip


def rmia_auc(*, shadow_models: Annotated[int, Ge(2)] = 4) -> Attack:
    """AUC by how many unseen points an example's likelihood ratio beats (Zarifzadeh et al. 2024).

    Half of the holdout serves as the population, the other half as the non-members.
    """

    def attack(target: Target) -> Found:
        if not target.manifest:
            raise NotMeasured("how the model was trained is not known: no training manifest")
        z, others = target.splits["holdout"][::2], target.splits["holdout"][1::2]
        if not others:
            raise NotMeasured("one holdout example cannot be both population and non-member")
        both = [*target.forget, *others]
        p_MN, in_MN, z_MZ = shadows(target.manifest, target.subject, both, z, shadow_models, target.seed)
        scores = rmia(asked(target.subject, both), p_MN, in_MN, asked(target.subject, z), z_MZ)
        n = len(target.forget)
        return compared(scores[:n], scores[n:], f"{shadow_models} shadow models, {len(z)} population points")

    return attack
