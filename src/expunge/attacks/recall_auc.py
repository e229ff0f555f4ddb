"""ReCaLL: membership by the effect of a prefix of non-members."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.attacks.shared.membership import MEANS, membership_result
from expunge.attacks.shared.recovery import answer_probability, plain_probability, require_answers
from expunge.attacks.shared.rewording import after_turns
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "ReCaLL",
    paper="arXiv:2406.15968",
    adversary="logits; unseen data of the same kind",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("tokens",),
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="standard",
    more=("tpr_1", "tpr_01"),
    passes=9,
    means=MEANS,
)


def recall_auc(*, shots: Annotated[int, Ge(1)] = 3) -> Attack:
    """AUC by log p(x | prefix of non-members) / log p(x): higher for members (Xie et al. 2024).

    The first `shots` of the holdout form the prefix and no longer count as non-members.
    """

    def attack(target: Target) -> Found:
        forget, holdout = (require_answers(target.splits[name]) for name in ("forget", "holdout"))
        if len(holdout) <= shots:
            raise NotMeasured(f"the holdout has no more than the {shots} examples of the prefix")
        prefix, others = holdout[:shots], holdout[shots:]
        rows = [*forget, *others]
        simply = np.concatenate([plain_probability(target, "forget"), plain_probability(target, "holdout")[shots:]])
        behind = answer_probability(target.model, [after_turns(target.model, prefix, row) for row in rows])
        plain, led = (np.log(np.clip(p, 1e-300, 1 - 1e-9)) for p in (simply, behind))
        scores = led / plain
        why = f"{shots} non-members in front"
        return membership_result(scores[: len(forget)], scores[len(forget) :], why, rows=(forget, others))

    return attack
