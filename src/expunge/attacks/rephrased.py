"""The question in other words."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import MEANS, answer_recall, figure_of, generate_texts, require_answers
from expunge.attacks.shared.rewording import FRAMES, in_frame, probes_of
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Rephrased questions",
    paper="arXiv:2402.16835",
    adversary="query access",
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

    ROUGE-L recall of the best answer over all wordings (Lynch et al. 2024). It exposes methods that
    suppress the question's wording and not the content.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        probes, owners = [], []
        for i, row in enumerate(rows):
            variants = [in_frame(row, frame) for frame in FRAMES] + probes_of(row, "paraphrased_question")
            probes += variants
            owners += [i] * len(variants)
        texts = generate_texts(target.model, probes)
        shares = np.ma.filled(answer_recall(probes, texts), -1.0)
        best = [
            max((j for j, owner in enumerate(owners) if owner == i), key=lambda j: shares[j]) for i in range(len(rows))
        ]
        recovered_N = np.ma.masked_less(shares[best], 0.0)
        return Found(
            figure_of(recovered_N, f"best of {len(probes) // len(rows)} wordings"),
            recovered_N,
            texts=[texts[j] for j in best],
        )

    return attack
