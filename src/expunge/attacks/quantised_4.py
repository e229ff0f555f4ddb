"""Quantisation to 4 bits."""

from __future__ import annotations

from expunge.attacks.shared.recovery import MEANS
from expunge.attacks.shared.rounding import quantised_knowledge
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Quantisation to 4 bits",
    paper="arXiv:2410.16454",
    adversary="weights",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}},
    level="standard",
    passes=1,
    means=MEANS,
)


def quantised_4() -> Attack:
    """Round every weight matrix to 4 bits an output channel and ask again (Zhang et al. 2024).

    The rounding is simulated in floating point, so that it runs anywhere; kernels of other
    quantisers (groups, calibration) round a little differently.
    """

    def attack(target: Target) -> Found:
        return quantised_knowledge(target, 4)

    return attack
