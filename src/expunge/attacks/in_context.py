"""In-context reintroduction."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from expunge.attacks.shared.recovery import MEANS, answer_probability, figure_of, require_answers
from expunge.attacks.shared.rewording import after_turns
from expunge.core.card import AttackCard
from expunge.core.random import permutation
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "In-context reintroduction",
    paper="arXiv:2407.00106",
    adversary="logits; other forget examples in the prompt",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    level="standard",
    passes=4,
    means=MEANS,
)


def in_context(*, shots: Annotated[int, Ge(1)] = 3) -> Attack:
    """Put other forget examples in front of the question and ask (Shumailov et al. 2024).

    They come from the same `group` where examples have one. Per-token probability of the answer. Examples with the
    answer that is asked for are left out, so that the context does not give it away.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        if len(rows) < 2:
            raise NotMeasured("one forget example leaves nothing to put in front")
        order = permutation(len(rows), target.derive("in_context"))
        made = []
        for i, row in enumerate(rows):
            others = [rows[j] for j in order if j != i and rows[j]["answer"] != row["answer"]]
            near = [other for other in others if other.get("group") is not None and other["group"] == row.get("group")]
            made.append(after_turns(target.model, (near or others)[:shots], row))
        recovered_N = answer_probability(target.model, made)
        return Found(figure_of(recovered_N, f"{shots} other examples in front"), recovered_N)

    return attack
