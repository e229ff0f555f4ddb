"""ReCaLL: membership by what a foreign prefix takes away."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.attacks._asking import after_turns
from expunge.attacks._membership import MEANS, compared
from expunge.attacks._recovery import answer_probability, told, with_answers
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "ReCaLL",
    paper="arXiv:2406.15968",
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
    """AUC by log p(x | prefix of non-members) / log p(x): higher for what was seen (Xie et al. 2024).

    The first `shots` of the holdout are the prefix and count no more as non-members.
    """

    def attack(target: Target) -> Found:
        forget, holdout = (with_answers(target.splits[name]) for name in ("forget", "holdout"))
        if len(holdout) <= shots:
            raise NotMeasured(f"the holdout has no more than the {shots} examples of the prefix")
        prefix, others = holdout[:shots], holdout[shots:]
        rows = [*forget, *others]
        simply = np.concatenate([told(target, "forget"), told(target, "holdout")[shots:]])
        behind = answer_probability(target.model, [after_turns(target.model, prefix, row) for row in rows])
        plain, led = (np.log(np.clip(p, 1e-300, 1 - 1e-9)) for p in (simply, behind))
        scores = led / plain
        return compared(scores[: len(forget)], scores[len(forget) :], f"{shots} non-members in front")

    return attack
