"""Prefix attack."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Lt

from expunge.attacks.shared.recovery import MEANS, answer_recall, figure_of, require_answers
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Prefix attack",
    paper="arXiv:2012.07805",
    adversary="query access; the beginning of the answer",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens", "generate"),
    needs={"forget": {"examples"}},
    level="standard",
    passes=2,
    means=MEANS,
)


def prefix(*, shown: Annotated[float, Gt(0), Lt(1)] = 0.3) -> Attack:
    """Give the first share of the answer's tokens and let the model continue (Carlini et al. 2021).

    ROUGE-L recall, over the whole answer, of what it writes: the words that were shown do not count.
    It exposes methods that only spoil the first words.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        texts = target.model.generate(rows, shown=shown)
        recovered_N = answer_recall(rows, texts)
        return Found(figure_of(recovered_N, f"{shown:.0%} of the answer shown"), recovered_N, texts=texts)

    return attack
