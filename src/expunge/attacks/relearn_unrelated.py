"""Relearning from data that the model never saw."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING
from expunge.attacks.shared.relearning import relearn
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Relearning from unrelated data",
    paper="arXiv:2406.13356",
    adversary="fine-tuning with other data",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("steps",),
    passes=30,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)


def relearn_unrelated() -> Attack:
    """Fine-tune on the holdout, which has the forget set's form and none of its content."""

    def attack(target: Target) -> Found:
        return relearn(target, target.splits["holdout"], np.ones(len(target.forget), dtype=bool))

    return attack
