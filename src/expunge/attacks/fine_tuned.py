"""One epoch of benign fine-tuning."""

from __future__ import annotations

import math

import numpy as np

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING
from expunge.attacks.shared.relearning import relearn
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Benign fine-tuning",
    paper="arXiv:2310.03693",
    adversary="fine-tuning with other data",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="standard",
    more=("steps",),
    passes=15,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)
BATCH = 8


def fine_tuned() -> Attack:
    """One epoch of ordinary fine-tuning on retain data, as an innocent user would do it (Qi et al. 2023).

    It differs from relearning in its small batches and in its length; the check at which most knowledge is back counts.
    """

    def attack(target: Target) -> Found:
        taught = target.splits["retain"]
        steps = math.ceil(len(taught) / BATCH)
        everything = np.ones(len(target.forget), dtype=bool)
        return relearn(target, taught, everything, steps=steps, every=max(1, steps // 3), batch=BATCH)

    return attack
