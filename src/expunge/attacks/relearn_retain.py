"""Relearning from retain data."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING
from expunge.attacks.shared.relearning import relearn
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Relearning from retain data",
    paper="arXiv:2406.13356",
    adversary="fine-tuning with other data",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="deep",
    more=("steps",),
    passes=30,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)


def relearn_retain() -> Attack:
    """Fine-tune on retain examples, none of them forgotten, and measure whether the forget set comes back."""

    def attack(target: Target) -> Found:
        return relearn(target, target.splits["retain"], np.ones(len(target.forget), dtype=bool))

    return attack
