"""The question in other words."""

from __future__ import annotations

import numpy as np

from expunge.attacks._asking import FRAMES, asked_by, framed
from expunge.attacks._recovery import MEANS, figure_of, generated, with_answers, written
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Rephrased questions",
    paper="arXiv:2402.16835",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens", "generate"),
    needs={"forget": {"examples"}},
    level="standard",
    passes=12,
    means=MEANS,
)


def rephrased() -> Attack:
    """Ask in other words: system prompts, other wordings, and the example's own `paraphrased_question`.

    ROUGE-L recall of the best answer over all wordings (Lynch et al. 2024). A method that
    has learned the question's wording, not the content, is seen here.
    """

    def attack(target: Target) -> Found:
        rows = with_answers(target.forget)
        asked, owners = [], []
        for i, row in enumerate(rows):
            variants = [framed(row, frame) for frame in FRAMES] + asked_by(row, "paraphrased_question")
            asked += variants
            owners += [i] * len(variants)
        texts = generated(target.model, asked)
        shares = np.ma.filled(written(asked, texts), -1.0)
        best = [
            max((j for j, owner in enumerate(owners) if owner == i), key=lambda j: shares[j]) for i in range(len(rows))
        ]
        recovered_N = np.ma.masked_less(shares[best], 0.0)
        return Found(
            figure_of(recovered_N, f"best of {len(asked) // len(rows)} wordings"),
            recovered_N,
            texts=[texts[j] for j in best],
        )

    return attack
