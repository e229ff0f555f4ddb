"""LiRA: the likelihood-ratio attack with shadow models."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from annotated_types import Ge

from expunge.attacks.shared.membership import MEANS, membership_result
from expunge.attacks.shared.shadow_models import (
    answer_losses,
    confidence,
    leave_one_out_scores,
    lira,
    shadow_losses,
)
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "LiRA",
    paper="arXiv:2112.03570",
    equation="algorithm 1",
    adversary="logits; can train models of the same kind",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("tpr_1", "tpr_01", "pooled_tpr_1", "pooled_tpr_01"),
    passes=5000,
    means=MEANS,
)


def lira_auc(*, shadow_models: Annotated[int, Ge(4)] = 16, offline: bool = False) -> Attack:
    """AUC by the likelihood ratio of shadow models with and without the example (Carlini et al. 2022).

    Shadows are trained as the model was, on its other training data and half of forget and holdout
    each; the target is the model as it is now. `pooled`: the same attack with each shadow in turn as the
    target, which has the many non-members that low false-positive rates need; it shows what such a
    training gives away when nothing is unlearned. Needs the training manifest.
    """

    def attack(target: Target) -> Found:
        if not target.manifest:
            raise NotMeasured("how the model was trained is unknown: no training manifest")
        both = [*target.forget, *target.splits["holdout"]]
        losses_MN, in_MN = shadow_losses(target.manifest, target.model, both, shadow_models, target.seed)
        phi_N, phi_MN = confidence(answer_losses(target.model, both)), confidence(losses_MN)
        scores = lira(phi_N, phi_MN, in_MN, offline=offline)
        n = len(target.forget)
        rows = target.forget, target.splits["holdout"]
        found = membership_result(scores[:n], scores[n:], f"{shadow_models} shadow models", rows=rows)
        members, others = leave_one_out_scores(phi_MN, in_MN, lambda a, b, c: lira(a, b, c, offline=offline))
        more = membership_result(members, others, "the shadows themselves as targets").more
        return replace(found, more={**found.more, **{f"pooled_{suffix}": figure for suffix, figure in more.items()}})

    return attack
