"""Membership by comparison with neighbours."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from expunge.attacks.shared.membership import MEANS, membership_result
from expunge.attacks.shared.recovery import answer_probability, plain_probability, require_answers
from expunge.core.card import AttackCard, Example
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Neighbourhood attack",
    paper="arXiv:2305.18462",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("tokens",),
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="standard",
    more=("tpr_1", "tpr_01"),
    passes=18,
    means=MEANS,
)


def neighbour_auc(*, neighbours: Annotated[int, Ge(1)] = 5, share: Annotated[float, Gt(0), Le(1)] = 0.2) -> Attack:
    """AUC by how much more likely an answer is than similar ones (Mattern et al. 2023).

    A neighbour is the answer with a share of its words replaced by words of other answers; the
    paper takes replacements from a masked language model, which would be more similar.
    """

    def attack(target: Target) -> Found:
        names = ("forget", "holdout")
        words = sorted(
            {
                word
                for name in names
                for row in require_answers(target.splits[name])
                for word in str(row["answer"]).split()
            }
        )
        ours, theirs = (_lead(target, name, words, neighbours, share) for name in names)
        rows = target.splits["forget"], target.splits["holdout"]
        return membership_result(ours, theirs, f"{neighbours} neighbours, {share:.0%} of the words replaced", rows=rows)

    return attack


def _lead(target: Target, split: str, words: list[str], neighbours: int, share: float) -> np.ndarray:
    """[N] nats per token by which the neighbours are less likely than the answer, on average."""
    rows = target.splits[split]
    made = [
        replace_words(row, words, share, target.derive("neighbour", i, j))
        for i, row in enumerate(rows)
        for j in range(neighbours)
    ]
    own, others = (
        np.log(np.maximum(1e-300, p))
        for p in (plain_probability(target, split), answer_probability(target.model, made))
    )
    return np.asarray(own - others.reshape(len(rows), neighbours).mean(axis=1))


def replace_words(row: Example, words: Sequence[str], share: float, seed: int) -> Example:
    """The example with a share of its answer's words, at least one, replaced by others."""
    draw = random.Random(seed)
    said = str(row["answer"]).split()
    for place in draw.sample(range(len(said)), max(1, round(share * len(said))) if said else 0):
        said[place] = draw.choice([word for word in words if word != said[place]] or [said[place]])
    return {"question": row["question"], "answer": " ".join(said)}
