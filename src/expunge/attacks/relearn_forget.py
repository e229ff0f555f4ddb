"""Relearning from a few forget examples."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Lt

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING
from expunge.attacks.shared.relearning import relearn, taught_examples
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Relearning from forget examples",
    paper="arXiv:2406.13356",
    adversary="fine-tuning with part of the forget set",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}},
    level="standard",
    more=("steps", "area", "learned"),
    passes=30,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)


def relearn_forget(*, share: Annotated[float, Gt(0), Lt(1)] = 0.25) -> Attack:
    """Fine-tune on a few forget examples and measure whether the others come back (Hu et al. 2024).

    A seeded share of the forget set is taught and the rest is asked for: what was not taught again can only come from
    what the weights still hold. Where a tenth of the training rate does not teach it, three tenths and then the whole
    rate are tried; a changed model begins at gold's rate, and gold is attacked again where it takes a higher one.
    """

    def attack(target: Target) -> Found:
        return relearn(target, *taught_examples(target, share), control="relearn_forget")

    return attack
