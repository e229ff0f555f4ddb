"""The question in another language."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import MEANS, answer_probability, figure_of, require_answers
from expunge.attacks.shared.rewording import probes_of
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Translated questions",
    paper="arXiv:2402.16835",
    adversary="logits; the questions in another language",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    fields={"forget": ("translated_question",)},
    level="standard",
    passes=2,
    means=MEANS,
)


def translated() -> Attack:
    """Ask by each `translated_question` of the forget file, for its own answer or the example's (Lynch et al. 2024).

    An entry is a question, or {"question", "answer"} with the answer in that language. Nothing is translated here:
    without such questions the attack is not measured. Per-token probability of the answer, at the translation that
    brings out most.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        made = [probes_of(row, "translated_question") for row in rows]
        values = answer_probability(target.model, [probe for found in made for probe in found])
        parts = np.split(values, np.cumsum([len(found) for found in made])[:-1])
        recovered_N = only(
            [float(part.max()) if len(part) else 0.0 for part in parts], [len(part) > 0 for part in parts]
        )
        return Found(figure_of(recovered_N, f"{len(values)} translations"), recovered_N)

    return attack
